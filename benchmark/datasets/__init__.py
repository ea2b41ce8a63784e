"""What every data set hands out: one half of its classes, as pixels and ids."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True, eq=False)
class Split:
    """The images of one half of a data set's classes (trainval or test).

    Ids are global: the two halves number their classes and their super classes in one sequence, so that
    disjointness can be checked by comparing ids.

    Attributes:
        images: uint8, (N, H, W) grey or (N, H, W, 3) colour; or an opened cache of N picture files.
        labels: int64 (N,), global class id of each image.
        class_ids: int64 (C,), the classes of this half, ascending.
        class_names: C names, in the order of `class_ids`.
        super_labels: int64 (C,), global super class id of each class, in the order of `class_ids`.
        super_names: names of all super classes of the data set, indexed by global super class id.
        is_query: bool (N,), where some pictures are searched for among the others; None where all are among all.

    Raises:
        ValueError: the fields do not fit together; the message names the first that does not.
    """

    images: Any
    labels: np.ndarray
    class_ids: np.ndarray
    class_names: list[str]
    super_labels: np.ndarray
    super_names: list[str]
    is_query: np.ndarray | None = None

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels):
            raise ValueError(f"images holds {len(self.images)} pictures, but labels {len(self.labels)}; give one each.")
        for name in ("class_names", "super_labels"):
            if len(getattr(self, name)) != len(self.class_ids):
                count = len(getattr(self, name))
                raise ValueError(f"{name} has {count} entries for {len(self.class_ids)} classes; give one a class.")
        strangers = np.setdiff1d(self.labels, self.class_ids)
        if len(strangers):
            raise ValueError(f"labels holds classes {strangers[:5].tolist()}, which class_ids does not list.")
        outside = (self.super_labels < 0) | (self.super_labels >= len(self.super_names))
        if outside.any():
            raise ValueError(f"super_labels must lie in 0..{len(self.super_names) - 1}, the entries of super_names.")


class Dataset(Protocol):
    """A data set whose classes are divided into a trainval and a test half.

    `test` is for `final_eval` and `traditional` only.
    """

    @property
    def fingerprint(self) -> str:
        """Identifies the images and labels of the trainval half; part of a study's identity."""
        ...

    @property
    def total_classes(self) -> int:
        """Classes of both halves."""
        ...

    @property
    def test_contents(self) -> str | None:
        """SHA-256 of the test half's image files; None where there are no files."""
        ...

    def prepare(self, progress: Callable[..., Any] | None = None, *, halves: tuple[str, ...] = ...) -> dict[str, Any]:
        """Draw or decode what is missing, and return what the data set holds."""
        ...

    def trainval(self) -> Split:
        """Images and labels of the classes that may be trained on."""
        ...

    def test(self) -> Split:
        """Images and labels of the classes that are scored at the end."""
        ...
