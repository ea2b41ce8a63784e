"""The queue keeps nothing of a unit that is finished, however long a search is."""

import weakref
from collections.abc import Callable
from pathlib import Path

from benchmark.jobs.executors.inline import Inline
from benchmark.jobs.queue import Jobs
from benchmark.jobs.unit import FinishedUnit, Unit
from benchmark.study.study import Study


def test_a_finished_unit_is_forgotten_with_an_executor_that_cannot_kill(
    compose_study: Callable[..., Study], tmp_path: Path
) -> None:
    study = compose_study("executor=inline", "executor.timeout_minutes=5")
    futures = []

    class Watched(Inline):
        def submit(self, spec: dict[str, object]) -> object:  # type: ignore[override]
            future = super().submit(spec)
            futures.append(weakref.ref(future))
            return future

    with Jobs(study, lambda body, report: FinishedUnit({}).to_json(), ["nothing"], print) as jobs:
        jobs._executor = Watched(lambda body, report: FinishedUnit({}).to_json())
        for fold in range(3):
            jobs.add(Unit(study=study, fingerprint="", kind="trial", index=0, fold=fold, setting={},
                          study_identity="", code="", accepted=[], directory=tmp_path / f"fold_{fold}"))  # fmt: skip
        assert sum(isinstance(answer, FinishedUnit) for _, answer in jobs.finished()) == 3
        assert [future() for future in futures] == [None] * 3
