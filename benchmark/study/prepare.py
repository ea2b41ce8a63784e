"""Make a study's data ready: draw or decode what is missing, and show progress."""

from benchmark.core.console import counting
from benchmark.datasets import Dataset, DatasetSummary
from benchmark.study.study import Study


def prepare(study: Study, *halves: str) -> str:
    """Build the data set's cache where it is missing, saying so, and return the data's fingerprint.

    Args:
        study: names the data set.
        halves: what will be read, `trainval` or also `test`; a search never opens the latter.

    Raises:
        UserError: files are missing, changed or unreadable.
    """
    dataset = study.make_dataset()
    summary = make_ready(study, dataset, halves)
    if summary.is_new:
        print(describe(study, summary), flush=True)
    return summary.fingerprint


def make_ready(study: Study, dataset: Dataset, halves: tuple[str, ...]) -> DatasetSummary:
    """Draw or decode what is missing, showing progress, and return what the data set holds."""
    if study.config.display == "quiet":
        return dataset.prepare(halves=halves)
    return dataset.prepare(lambda what: counting(f"{study.config.dataset.label}: {what}"), halves=halves)


def describe(study: Study, summary: DatasetSummary) -> str:
    """Describe what a data set holds, on several lines."""
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
