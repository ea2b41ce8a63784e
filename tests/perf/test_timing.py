"""How jobs are timed and compared."""

from benchmark.perf.timing import Row, Spent, interleave, ratio_row


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
