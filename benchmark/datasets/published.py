"""Find a published data set, however its files were unpacked and named, and check that the copy is complete.

Downloading starts only if nothing of the data set is there. A folder that holds a part of it, its archive, the data
set in a folder above, or another published data set is reported, with the command that uses it.
"""

import dataclasses
import difflib
import fnmatch
import glob
import importlib
import os
import shlex
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmark.core.archives import is_unpacked
from benchmark.core.download import PART
from benchmark.core.errors import UserError
from benchmark.core.invocation import command
from benchmark.core.places import usable_path
from benchmark.core.wording import named
from benchmark.datasets.dataset_files import subfolders
from benchmark.datasets.image_check import CHECKS, check_images
from benchmark.datasets.image_tree import is_hidden, is_image
from benchmark.datasets.listing import Expected, Listing, MissingDataError, check_counts
from benchmark.images.decode import describe_unusable

DATASETS = ("cub", "cars196", "sop", "inshop", "inaturalist2019", "grocery")
LEVELS = ("", "*/", "*/*/", "*/*/*/")  # folders in which a file is searched, below the folder of the data set
MASKS = ("segmentations", "masks", "annotations")  # folders of images that may be named like the photographs
FEW, MANY = 30, 1000  # images of a list that are tried to find their folder: by name, and in any case and suffix
SEARCHED = 200_000  # entries that are read to find out what a folder holds
ARCHIVES = (".tgz", ".tar.gz", ".tar", ".zip", ".tar.bz2", ".tar.xz", ".7z", ".rar")  # the last two cannot be unpacked
DOWNLOADS = ("archive*", "download*", "dataset*")  # how Kaggle and browsers name an archive of any data set


@dataclass(frozen=True)
class Names:
    """The names by which a copy of a published data set is recognised.

    Attributes:
        dataset: its name in the configuration.
        label: its usual name.
        marks: each entry is a set of glob patterns; a folder that matches all of them holds a part of the data set.
        archives: glob patterns of its archives without their suffix, packed by its authors or by others.
        fetched: names of the archives that `make data` downloads; one that lies in the folder is checked and unpacked.
        likely: what a copy probably is that has this number of images, such as another edition.
    """

    dataset: str
    label: str
    marks: tuple[tuple[str, ...], ...]
    archives: tuple[str, ...] = ()
    fetched: tuple[str, ...] = ()
    likely: Mapping[int, str] = dataclasses.field(default_factory=dict)


def find(root: Path, *patterns: str) -> Path | None:
    """Find the first file or folder below `root` that matches; names in another case match if no other does.

    Args:
        root: folder to search; hidden folders and metadata of macOS and NAS systems are ignored.
        patterns: glob patterns relative to `root`, tried in order.
    """
    for pattern in patterns:
        for path in sorted(root.glob(pattern)):
            if not any(map(is_hidden, path.relative_to(root).parts)):
                return path
    return _Tree(root).first(*patterns)


