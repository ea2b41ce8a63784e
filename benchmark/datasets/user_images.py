"""The listing of a user's own images (`folder`, `csv`): unusable images are refused, or skipped and counted.

Copies of test images among the training images, byte for byte, make a test easier than it looks; they are counted, and
can be refused or dropped. It is always the training image that is dropped: what is tested stays as the user specified
it, whatever is trained on.
"""

import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmark.core.errors import UserError
from benchmark.core.invocation import arguments
from benchmark.core.wording import counted, first_lines, named
from benchmark.datasets.image_check import inspect, tally
from benchmark.datasets.listing import NO_GROUP, Listing, by_name, grouped
from benchmark.images.decode import describe_unusable

OPTIONS = {
    "order": ("appearance", "sorted", "class_id"),
    "on_bad": ("stop", "leave_out"),
    "on_duplicates": ("warn", "error", "drop"),
}
VERBS = {"is": "are", "has": "have", "holds": "hold"}  # of the reasons why images cannot be used


class Row(NamedTuple):
    """An image as specified by the user.

    Attributes:
        path: its path, relative to the root.
        label: name of its class.
        super_label: name of its super class; empty if none is given.
        role: one of `listing.ROLES`; empty if none is given.
        where: line or folder to name in messages.
        class_id: a number by which the classes can be ordered.
    """

    path: str
    label: str
    super_label: str
    role: str
    where: str
    class_id: int = 0


