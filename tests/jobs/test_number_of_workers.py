"""A command starts no worker that has nothing to do."""

from pathlib import Path

import pytest

from benchmark.bo import bo
from benchmark.core.errors import UserError
from benchmark.final_eval import final_eval
from tests.command_line import assert_refused, study_dir, tiny


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of workers that commands ask for; none is started."""
    numbers: list[int] = []

    def make(config: object, workers: int, *_: object) -> None:
        numbers.append(workers)
        raise UserError("not started")

    monkeypatch.setattr("benchmark.jobs.queue.make_executor", make)
    return numbers


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (("trials=4", "searcher.round=2"), 4),  # 2 trials of 2 folds
        (("trials=9", "searcher.round=1"), 2),
        (("trials=3", "searcher.round=9"), 6),
        (("trials=4", "executor.workers=1"), 1),
    ],
)
def test_a_search_starts_no_more_workers_than_a_round_has_folds(
    overrides: tuple[str, ...], expected: int, tmp_path: Path, started: list[int]
) -> None:
    workers = ["executor.workers=64"] * (not any("executor.workers" in override for override in overrides))
    assert_refused(tiny(bo, tmp_path, "executor=local", *workers, *overrides), "not started")
    assert started == [expected]


def test_a_search_that_only_lacks_the_record_of_a_trial_starts_one_worker(results: Path, started: list[int]) -> None:
    (study_dir(results) / "bo" / "trial_001.json").unlink()
    assert_refused(tiny(bo, results, "executor=local", "executor.workers=64"), "not started")
    assert started == [1]


def test_final_runs_start_no_more_workers_than_they_have_folds(results: Path, started: list[int]) -> None:
    assert_refused(tiny(final_eval, results, "executor=local", "executor.workers=64"), "not started")
    assert started == [4], "2 runs of 2 folds"
