"""A person's own pictures -> a listing: what cannot be used is refused, or left out and counted (`folder`, `csv`)."""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmark.datasets.dataset_files import SHOWN
from benchmark.datasets.image_check import complaints
from benchmark.datasets.listing import NO_GROUP, Listing, grouped, halves

ORDERS = ("appearance", "sorted")


class Row(NamedTuple):
    """A picture as it was found; `super_label` and `role` are empty where nothing is said; `where` is for messages."""

    path: str
    label: str
    super_label: str
    role: str
    where: str


def assemble(root: Path, rows: list[Row], *, order: str, on_bad: str, check: str) -> Listing:
    """The listing of these pictures.

    Rows that cannot be used: a missing or unreadable picture, one that is named twice, a label with two super classes,
    a class with one picture only, a class with queries and nothing in the gallery.

    Args:
        root: folder that the paths start from.
        rows: in the order of the data set, all with a role or none.
        order: of the classes, which decides about halves and folds: `appearance` (first row) or `sorted` (as text).
            Without roles the first half is trained on; with roles the order holds within each side.
        on_bad: `stop`, or `leave_out` and say how many.
        check: `lists`, `files` or `images`, see `image_check.complaints`.

    Raises:
        ValueError: naming the argument, or the first rows that cannot be used.
    """
    for name, value, allowed in (("order", order, ORDERS), ("on_bad", on_bad, ("stop", "leave_out"))):
        if value not in allowed:
            raise ValueError(f"{name}={value!r}: allowed are {', '.join(allowed)}.")
    bad = _bad_files(root, rows, check)
    good = [row for i, row in enumerate(rows) if i not in bad]
    for find_bad in (_bad_groups, _bad_classes):  # in turn: a class may be down to one picture by what went before
        reasons = find_bad(good)
        bad |= {i: reasons[row.label] for i, row in enumerate(rows) if i not in bad and row.label in reasons}
        good = [row for row in good if row.label not in reasons]
    said = f"{len(bad):,} of {len(rows):,} pictures"
    if bad and on_bad == "stop":
        named = "\n  ".join(f"{rows[i].where}: {rows[i].path} {bad[i]}" for i in sorted(bad)[:SHOWN])
        more = f"\n  and {len(bad) - SHOWN:,} more" * (len(bad) > SHOWN)
        raise ValueError(
            f"{said} in {root} cannot be used:\n  {named}{more}\n"
            "Mend them, or leave them out and be told how many: ARGS=dataset.module.on_bad=leave_out"
        )
    kinds = Counter(bad[i].partition(" (")[0] for i in sorted(bad))
    notes = (f"{said} are left out: " + ", ".join(f"{n:,} {kind}" for kind, n in kinds.items()),) if bad else ()
    return _listing(root, good, order, notes)


def _listing(root: Path, rows: list[Row], order: str, notes: tuple[str, ...]) -> Listing:
    names = list(dict.fromkeys(row.label for row in rows))
    if order == "sorted":
        names.sort()
    trained = {row.label for row in rows if row.role == "trainval"}
    names.sort(key=lambda name: name not in trained)  # stable: the order holds within each side
    if len(names) < 2:
        raise ValueError(
            f"{root} has {len(names)} classes that could be used; some to train on and others to test need 2."
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
    """What is wrong with a row's file, by row."""
    bad: dict[int, str] = {}
    first: dict[str, Row] = {}
    paths = list(dict.fromkeys(row.path for row in rows))
    wrong = dict(zip(paths, complaints(root, paths, check), strict=True))
    for i, row in enumerate(rows):
        if (before := first.setdefault(row.path, row)) is not row:
            bad[i] = f"is named twice (first: {before.where})"
        elif said := wrong[row.path]:
            bad[i] = said
    return bad


def _bad_groups(rows: list[Row]) -> dict[str, str]:
    """What is wrong with a label, by label."""
    bad: dict[str, str] = {}
    first: dict[str, str] = {}
    for row in rows:
        if first.setdefault(row.label, row.super_label) != row.super_label:
            groups = f"{first[row.label]!r} and {row.super_label!r}"
            bad.setdefault(row.label, f"is of a label with two super classes ({row.label!r}: {groups})")
    return bad


def _bad_classes(rows: list[Row]) -> dict[str, str]:
    counts = Counter(row.label for row in rows)
    bad = {label: f"is the only one of its class ({label!r})" for label, count in counts.items() if count == 1}
    found = {row.label for row in rows if row.role == "gallery"}
    lone = {row.label for row in rows if row.role == "query"} - found
    return bad | {label: f"is of a class with nothing in the gallery ({label!r})" for label in lone}
