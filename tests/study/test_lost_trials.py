"""Units that cannot be finished are retried, then lost; the command continues, reports them, and retries next time."""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmark.bo import Search, bo
from benchmark.core import records
from benchmark.core.errors import UserError, WorkerDiedError
from benchmark.final_eval import final_eval
from benchmark.jobs import train_unit as worker
from benchmark.searchers import Trial
from benchmark.searchers.sobol import Sobol
from benchmark.tables import tables
from benchmark.traditional import traditional
from benchmark.training.checkpoint import Checkpoint
from tests.command_line import results_of, run, study_dir, tiny


@pytest.fixture
def breaking(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[str]]]:
    """`breaking("trial_000/fold_1", times=2)` breaks those trainings, and returns the list of all that are started."""
    real = worker.train_fold

    def start(*names: str, times: int = 10**9, error: Callable[[], Exception] = lambda: KeyError("gone")) -> list[str]:
        left, started = dict.fromkeys(names, times), []

        def train_fold(parts: Any, schedule: Any, checkpoint: Checkpoint, on_epoch: Any) -> Any:
            name = "/".join(checkpoint.path.parent.parts[-2:])
            started.append(name)
            left[name] = left.get(name, 0) - 1
            if left[name] >= 0:
                raise error()
            return real(parts, schedule, checkpoint, on_epoch)

        monkeypatch.setattr(worker, "train_fold", train_fold)
        return started

    yield start


def trouble(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "trouble.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize(
    "error",
    [
        pytest.param(lambda: KeyError("gone"), marks=pytest.mark.slow),
        lambda: WorkerDiedError("A worker ended, killed by signal 9"),
    ],
)
def test_a_unit_that_succeeds_within_its_retries_changes_nothing(
    error: Callable[[], Exception], tmp_path: Path, searched: Path, breaking: Callable[..., list[str]]
) -> None:
    started = breaking("trial_000/fold_1", times=2, error=error)
    ended = tiny(bo, tmp_path, "executor.retries=2")
    folder = study_dir(tmp_path)
    assert ended.status == 0 and started.count("trial_000/fold_1") == 3 and len(started) == 6
    assert results_of(folder) == results_of(study_dir(searched))
    assert [(t["unit"], t["tries"], t["lost"]) for t in trouble(folder)] == [
        ("trial_000/fold_1", 1, False), ("trial_000/fold_1", 2, False),
    ]  # fmt: skip
    assert "tried again (1 of 2), see " in ended.out and "trial_000/fold_1/log" in ended.out


