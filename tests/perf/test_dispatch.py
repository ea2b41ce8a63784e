"""Rows on the overhead of dispatch."""

import time
from concurrent.futures import Future

import pytest

from benchmark.jobs.executors.inline import Inline
from benchmark.perf import dispatch


class Late(Inline):
    """Answers 30 ms late, and the first time 1 s late, like a worker that is still starting."""

    first = True

    def submit(self, spec: dict[str, object]) -> Future[dict[str, object]]:
        time.sleep(1.0 if self.first else 0.03)
        self.first = False
        return super().submit(spec)


def test_the_unit_s_own_work_and_the_worker_s_start_do_not_count(compose_study, monkeypatch):
    monkeypatch.setattr(dispatch, "UNITS", 3)
    row = dispatch.cost("local", Late(dispatch.sleep_unit), compose_study())
    assert len(row.values) == 3
    assert all(29 <= value < 90 for value in row.values), row.values  # ms
    assert row.target == ("<=", 150)


@pytest.mark.slow
def test_dispatch_to_warm_workers_reaches_its_targets(compose_study):
    rows = list(dispatch.dispatch_costs(compose_study()))
    assert [row.what for row in rows] == ["dispatch, local", "dispatch, ray"]
    assert "MISSED" not in [row.verdict() for row in rows], [row.cells() for row in rows]
    assert rows[0].verdict() == "reached"
