"""The listing of a user's own images (`folder`, `csv`): unusable images are refused, or skipped and counted."""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmark.core.errors import UserError
from benchmark.core.invocation import arguments
from benchmark.datasets.image_check import find_problems
from benchmark.datasets.listing import NO_GROUP, Listing, grouped, halves
from benchmark.images.decode import describe_unusable

ORDERS = ("appearance", "sorted")


class Row(NamedTuple):
    """An image as specified by the user.

    Attributes:
        path: its path, relative to the root.
        label: name of its class.
        super_label: name of its super class; empty if none is given.
        role: one of `listing.ROLES`; empty if none is given.
        where: line or folder to name in messages.
    """

    path: str
    label: str
    super_label: str
    role: str
    where: str


def assemble(root: Path, rows: list[Row], *, order: str, on_bad: str, check: str) -> Listing:
    """Build the listing of a user's own images.

    An image cannot be used if it is missing, unreadable or named twice, if its label has two super classes, if it is
    the only image of its class, or if its class has queries but no gallery images.

    Args:
        root: folder that the paths are relative to.
        rows: images in the order of the data set; either all have a role or none has.
        order: order of the classes, which determines halves and folds: `appearance` (first row) or `sorted` (as text).
            Without roles, the first half is for training; with roles, the order applies within each half.
        on_bad: what to do with images that cannot be used: `stop`, or `leave_out` (skip them and note how many).
        check: `lists`, `files` or `images`, see `image_check.find_problems`.

    Raises:
        UserError: an argument is invalid, images cannot be used (the message names the first few), or fewer than
            two classes are left.
    """
    for name, value, allowed in (("order", order, ORDERS), ("on_bad", on_bad, ("stop", "leave_out"))):
        if value not in allowed:
            raise UserError(f"{name}={value!r}: allowed are {', '.join(allowed)}.")
    bad = _bad_files(root, rows, check)
    good = [row for i, row in enumerate(rows) if i not in bad]
    for find_bad in (_bad_groups, _bad_classes):  # in this order: skipping may leave a class with one image
        reasons = find_bad(good)
        bad |= {i: reasons[row.label] for i, row in enumerate(rows) if i not in bad and row.label in reasons}
        good = [row for row in good if row.label not in reasons]
    if bad and on_bad == "stop":
        remedy = f"Fix them, or skip and count them: {arguments({'dataset.module.on_bad': 'leave_out'})}"
        named = [f"{rows[i].where}: {rows[i].path} {bad[i]}" for i in sorted(bad)]
        raise UserError(describe_unusable(root, len(rows), named, remedy))
    kinds = ", ".join(f"{n:,} {kind}" for kind, n in Counter(bad[i].partition(" (")[0] for i in sorted(bad)).items())
    notes = (f"{len(bad):,} of {len(rows):,} images are skipped: {kinds}",) if bad else ()
    return _listing(root, good, order, notes)


def _listing(root: Path, rows: list[Row], order: str, notes: tuple[str, ...]) -> Listing:
    names = list(dict.fromkeys(row.label for row in rows))
    if order == "sorted":
        names.sort()
    trained = {row.label for row in rows if row.role == "trainval"}
    names.sort(key=lambda name: name not in trained)  # stable, to keep the order within each half
    if len(names) < 2:
        raise UserError(
            f"{root} has {len(names)} usable classes; at least 2 are needed, one to train on and one to test."
        )
    id_of = {name: i for i, name in enumerate(names)}
    labels = np.array([id_of[row.label] for row in rows])
    super_labels, super_names = grouped(
        {row.label: row.super_label or NO_GROUP for row in rows}[name] for name in names
    )
    given = any(row.role for row in rows)
    return Listing(
        root=root,
        paths=[row.path for row in rows],
        labels=labels,
        class_names=names,
        super_labels=super_labels,
        super_names=super_names,
        roles=np.array([row.role for row in rows]) if given else halves(labels, len(names) // 2),
        notes=notes,
    )


def _bad_files(root: Path, rows: list[Row], check: str) -> dict[int, str]:
    """Return the problems with files, by row."""
    bad: dict[int, str] = {}
    first: dict[str, Row] = {}
    paths = list(dict.fromkeys(row.path for row in rows))
    problems = dict(zip(paths, find_problems(root, paths, check), strict=True))
    for i, row in enumerate(rows):
        if (before := first.setdefault(row.path, row)) is not row:
            bad[i] = f"is named twice (first: {before.where})"
        elif problem := problems[row.path]:
            bad[i] = problem
    return bad


def _bad_groups(rows: list[Row]) -> dict[str, str]:
    """Return the problems with super classes, by label."""
    bad: dict[str, str] = {}
    first: dict[str, str] = {}
    for row in rows:
        if first.setdefault(row.label, row.super_label) != row.super_label:
            groups = f"{first[row.label]!r} and {row.super_label!r}"
            bad.setdefault(row.label, f"is of a label with two super classes ({row.label!r}: {groups})")
    return bad


def _bad_classes(rows: list[Row]) -> dict[str, str]:
    """Return the problems that make classes useless for retrieval, by label."""
    counts = Counter(row.label for row in rows)
    bad = {label: f"is the only one of its class ({label!r})" for label, count in counts.items() if count == 1}
    found = {row.label for row in rows if row.role == "gallery"}
    lone = {row.label for row in rows if row.role == "query"} - found
    return bad | {label: f"is of a class without gallery images ({label!r})" for label in lone}
