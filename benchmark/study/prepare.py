"""Prepare a study's data: draw or decode missing images, and show progress."""

from benchmark.core import sources
from benchmark.core.console import counting, write
from benchmark.core.errors import UserError
from benchmark.core.wording import counted
from benchmark.datasets import Dataset, DatasetSummary
from benchmark.study.study import Study


def prepare(study: Study, *halves: str) -> str:
    """Prepare the data set for training: fill its cache, describe it if it is new, and return its fingerprint.

    Args:
        study: the study whose data set is prepared.
        halves: the halves that will be read, `trainval` and perhaps `test`; a search never reads `test`.

    Raises:
        UserError: files are missing, changed or unreadable, or all classes are for testing.
    """
    dataset = study.make_dataset()
    check_trainable(dataset)
    summary = make_ready(study, dataset, halves)
    if summary.is_new:
        write(describe(study, summary))
    return summary.fingerprint


def fill_features(study: Study) -> None:
    """Compute the features of a frozen trunk, on which jobs of this machine will train; other machines fill their own.

    Args:
        study: a study whose data are prepared.

    Raises:
        UserError: the trunk cannot be built, has features that cannot be kept, or the disk is full.
    """
    if study.config.training.views is not None:
        from benchmark.study.frozen import prepare_features  # imports PyTorch, which takes seconds

        prepare_features(study, study.make_dataset().trainval().images)


def check_trainable(dataset: Dataset) -> None:
    """Check that a data set has something to train on.

    Raises:
        UserError: all of its classes are for testing.
    """
    if dataset.listing is not None and not len(dataset.listing.classes("trainval")):
        raise UserError(
            f"All {dataset.listing.total_classes:,} classes in {dataset.listing.root} are for testing, so there is "
            "nothing to train on. Add images of other classes for training (in a folder train/, or in rows with "
            "split=train), or give no split: then the first half of the classes is trained on."
        )


def make_ready(study: Study, dataset: Dataset, halves: tuple[str, ...]) -> DatasetSummary:
    """Draw or decode missing images, show progress, and return a summary of the data set."""
    label, mode = study.config.dataset.label, study.config.display
    return dataset.prepare(lambda what: counting(f"{label}: {what}", mode), halves=halves)


def describe(study: Study, summary: DatasetSummary) -> str:
    """Describe the contents of a data set on several lines, with its notes."""
    lines = [f"{study.config.dataset.label}: {counted(summary.total.images, 'image')}"]
    lines += [
        f"{role}: {counted(counts.images, 'image')}, {counted(counts.classes, 'class', 'classes')}, "
        f"{counted(counts.super_classes, 'super class', 'super classes')}"
        for role, counts in summary.by_role.items()
    ]
    lines.append(f"licence: {summary.licence or licence(study)}")
    lines.append(f"fingerprint: {summary.fingerprint}")
    lines.append(f"folder: {summary.folder}")
    if summary.cache:
        lines.append(f"cache: {summary.cache}")
    return "\n  ".join([*lines, *summary.notes])


def licence(study: Study) -> str:
    """The licence of the images: that of the configuration, or else that of `conf/sources.yaml`."""
    config = study.config.dataset
    known = sources.data_set(config.module["_target_"])
    return config.licence or (known.licence if known else "")
