"""Check the rows of the lists of published data sets: paths, ids and class numbers, each named by its line."""

import posixpath
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path

from benchmark.core.errors import UserError
from benchmark.core.paths import stays_inside
from benchmark.datasets.dataset_files import read_text

Where = Callable[[int], str]  # names a row in messages, given its position from 0


def at_line(path: Path, skip: int = 0) -> Where:
    """Return a function that names the line of a row of `read_rows`, which ignores blank lines.

    Args:
        path: the list.
        skip: number of header lines.
    """

    def where(row: int) -> str:
        lines = enumerate(read_text(path).splitlines()[skip:], start=skip + 1)
        numbers = [number for number, line in lines if line.strip(" \t,")]
        return f"{path}, line {numbers[row] if row < len(numbers) else row + 1 + skip}"

    return where


def at_entry(path: Path, what: str = "entry") -> Where:
    """Return a function that names an entry of a file by its number from 1.

    Args:
        path: the file.
        what: the kind of the entries.
    """
    return lambda row: f"{path}, {what} {row + 1}"


def inside(paths: Sequence[str], where: Where) -> list[str]:
    """Return the paths of a list in their simplest form, if all of them are below the folder of the data.

    >>> inside(["./a/b.jpg", "a//c.jpg"], lambda row: f"row {row}")
    ['a/b.jpg', 'a/c.jpg']

    Args:
        paths: paths with forward slashes.
        where: names a row.

    Raises:
        UserError: a path is empty, absolute or leads outside, or is written in the way of Windows.
    """
    simple = []
    for row, path in enumerate(paths):
        name = posixpath.normpath(path) if path else ""
        if not stays_inside(name) or path[1:2] == ":":
            raise UserError(f"{where(row)}: {path[:80]!r} leads outside the folder of the images. {_AGAIN}")
        if "\\" in path or not path.isprintable():
            raise UserError(f"{where(row)}: {path[:80]!r} is not a path with forward slashes. {_AGAIN}")
        if name in ("", ".") or path.endswith("/") or max(map(len, name.split("/"))) > 255 or len(name) > 4000:
            raise UserError(f"{where(row)}: {path[:80]!r} is not the name of a file. {_AGAIN}")
        simple.append(name)
    return simple


def numbered(ids: Sequence[int], where: Where, *, what: str = "class", first: int = 1) -> int:
    """Return how many different numbers there are, if they are `first`, `first + 1`, ... without a gap.

    Args:
        ids: the number in each row; nothing is allocated by its size.
        where: names a row.
        what: what is numbered.
        first: the lowest number.

    Raises:
        UserError: a number is too small or too large; the message names its row.
    """
    count = len(set(ids))
    for row, number in enumerate(ids):
        if not first <= number < first + count:
            raise UserError(
                f"{where(row)}: {what} {_short(number)} is out of range, since the {count:,} different {what} numbers "
                f"of the data set must be {first} to {first + count - 1}, without a gap. {_AGAIN}"
            )
    return count


def distinct(values: Sequence[Hashable], where: Where, what: str) -> None:
    """Check that no value occurs twice.

    Args:
        values: the value of each row.
        where: names a row.
        what: what the values are.

    Raises:
        UserError: a value occurs twice; the message names its second row.
    """
    seen: set[Hashable] = set()
    for row, value in enumerate(values):
        if value in seen:
            raise UserError(f"{where(row)}: {what} {_short(value)} occurs a second time. {_AGAIN}")
        seen.add(value)


_AGAIN = "The list is damaged or was changed; download it again."


def _short(value: object) -> str:
    return f"{value}" if not isinstance(value, int) or abs(value) < 10**30 else "with more than 30 digits"
