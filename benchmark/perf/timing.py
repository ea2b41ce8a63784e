"""Timing of jobs that are compared with each other, and the table of results.

The jobs take turns, so that background load and changes of clock speed affect all of them; ratios are computed within a
round, and their median is reported. CPU time comes first, since other processes hardly affect it; wall-clock time is
shown next to it.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from benchmark.core.paths import CHECKOUT_DIR


class Spent(NamedTuple):
    """Seconds that a job took.

    Attributes:
        cpu: CPU time.
        wall: wall-clock time.
    """

    cpu: float
    wall: float


def own_time() -> Spent:
    """CPU time of this process, and the wall clock."""
    return Spent(time.process_time(), time.perf_counter())


def children_time() -> Spent:
    """CPU time of the finished child processes, and the wall clock."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Spent(used.ru_utime + used.ru_stime, time.perf_counter())


def in_fresh_process(call: str) -> Any:
    """What a call such as `cpu.child('ours')`, of a module next to this one, prints as JSON in a new process.

    It has one thread.

    Raises:
        CalledProcessError: the process failed.
    """
    command = [sys.executable, "-c", f"from benchmark.perf import {call.partition('.')[0]}; {call}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return json.loads(
        subprocess.run(command, cwd=CHECKOUT_DIR, env=environment, check=True, capture_output=True).stdout
    )


def interleave(
    jobs: Mapping[str, Callable[[], object]], repeats: int, clock: Callable[[], Spent] = own_time
) -> dict[str, list[Spent]]:
    """Time every job in turn, in rounds that alternate the order of the jobs; the first round is a warm-up.

    Args:
        jobs: jobs by name; a call does the work once.
        repeats: rounds after the warm-up.
        clock: read before and after each call.

    Returns:
        For each job, its times in each round.
    """
    spent: dict[str, list[Spent]] = {name: [] for name in jobs}
    for number in range(repeats + 1):
        for name in list(jobs)[:: -1 if number % 2 else 1]:
            start = clock()
            jobs[name]()
            end = clock()
            if number:
                spent[name].append(Spent(end.cpu - start.cpu, end.wall - start.wall))
    return spent


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        what: name of the measurement.
        target: `>=` or `<=`, and the bound for the median.
        values: one per round; empty if it was not measured.
        compared: what is compared and how, or why it was not measured.
        unit: unit of the values; `x` for ratios.
        wall: wall-clock counterparts of `values`, if these are CPU time.
    """

    what: str
    target: tuple[str, float]
    values: list[float]
    compared: str
    unit: str = "x"
    wall: list[float] = field(default_factory=list)

    def verdict(self) -> str:
        """Whether the median reaches the target: `reached`, `MISSED` or `not measured`."""
        if not self.values:
            return "not measured"
        median, (sign, bound) = statistics.median(self.values), self.target
        return "reached" if (median >= bound if sign == ">=" else median <= bound) else "MISSED"

    def cells(self) -> list[str]:
        """The row as text, one string per column."""
        median = f"{statistics.median(self.values):.2f} {self.unit}" if self.values else ""
        spread = f"{min(self.values):.2f} - {max(self.values):.2f}" if len(self.values) > 1 else ""
        wall = f"{statistics.median(self.wall):.2f} {self.unit}" if self.wall else ""
        target = f"{self.target[0]} {self.target[1]:g} {self.unit}"
        return [self.what, target, median, spread, wall, self.verdict(), self.compared]


def ratio_row(what: str, target: tuple[str, float], over: list[Spent], under: list[Spent], compared: str) -> Row:
    """A row of ratios, one per round: the time of `over` divided by the time of `under`."""
    pairs = list(zip(over, under, strict=True))
    return Row(what, target, [a.cpu / b.cpu for a, b in pairs], compared, wall=[a.wall / b.wall for a, b in pairs])


def table(rows: list[Row]) -> str:
    """Format the rows in aligned columns."""
    head = ["measured", "target", "median", "min - max", "wall clock", "", "compared"]
    lines = [head, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head) - 1)]
    padded = ([cell.ljust(width) for cell, width in zip(line, widths, strict=False)] + line[-1:] for line in lines)
    return "\n".join("  ".join(cells).rstrip() for cells in padded)
