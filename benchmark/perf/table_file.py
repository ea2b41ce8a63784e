"""The table of `make bench` as a file, one for each kind of machine, and what became slower since it was written."""

import csv
import re
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmark.core import records
from benchmark.core.csv_file import as_csv
from benchmark.core.provenance import commit, hardware, versions
from benchmark.core.threads import usable_cores
from benchmark.perf.timing import Row

COLUMNS = (
    "measured",
    "unit",
    "better",
    "target",
    "median",
    "lowest",
    "highest",
    "rounds",
    "wall_clock",
    "verdict",
    "compared",
)
WORSE = 0.1  # relative change from which a row is listed
LIBRARIES = ("python", "torch", "numpy", "pytorch-metric-learning", "ax-platform")


def path_for(folder: Path) -> Path:
    """The file for machines like this one: those with the same processor and number of usable cores.

    Args:
        folder: the results folder.
    """
    kind = re.sub(r"[^A-Za-z0-9]+", "_", f"{hardware()['cpu']} {usable_cores()} cores").strip("_").lower()
    return folder / "bench" / f"{kind}.csv"


def slower(rows: Sequence[Row], path: Path) -> list[str]:
    """A sentence for each row whose median is worse than that in the file by more than `WORSE`.

    Args:
        rows: the new rows.
        path: an earlier table; it need not exist.
    """
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        lines = (line for line in file if not line.startswith("#"))
        before = {row["measured"]: float(row["median"]) for row in csv.DictReader(lines) if row["median"]}
    found = []
    for row in rows:
        if not row.values or not before.get(row.what):
            continue
        median, earlier = statistics.median(row.values), before[row.what]
        change = median / earlier - 1
        if (change < -WORSE) if row.target[0] == ">=" else (change > WORSE):
            found.append(f"{row.what}: {median:.3g} {row.unit}, {earlier:.3g} in {path} ({change:+.0%})")
    return found


def write_table(rows: Sequence[Row], path: Path) -> None:
    """Write the rows as CSV, after lines with the machine, the versions and the commit that start with `#`.

    Args:
        rows: the rows.
        path: the file, which is replaced.

    Raises:
        WriteError: it cannot be written.
    """
    lines = []
    for row in rows:
        spread = [f"{function(row.values):.4g}" if row.values else "" for function in (statistics.median, min, max)]
        wall = f"{statistics.median(row.wall):.4g}" if row.wall else ""
        better = "higher" if row.target[0] == ">=" else "lower"
        cells = [row.what, row.unit, better, f"{row.target[1]:g}", *spread, len(row.values), wall]
        lines.append([*cells, row.verdict(), row.compared])
    write_lines(path, COLUMNS, lines)


def write_lines(path: Path, columns: Sequence[str], lines: Iterable[Sequence[object]]) -> None:
    """Write a table as CSV, after lines with the machine, the versions and the commit that start with `#`.

    Args:
        path: the file, which is replaced.
        columns: the headings.
        lines: the cells of each line.

    Raises:
        WriteError: it cannot be written.
    """
    used = versions()
    about = [f"{hardware()['cpu']}, {usable_cores()} cores, {hardware()['system']}", f"commit {commit()}",
             ", ".join(f"{name} {used[name]}" for name in LIBRARIES if name in used)]  # fmt: skip
    head = "".join(f"# {line}\n" for line in about)
    records.write_whole(path, (head + as_csv([columns, *lines])).encode())
