"""Make a study's data ready: draw or decode what is missing, showing how far that is."""

from typing import Any

from benchmark.core.console import counting
from benchmark.datasets.image_dataset import ImageDataset
from benchmark.datasets.listing import ROLES
from benchmark.study.study import Study


def prepare(study: Study, *halves: str) -> str:
    """Build the data set's cache where it is missing, saying so, and return the data's fingerprint.

    Args:
        study: names the data set.
        halves: what is going to be read, `trainval` or also `test`; the search never opens the latter.
    """
    dataset = study.make_dataset()
    found = make_ready(study, dataset, halves)
    if found["drawn"]:
        print(describe(study, found), flush=True)
    return str(dataset.fingerprint)


def make_ready(study: Study, dataset: Any, halves: tuple[str, ...]) -> dict[str, Any]:
    """Draw or decode what is missing, showing how far that is, and return what the data set holds."""
    if isinstance(dataset, ImageDataset) and study.config.display != "quiet":
        label = study.config.dataset.label
        return dataset.prepare(lambda half: counting(f"{label}: decoding {half}"), halves=halves)
    return dict(dataset.prepare(halves=halves))


def describe(study: Study, found: dict[str, Any]) -> str:
    """What a data set holds, a line each."""
    parts = [
        f"{part}: {found[part]['images']:,} images, {found[part]['classes']:,} classes, "
        f"{found[part]['super_classes']} super classes"
        for part in ROLES
        if part in found
    ]
    found = {"licence": study.config.dataset.licence} | found
    rest = [f"{key}: {found[key]}" for key in ("licence", "fingerprint", "folder", "cache") if key in found]
    return "\n  ".join([f"{study.config.dataset.label}: {found['images']:,} images", *parts, *rest])