@pytest.mark.slow
def test_a_lost_trial_is_abandoned_named_with_its_log_and_retried_first(
    tmp_path: Path, searched: Path, breaking: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    histories: list[list[Trial]] = []
    ask = Sobol.ask
    monkeypatch.setattr(Sobol, "ask", lambda self, h, p=(): (histories.append(list(h)), ask(self, h, p))[1])
    breaking("trial_000/fold_1")
    ended = tiny(bo, tmp_path, "executor.retries=1")
    folder = study_dir(tmp_path)
    log = folder / "bo" / "trial_000" / "fold_1" / "log"
    assert ended.status == 1 and ended.out.count("Traceback") == 1, "of a defect, the first time"
    assert f'{Path(__file__).name}", line' in ended.out and "raise error()" in ended.out and str(log) in ended.out
    for phrase in ("proxy_nca on glyphs_small is incomplete", "trial 1: trial_000/fold_1: KeyError: 'gone'",
                 f"log: {log}", f"make bo STUDY={folder} EXECUTOR=inline"):  # fmt: skip
        assert phrase in ended.err
    assert log.read_text().count("KeyError: 'gone'") == 2
    lost = records.read_record(folder / "bo" / "trial_000" / "lost.json")
    assert not (folder / "bo" / "trial_000.json").exists() and "KeyError" in lost.provenance["units"][0]["tail"]
    assert histories[1] == [Trial(0, lost.result["setting"], None, None, is_lost=True)], "abandoned, not a number"
    assert "trial: 1\n" in (folder / "bo" / "best.yaml").read_text(), "the search continued, and chose"
    below = run(tables, f"results_dir={tmp_path}").out
    assert f"chosen without 1 of 2 trials, which are lost; make bo final-eval STUDY={folder}" in below

    started = breaking()
    again = tiny(bo, tmp_path)
    assert again.status == 0 and set(started) == {"trial_000/fold_1"}, "finished folds are not repeated"
    assert results_of(folder) == results_of(study_dir(searched))


@pytest.mark.slow
def test_proposals_made_while_a_trial_was_lost_are_made_again_once_it_is_finished(
    tmp_path: Path, breaking: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = Sobol.ask

    def follow(self: Sobol, history: Any, pending: Any = ()) -> Any:
        """Depends on every score, as a model's proposals do."""
        seed = round(sum((trial.index + 1) * (trial.mean or 0.0) for trial in history) * 1e9)
        return ask(Sobol(self._space, seed), history, pending)

    monkeypatch.setattr(Sobol, "ask", follow)
    assert tiny(bo, tmp_path / "undisturbed", "trials=4").status == 0
    breaking("trial_001/fold_0")
    assert tiny(bo, tmp_path / "lost", "trials=4").status == 1
    folder = study_dir(tmp_path / "lost")
    asked = [records.read_record(folder / "bo" / f"trial_00{i}" / "ask.json").provenance.get("lost") for i in range(4)]
    assert asked == [None, None, [1], [1]]
    started = breaking()
    ended = tiny(bo, tmp_path / "lost", "trials=4")
    assert ended.status == 0 and "trial 3 was proposed while another trial was lost." in ended.out
    assert started == [f"trial_00{i}/fold_{f}" for i, f in ((1, 0), (2, 0), (2, 1), (3, 0), (3, 1))]
    kept = {path: r for path, r in results_of(folder).items() if "superseded" not in path}
    assert kept == results_of(study_dir(tmp_path / "undisturbed"))
    started = breaking()
    assert tiny(bo, tmp_path / "lost", "trials=4").status == 0 and not started


@pytest.mark.slow
@pytest.mark.parametrize("finished_since", [False, True])
def test_a_search_that_may_propose_trials_anew_has_the_workers_of_a_round(
    finished_since: bool, tmp_path: Path, breaking: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers: list[int] = []

    def make(config: object, workers: int, *_: object) -> None:
        numbers.append(workers)
        raise UserError("not started")

    breaking("trial_000/fold_1")
    options = ("trials=2", "searcher.round=1")
    assert tiny(bo, tmp_path, *options).status == 1
    if finished_since:  # and the command was killed before it proposed the later trial anew
        breaking()
        with monkeypatch.context() as patch:
            patch.setattr(Search, "propose", killed_after_first(Search.propose))
            with contextlib.suppress(KeyboardInterrupt):
                tiny(bo, tmp_path, *options)
        assert (study_dir(tmp_path) / "bo" / "trial_000.json").exists()
    monkeypatch.setattr("benchmark.jobs.queue.make_executor", make)
    assert "not started" in tiny(bo, tmp_path, "executor=local", "executor.workers=64", *options).err
    assert numbers == [2], "the folds of trial_001, not only the one of trial_000 that was lost"


def killed_after_first(propose: Callable[[Search, range], Any]) -> Callable[[Search, range], Any]:
    """The method `propose` of a search that is killed in its second round."""

    def proposed(self: Search, indices: range) -> Any:
        if indices.start:
            raise KeyboardInterrupt
        return propose(self, indices)

    return proposed


@pytest.mark.slow
def test_three_lost_trials_in_a_row_stop_the_search_with_the_last_log(
    tmp_path: Path, breaking: Callable[..., list[str]]
) -> None:
    started = breaking(*[f"trial_00{i}/fold_{f}" for i in range(9) for f in range(2)])
    ended = tiny(bo, tmp_path, "trials=9")
    assert ended.status == 1 and len(started) == 3 * 2, "three trials in a row"
    assert "The last log ends:" in ended.err and "KeyError: 'gone'" in ended.err
    assert not (study_dir(tmp_path) / "bo" / "best.yaml").exists()


@pytest.mark.slow
def test_a_lost_run_stays_missing_and_the_others_are_scored(results: Path, breaking: Callable[..., list[str]]) -> None:
    breaking("run_00/fold_1")
    ended = tiny(final_eval, results)
    assert ended.status == 1 and "test classes: mean over n = 1 run, %" in ended.out
    assert (
        "run 1: run_00/fold_1: KeyError: 'gone'" in ended.err
        and f'"make final-eval STUDY={study_dir(results)}' in ended.err
    )
    started = breaking()
    assert tiny(final_eval, results).status == 0
    assert started == ["run_00/fold_1"]


@pytest.mark.slow
def test_a_lost_run_of_the_traditional_protocol_stays_missing(
    tmp_path: Path, breaking: Callable[..., list[str]]
) -> None:
    options = ("protocol.num_runs=2", "training.epochs=1")
    breaking("setting/run_00")
    ended = tiny(traditional, tmp_path, *options, protocol="traditional")
    assert ended.status == 1 and "run 1: setting/run_00: KeyError: 'gone'" in ended.err
    folder = tmp_path / "studies" / "glyphs_small-small_conv-traditional" / "proxy_nca"
    assert f'"make traditional STUDY={folder}' in ended.err
    started = breaking()
    assert tiny(traditional, tmp_path, *options, protocol="traditional").status == 0
    assert started == ["setting/run_00"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "tries"),
    [(lambda: KeyError("gone"), 3), (lambda: WorkerDiedError("A worker ended, killed by signal 9"), 5)],
)
def test_a_defect_is_retried_twice_at_most_and_a_worker_s_death_as_often_as_configured(
    error: Callable[[], Exception], tries: int, tmp_path: Path, breaking: Callable[..., list[str]]
) -> None:
    started = breaking("trial_000/fold_1", error=error)
    ended = tiny(bo, tmp_path, "trials=1", "executor.retries=4")
    assert ended.status == 1 and started.count("trial_000/fold_1") == tries
    assert f"given up after {tries} tries" in ended.out
    assert ended.out.count("Traceback") == (tries == 3), "of a defect alone, the first time"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "phrase"),
    [
        (lambda: OSError(28, "No space left on device"), "disk is full"),
        (lambda: UserError("Unplug the machine and plug it in again."), "Unplug the machine"),
    ],
)
def test_what_a_user_can_put_right_stops_at_once(
    error: Callable[[], Exception], phrase: str, tmp_path: Path, breaking: Callable[..., list[str]]
) -> None:
    started = breaking("trial_000/fold_0", error=error)
    ended = tiny(bo, tmp_path, "executor.retries=5")
    assert ended.status == 2 and phrase in ended.err and started == ["trial_000/fold_0"]
    assert "Traceback" not in ended.out + ended.err
