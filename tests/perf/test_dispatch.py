"""What is said of the time that dispatch takes."""

import time
from concurrent.futures import Future

import pytest

from benchmark.jobs.executors.inline import Inline
from benchmark.perf import dispatch


class Late(Inline):
    """Answers 30 ms after the unit is done, and 1 s the first time, as one that is still starting."""

    first = True

    def submit(self, spec: dict[str, object]) -> Future[dict[str, object]]:
        time.sleep(1.0 if self.first else 0.03)
        self.first = False
        return super().submit(spec)


def test_the_units_own_work_and_the_start_do_not_count(compose_study, monkeypatch):
    monkeypatch.setattr(dispatch, "UNITS", 3)
    row = dispatch.cost("local", Late(dispatch.sleep_unit), compose_study())
    assert len(row.values) == 3
    assert all(29 <= value < 90 for value in row.values), row.values  # ms
    assert row.target == ("<=", 150)


@pytest.mark.slow
def test_warm_workers_are_handed_units_in_time(compose_study):
    rows = list(dispatch.dispatch_costs(compose_study()))
    assert [row.what for row in rows] == ["dispatch, local", "dispatch, ray"]
    assert "MISSED" not in [row.verdict() for row in rows], [row.cells() for row in rows]
    assert rows[0].verdict() == "reached"