def assemble(
    root: Path,
    rows: list[Row],
    *,
    order: str,
    on_bad: str,
    check: str,
    on_duplicates: str = "warn",
    notes: Sequence[str] = (),
) -> Listing:
    """Build the listing of a user's own images.

    An image cannot be used if it is missing, unreadable or named twice, if its label has two super classes, if it is
    the only image of its class, or if its class has queries but no gallery images. Two names of one file, such as a
    link and what it leads to, are one image that is named twice. A class of a single image is accepted if the user says
    that it is for training, where any image teaches something, or in the gallery, where it is a distractor. A class
    without a super class, where others have one, is a super class of its own.

    Args:
        root: folder that the paths are relative to.
        rows: images in the order of the data set; either all have a role or none has.
        order: order of the classes, which determines halves and folds: `appearance` (first row), `sorted` (as text,
            with composed accents) or `class_id`. Without roles, the first half is for training; with roles, the order
            applies within each half.
        on_bad: what to do with images that cannot be used: `stop`, or `leave_out` (skip them and note how many).
        check: `lists`, `files` or `images`, see `image_check.inspect`.
        on_duplicates: what to do if training images are byte for byte test images: `warn` (note how many and which),
            `error`, or `drop` (leave out these training images and note how many). Without `check=images` no image is
            read, and only a note says so.
        notes: earlier remarks for the user, which come first in the listing's.

    Raises:
        UserError: an argument is invalid, images cannot be used or are duplicates (the message names the first few),
            one half is empty, or fewer than two classes are left.
    """
    _check_options(check, order=order, on_bad=on_bad, on_duplicates=on_duplicates)

    # 1. images that cannot be used
    paths = list(dict.fromkeys(row.path for row in rows))
    seen = dict(zip(paths, inspect(root, paths, check), strict=True))
    bad = _named_twice(root, rows, links=check != "lists")
    bad |= {i: problem for i, row in enumerate(rows) if i not in bad and (problem := seen[row.path].problem)}
    bad |= _useless(rows, [i for i in range(len(rows)) if i not in bad])
    _stop_at(root, rows, bad, on_bad)
    usable = [i for i in range(len(rows)) if i not in bad]

    # 2. the two halves
    names = _class_names([rows[i] for i in usable], order)
    if len(names) < 2:
        raise UserError(
            f"{root} has {counted(len(names), 'usable class', 'usable classes')}; at least 2 are needed, one to train "
            "on and one to test on."
        )
    if not any(row.role for row in rows):
        trained = {*names[: len(names) // 2]}
        rows = [row._replace(role="trainval" if row.label in trained else "test") for row in rows]
    _check_halves(root, rows, usable)

    # 3. copies of test images among the training images
    copies, clashes = _copies(rows, usable, {path: one.sha256 for path, one in seen.items()})
    remarks = _spelled_alike(names)
    if copies and on_duplicates == "error":
        raise UserError(_about_copies(root, rows, copies))
    if copies and on_duplicates == "drop":
        left = [i for i in usable if i not in copies]
        more = _useless(rows, left)
        _stop_at(root, rows, more, on_bad)
        bad, usable = bad | more, [i for i in left if i not in more]
        _check_halves(root, rows, usable)
    remarks += _on_copies(rows, copies, clashes, dropped=on_duplicates == "drop")
    good = [rows[i] for i in usable]
    remarks += _single(rows, usable) + _ungrouped(good) + _cut([row.path for row in good if seen[row.path].cut])
    listing = _listing(root, good, order, (*notes, *_skipped(rows, bad), *remarks))
    return replace(listing, tally=tally(seen[row.path] for row in good))


def _check_options(check: str, **given: str) -> None:
    for name, value in given.items():
        if value not in OPTIONS[name]:
            raise UserError(f"{name}={value!r}: allowed are {', '.join(OPTIONS[name])}.")
    if given["on_duplicates"] != "warn" and check != "images":
        remedy = arguments({"dataset.module.check": "images"})
        raise UserError(
            f"on_duplicates={given['on_duplicates']} compares the bytes of images, and check={check} reads none: "
            f"{remedy}"
        )


def _stop_at(root: Path, rows: Sequence[Row], bad: Mapping[int, str], on_bad: str) -> None:
    """Refuse images that cannot be used, unless they are to be left out.

    Raises:
        UserError: there are some, and `on_bad` is `stop`.
    """
    if bad and on_bad == "stop":
        skip = arguments({"dataset.module.on_bad": "leave_out"})
        remedy = f"Fix them, or skip and count them: {skip}" if len(bad) < len(rows) else "None is left."
        reasons = [f"{rows[i].where}: {rows[i].path} {bad[i]}" for i in sorted(bad)]
        raise UserError(describe_unusable(root, len(rows), reasons, remedy))


def _skipped(rows: Sequence[Row], bad: Mapping[int, str]) -> list[str]:
    """Say how many images are skipped for each reason, with an example."""
    by_kind: defaultdict[str, list[int]] = defaultdict(list)
    for i in sorted(bad):
        by_kind[bad[i].partition(" (")[0]].append(i)
    kinds = [
        f"{counted(len(found), kind, _of_several(kind))} ({'such as ' * (len(found) > 1)}{rows[found[0]].path})"
        for kind, found in by_kind.items()
    ]
    verb = "is" if len(bad) == 1 else "are"
    return [f"{len(bad):,} of {counted(len(rows), 'image')} {verb} skipped: {', '.join(kinds)}"] if bad else []


def _of_several(kind: str) -> str:
    """Return a predicate such as "is missing" as it reads for several images."""
    if kind == "is the only one of its class":
        return "are the only ones of their classes"
    verb, _, rest = kind.partition(" ")
    return f"{VERBS.get(verb, verb)} {rest}"


def _spelled_alike(names: Sequence[str]) -> list[str]:
    """Return a note on classes whose names may be meant to be the same."""
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for name in sorted(names):
        plain = name if name.isascii() else unicodedata.normalize("NFKC", name)
        alike[" ".join(plain.split()).casefold().removesuffix(".0")].append(name)
    groups = [" and ".join(map(repr, group)) for group in alike.values() if len(group) > 1]
    if not groups:
        return []
    many = "groups of labels differ in spelling only and are different classes"
    one = "group of labels differs in spelling only; these are different classes"
    return [f"{counted(len(groups), one, many)}: {named(groups)}"]


def _single(rows: Sequence[Row], usable: Sequence[int]) -> list[str]:
    """Return a note on training classes with a single image."""
    counts = Counter(rows[i].label for i in usable if rows[i].role == "trainval")
    found = [repr(label) for label, count in counts.items() if count == 1]
    what = counted(len(found), "training class has a single image", "training classes have a single image")
    return [f"{what}, which is no query in validation: {named(found)}"] if found else []


def _ungrouped(rows: Sequence[Row]) -> list[str]:
    """Return a note on classes without a super class if others have one."""
    found = list(dict.fromkeys(repr(row.label) for row in rows if not row.super_label))
    if not found or not any(row.super_label for row in rows):
        return []
    one = "class has no super class and gets one of its own"
    many = "classes have no super class and get one each of their own"
    return [f"{counted(len(found), one, many)}: {named(found)}"]


def _cut(paths: Sequence[str]) -> list[str]:
    """Return a note on images of which only a part of the bits is read."""
    one, many = "image has more than 8 bits a channel", "images have more than 8 bits a channel"
    what = f"{counted(len(paths), one, many)}, in colour or with transparency: the upper 8 are read"
    return [f"{what}: {named(paths)}"] if paths else []


def _class_names(rows: Sequence[Row], order: str) -> list[str]:
    """Return the names of the classes in order, those of the training half first."""
    names = list(dict.fromkeys(row.label for row in rows))
    if order == "sorted":
        names.sort(key=by_name)
    if order == "class_id":
        id_of = {row.label: row.class_id for row in rows}
        names.sort(key=id_of.__getitem__)
    trained = {row.label for row in rows if row.role == "trainval"}
    return sorted(names, key=lambda name: name not in trained)  # stable, to keep the order within each half


def _listing(root: Path, rows: Sequence[Row], order: str, notes: tuple[str, ...]) -> Listing:
    names = _class_names(rows, order)
    id_of = {name: i for i, name in enumerate(names)}
    grouping = any(row.super_label for row in rows)
    group_of = {row.label: row.super_label or (f"({row.label})" if grouping else NO_GROUP) for row in rows}
    super_labels, super_names = grouped(group_of[name] for name in names)
    return Listing(
        root=root,
        paths=[row.path for row in rows],
        labels=np.array([id_of[row.label] for row in rows]),
        class_names=names,
        super_labels=super_labels,
        super_names=super_names,
        roles=np.array([row.role for row in rows]),
        notes=notes,
    )


def _named_twice(root: Path, rows: Sequence[Row], links: bool) -> dict[int, str]:
    """Return the problem of each image that came before, by row.

    Args:
        root: folder that the paths are relative to.
        rows: all images.
        links: whether to look for other names of the same file too: links, or another case where the disk ignores it.
    """
    bad: dict[int, str] = {}
    first: dict[str | tuple[int, int], Row] = {}
    for i, row in enumerate(rows):
        before = first.setdefault(row.path, row)
        if before is row and links and (file := _file(os.path.join(root, row.path))):
            before = first.setdefault(file, row)
        if before is not row:
            other = [f"as {before.path}"] * (before.path != row.path)
            other += [f"with label {before.label!r}"] * (before.label != row.label)
            bad[i] = f"is named twice (first: {', '.join([before.where, *other])})"
    return bad


def _file(path: str) -> tuple[int, int] | None:
    """Return what identifies a file whatever its name; None if the system does not say."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # ValueError: a null byte in the name
        return None
    return (found.st_dev, found.st_ino) if found.st_ino else None


def _useless(rows: Sequence[Row], usable: Sequence[int]) -> dict[int, str]:
    """Return the problems of those usable images whose class cannot be used, by row."""
    bad: dict[int, str] = {}
    for find_bad in (_bad_groups, _bad_classes):  # in this order: skipping may leave a class with one image
        reasons = find_bad([rows[i] for i in usable if i not in bad])
        bad |= {i: reasons[rows[i].label] for i in usable if i not in bad and rows[i].label in reasons}
    return bad


def _bad_groups(rows: Sequence[Row]) -> dict[str, str]:
    """Return the problems with super classes, by label."""
    bad: dict[str, str] = {}
    first: dict[str, str] = {}
    for row in rows:
        if first.setdefault(row.label, row.super_label) != row.super_label:
            groups = f"{first[row.label]!r} and {row.super_label!r}"
            bad.setdefault(row.label, f"is of a label with two super classes ({row.label!r}: {groups})")
    return bad


def _bad_classes(rows: Sequence[Row]) -> dict[str, str]:
    """Return the problems that make classes useless for retrieval, by label."""
    counts = Counter(row.label for row in rows)
    needs_two = {row.label for row in rows if row.role in ("", "test")}
    bad = {label: f"is the only one of its class ({label!r})" for label in needs_two if counts[label] == 1}
    found = {row.label for row in rows if row.role == "gallery"}
    lone = {row.label for row in rows if row.role == "query"} - found
    return bad | {label: f"is of a class without gallery images ({label!r})" for label in lone}


def _check_halves(root: Path, rows: Sequence[Row], usable: Sequence[int]) -> None:
    """Check that there is something to test on, and to train on unless no image was meant for that.

    Raises:
        UserError: one half is empty.
    """
    meant, left = {row.role for row in rows}, {rows[i].role for i in usable}
    if left == {"trainval"}:
        lost = "was usable" if len(meant) > 1 else "is named"
        raise UserError(
            f"All images of {root} are for training; none to test on {lost}. Name test images (or query and gallery "
            "images) of other classes; or name no parts at all, and half of the classes are tested on."
        )
    if "trainval" in meant - left:
        raise UserError(f"No training image of {root} is left, only test images. Look at what was left out, and why.")
    tested = {rows[i].label for i in usable if rows[i].role != "trainval"}
    if shared := sorted({rows[i].label for i in usable if rows[i].role == "trainval"} & tested):
        raise UserError(
            f"{root} is a closed-set split: {counted(len(shared), 'class is', 'classes are')} both for training and "
            f"for testing, such as {shared[0]!r}. This protocol tests on classes that were not trained on. Give all "
            "images of a class to one half; or give no parts at all, and the first half of the classes is trained on."
        )
    if (roles := left - {"trainval"}) in ({"query"}, {"gallery"}):
        raise UserError(
            f"{root} has {next(iter(roles))} images only to test on. Give both query and gallery images, or call them "
            "test images, which are searched among each other."
        )


def _copies(
    rows: Sequence[Row], usable: Sequence[int], sha256: Mapping[str, str | None]
) -> tuple[dict[int, int], dict[int, int]]:
    """Compare images byte for byte.

    Args:
        rows: all images, with roles.
        usable: the rows to compare.
        sha256: checksum of each file, by path; None if it was not read.

    Returns:
        Training images that are test images, and images that are in another class of the same half before; each with
        the first row that it equals.
    """
    first: dict[tuple[str, bool], int] = {}
    clashes: dict[int, int] = {}
    for i in usable:
        if digest := sha256[rows[i].path]:
            before = first.setdefault((digest, rows[i].role == "trainval"), i)
            if rows[before].label != rows[i].label:
                clashes[i] = before
    tested = {digest: i for (digest, trained), i in first.items() if not trained}
    copies = {
        i: tested[digest]
        for i in usable
        if rows[i].role == "trainval" and (digest := sha256[rows[i].path]) and digest in tested
    }
    return copies, clashes


def _on_copies(
    rows: Sequence[Row], copies: Mapping[int, int], clashes: Mapping[int, int], dropped: bool
) -> Iterator[str]:
    """Return remarks on images that equal others, see `_copies`.

    Args:
        rows: all images.
        copies: training images that are test images.
        clashes: images that are in two classes of the same half.
        dropped: whether the copies are left out.
    """
    if copies and dropped:
        one = "training image is dropped, since it is a test image, byte for byte: "
        many = "training images are dropped, since they are test images, byte for byte: "
        yield counted(len(copies), one, many) + _pairs(rows, copies)
    elif copies:
        them = "it" if len(copies) == 1 else "them"
        yield (
            f"{_num_copies(copies)}, byte for byte, so that scores are too high: {_pairs(rows, copies)}; to leave "
            f"{them} out of the training: {arguments({'dataset.module.on_duplicates': 'drop'})}"
        )
    if clashes:
        found = counted(len(clashes), "image is", "images are")
        yield f"{found} in two classes of the same half, byte for byte: {_pairs(rows, clashes)}"


def _num_copies(copies: Mapping[int, int]) -> str:
    return counted(len(copies), "training image is a test image", "training images are test images")


def _about_copies(root: Path, rows: Sequence[Row], copies: Mapping[int, int]) -> str:
    """Write the message about copies of test images among the training images."""
    pairs = [f"{rows[i].where}: {rows[i].path} is {rows[j].path} ({rows[j].where})" for i, j in copies.items()]
    return (
        f"{_num_copies(copies)} in {root}, byte for byte:{first_lines(pairs)}\n"
        f"Correct the list, or drop them from training: {arguments({'dataset.module.on_duplicates': 'drop'})}"
    )


def _pairs(rows: Sequence[Row], pairs: Mapping[int, int]) -> str:
    return named([f"{rows[i].path} ({rows[i].where}) = {rows[j].path} ({rows[j].where})" for i, j in pairs.items()])
