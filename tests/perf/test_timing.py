"""How jobs are timed and compared."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.perf.timing import Row, Spent, children_time, interleave, own_time, peak_megabytes, ratio_row


class FakeClock:
    """A clock that only moves when work is done."""

    def __init__(self) -> None:
        self.cpu, self.wall, self.order = 100.0, 5.0, ""

    def __call__(self) -> Spent:
        return Spent(self.cpu, self.wall)

    def work(self, name: str, cpu: list[float], wall: float) -> None:
        self.order += name
        self.cpu += cpu.pop(0)
        self.wall += wall


def test_jobs_take_turns_in_alternating_order_and_the_first_round_does_not_count() -> None:
    clock = FakeClock()
    seconds = {"a": [50.0, 1.0, 2.0], "b": [70.0, 3.0, 8.0]}
    jobs = {"a": lambda: clock.work("a", seconds["a"], 1.0), "b": lambda: clock.work("b", seconds["b"], 2.0)}
    spent = interleave(jobs, 2, clock)
    assert clock.order == "ab" + "ba" + "ab"
    assert spent == {"a": [Spent(1.0, 1.0), Spent(2.0, 1.0)], "b": [Spent(3.0, 2.0), Spent(8.0, 2.0)]}


def test_ratios_are_taken_within_a_round_and_their_median_decides() -> None:
    # Rounds of 10, 1 and 4 over 2, 1 and 1: ratios 5, 1 and 4. Their median is 4, that of sums or medians is not.
    over, under = [Spent(c, 1.0) for c in (10, 1, 4)], [Spent(c, 2.0) for c in (2, 1, 1)]
    row = ratio_row("speed", (">=", 4.0), over, under, "with nothing")
    assert row.values == [5.0, 1.0, 4.0] and row.wall == [0.5, 0.5, 0.5]
    assert row.cells() == ["speed", ">= 4 x", "4.00 x", "1.00 - 5.00", "0.50 x", "reached", "with nothing"]
    targets = [((">=", 4.1), "MISSED"), (("<=", 4.0), "reached"), (("<=", 3.9), "MISSED")]
    assert all(Row("speed", target, row.values, "").verdict() == verdict for target, verdict in targets)


def test_the_clock_of_child_processes_counts_theirs_and_that_of_this_process_does_not() -> None:
    own, children = own_time(), children_time()
    subprocess.run([sys.executable, "-c", "for _ in range(10**6): pass"], check=True)
    spent = children_time().cpu - children.cpu
    assert spent > 0 and own_time().cpu - own.cpu < max(spent, 0.05) < own_time().wall - own.wall + 0.05


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux passes the peak on to children")
def test_the_peak_of_memory_is_that_of_the_process_and_not_of_its_parent() -> None:
    ballast = bytearray(b"x") * 300_000_000
    code = "from benchmark.perf.timing import peak_megabytes; print(peak_megabytes())"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=Path(__file__).parents[2])
    assert 1 < float(done.stdout) < 150 < peak_megabytes()
    assert len(ballast) == 300_000_000
