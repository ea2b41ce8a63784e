import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmark.perf.timing import Row, Spent, children_time, interleave, own_time, peak_megabytes, ratio_row, table


class FakeClock:
    """A clock that only moves when work is done."""

    def __init__(self) -> None:
        self.cpu, self.wall = 100.0, 5.0
        self.order = ""

    def __call__(self) -> Spent:
        return Spent(self.cpu, self.wall)

    def work(self, name: str, cpu: list[float], wall: float) -> None:
        self.order += name
        self.cpu += cpu.pop(0)
        self.wall += wall


def test_rivals_take_turns_back_and_forth_and_the_first_round_does_not_count() -> None:
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


@pytest.mark.parametrize(
    ("target", "values", "verdict"),
    [
        ((">=", 1.1), [1.1], "reached"), ((">=", 1.1), [9.0, 1.09, 1.0], "MISSED"),
        (("<=", 200), [200.0], "reached"), (("<=", 200), [200.1], "MISSED"), (("<=", 10), [], "not measured"),
    ],
)  # fmt: skip
def test_a_target_is_held_against_the_median(target: tuple[str, float], values: list[float], verdict: str) -> None:
    assert Row("this", target, values, "that").verdict() == verdict


def test_a_table_aligns_its_columns_and_leaves_out_what_was_not_measured() -> None:
    rows = [
        Row("a long name", (">=", 1.0), [3.0, 1.0], "x against y", wall=[2.5]),
        Row("short", ("<=", 10), [], "run it first", "min"),
    ]
    assert table(rows).splitlines() == [
        "measured     target     median  min - max    by the wall                compared",
        "a long name  >= 1 x     2.00 x  1.00 - 3.00  2.50 x       reached       x against y",
        "short        <= 10 min                                    not measured  run it first",
    ]


def test_the_clock_of_this_process_counts_work_and_the_clock_of_children_theirs() -> None:
    own, children = own_time(), children_time()
    subprocess.run([sys.executable, "-c", "for _ in range(10**6): pass"], check=True)
    assert children_time().cpu > children.cpu
    while time.process_time() == own.cpu:
        pass
    assert own_time().cpu > own.cpu and own_time().wall > own.wall


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux hands the peak down")
def test_the_peak_of_memory_is_the_process_s_own_and_not_its_parent_s() -> None:
    ballast = bytearray(b"x") * 300_000_000
    code = "from benchmark.perf.timing import peak_megabytes; print(peak_megabytes())"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=Path(__file__).parents[2])
    assert 1 < float(done.stdout) < 150 < peak_megabytes()
    assert len(ballast) == 300_000_000
