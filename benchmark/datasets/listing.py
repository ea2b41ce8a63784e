"""The listing of a data set of image files: files, classes and roles, without reading any pixels."""

import csv
import hashlib
import io
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import numpy as np

from benchmark.core import records
from benchmark.core.errors import UserError
from benchmark.core.wording import counted
from benchmark.images.decode import Tally

ROLES = ("trainval", "test", "query", "gallery")
NO_VALUE = ("nan", "<na>", "nat", "#n/a")  # how data frames and spreadsheets write a value that is missing, lower case
NO_GROUP = "(none)"  # the only super class of data sets without a hierarchy
Expected: TypeAlias = Mapping[str, int | Mapping[str, int]]


class MissingDataError(UserError):
    """The folder does not hold the data set; `make data` downloads it if possible."""


@dataclass(frozen=True)
class Counts:
    """Numbers of images, classes and super classes."""

    images: int
    classes: int
    super_classes: int


@dataclass(frozen=True, eq=False)
class Listing:
    """All image files of a data set, in its order.

    Class ids are global: trainval classes come first, followed by test classes, so that disjointness can be checked by
    comparing ids. A data set has either test images, which are searched among each other, or query images, which are
    searched among gallery images of the same classes. Without trainval images, nothing can be trained on it.

    Attributes:
        root: folder that the paths are relative to.
        paths: N paths, with forward slashes.
        labels: int64 (N,), class id of each image.
        class_names: names of the C classes, by class id.
        super_labels: int64 (C,), super class id of each class.
        super_names: names of the super classes, by id.
        roles: str (N,), one of `ROLES` for each image.
        notes: remarks for the user, such as how many images were skipped.
        tally: numbers of images with special pixels; None if the images were not read.

    Raises:
        ValueError: the fields do not fit together; the message names the first that does not.
        UserError: the data are unusable: no image, a class without images, a file listed twice, an invalid combination
            of roles, or a class in both halves.
    """

    root: Path
    paths: list[str]
    labels: np.ndarray
    class_names: list[str]
    super_labels: np.ndarray
    super_names: list[str]
    roles: np.ndarray
    notes: tuple[str, ...] = ()
    tally: Tally | None = None

    def __post_init__(self) -> None:
        N, C = len(self.paths), len(self.class_names)
        for name in ("labels", "roles"):
            if len(getattr(self, name)) != N:
                raise ValueError(f"{name} has {len(getattr(self, name))} entries for {N} images; give one each.")
        if N == 0:
            raise UserError(f"{self.root} holds no usable image.")
        for name in ("labels", "super_labels"):
            if not np.issubdtype(getattr(self, name).dtype, np.integer):
                raise ValueError(f"{name} has the type {getattr(self, name).dtype}; it must hold integers.")
        if len(self.super_labels) != C:
            raise ValueError(f"super_labels has {len(self.super_labels)} entries for {C} classes; give one per class.")
        if self.super_labels.min() < 0 or self.super_labels.max() >= len(self.super_names):
            raise ValueError(f"super_labels must lie in 0..{len(self.super_names) - 1}, the entries of super_names.")
        if self.labels.min() < 0 or self.labels.max() >= C:
            raise ValueError(f"labels must lie in 0..{C - 1}, the entries of class_names.")
        if len(empty := np.setdiff1d(np.arange(C), self.labels)):
            lacking = counted(len(empty), "class has", "classes have")
            raise UserError(f"{self.root}: {lacking} no image, such as {self.class_names[empty[0]]!r}.")
        if repeats := N - len(set(self.paths)):
            twice = next(path for path, count in Counter(self.paths).items() if count > 1)
            listed = counted(repeats, "image is", "images are")
            raise UserError(f"{self.root}: {listed} listed twice, such as {twice!r}.")
        self._check_roles()

    def _check_roles(self) -> None:
        present = set(self.roles.tolist())
        if unknown := sorted(present - set(ROLES)):
            raise ValueError(f"roles holds {', '.join(unknown[:3])}; allowed are {', '.join(ROLES)}.")
        if present - {"trainval"} not in ({"test"}, {"query", "gallery"}):
            raise UserError(
                f"The images of {self.root} are {', '.join(r for r in ROLES if r in present)} only. A data set has "
                "either test images, or both query and gallery images, and trainval images unless it is for tests only."
            )
        trainval = self.classes("trainval")
        if len(shared := np.intersect1d(trainval, self.classes("test", "query", "gallery"))):
            raise UserError(
                f"{self.root}: {counted(len(shared), 'class is', 'classes are')} both for training and for testing, "
                f"such as {self.class_names[shared[0]]!r}. Each class belongs to one half."
            )
        if len(trainval) and trainval[-1] != len(trainval) - 1:
            raise ValueError("The trainval classes must have the first ids.")

    def classes(self, *roles: str) -> np.ndarray:
        """Return the ids of the classes with an image in one of the roles: int64 (K,), ascending."""
        return np.unique(self.labels[np.isin(self.roles, roles)])

    @property
    def total_classes(self) -> int:
        """Number of trainval and test classes."""
        return len(self.class_names)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of path, class, super class and role of every image, in order; pixels are not covered."""
        whole = hashlib.sha256()
        for path, label, role in zip(self.paths, self.labels.tolist(), self.roles.tolist(), strict=True):
            whole.update(f"{path}\0{label}\0{self.super_labels[label]}\0{role}\n".encode("utf-8", "surrogateescape"))
        return whole.hexdigest()

    def counts(self) -> Counts:
        """Count images, classes and super classes of the whole data set."""
        return self._counts(np.ones(len(self.paths), dtype=bool))

    def counts_by_role(self) -> dict[str, Counts]:
        """Count images, classes and super classes of each role that occurs."""
        return {role: self._counts(self.roles == role) for role in ROLES if (self.roles == role).any()}

    def _counts(self, chosen: np.ndarray) -> Counts:
        classes = np.unique(self.labels[chosen])
        groups = np.unique(self.super_labels[classes])
        return Counts(int(chosen.sum()), len(classes), len(groups))

    def to_csv(self, path: Path, columns: Mapping[str, Sequence[str]] | None = None) -> None:
        """Write a CSV file with one row per image: path, label (the class's name), super_label, split, class_id.

        A name that `csv` would not read back (empty, with blanks around it, or given to two classes) is followed by its
        number.

        Args:
            path: path of the file, which the data set `csv` can read with `order=class_id`.
            columns: additional columns by name, N values each.

        Raises:
            WriteError: the file cannot be written.
        """
        more, text = dict(columns or {}), io.StringIO()
        names, groups = _distinct(self.class_names), _distinct(self.super_names)
        # The writer does not quote a lone carriage return by itself.
        returns = any("\r" in name for name in (*self.paths, *names, *groups))
        writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL if returns else csv.QUOTE_MINIMAL)
        writer.writerow(["path", "label", "super_label", "split", "class_id", *more])
        for i, (file, label) in enumerate(zip(self.paths, self.labels.tolist(), strict=True)):
            facts = [file, names[label], groups[self.super_labels[label]], self.roles[i], label]
            writer.writerow([*facts, *(values[i] for values in more.values())])
        records.write_whole(path, text.getvalue().encode("utf-8", "surrogateescape"))


def _distinct(names: Sequence[str]) -> list[str]:
    """Return the names; a number follows each that equals another one or reads like a missing value."""
    counts = Counter(name.strip() for name in names)
    return [
        f"{name} ({i})" if counts[name.strip()] > 1 or name != name.strip() or name.lower() in ("", *NO_VALUE) else name
        for i, name in enumerate(names)
    ]


def by_name(name: str) -> tuple[str, str]:
    """Sort key of names: their composed form (NFC), since some disks decompose accents, which sorts them elsewhere.

    >>> decomposed = unicodedata.normalize("NFD", "é")
    >>> sorted([decomposed, "f"]) == [decomposed, "f"], sorted([decomposed, "f"], key=by_name) == ["f", decomposed]
    (True, True)
    """
    return unicodedata.normalize("NFC", name), name


def grouped(names: Iterable[str]) -> tuple[np.ndarray, list[str]]:
    """Number the super classes of C classes alphabetically.

    Args:
        names: name of the super class of each of the C classes.

    Returns:
        Super class ids, int64 (C,), and the names of the super classes by id.

    >>> grouped(["tern", "gull", "tern"])
    (array([1, 0, 1]), ['gull', 'tern'])
    """
    named = list(names)
    found = sorted({*named}, key=by_name)  # and not np.unique, in whose array every name takes the space of the longest
    ids = {name: i for i, name in enumerate(found)}
    return np.array([ids[name] for name in named], dtype=np.int64), found


def halves(labels: np.ndarray, num_trainval: int) -> np.ndarray:
    """Return the roles, str (N,), if the first classes are trainval classes and all others test classes.

    Args:
        labels: int64 (N,), class id of each image.
        num_trainval: number of trainval classes.
    """
    return np.where(labels < num_trainval, "trainval", "test")


def check_counts(
    listing: Listing, expected: Expected | None, what: str, likely: Mapping[int, str] | None = None
) -> Listing:
    """Return the listing if it has the published counts.

    Args:
        listing: the listing to check.
        expected: any of `images`, `classes`, `super_classes`, in total or in a mapping by role; `smallest_class` and
            `largest_class`, in images; `images_of_classes`, by first and last class id ("0-23"). None checks nothing.
        what: name of the data set.
        likely: what it probably is instead, by its number of images; without an entry, fewer images are a part of it.

    Raises:
        UserError: a count differs; the message lists all that do.
    """
    sizes, wrong = np.bincount(listing.labels, minlength=listing.total_classes), []
    spans = (expected or {}).get("images_of_classes")
    bounds = {span: tuple(map(int, span.split("-"))) for span in spans} if isinstance(spans, Mapping) else {}
    found: dict[str, int | Mapping[str, int]] = {
        **asdict(listing.counts()),
        **{role: asdict(counts) for role, counts in listing.counts_by_role().items()},
        "smallest_class": int(sizes.min()),
        "largest_class": int(sizes.max()),
        "images_of_classes": {span: int(sizes[first : last + 1].sum()) for span, (first, last) in bounds.items()},
    }
    for key, value in (expected or {}).items():
        here = found.get(key, {})
        for name, number in value.items() if isinstance(value, Mapping) else [("", value)]:
            count = here.get(name) if isinstance(here, Mapping) else here
            if count != number:
                shown = "none" if count is None else format(count, ",")
                wrong.append(f"{shown} {f'{key} {name}'.strip()}, not {number:,}")
    if wrong:
        raise UserError(
            f"{listing.root} does not hold the published {what}: it has {'; '.join(wrong)}."
            f"{_guess(len(listing.paths), (expected or {}).get('images'), likely or {})} Results would not be "
            "comparable. Download it again, or set dataset.module.expected={...} (null: no check)."
        )
    return listing


def _guess(images: int, published: object, likely: Mapping[int, str]) -> str:
    """Say what a data set with other counts probably is."""
    if images in likely:
        return f" It is probably {likely[images]}."
    if isinstance(published, int) and images != published:
        return " Probably, it is only a part." if images < published else " Probably, other files were added."
    return " The lists were probably changed." * isinstance(published, int)
