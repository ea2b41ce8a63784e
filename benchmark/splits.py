"""make splits: write which picture of a data set is for what, and its part in every fold, as CSV."""

from pathlib import Path

import numpy as np

from benchmark.checks import check_values
from benchmark.datasets.listing import Listing
from benchmark.datasets.picture_files import PictureFiles
from benchmark.protocol.folds import Fold
from benchmark.study import Study, main


def splits(study: Study, overrides: list[str]) -> None:
    """Write `results/splits/DATASET.csv`, which the data set `csv` reads."""
    check_values(study, study.config.protocol.story)  # the name becomes part of a path
    config = study.config
    dataset = study.make_dataset()
    if not isinstance(dataset, PictureFiles):
        raise ValueError(f"{config.dataset.label} has no picture files whose split could be written.")
    listing = dataset.listing
    folds = folds_of(study, listing)
    columns = {}
    for number, fold in enumerate(folds):
        part = np.full(listing.total_classes, "", dtype="U10")
        part[fold.train_classes], part[fold.validation_classes] = "train", "validation"
        columns[f"fold_{number}"] = part[listing.labels].tolist()
    path = Path(config.results_dir) / "splits" / f"{config.dataset.name}.csv"
    listing.to_csv(path, columns)
    print(f"{path}: {len(listing.paths):,} pictures, paths below {listing.root.absolute()}")
    for number, fold in enumerate(folds):
        train, validation = (
            f"{int(np.isin(listing.labels, classes).sum()):,} images of {len(classes):,} classes"
            for classes in (fold.train_classes, fold.validation_classes)
        )
        print(f"  fold {number}: trains on {train}, validates on {validation}")


def folds_of(study: Study, listing: Listing) -> list[Fold]:
    """The protocol's folds of the classes that may be trained on.

    Raises:
        ValueError: they cannot be divided so; the message has their number, what is needed and what to do.
    """
    classes, num_folds = listing.classes("trainval"), study.config.protocol.num_folds
    if len(classes) >= num_folds:
        return study.make_folds(classes, listing.total_classes)
    least = max(2, len(classes))
    raise ValueError(
        f"{study.config.dataset.label} ({listing.root}) has {len(classes)} of {listing.total_classes} classes to train "
        f"and validate on, and protocol.num_folds={num_folds} needs {num_folds} or more: each fold validates on others."
        f" Add classes, or take fewer folds: ARGS=protocol.num_folds={least} needs {least}."
    )


if __name__ == "__main__":
    main(splits)
