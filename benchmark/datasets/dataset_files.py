"""Finding a data set's files in whatever layout they were left, reading its lists, and checking its pictures."""

import glob
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmark.datasets.image_check import complaints
from benchmark.datasets.listing import Listing, MissingDataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
SHOWN = 5  # rows that a message names


def find(root: Path, *patterns: str) -> Path | None:
    """The first file or folder below `root` that matches, patterns in their order; litter of macOS does not count."""
    for pattern in patterns:
        for path in sorted(root.glob(pattern)):
            if not any(part.startswith("._") or part == "__MACOSX" for part in path.relative_to(root).parts):
                return path
    return None


def anywhere(name: str) -> tuple[str, ...]:
    """Patterns for a name in a folder, or in a folder of it, or in a folder of that."""
    return name, f"*/{name}", f"*/*/{name}"


def need(root: str | Path, name: str, *patterns: str) -> Path:
    """The same, where the data set is nothing without it.

    Args:
        root: folder of the data set.
        name: of the data set.
        patterns: what marks it.

    Raises:
        MissingDataError: there is none.
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise MissingDataError(f"There is no folder {folder}. {_get(name)}")
    if (found := find(folder, *patterns)) is None:
        marks = " or ".join(dict.fromkeys(pattern.rpartition("*/")[2] for pattern in patterns))
        raise MissingDataError(f"{folder} holds no {marks}. {_get(name)}")
    return found


def _get(name: str) -> str:
    return f"Get the data: make data DATASET={name}; or say where it is: make data DATASET={name} ROOT=FOLDER."


def need_base(root: str | Path, name: str, picture: str, *places: str) -> Path:
    """Where the paths of a list start: the folder, at one of these places below `root`, that has its first picture.

    Raises:
        MissingDataError: no place has it.
    """
    folder = Path(root).expanduser()
    for place in places:
        if found := find(folder, f"{place}{glob.escape(picture)}"):
            return found.parents[picture.count("/")]
    raise MissingDataError(
        f"{folder} has the lists, but not {picture}, the first picture in them, in any known place. {_get(name)}"
    )


def read_rows(path: Path, fields: Mapping[str, type], *, skip: int = 0, separator: str | None = None) -> list[Any]:
    """The rows of a list, a tuple each; blank lines do not count.

    Args:
        path: text in UTF-8.
        fields: what each field is called, and whether it is `str` or `int`.
        skip: header lines.
        separator: None for any number of blanks.

    Raises:
        ValueError: the file cannot be read, or a row has other fields; it is named with its line.
    """
    if not path.is_file():
        raise MissingDataError(f"There is no file {path}. The copy is incomplete; fetch it anew.")
    rows = []
    for number, line in enumerate(read_text(path).splitlines()[skip:], start=skip + 1):
        values = [value.strip() for value in line.split(separator)]
        if not any(values):
            continue
        try:
            rows.append(tuple(kind(value) for kind, value in zip(fields.values(), values, strict=True)))
        except ValueError:
            raise ValueError(f"{path}, line {number}: {line[:80]!r} should hold {', '.join(fields)}.") from None
    return rows


def read_text(path: Path) -> str:
    """The file's text.

    Raises:
        ValueError: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}. Fetch it anew.") from error


def pictures_in(folder: Path) -> list[str]:
    """Names of the pictures in a folder, in the order of strings; hidden files and other kinds do not count."""
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.name[0] != "." and e.name.lower().endswith(SUFFIXES) and e.is_file())


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder, in the order of strings; hidden ones do not count."""
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.name[0] != "." and e.name != "__MACOSX" and e.is_dir())


def check_pictures(listing: Listing, check: str) -> Listing:
    """The listing, if its pictures are well.

    Raises:
        ValueError: some are not; the first of them are named with their row.
    """
    bad = [(row, wrong) for row, wrong in enumerate(complaints(listing.root, listing.paths, check)) if wrong]
    if bad:
        named = "\n  ".join(f"picture {row + 1}: {listing.paths[row]} {wrong}" for row, wrong in bad[:SHOWN])
        more = f"\n  and {len(bad) - SHOWN:,} more" * (len(bad) > SHOWN)
        raise ValueError(
            f"{len(bad):,} of {len(listing.paths):,} pictures in {listing.root} cannot be used:\n  {named}{more}\n"
            "The copy is incomplete; fetch it anew, or unpack it again."
        )
    return listing
