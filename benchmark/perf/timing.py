"""Fair timing of rivals, and the table of what came out.

Rivals take turns, so that a machine that is busy or changes its speed hurts all of them; ratios are taken within a
round and their median decides. CPU seconds come first, since other processes hardly move them; the wall clock stands
beside.
"""

import itertools
import os
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple


class Spent(NamedTuple):
    """Seconds that a piece of work took."""

    cpu: float
    wall: float


def own_time() -> Spent:
    """Clocks of this process."""
    return Spent(time.process_time(), time.perf_counter())


def children_time() -> Spent:
    """Clocks of the processes that this one started and saw end."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Spent(used.ru_utime + used.ru_stime, time.perf_counter())


def interleave(
    jobs: Mapping[str, Callable[[], Any]], repeats: int, clock: Callable[[], Spent] = own_time
) -> dict[str, list[Spent]]:
    """What every repeat of every job took: rounds that go through the jobs back and forth, the first one uncounted.

    Args:
        jobs: each does its work once per call.
        repeats: counted rounds.
        clock: read before and after each call.
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


def peak_megabytes() -> float:
    """The most memory that this process has had, in MB of 10^6 bytes.

    `ru_maxrss` will not do on Linux: over fork and exec a child inherits its parent's.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text(encoding="utf-8").partition("VmHWM:")[2].split()[0]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # macOS counts bytes


def peak_allocated(work: Callable[[], Any]) -> int:
    """The most bytes that torch had allocated on the CPU at once during `work`, above what it had before."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "9")  # the profiler tells of its own start and of missing GPUs
    import torch

    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    results = profiler.profiler.kineto_results
    changes = [(event.start_ns(), event.nbytes()) for event in results.events() if event.name() == "[memory]"]
    return max(itertools.accumulate((change for _, change in sorted(changes)), initial=0))


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        what: is measured.
        target: `>=` or `<=`, and a number.
        values: measured, one for each repeat; none if there is nothing to measure yet.
        compared: with what, and how; or why there are no values.
        unit: of the values; `x` for ratios.
        wall: the same by the wall clock, where `values` are CPU time.
    """

    what: str
    target: tuple[str, float]
    values: list[float]
    compared: str
    unit: str = "x"
    wall: list[float] = field(default_factory=list)

    def verdict(self) -> str:
        """Whether the median reaches the target."""
        if not self.values:
            return "not measured"
        median, (sign, bound) = statistics.median(self.values), self.target
        return "reached" if (median >= bound if sign == ">=" else median <= bound) else "MISSED"

    def cells(self) -> list[str]:
        """The line as text."""
        median = f"{statistics.median(self.values):.2f} {self.unit}" if self.values else ""
        spread = f"{min(self.values):.2f} - {max(self.values):.2f}" if len(self.values) > 1 else ""
        wall = f"{statistics.median(self.wall):.2f} {self.unit}" if self.wall else ""
        target = f"{self.target[0]} {self.target[1]:g} {self.unit}"
        return [self.what, target, median, spread, wall, self.verdict(), self.compared]


def ratio_row(what: str, target: tuple[str, float], over: list[Spent], under: list[Spent], compared: str) -> Row:
    """A row of ratios, one for each round."""
    pairs = list(zip(over, under, strict=True))
    return Row(what, target, [a.cpu / b.cpu for a, b in pairs], compared, wall=[a.wall / b.wall for a, b in pairs])


def table(rows: list[Row]) -> str:
    """The rows in aligned columns."""
    head = ["measured", "target", "median", "min - max", "by the wall", "", "compared"]
    lines = [head, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head) - 1)]
    padded = ([cell.ljust(width) for cell, width in zip(line, widths, strict=False)] + line[-1:] for line in lines)
    return "\n".join("  ".join(cells).rstrip() for cells in padded)