class _Tree:
    """The folders and files near the top of a folder, except for images; names are matched in any case."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.levels: list[list[str]] = [[""]]  # paths by their depth; folders end with a slash
        left = SEARCHED
        for _ in range(len(LEVELS) + 1):
            entries: list[str] = []
            for folder in (path for path in self.levels[-1] if path[-1:] in ("", "/")):
                if left > 0:
                    entries += (inner := self._entries(folder))
                    left -= len(inner)
            self.levels.append([path for path in entries if not is_image(path)])

    def _entries(self, folder: str) -> list[str]:
        try:
            with os.scandir(self.root / folder) as entries:
                seen = [entry for entry in entries if not is_hidden(entry.name)]
                return sorted(f"{folder}{entry.name}{'/' * entry.is_dir()}" for entry in seen)
        except OSError:
            return []

    def all(self, pattern: str) -> list[Path]:
        """Return what matches a pattern, in the order of names."""
        depth = pattern.count("/") + 1 if pattern else 0
        paths = self.levels[depth] if depth < len(self.levels) else []
        wanted = pattern.lower()
        return [self.root / path for path in paths if fnmatch.fnmatchcase(path.rstrip("/").lower(), wanted)]

    def first(self, *patterns: str) -> Path | None:
        """Return the first match of the first pattern that matches anything."""
        return next((found[0] for pattern in patterns if (found := self.all(pattern))), None)


def below(*names: str) -> tuple[str, ...]:
    """Return patterns for names in a folder and up to three levels below it, the nearest first.

    >>> below("a", "b")[:4]
    ('a', 'b', '*/a', '*/b')
    """
    return tuple(level + name for level in LEVELS for name in names)


def find_required(root: str | Path, names: Names, *patterns: str) -> Path:
    """Find the first file or folder below `root` that matches.

    Args:
        root: folder of the data set.
        names: how the data set is recognised.
        patterns: glob patterns, relative to `root`.

    Raises:
        MissingDataError: nothing of the data set is there, so that it has to be downloaded; or only its archive is.
        UserError: the folder does not exist or cannot be read, or holds something else or a part of the data set.
    """
    folder = folder_of(root, names)
    if found := find(folder, *patterns):
        return found
    _check_readable(folder, len(LEVELS) - 1)  # Path.glob silently skips what cannot be read
    raise _not_found(folder, names, " or ".join(dict.fromkeys(pattern.rpartition("*/")[2] for pattern in patterns)))


def folder_of(root: str | Path, names: Names) -> Path:
    """Return the folder of a data set as a path.

    Raises:
        MissingDataError: the default folder does not exist yet.
        UserError: another folder does not exist, or this is none.
    """
    folder = usable_path("dataset.module.root", None if root is None else str(root), "a folder")
    try:
        if folder.is_dir():
            return folder
        is_there = os.path.lexists(folder)
    except OSError as error:
        use = _use(names, Path("FOLDER"))
        raise UserError(f"The folder {folder} cannot be read: {error.strerror}. Name another one: {use}") from error
    if folder.is_symlink():
        raise UserError(f"{folder} is a link to {os.readlink(folder)}, which is no folder. Is the disk mounted?")
    if is_there:
        raise UserError(f"{folder} is a file. Name the folder that it is in: {_use(names, folder.parent)}")
    if folder == Path("data", names.dataset):  # as in conf/dataset
        raise MissingDataError(f"There is no folder {folder}. {_get(names)}")
    near = "".join(f"\nDid you mean {_use(names, other)}" for other in _similar(folder))
    raise UserError(
        f"There is no folder {folder}.{near}\nTo use it for {names.label}, create it first: "
        f"mkdir -p {shlex.quote(str(folder))}"
    )


def _similar(folder: Path) -> list[Path]:
    """Return existing folders whose path differs from that of a missing one by a slip in a single name."""
    parts = folder.absolute().parts
    depth = next(i for i in range(len(parts) - 1, 0, -1) if Path(*parts[:i]).is_dir())
    above, missing, rest = Path(*parts[:depth]), parts[depth], parts[depth + 1 :]
    try:
        here = {name.casefold(): name for name in subfolders(above)}
    except UserError:
        return []
    close = difflib.get_close_matches(missing.casefold(), here, n=3, cutoff=0.6)
    return [path for name in close if (path := above.joinpath(here[name], *rest)).is_dir()]


def _check_readable(folder: Path, depth: int) -> None:
    for name in subfolders(folder):
        if depth > 0:
            _check_readable(folder / name, depth - 1)


def _use(names: Names, folder: Path) -> str:
    return command("data", {"dataset": names.dataset, "dataset.module.root": folder})


def _get(names: Names) -> str:
    get = command("data", {"dataset": names.dataset})
    find = command("data", {"dataset": names.dataset, "dataset.module.root": "FOLDER"})
    return f"Get the data: {get}; or name its folder: {find}."


def _not_found(folder: Path, names: Names, wanted: str) -> UserError:
    """Say what a folder holds instead of the files that are wanted."""
    without = f"{folder} and three levels of folders below it hold no {wanted}"
    tree, elsewhere = _Tree(folder), _use(names, Path("FOLDER"))
    if any(map(is_unpacked, folder.iterdir())) or any(folder.glob(f"*{PART}")):
        return MissingDataError(f"{without}; an earlier download to it is not complete. {_get(names)}")
    archive = _archive(tree, names)
    if archive and _is_unpacked_by_us(archive, folder, names):
        return MissingDataError(f"{archive} is there, but not unpacked. Unpack it: {_use(names, folder)}")
    if part := _recognised(tree, names):
        return UserError(
            f"{folder} holds a part of {names.label}, {part.relative_to(folder)}, but it and three levels of folders "
            f"below it hold no {wanted}. The copy is incomplete, or its files were renamed. Complete it, or name a "
            f"folder that holds all of it: {elsewhere}"
        )
    for above in list(folder.absolute().parents)[:3]:
        if any(folder.iterdir()) and any(all(any(above.glob(part)) for part in mark) for mark in names.marks):
            return UserError(f"{without}, but {above} holds {names.label}. Name that folder: {_use(names, above)}")
    for other in _others(names):
        if part := _recognised(tree, other):
            return UserError(
                f"{folder} holds {other.label}, not {names.label}: {part.relative_to(folder)} is there, but no "
                f"{wanted}. Use it as what it is: {_use(other, folder)}; or name another folder: {elsewhere}"
            )
    if archive:
        return _packed(folder, names, archive)
    if renamed := _renamed(tree, wanted):
        return UserError(
            f"{without}, but {renamed.relative_to(folder)}, which may be it under another name. If so, give it the "
            "name with which it was published, and run this again."
        )
    if unnamed := tree.first(*(f"{stem}{suffix}" for stem in DOWNLOADS for suffix in ARCHIVES)):
        return _packed(folder, names, unnamed)
    there = [path.rstrip("/") for path in tree.levels[1]]
    others = f" There are {', '.join(there[:3])}{', ...' * (len(there) > 3)}." if there else ""
    return MissingDataError(f"{without}.{others} {_get(names)}")


def _recognised(tree: _Tree, names: Names) -> Path | None:
    """Return a file or folder, up to three levels below a folder, that only this data set has."""
    for mark in names.marks:
        for level in LEVELS:
            for found in tree.all(level + mark[0]):
                above = found.parents[mark[0].count("/")].relative_to(tree.root).as_posix()
                start = "" if above == "." else f"{glob.escape(above)}/"
                if all(tree.all(start + other) for other in mark[1:]):
                    return found
    return None


def _others(names: Names) -> Iterator[Names]:
    for dataset in DATASETS:
        if dataset != names.dataset:
            yield importlib.import_module(f"benchmark.datasets.{dataset}").NAMES


def _archive(tree: _Tree, names: Names) -> Path | None:
    """Return an archive of the data set."""
    packed = [f"{stem}{suffix}" for stem in names.archives for suffix in ARCHIVES]
    return next((path for path in map(tree.first, below(*names.fetched, *packed)) if path and path.is_file()), None)


def _is_unpacked_by_us(archive: Path, folder: Path, names: Names) -> bool:
    """Whether `make data` verifies and unpacks an archive, because it has its published name and place."""
    return archive.parent == folder and archive.name in names.fetched


def archive_in(folder: Path, names: Names) -> Path | None:
    """Return an archive of the data set, under its published name or another one, directly in a folder."""
    packed = [f"{stem}{suffix}" for stem in names.archives for suffix in ARCHIVES[:-2]]
    found = _Tree(folder).first(*names.fetched, *packed)
    return found if found and found.is_file() else None


def _packed(folder: Path, names: Names, archive: Path) -> UserError:
    """Say that there is only an archive, which `make data` does not unpack."""
    unpack, into = ("unzip", "-d") if archive.suffix.lower() == ".zip" else ("tar -xf", "-C")
    fetched = names.fetched[0] if len(names.fetched) == 1 else ""
    own = f"move it to {folder / fetched} and run this again; or "
    if not fetched or (unpack == "unzip") != fetched.endswith(".zip"):
        own = ""  # under that name, it would be taken for a damaged download
    return UserError(
        f"{archive} is there, but not unpacked. If it is the archive of {names.label}, {own}unpack it yourself: "
        f"{unpack} {shlex.quote(str(archive))} {into} {shlex.quote(str(archive.parent))} and then {_use(names, folder)}"
    )


def _renamed(tree: _Tree, wanted: str) -> Path | None:
    """Return a file whose name is almost one of those that are wanted, such as `Ebay_train (1).txt`."""
    stems = [glob.escape(Path(name).stem) for name in wanted.split(" or ") if "*" not in name]
    found = (path for stem in stems for path in map(tree.first, below(f"{stem}*")) if path and path.is_file())
    return next((path for path in found if not path.name.lower().endswith(ARCHIVES)), None)


def beside(path: Path, name: str, names: Names) -> Path:
    """Return the file next to another one of the same data set.

    Args:
        path: a file of the data set.
        name: name of the file next to it.
        names: how the data set is recognised.

    Raises:
        UserError: there is no such file.
    """
    if (found := find(path.parent, name)) and found.is_file():
        return found
    near = _renamed(_Tree(path.parent), name)
    other = f" There is {near.name}, which may be it under another name." if near else ""
    raise UserError(
        f"{path} is there, but {name} of {names.label} is not next to it.{other} The copy is incomplete; put {name} "
        f"there, and run this again: {_use(names, path.parent)}"
    )


def find_base(root: str | Path, names: Names, paths: Sequence[str], *places: str) -> Path:
    """Find the folder that the paths of a list are relative to.

    Args:
        root: folder of the data set.
        names: how the data set is recognised.
        paths: the paths of a list.
        places: glob patterns of folders below `root`, each empty or ending with a slash.

    Raises:
        MissingDataError: none of the images is in any of these folders, but their archive is there.
        UserError: none of the images is in any of these folders.
    """
    folder = folder_of(root, names)
    if base := place_of(folder, paths, *places):
        return base
    raise no_images(folder, names, paths[0])


def no_images(folder: Path, names: Names, example: str) -> UserError:
    """Return the error that there are lists without their images.

    Args:
        folder: folder of the data set.
        names: how the data set is recognised.
        example: an image that was not found.
    """
    there, archive = first_image(folder), _archive(_Tree(folder), names)
    if archive and _is_unpacked_by_us(archive, folder, names):
        return MissingDataError(f"{archive} is there, but not unpacked. Unpack it: {_use(names, folder)}")
    other = f"The folder has other images, such as {there.relative_to(folder)}. " if there else ""
    packed = f"{archive} is there, but not unpacked. " if archive else ""
    return UserError(
        f"{folder} has lists of {names.label}, but not the images that they name: neither {example} nor the others "
        f"are in any known place. {other}{packed}Put the images next to the lists, as they were published; or name a "
        f"folder that holds both: {_use(names, Path('FOLDER'))}"
    )


def place_of(folder: Path, paths: Sequence[str], *places: str) -> Path | None:
    """Return the folder that the paths of a list are relative to; None if none of their images is found.

    Args:
        folder: folder of the data set.
        paths: the paths of a list; a sample of them is tried.
        places: glob patterns of folders below `folder`, each empty or ending with a slash.
    """
    some = paths[:: max(1, len(paths) // FEW)]
    for place in places:
        for image in some:
            for found in sorted(folder.glob(place + glob.escape(image))):
                if not any(map(is_hidden, found.relative_to(folder).parts)):
                    return found.parents[image.count("/")]
    many, tree = paths[:: max(1, len(paths) // MANY)], _Tree(folder)
    tops = dict.fromkeys(path.partition("/")[0] if "/" in path else "" for path in many)
    for place in places:
        for top in tops:
            for found in tree.all(f"{place}{glob.escape(top)}".rstrip("/")):
                base = found.parent if top else found
                masks = {*map(str.lower, base.relative_to(folder).parts)} & {*MASKS}
                if not masks and len(on_disk(base, many)[1]) < len(many):
                    return base
    return None


def first_image(folder: Path) -> Path | None:
    """Return an image below a folder; None if there is none among its first entries."""
    left = SEARCHED
    for at, inner, files in os.walk(folder):
        inner[:] = sorted(name for name in inner if not is_hidden(name))
        for name in sorted(files):
            if is_image(name) and not is_hidden(name):
                return Path(at, name)
        left -= len(files) + len(inner)
        if left < 0:
            break
    return None


# -- completeness -----------------------------------------------------------------------------------------------------


def complete(listing: Listing, names: Names, expected: Expected | None, check: str) -> Listing:
    """Return the listing with the names that its files have on disk, if all of them are there.

    A file may differ from its list in upper and lower case, in the form of accented letters and in its suffix, if there
    is only one such file; a note says how many do.

    Args:
        listing: the images as the lists name them.
        names: how the data set is recognised.
        expected: the published counts, see `check_counts`; None: not checked.
        check: `lists`, `files` or `images`, see `image_check.inspect`.

    Raises:
        UserError: counts differ, or images are missing or cannot be used; the message says how many in which classes.
    """
    if check not in CHECKS:
        raise UserError(f"check={check!r}: allowed are {', '.join(CHECKS)}.")
    check_counts(listing, expected, names.label, names.likely)
    paths, missing = on_disk(listing.root, listing.paths)
    if missing and check != "lists":
        raise UserError(_incomplete(listing, missing))
    renamed = [(old, new) for old, new in zip(listing.paths, paths, strict=True) if old != new]
    if renamed:
        old, new = renamed[0]
        note = (
            f"{len(renamed):,} of {len(paths):,} images have other names than in the lists: {new} is read for {old}. "
            "If they were converted, their pixels are not the published ones"
        )
        listing = dataclasses.replace(listing, paths=paths, notes=(*listing.notes, note))
    return check_images(listing, check)


def _incomplete(listing: Listing, missing: list[int]) -> str:
    """Say which images are missing, and from which classes."""
    lost = Counter(listing.labels[missing].tolist())
    sizes = np.bincount(listing.labels, minlength=listing.total_classes)  # as long as the list of class names
    whole = sum(count == sizes[label] for label, count in lost.items())
    classes = [f"{listing.class_names[label]} ({count:,} of {sizes[label]:,})" for label, count in lost.most_common()]
    remedy = (
        f"Images of {len(lost):,} of {listing.total_classes:,} classes are missing: {named(classes)}; "
        f"{whole:,} classes have none. The copy is incomplete; download it again, or unpack it again."
    )
    lines = [f"image {i + 1}: {listing.paths[i]} is missing" for i in missing]
    return describe_unusable(listing.root, len(listing.paths), lines, remedy)


def on_disk(root: Path, paths: Sequence[str]) -> tuple[list[str], list[int]]:
    """Return the paths as they are on disk, and the positions of those that are missing there.

    Args:
        root: folder that the paths are relative to.
        paths: paths with forward slashes.

    Raises:
        UserError: a folder cannot be read.
    """
    folders = _Folders(root)
    found = [folders.locate(path) for path in paths]
    missing = [i for i, path in enumerate(found) if path is None]
    return [path or old for path, old in zip(found, paths, strict=True)], missing


class _Folders:
    """The names in the folders below a root, each of which is read once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.names: dict[str, set[str]] = {}  # by folder, as it is on disk
        self.alike: dict[str, dict[str, list[str]]] = {}  # the same names, by `_folded`
        self.real: dict[str, str | None] = {"": ""}  # folder on disk, by folder in the list

    def locate(self, path: str) -> str | None:
        """Return the path on disk of a file of the list; None if it or its only likely equivalent is missing."""
        folder, _, name = path.rpartition("/")
        real = self._folder(folder)
        return None if real is None else self._entry(real, name, is_file=True)

    def _folder(self, folder: str) -> str | None:
        if folder not in self.real:
            above, _, name = folder.rpartition("/")
            real = self._folder(above)
            self.real[folder] = None if real is None else self._entry(real, name, is_file=False)
        return self.real[folder]

    def _entry(self, folder: str, name: str, *, is_file: bool) -> str | None:
        if folder not in self.names:
            self.names[folder] = _entries(self.root / folder)
        start = f"{folder}/" if folder else ""
        if name in self.names[folder]:
            return start + name
        if folder not in self.alike:
            self.alike[folder] = {}
            for entry in self.names[folder]:
                for key in {_folded(entry), *([_folded(os.path.splitext(entry)[0], "*")] * is_image(entry))}:
                    self.alike[folder].setdefault(key, []).append(entry)
        keys = [_folded(name), *([_folded(os.path.splitext(name)[0], "*")] * is_file)]
        for key in keys:
            if len(entries := self.alike[folder].get(key, [])) == 1:
                return start + entries[0]
        return None


def _folded(name: str, suffix: str = "") -> str:
    return unicodedata.normalize("NFC", name).casefold() + suffix


def _entries(folder: Path) -> set[str]:
    """Return the names in a folder; none if there is no such folder.

    Raises:
        UserError: the folder cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries}
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        what = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(
            f"The folder {folder} cannot be read: {what}. Make it readable, or move it elsewhere."
        ) from error
