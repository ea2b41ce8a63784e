"""Writing tables as CSV files."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmark.core import records
from benchmark.core.escape import csv_text

NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?", re.ASCII)


def as_csv(rows: Iterable[Sequence[object]]) -> str:
    r"""Return a table as CSV; texts are escaped unless they are formatted numbers, see `csv_text`.

    >>> as_csv([["class", "score"], ["=1+1", -0.5], ["gull", "-5e-1"], ["tern", None]])
    "class,score\n'=1+1,-0.5\ngull,-5e-1\ntern,\n"

    Args:
        rows: the headings, then the cells of each line; None is an empty cell.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(map(_cell, row) for row in rows)
    return text.getvalue()


def write_csv(path: Path, rows: Iterable[Sequence[object]]) -> Path:
    """Write a table as by `as_csv`, and return the path.

    Args:
        path: the file, which is replaced.
        rows: the headings, then the cells of each line.

    Raises:
        WriteError: the file cannot be written.
    """
    records.write_whole(path, as_csv(rows).encode())
    return path


def _cell(value: object) -> object:
    return csv_text(value) if isinstance(value, str) and not NUMBER.fullmatch(value) else value
