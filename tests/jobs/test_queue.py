"""The queue keeps nothing of a unit that is finished, however long a search is, and forgets withdrawn units."""

import weakref
from collections.abc import Callable
from concurrent.futures import Future
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


def test_of_a_withdrawn_trial_no_unit_starts_and_a_late_answer_or_failure_is_ignored(
    compose_study: Callable[..., Study], tmp_path: Path
) -> None:
    study = compose_study("executor=inline")
    futures: list[Future[dict[str, object]]] = []

    class Pending(Inline):
        def submit(self, spec: dict[str, object]) -> object:  # type: ignore[override]
            assert len(futures) < 3, "a withdrawn unit was started"
            futures.append(Future())
            return futures[-1]

    def unit(index: int, fold: int) -> Unit:
        return Unit(study=study, fingerprint="", kind="trial", index=index, fold=fold, setting={}, study_identity="",
                    code="", accepted=[], directory=tmp_path / f"trial_00{index}" / f"fold_{fold}")  # fmt: skip

    with Jobs(study, lambda body, report: FinishedUnit({}).to_json(), ["nothing"], print) as jobs:
        jobs._executor, jobs.num_workers = Pending(lambda body, report: {}), 3
        for fold in range(4):
            jobs.add(unit(0, fold))
        finished = jobs.finished()
        names = []
        jobs.add(unit(1, 0), first=True)  # runs beside two folds of the other trial
        submit = jobs._submit

        def answer_at_once(one: Unit) -> None:
            submit(one)
            if len(futures) == 3:
                futures[1].set_result(FinishedUnit({}).to_json())

        jobs._submit = answer_at_once  # type: ignore[method-assign]
        names.append(next(finished)[0].name)
        jobs.withdraw(0)
        futures[2].set_exception(KeyError("late"))
        futures[0].set_result(FinishedUnit({}).to_json())
        names += [one.name for one, _ in finished]
    assert names == ["trial_000/fold_0", "trial_001/fold_0"] and len(futures) == 3
    assert not (study.directory / "trouble.jsonl").exists()
