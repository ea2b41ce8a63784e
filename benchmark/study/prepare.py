"""Prepare a study's data: draw or decode missing images, and show progress."""

from benchmark.core.console import counting, write
from benchmark.datasets import Dataset, DatasetSummary
from benchmark.study.study import Study


def prepare(study: Study, *halves: str) -> str:
    """Build the data set's cache if it is missing, describe a new one, and return the data's fingerprint.

    Args:
        study: the study whose data set is prepared.
        halves: the halves that will be read, `trainval` and perhaps `test`; a search never reads `test`.

    Raises:
        UserError: files are missing, changed or unreadable.
    """
    dataset = study.make_dataset()
    summary = make_ready(study, dataset, halves)
    if summary.is_new:
        write(describe(study, summary))
    return summary.fingerprint


def make_ready(study: Study, dataset: Dataset, halves: tuple[str, ...]) -> DatasetSummary:
    """Draw or decode missing images, show progress, and return a summary of the data set."""
    if study.config.display == "quiet":
        return dataset.prepare(halves=halves)
    return dataset.prepare(lambda what: counting(f"{study.config.dataset.label}: {what}"), halves=halves)


def describe(study: Study, summary: DatasetSummary) -> str:
    """Describe the contents of a data set on several lines."""
    lines = [f"{study.config.dataset.label}: {summary.total.images:,} images"]
    lines += [
        f"{role}: {counts.images:,} images, {counts.classes:,} classes, {counts.super_classes} super classes"
        for role, counts in summary.by_role.items()
    ]
    lines.append(f"licence: {summary.licence or study.config.dataset.licence}")
    lines.append(f"fingerprint: {summary.fingerprint}")
    lines.append(f"folder: {summary.folder}")
    if summary.cache:
        lines.append(f"cache: {summary.cache}")
    return "\n  ".join(lines)
