"""make splits: write the role of every image in the split and in each fold as CSV."""

if __name__ == "__main__":  # before the slow imports, so that a mistake is reported at once
    from benchmark.__main__ import main

    raise SystemExit(main("splits"))

from pathlib import Path

import numpy as np

from benchmark.core import records
from benchmark.core.console import write
from benchmark.core.errors import UserError
from benchmark.core.invocation import command
from benchmark.core.wording import counted
from benchmark.study.preflight import check_values, folds_of
from benchmark.study.study import Study


def splits(study: Study, overrides: list[str]) -> None:
    """Write `results/splits/DATASET.csv`, and print the command with which the data set `csv` reads it.

    Args:
        study: the study whose data set and folds are written.
        overrides: unused; every command receives its overrides.

    Raises:
        UserError: the data set has no image files, or too few classes for the folds.
    """
    check_values(study, study.config.protocol.story)  # the name becomes part of a path
    config = study.config
    listing = study.make_dataset().listing
    if listing is None:
        raise UserError(f"{config.dataset.label} has no image files, so there is no split to write.")
    trainval = listing.classes("trainval")
    folds = folds_of(study, trainval, listing.total_classes) if len(trainval) else []
    columns = {}
    for number, fold in enumerate(folds):
        part = np.full(listing.total_classes, "", dtype="U10")
        part[fold.train_classes], part[fold.validation_classes] = "train", "validation"
        columns[f"fold_{number}"] = part[listing.labels].tolist()
    path = Path(config.results_dir) / "splits" / f"{config.dataset.name}.csv"
    records.remove_abandoned(path.parent)
    listing.to_csv(path, columns)
    root = listing.root.absolute()
    write(f"{path}: {counted(len(listing.paths), 'image')}, paths relative to {root}")
    for number, fold in enumerate(folds):
        train, validation = (
            f"{counted(int(np.isin(listing.labels, classes).sum()), 'image')} of "
            f"{counted(len(classes), 'class', 'classes')}"
            for classes in (fold.train_classes, fold.validation_classes)
        )
        write(f"  fold {number}: trains on {train}, validates on {validation}")
    if not folds:
        write("  no folds, since all classes are for testing")
    own = {
        "dataset": "csv",
        "dataset.module.path": path,
        "dataset.module.root": root,
        "dataset.name": config.dataset.name,
    }
    write(f"Next: {command('data', own | {'dataset.module.order': 'class_id'})}")
