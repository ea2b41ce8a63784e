"""List the files in the folders of a data set, and read its lists."""

import os
import re
from pathlib import Path
from typing import NamedTuple, TypeVar, get_type_hints

from benchmark.core import formats
from benchmark.core.errors import UserError
from benchmark.datasets.image_tree import is_hidden
from benchmark.datasets.listing import MissingDataError

TEXT_BYTES = 1 << 28  # the largest genuine list, train2019.json of iNaturalist, has less than 100 MB
LIST_BYTES = 1 << 26  # of a list in rows; the largest genuine ones have 4 MB
LARGEST = 10_000_000  # id
DIGITS = re.compile("[0-9]{1,12}")
Row = TypeVar("Row", bound=NamedTuple)


def read_rows(path: Path, kind: type[Row], *, skip: int = 0, separator: str | None = None) -> list[Row]:
    """Read the rows of a list; blank lines are ignored.

    Args:
        path: text file in UTF-8, at most `LIST_BYTES`.
        kind: a named tuple whose fields are `str`, not empty, or `int`, from 0 to `LARGEST` in decimal digits.
        skip: number of header lines.
        separator: separator of fields; None: any whitespace.

    Raises:
        MissingDataError: there is no such file.
        UserError: the file cannot be read, or a row has other fields; the message names the line.
    """
    if not path.exists():
        raise MissingDataError(f"There is no file {path}. The copy is incomplete; download it again.")
    types = get_type_hints(kind)
    rows = []
    for number, line in enumerate(read_text(path, at_most=LIST_BYTES).splitlines()[skip:], start=skip + 1):
        texts = [text.strip() for text in line.split(separator, len(types))]
        if not any(texts):
            continue
        said = f"{path}, line {number}: {line[:80]!r} should hold {', '.join(types)}"
        if len(texts) != len(types):
            raise UserError(f"{said}.")
        for (name, field), text in zip(types.items(), texts, strict=True):
            if wrong := _wrong(text, field):
                raise UserError(f"{said}, but {name} is {wrong}.")
        rows.append(kind._make(field(text) for field, text in zip(types.values(), texts, strict=True)))
    return rows


def _wrong(text: str, field: type[str] | type[int]) -> str | None:
    """What is wrong with a field, in words; None if nothing is."""
    if not text:
        return "empty"
    if field is int and not (DIGITS.fullmatch(text) and int(text) <= LARGEST):
        return f"{text[:40]!r}, not a number from 0 to {LARGEST:,}"
    if not text.isprintable():
        return f"{text[:40]!r}, with characters that cannot be printed"
    return None


def read_text(path: Path, *, at_most: int = TEXT_BYTES) -> str:
    """Read a text file in UTF-8, with or without a byte order mark.

    Args:
        path: path of the file.
        at_most: a file with more bytes is refused.

    Raises:
        UserError: the file cannot be read, is not UTF-8, or is too large.
    """
    if special := formats.kind(path):
        raise UserError(f"{path} is {special}, not a file with a list. Move it away, or get the list again.")
    try:
        if (size := path.stat().st_size) > at_most:
            raise UserError(f"{path} has {size:,} bytes, but a list has at most {at_most:,}. Is it another file?")
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}. Make it readable, or get it again.") from error
    found = formats.name(content[: formats.HEAD]) if content else None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        wrong = f"it is {found}" if found else f"line {line} has the byte 0x{content[error.start]:02x}"
    else:
        if found not in formats.TEXTS and "\0" not in text:
            return text
        wrong = f"it is {found or 'binary, or UTF-16'}"
    raise UserError(f"{path} cannot be read as UTF-8 text: {wrong}. Save it as UTF-8, or get it again.")


def subfolders(folder: Path) -> list[str]:
    """Return the names of the subfolders of a folder, sorted as strings; see `is_hidden` for those left out.

    Raises:
        UserError: the folder cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if not is_hidden(entry.name)]
            return sorted(name for name in names if os.path.isdir(folder / name))
    except OSError as error:
        raise UserError(
            f"The folder {folder} cannot be read: {error.strerror}. Make it readable, or move it elsewhere."
        ) from error
