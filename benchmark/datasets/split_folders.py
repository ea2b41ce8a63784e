"""Folders that are the parts of a split: `train/CLASS` and `test/CLASS`, or `CLASS/train` and `CLASS/test`.

Parts are recognised by their names (`split_names`): train, Validation, test_images, query. They may lie above the
classes (`train/CLASS`, also `data/train/birds/terns/CLASS` and `test/query/CLASS`) or in them (`CLASS/train`). The
rule: at one level of the folders, every class has the name of a part in its path; this name is taken out of the name of
the class. Therefore, `bus`, `train` and `car` next to each other are classes, and so are `vehicles/train` and
`vehicles/car`. Parts that hold class folders next to folders that are no parts can be meant either way, and are
refused.

Parts are the split if no class is in both halves, since this protocol tests on classes that were not trained on.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

from benchmark.core.errors import UserError
from benchmark.core.escape import visible
from benchmark.core.invocation import arguments
from benchmark.core.wording import counted
from benchmark.datasets.listing import ROLES
from benchmark.datasets.split_names import as_listed, is_filler, roles_among_words, roles_of

SPLITS = ("auto", "merge", "off")
Steps = tuple[str, ...]  # the names of nested folders
_WITHIN = {"train": {"train", "val"}, "trainval": {"train", "val", "trainval"}, "test": {"test", "query", "gallery"}}


class Place(NamedTuple):
    """What the path of a folder with images says about them.

    Attributes:
        label: name of the class.
        part: path of the part of the split; empty if there is none.
        role: its role, see `split_names.role_of`; empty if there is none.
    """

    label: str
    part: str = ""
    role: str = ""


def places(root: Path, folders: Sequence[str], split: str) -> list[Place]:
    """Return the class and the part of each folder with images.

    Args:
        root: folder that holds them, for messages.
        folders: paths of the folders, below `root`.
        split: `auto`, `merge` or `off`; see `folder.listing`.

    Raises:
        UserError: a part holds images and no class folders, or only some folders are parts of a split.
    """
    paths = [tuple(folder.split("/")) for folder in folders]
    level = None if split == "off" else _level(paths)
    if level is None:
        if split != "off":
            _check_not_mixed(root, paths)
        if split != "off" and (alike := _repeats(paths, most=split == "auto")):
            if split == "auto":
                raise UserError(_about_repeats(root, alike))
            return [Place("/".join(path[1:]), path[0]) for path in paths]
        return list(map(Place, folders))
    wrapped = len({path[:level] for path in paths}) == 1  # as in data/train and data/test
    found: dict[Steps, Place] = {}
    for name, role in roles_of(sorted({path[level] for path in paths})).items():
        below = {path: path[level + 1 :] for path in paths if path[level] == name}
        nested = {path: rest[0] if rest else "" for path, rest in below.items()}
        inner = roles_of({*nested.values()})
        if inner and _refines(role, inner, nested.values()):
            below = {path: rest[1:] for path, rest in below.items()}
            part_of = {path: (f"{name}/{nested[path]}", inner[nested[path]]) for path in below}
        else:
            part_of = dict.fromkeys(below, (name, role))
        labels = {path: (() if wrapped else path[:level]) + rest for path, rest in _without_fillers(below).items()}
        if lone := [path for path, label in labels.items() if not label or (len(labels) == 1 and is_filler(label[-1]))]:
            raise UserError(
                f"{root / Path(*lone[0])} holds images that are in no class folder, and {visible(name)} is named like "
                f"a part of a split. Move it elsewhere, put its images into class folders, or "
                f"{_off()}{_or_only(root, paths, level)}"
            )
        found |= {path: Place(normalize("NFC", "/".join(label)), *part_of[path]) for path, label in labels.items()}
    return [found[path] for path in paths]


def check_halves(root: Path, found: Collection[Place]) -> None:
    """Check that the parts are a split between classes.

    Args:
        root: folder that holds them, for messages.
        found: the places of all folders, all of them in parts.

    Raises:
        UserError: there is nothing to test on, a class is in both halves, a part may repeat others, or query or gallery
            images are missing.
    """
    meaning = as_listed(place.role for place in found)
    trained = {place.label for place in found if meaning[place.role] == "trainval"}
    tested = {place.label for place in found if meaning[place.role] != "trainval"}
    for_training, for_testing = (
        ", ".join(sorted({visible(place.part) for place in found if (meaning[place.role] == "trainval") is training}))
        for training in (True, False)
    )
    merge = (
        "To ignore these folders, join classes of the same name and train on the first half of all classes: "
        f"{arguments({'dataset.module.split': 'merge'})}"
    )
    test_roles = {*meaning.values()} - {"trainval"}
    if not tested:
        raise UserError(f"{root} holds only {for_training}, so there is nothing to test on. {merge}")
    if test_roles not in ({"test"}, {"query", "gallery"}):
        raise UserError(
            f"{root} is to be tested on {for_testing}. Either there are test images, or both query and gallery images. "
            f"{merge}"
        )
    if shared := sorted(trained & tested):
        trains, tests, common = (counted(len(some), "class", "classes") for some in (trained, tested, shared))
        raise UserError(
            f"{root} is a closed-set split: {for_training} ({trains}) and {for_testing} ({tests}) "
            f"have {common} in common, such as "
            f"{' and '.join(map(repr, shared[:2]))}. This protocol tests on classes that were not trained on. {merge}"
        )
    whole = {place.label for place in found if place.role == "trainval"}
    if repeated := sorted(whole & {place.label for place in found if place.role in ("train", "val")}):
        raise UserError(
            f"{root} has {repeated[0]!r} in several of {for_training}, one of which probably repeats the images of the "
            "others. Move it elsewhere."
        )


def describe(found: Sequence[Place], split: str) -> str:
    """Say what the parts are for; empty if no folder looks like a part.

    Args:
        found: the places of all folders.
        split: `auto`, `merge` or `off`; see `folder.listing`.
    """
    if split == "merge" and (parts := sorted({visible(place.part) for place in found if place.part})):
        return f"the folders {', '.join(parts)} are ignored as a split"
    if split == "merge":
        return "no folder is named like a part of a split, so that split=merge changes nothing"
    if not any(place.role for place in found):
        alike = _suspects([tuple(place.label.split("/")) for place in found]) if split == "auto" else {}
        names = ", ".join(visible("/".join(path)) for path in alike)
        return f"{names}: an ordinary folder and no part of a split, like those next to it" if names else ""
    meaning = as_listed(place.role for place in found)
    used: defaultdict[str, set[str]] = defaultdict(set)
    for place in found:
        used[meaning[place.role]].add(visible(place.part))
    named = (f"{role}: {', '.join(sorted(used[role]))}" for role in ROLES if role in used)
    return f"the folders are the split: {'; '.join(named)}"


def _level(paths: Sequence[Steps]) -> int | None:
    """Return the level of nesting at which every folder is named after a part of a split; None if there is none."""
    for level in range(min(map(len, paths))):
        names = {path[level] for path in paths}
        if len(roles_of(names)) == len(names):
            return level
    return None


def _repeats(paths: Sequence[Steps], most: bool) -> list[Steps]:
    """Return the folders of one class if classes are in several of the outermost folders: domains, folds, a split.

    Args:
        paths: the class folders; they have more than one outermost folder.
        most: whether two or more classes have to be, and most of them.
    """
    within: defaultdict[Steps, list[str]] = defaultdict(list)
    for path in paths:
        within[path[1:]].append(path[0])
    common = [rest for rest, outer in within.items() if rest and len(outer) > 1]
    if () in within or not common or (most and (len(common) < 2 or 2 * len(common) <= len(within))):
        return []
    return [(outer, *common[0]) for outer in within[common[0]]]


def _about_repeats(root: Path, alike: Sequence[Steps]) -> str:
    """Write the message about outermost folders that hold classes of the same names."""
    first, second = [visible("/".join(path)) for path in alike[:2]]
    return (
        f"Most class folders in {root} are there several times, such as {first} and {second}. If they are the same "
        f"classes, join them: {arguments({'dataset.module.split': 'merge'})}; if not, {_off()}"
    )


def _or_only(root: Path, paths: Sequence[Steps], level: int) -> str:
    """Name the only part that has class folders, if there is one, as the folder to read; empty otherwise."""
    with_classes = {path[: level + 1] for path in paths if len(path) > level + 1}
    if len(with_classes) != 1:
        return ""
    return f"; or read one part only: {arguments({'dataset.module.root': root / Path(*with_classes.pop())})}"


def _refines(role: str, inner: Mapping[str, str], names: Collection[str]) -> bool:
    """Whether the folders within a part are parts of it, as in train/train or test/query and test/gallery."""
    found = {*inner.values()}
    return {*inner} == {*names} and found <= _WITHIN.get(role, {role}) and (len(found) > 1 or found == {role})


def _without_fillers(below: Mapping[Steps, Steps]) -> dict[Steps, Steps]:
    """Remove folders such as images/ that all classes of a part have in common, above or below them."""
    found = dict(below)
    for end, rest in ((0, slice(1, None)), (-1, slice(None, -1))):
        names = {path[end] if len(path) > 1 else "" for path in found.values()}
        if len(names) == 1 and is_filler(*names):
            found = {path: steps[rest] for path, steps in found.items()}
    return found


def _inside(paths: Sequence[Steps]) -> dict[Steps, dict[str, bool]]:
    """Return the names of the folders in each folder, and whether they hold folders themselves."""
    inside: defaultdict[Steps, dict[str, bool]] = defaultdict(dict)
    for path in paths:
        for depth, name in enumerate(path):
            inside[path[:depth]][name] = depth < len(path) - 1
    return inside


def _suspects(paths: Sequence[Steps]) -> dict[Steps, str]:
    """Return the roles of folders that look like the parts of a split.

    These are the folders that are named so, next to one that holds class folders, and the folders in a class, if all of
    them are named so and they differ in their roles.
    """
    found: dict[Steps, str] = {}
    for folder, names in _inside(paths).items():
        roles = roles_of(names)
        divides = folder and len(roles) == len(names) and len({*roles.values()}) > 1
        if divides or any(names[name] for name in roles):
            found |= {(*folder, name): role for name, role in roles.items()}
    return found


def _check_not_mixed(root: Path, paths: Sequence[Steps]) -> None:
    """Check that no folders look like the parts of a split while others do not, or while their names say more.

    Raises:
        UserError: some do; the message names two parts and another folder.
    """
    suspects = _suspects(paths)
    examples = sorted("/".join(path) for path in {role: path for path, role in suspects.items()}.values())
    if len(examples) > 1:
        outside = (path for path in paths if not any(path[: len(part)] == part for part in suspects))
        if other := next(outside, None):
            but = f"{visible('/'.join(other))} is in none of them. Move it elsewhere"
        else:
            but = "they are at different levels. Put one next to the other"
        raise UserError(
            f"In {root}, {' and '.join(map(visible, examples[:2]))} are named like the parts of a split, but {but}, or "
            f"{_off()}"
        )
    for folder, names in _inside(paths).items():
        if roles := roles_among_words(sorted(name for name, holds_folders in names.items() if holds_folders)):
            examples = ["/".join((*folder, name)) for name in {role: name for name, role in roles.items()}.values()]
            raise UserError(
                f"In {root}, {' and '.join(map(visible, examples[:2]))} mention different parts of a split, but their "
                "names say more. If they are its parts, rename them, or put them into folders with the names of parts, "
                f"such as train and test; if not, {_off()}"
            )


def _off() -> str:
    return f"take the name of every folder literally: {arguments({'dataset.module.split': 'off'})}"
