"""What a data set of pictures on disk is: which files, of which classes, for what; no pixel is read here."""

import csv
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.core import records

ROLES = ("trainval", "test", "query", "gallery")
NO_GROUP = "(none)"  # the one super class of data sets without a hierarchy


class MissingDataError(ValueError):
    """A folder that does not hold the data set."""


@dataclass(frozen=True, eq=False)
class Listing:
    """Every picture of a data set, in the order of the data set.

    Class ids are global: those that may be trained on come first, the unseen ones after them, so that disjointness
    can be checked by comparing ids. A data set has test pictures, which are searched among themselves, or query
    pictures, which are searched among gallery pictures of the same classes.

    Attributes:
        root: folder that the paths start from.
        paths: N, with forward slashes.
        labels: int64 (N,), class id of each picture.
        class_names: C names, by class id.
        super_labels: int64 (C,), super class id of each class.
        super_names: names of the super classes, by id.
        roles: (N,), one of `ROLES` for each picture.
        notes: what a person should know, such as how many pictures were left out.

    Raises:
        ValueError: the fields do not fit together; the message names the first that does not.
    """

    root: Path
    paths: list[str]
    labels: np.ndarray
    class_names: list[str]
    super_labels: np.ndarray
    super_names: list[str]
    roles: np.ndarray
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        N, C = len(self.paths), len(self.class_names)
        for name in ("labels", "roles"):
            if len(getattr(self, name)) != N:
                raise ValueError(f"{name} has {len(getattr(self, name))} entries for {N} pictures; give one each.")
        if N == 0:
            raise ValueError(f"{self.root} holds no picture that could be used.")
        if len(self.super_labels) != C:
            raise ValueError(f"super_labels has {len(self.super_labels)} entries for {C} classes; give one a class.")
        if self.super_labels.min() < 0 or self.super_labels.max() >= len(self.super_names):
            raise ValueError(f"super_labels must lie in 0..{len(self.super_names) - 1}, the entries of super_names.")
        if self.labels.min() < 0 or self.labels.max() >= C:
            raise ValueError(f"labels must lie in 0..{C - 1}, the entries of class_names.")
        if len(empty := np.setdiff1d(np.arange(C), self.labels)):
            raise ValueError(f"{len(empty)} classes have no picture, such as {self.class_names[empty[0]]!r}.")
        if len(set(self.paths)) != N:
            twice = next(path for path in sorted(self.paths) if self.paths.count(path) > 1)
            raise ValueError(f"{N - len(set(self.paths))} pictures are listed twice, such as {twice}.")
        self._check_roles()

    def _check_roles(self) -> None:
        present = set(self.roles.tolist())
        if strange := sorted(present - set(ROLES)):
            raise ValueError(f"roles holds {', '.join(strange[:3])}; allowed are {', '.join(ROLES)}.")
        if present not in ({"trainval", "test"}, {"trainval", "query", "gallery"}):
            raise ValueError(
                f"The pictures are {', '.join(r for r in ROLES if r in present)} only. A data set has trainval "
                "pictures and either test, or both query and gallery pictures."
            )
        trainval = self.classes("trainval")
        if len(shared := np.intersect1d(trainval, self.classes("test", "query", "gallery"))):
            raise ValueError(
                f"{len(shared)} classes are to be trained on and to be unseen, such as "
                f"{self.class_names[shared[0]]!r}. Each class belongs to one side."
            )
        if trainval[-1] != len(trainval) - 1:
            raise ValueError("The classes to be trained on must have the first ids.")

    def classes(self, *roles: str) -> np.ndarray:
        """Class ids, ascending, with a picture in one of these roles."""
        return np.unique(self.labels[np.isin(self.roles, roles)])

    @property
    def total_classes(self) -> int:
        """Number of classes, seen and unseen."""
        return len(self.class_names)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of path, class, super class and role of every picture, in order; not of the pixels."""
        whole = hashlib.sha256()
        for path, label, role in zip(self.paths, self.labels.tolist(), self.roles.tolist(), strict=True):
            whole.update(f"{path}\0{label}\0{self.super_labels[label]}\0{role}\n".encode("utf-8", "surrogateescape"))
        return whole.hexdigest()

    def counts(self) -> dict[str, Any]:
        """`images`, `classes` and `super_classes` in all and for each role that occurs."""
        every = {role: self._counts(self.roles == role) for role in ROLES if (self.roles == role).any()}
        return self._counts(np.ones(len(self.paths), dtype=bool)) | every

    def _counts(self, chosen: np.ndarray) -> dict[str, int]:
        classes = np.unique(self.labels[chosen])
        groups = np.unique(self.super_labels[classes])
        return {"images": int(chosen.sum()), "classes": len(classes), "super_classes": len(groups)}

    def to_csv(self, path: Path, columns: Mapping[str, Sequence[str]] | None = None) -> None:
        """Write a line for each picture: path, label (the class's name), super_label, split, class_id.

        Args:
            path: of the file, which the data set `csv` can read.
            columns: more columns, N values each.
        """
        more, text = dict(columns or {}), io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["path", "label", "super_label", "split", "class_id", *more])
        for i, (picture, label) in enumerate(zip(self.paths, self.labels.tolist(), strict=True)):
            group = self.super_names[self.super_labels[label]]
            facts = [picture, self.class_names[label], group, self.roles[i], label]
            writer.writerow([*facts, *(values[i] for values in more.values())])
        records.write_whole(path, text.getvalue().encode("utf-8", "surrogateescape"))


def grouped(names: Iterable[str]) -> tuple[np.ndarray, list[str]]:
    """Super class ids (C,) and their names in alphabetical order, from the name of each class's super class.

    >>> grouped(["tern", "gull", "tern"])
    (array([1, 0, 1]), ['gull', 'tern'])
    """
    found, ids = np.unique(list(names), return_inverse=True)
    return ids.astype(np.int64), found.tolist()


def halves(labels: np.ndarray, num_trainval: int) -> np.ndarray:
    """The role of each picture where the first classes are trained on and the others are test classes."""
    return np.where(labels < num_trainval, "trainval", "test")


def check_counts(listing: Listing, expected: Mapping[str, Any] | None, what: str) -> Listing:
    """The listing, if it has the published counts.

    Args:
        listing: to be checked.
        expected: counts in the shape of `Listing.counts`, of which any may be left out; `smallest_class` and
            `largest_class`, in images; `images_of_classes`, by first and last class id ("0-23"). None checks nothing.
        what: the data set's name, and what people confuse it with.

    Raises:
        ValueError: a count differs; the message has every one that does.
    """
    sizes, wrong = np.bincount(listing.labels, minlength=listing.total_classes), []
    spans = {span: tuple(map(int, span.split("-"))) for span in (expected or {}).get("images_of_classes", ())}
    found = listing.counts() | {
        "smallest_class": int(sizes.min()),
        "largest_class": int(sizes.max()),
        "images_of_classes": {span: int(sizes[first : last + 1].sum()) for span, (first, last) in spans.items()},
    }
    for key, value in (expected or {}).items():
        for name, number in value.items() if isinstance(value, Mapping) else [("", value)]:
            here = found.get(key, {}).get(name) if name else found.get(key)
            if here != number:
                wrong.append(f"{here if here is None else format(here, ',')} {f'{key} {name}'.strip()}, not {number:,}")
    if wrong:
        raise ValueError(
            f"{listing.root} does not hold the published {what}: it has {'; '.join(wrong)}. Results would not be "
            "comparable. Fetch it anew, or say what it should hold with dataset.module.expected={...}, or null."
        )
    return listing
