"""Rows on the overhead of dispatch."""

import time
from concurrent.futures import Future

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
    assert all(value >= 29 for value in row.values) and min(row.values) < 1000, row.values  # ms
    assert row.target == ("<=", 150)
