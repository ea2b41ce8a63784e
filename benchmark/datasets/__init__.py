"""The contract of a data set: images and ids of two halves of its classes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from benchmark.datasets.listing import Counts, Listing
from benchmark.images import Source

HALVES = ("trainval", "test")
Progress = Callable[[int, int], None]  # called with (images done, images to do)


@dataclass(frozen=True, eq=False)
class Split:
    """The images of one half of a data set's classes (trainval or test).

    Ids are global: classes and super classes are numbered across both halves, so that disjointness can be checked by
    comparing ids.

    Attributes:
        images: uint8, (N, H, W) grey or (N, H, W, 3) colour; or N image files of any size.
        labels: int64 (N,), global class id of each image.
        class_ids: int64 (C,), the classes of this half, ascending.
        class_names: names of the C classes, in the order of `class_ids`.
        super_labels: int64 (C,), global super class id of each class, in the order of `class_ids`.
        super_names: names of all super classes of the data set, indexed by global super class id.
        is_query: bool (N,), True for a query, which is searched for among the other images; None: every image is
            searched for among all others.

    Raises:
        ValueError: the fields do not fit together; the message names the first that does not.
    """

    images: np.ndarray | Source
    labels: np.ndarray
    class_ids: np.ndarray
    class_names: list[str]
    super_labels: np.ndarray
    super_names: list[str]
    is_query: np.ndarray | None = None

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels):
            raise ValueError(f"images holds {len(self.images)} images, but labels {len(self.labels)}; give one each.")
        for name in ("class_names", "super_labels"):
            if len(getattr(self, name)) != len(self.class_ids):
                count = len(getattr(self, name))
                raise ValueError(f"{name} has {count} entries for {len(self.class_ids)} classes; give one per class.")
        unknown = np.setdiff1d(self.labels, self.class_ids)
        if len(unknown):
            raise ValueError(f"labels holds classes {unknown[:5].tolist()}, which class_ids does not list.")
        outside = (self.super_labels < 0) | (self.super_labels >= len(self.super_names))
        if outside.any():
            raise ValueError(f"super_labels must lie in 0..{len(self.super_names) - 1}, the entries of super_names.")


@dataclass(frozen=True, kw_only=True)
class DatasetSummary:
    """What a data set holds, and what `Dataset.prepare` did.

    Attributes:
        total: images, classes and super classes of the whole data set.
        by_role: counts for each role that occurs, one of `listing.ROLES`.
        fingerprint: `Dataset.fingerprint`.
        folder: folder of the images.
        is_new: whether this call drew or decoded any image.
        seconds: duration of this call.
        cache: folder of the decoded pixels; None if it is `folder`.
        licence: licence of the images, if the data set defines it; None: the configuration does.
        notes: remarks for the user, such as how many images were skipped.
    """

    total: Counts
    by_role: dict[str, Counts]
    fingerprint: str
    folder: str
    is_new: bool
    seconds: float
    cache: str | None = None
    licence: str | None = None
    notes: tuple[str, ...] = ()


class Dataset(Protocol):
    """A data set whose classes are divided into a trainval and a test half.

    A search reads only the trainval half, so `trainval`, `fingerprint` and `prepare(halves=("trainval",))` open no file
    of the test half. `test` and `test_contents` are for `final_eval` and `traditional`.

    Class ids of the trainval half come first, 0 .. C - 1, followed by those of the test half.
    """

    @property
    def fingerprint(self) -> str:
        """Identifies the images and labels of the trainval half; part of a study's identity."""
        ...

    @property
    def total_classes(self) -> int:
        """Number of classes in both halves."""
        ...

    @property
    def listing(self) -> Listing | None:
        """The image files with their classes and roles; None for a data set without image files."""
        ...

    @property
    def test_contents(self) -> str | None:
        """SHA-256 of the image files of the test half; None for a data set without image files."""
        ...

    def prepare(
        self, progress: Callable[[str], Progress] | None = None, *, halves: tuple[str, ...] = HALVES
    ) -> DatasetSummary:
        """Draw or decode what is missing or damaged in the cache.

        Args:
            progress: called with the next task, such as "decoding test"; returns a callback for (images done, images to
                do).
            halves: the halves that will be read; files of another half are not opened.

        Raises:
            UserError: the images cannot be drawn or decoded, or the disk has too little space for them.
        """
        ...

    def verify(self, halves: tuple[str, ...] = HALVES) -> None:
        """Verify the checksum of everything in the cache.

        Raises:
            UserError: a file is damaged; `prepare` draws or decodes it again.
        """
        ...

    def trainval(self) -> Split:
        """Return the images and labels of the classes for training and validation."""
        ...

    def test(self) -> Split:
        """Return the images and labels of the test classes."""
        ...
