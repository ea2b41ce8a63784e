"""Find the files of a data set, however they were unpacked, and read its lists."""

import glob
import os
from pathlib import Path
from typing import NamedTuple, TypeVar, get_type_hints

from benchmark.core.errors import UserError
from benchmark.core.invocation import command
from benchmark.datasets.listing import MissingDataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
Row = TypeVar("Row", bound=NamedTuple)


def find(root: Path, *patterns: str) -> Path | None:
    """Find the first file or folder below `root` that matches, trying patterns in order; macOS metadata is ignored.

    Args:
        root: folder to search.
        patterns: glob patterns, relative to `root`.
    """
    for pattern in patterns:
        for path in sorted(root.glob(pattern)):
            if not any(part.startswith("._") or part == "__MACOSX" for part in path.relative_to(root).parts):
                return path
    return None


def up_to_two_levels(name: str) -> tuple[str, ...]:
    """Return patterns for a name in a folder, in its subfolders and in their subfolders.

    >>> up_to_two_levels("images.txt")
    ('images.txt', '*/images.txt', '*/*/images.txt')
    """
    return name, f"*/{name}", f"*/*/{name}"


def find_required(root: str | Path, dataset: str, *patterns: str) -> Path:
    """Find the first file or folder below `root` that matches; without a match, the data set is missing.

    Args:
        root: folder of the data set.
        dataset: name of the data set.
        patterns: glob patterns, relative to `root`.

    Raises:
        MissingDataError: nothing matches.
        UserError: nothing matches, but one of the folders cannot be read.
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise MissingDataError(f"There is no folder {folder}. {_get(dataset)}")
    if (found := find(folder, *patterns)) is None:
        _check_readable(folder, max(pattern.count("/") for pattern in patterns))
        marks = " or ".join(dict.fromkeys(pattern.rpartition("*/")[2] for pattern in patterns))
        raise MissingDataError(f"{folder} holds no {marks}. {_get(dataset)}")
    return found


def _check_readable(folder: Path, depth: int) -> None:
    """Check that all subfolders are readable, since `Path.glob` silently skips those that are not."""
    for name in subfolders(folder):
        if depth > 0:
            _check_readable(folder / name, depth - 1)


def _get(dataset: str) -> str:
    get = command("data", {"dataset": dataset})
    find = command("data", {"dataset": dataset, "dataset.module.root": "FOLDER"})
    return f"Get the data: {get}; or name its folder: {find}."


def find_base(root: str | Path, dataset: str, image: str, *places: str) -> Path:
    """Find the folder that the paths of a list are relative to.

    Args:
        root: folder of the data set.
        dataset: name of the data set.
        image: first path in the list.
        places: glob patterns of folders below `root`, each empty or ending with a slash.

    Raises:
        MissingDataError: the image is in none of these folders.
    """
    folder = Path(root).expanduser()
    for place in places:
        if found := find(folder, f"{place}{glob.escape(image)}"):
            return found.parents[image.count("/")]
    raise MissingDataError(
        f"{folder} has the lists, but not {image}, the first image in them, in any known place. {_get(dataset)}"
    )


def read_rows(path: Path, kind: type[Row], *, skip: int = 0, separator: str | None = None) -> list[Row]:
    """Read the rows of a list; blank lines are ignored.

    Args:
        path: text file in UTF-8.
        kind: a named tuple whose fields are `str` or `int`.
        skip: number of header lines.
        separator: separator of fields; None: any whitespace.

    Raises:
        MissingDataError: there is no such file.
        UserError: the file cannot be read, or a row has other fields; the message names the line.
    """
    if not path.is_file():
        raise MissingDataError(f"There is no file {path}. The copy is incomplete; download it again.")
    types = [get_type_hints(kind)[field] for field in kind._fields]
    rows = []
    for number, line in enumerate(read_text(path).splitlines()[skip:], start=skip + 1):
        texts = [text.strip() for text in line.split(separator)]
        if not any(texts):
            continue
        values = [_typed(text, field) for text, field in zip(texts, types, strict=False)]
        if len(texts) != len(types) or None in values:
            raise UserError(f"{path}, line {number}: {line[:80]!r} should hold {', '.join(kind._fields)}.")
        rows.append(kind._make(values))
    return rows


def _typed(text: str, field: type[str] | type[int]) -> str | int | None:
    try:
        return field(text)
    except ValueError:
        return None


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, with or without a byte order mark.

    Raises:
        UserError: the file cannot be read or is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}. Make it readable, or get it again.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} cannot be read as UTF-8 text: {error}. Save it as UTF-8, or get it again.") from error


def image_names(folder: Path) -> list[str]:
    """Return the names of the image files in a folder, sorted as strings; hidden and other files are ignored.

    Raises:
        UserError: the folder cannot be read.
    """
    return [name for name, is_folder in _entries(folder) if not is_folder and name.lower().endswith(SUFFIXES)]


def subfolders(folder: Path) -> list[str]:
    """Return the names of the subfolders of a folder, sorted as strings; hidden ones are ignored.

    Raises:
        UserError: the folder cannot be read.
    """
    return [name for name, is_folder in _entries(folder) if is_folder and name != "__MACOSX"]


def _entries(folder: Path) -> list[tuple[str, bool]]:
    """Return the sorted names of all entries of a folder that are not hidden, and whether each is a folder."""
    try:
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if entry.name[0] != "."]
            return sorted((entry.name, entry.is_dir()) for entry in visible if entry.is_dir() or entry.is_file())
    except OSError as error:
        raise UserError(
            f"The folder {folder} cannot be read: {error.strerror}. Make it readable, or move it elsewhere."
        ) from error
