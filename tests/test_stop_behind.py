"""Trials that are clearly behind are stopped after their first folds, whatever the order, the workers and kills."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmark.bo import bo
from benchmark.core import records
from benchmark.experiment.state import _progress_in
from benchmark.jobs import session
from benchmark.jobs.queue import Jobs
from benchmark.jobs.unit import Unit
from benchmark.report.effort import read_effort
from benchmark.report.group_table import records_of
from benchmark.report.progress import stages
from benchmark.report.search_curves import read_search
from benchmark.searchers import Trial
from benchmark.searchers.sobol import Sobol
from benchmark.status import status
from benchmark.study.code import search_code, training_code
from benchmark.study.layout import choice_on_disk
from benchmark.study.stored import read_study
from benchmark.study.study import Study
from benchmark.tables import tables
from tests.command_line import Ended, run, study_dir, tiny, trainings

LONG = ("protocol.num_folds=3", "trials=6")
RACE = (*LONG, "searcher.stop_behind=0.2")


@dataclass
class Searched:
    """A search: its results folder, what it printed and trained, and the histories from which it proposed and chose."""

    folder: Path
    ended: Ended
    trained: list[str]
    asked: list[list[Trial]]
    chosen_from: list[Trial]


def search(folder: Path, *options: str) -> Searched:
    asked: list[list[Trial]] = []
    chosen_from: list[Trial] = []
    ask, best = Sobol.ask, Sobol.best

    def listen(self: Sobol, history: Any, pending: Any = ()) -> Any:
        asked.append(list(history))
        return ask(self, history, pending)

    def choose(self: Sobol, history: Any) -> int:
        chosen_from[:] = history
        return best(self, history)

    with trainings() as trained, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sobol, "ask", listen)
        patch.setattr(Sobol, "best", choose)
        ended = tiny(bo, folder, *options)
    assert ended.status == 0, ended
    return Searched(folder, ended, trained, asked, chosen_from)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    """A search that trains every fold."""
    return search(tmp_path_factory.mktemp("whole"), *LONG)


@pytest.fixture(scope="module")
def raced(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    """The same search with `searcher.stop_behind`."""
    return search(tmp_path_factory.mktemp("raced"), *RACE)


def trials_of(folder: Path) -> list[dict[str, Any]]:
    paths = sorted((study_dir(folder) / "bo").glob("trial_*.json"))
    return [records.read_record(path).result for path in paths]


def by_hand(whole: list[dict[str, Any]], points: float, step: int) -> list[tuple[int, int | None]]:
    """The folds of 3 that each trial needs, and the leader that stops it, from trials with these folds or more."""
    found: list[tuple[int, int | None]] = []
    for index, trial in enumerate(whole):
        finished = [i for i in range(index // step * step) if found[i][1] is None]
        leader = max(finished, key=lambda i: (whole[i]["map_at_r"], -i)) if finished else None
        needed, stopped_by = 3, None
        if leader is not None:
            mine, best = ([100 * fold["map_at_r"] for fold in t["folds"]] for t in (trial, whole[leader]))
            for k in range(min(len(mine), 2), 0, -1):  # the first one wins
                if sum(mine[:k]) / k < sum(best[:k]) / k - points / k**0.5:
                    needed, stopped_by = k, leader
        found.append((needed, stopped_by))
    return found


def assert_raced(found: list[dict[str, Any]], whole: list[dict[str, Any]], step: int) -> None:
    """The trials are those of a search that trained these folds or more, without the folds that were not needed."""
    expected = by_hand(whole, 0.2, step)
    assert {needed for needed, _ in expected} == {1, 2, 3}
    for trial, complete, (needed, leader) in zip(found, whole, expected, strict=True):
        if leader is None:
            assert trial == complete
            continue
        assert trial["folds"] == complete["folds"][:needed] and trial["setting"] == complete["setting"]
        assert trial["status"] == "stopped" and trial["map_at_r"] is None
        assert trial["reason"].startswith(f"behind trial {leader + 1} by 0.")
        assert trial["reason"].endswith(f" points of MAP@R after {needed} of 3 folds")
        scores = [[fold["map_at_r"] for fold in t["folds"]] for t in (trial, whole[leader])]
        share = sum(scores[0]) / sum(scores[1][:needed])
        assert trial["estimate"] == pytest.approx(share * whole[leader]["map_at_r"])
        assert trial["standard_error"] == pytest.approx(whole[leader]["standard_error"] * (3 / needed) ** 0.5)


@pytest.mark.slow
def test_only_the_folds_that_are_needed_are_trained_and_the_best_trial_is_chosen(raced: Searched) -> None:
    found = trials_of(raced.folder)
    assert_raced(found, found, step=1)
    assert raced.trained == [f"trial_00{t['index']}/fold_{f['fold']}" for t in found for f in t["folds"]]
    best = choice_on_disk(study_dir(raced.folder), read_study(study_dir(raced.folder)).expected)
    assert best is not None and best.trial == 1 and found[1]["map_at_r"] == best.validation_map_at_r
    assert "Left: at most 18 trainings" in raced.ended.out and "6 trials, 3 stopped" in raced.ended.out
    assert f"trial 6 of 6: stopped, {found[5]['reason']}   proxy_lr=" in raced.ended.out


@pytest.mark.slow
def test_the_searcher_sees_estimates_and_chooses_among_completed_trials(raced: Searched) -> None:
    found = trials_of(raced.folder)
    folds = [tuple(fold["map_at_r"] for fold in t["folds"]) if t["map_at_r"] else () for t in found]
    seen = [
        Trial(t["index"], t["setting"], t["map_at_r"] or t["estimate"], t["standard_error"], folds=each)
        for t, each in zip(found, folds, strict=True)
    ]
    assert raced.asked == [seen[:index] for index in range(6)]
    assert raced.chosen_from == [trial for trial, t in zip(seen, found, strict=True) if t["status"] == "completed"]


@pytest.mark.slow
def test_the_trials_are_those_of_a_search_that_trains_every_fold(whole: Searched, raced: Searched) -> None:
    assert_raced(trials_of(raced.folder), trials_of(whole.folder), step=1)
    assert len(whole.trained) == 18 and "Left: 18 trainings" in whole.ended.out and "stopped" not in whole.ended.out


@pytest.mark.slow
@pytest.mark.parametrize("rounds", ["searcher.round=1", "searcher.round=3"])
def test_folds_that_finish_in_the_opposite_order_give_the_same_trials(
    rounds: str, whole: Searched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Backwards(Jobs):
        def add(self, unit: Unit, *, first: bool = False) -> None:
            super().add(unit, first=True)

    forwards = search(tmp_path / "one", *RACE, rounds)
    monkeypatch.setattr(session, "Jobs", Backwards)
    backwards = search(tmp_path / "other", *RACE, rounds)
    assert trials_of(tmp_path / "one") == trials_of(tmp_path / "other")
    assert len(forwards.trained) < len(backwards.trained) == 18, "the first fold is the last one to finish"
    assert_raced(trials_of(tmp_path / "one"), trials_of(whole.folder), step=int(rounds[-1]))


@pytest.mark.slow
def test_two_workers_give_the_trials_of_one(raced: Searched, tmp_path: Path) -> None:
    assert tiny(bo, tmp_path, *RACE, "executor=local", "executor.workers=2").status == 0
    assert trials_of(tmp_path) == trials_of(raced.folder)
    assert not [path for name in ("checkpoint.pt", "alive.json") for path in tmp_path.rglob(name)]


@pytest.mark.slow
def test_a_trial_that_raced_while_the_leader_was_lost_races_again(raced: Searched, tmp_path: Path) -> None:
    tries = []

    def lose(number: int, parts: Any) -> None:
        tries.append(number)
        if len(tries) == 5:  # trial_001/fold_1
            raise KeyError("gone")

    with trainings(lose):
        assert tiny(bo, tmp_path, *RACE).status == 1
    assert trials_of(tmp_path) != trials_of(raced.folder)
    with trainings() as trained:
        assert tiny(bo, tmp_path, *RACE).status == 0
    assert trials_of(tmp_path) == trials_of(raced.folder)
    assert trained == ["trial_001/fold_1"], "no finished fold is trained again"


@pytest.mark.slow
def test_all_reports_say_how_many_trials_were_stopped(raced: Searched) -> None:
    folder = study_dir(raced.folder)
    stored, skipped = read_study(folder), 18 - len(raced.trained)
    (part, _) = stages(stored, folder)
    assert (part.finished, part.count("done"), part.count("waiting"), part.skipped) == (6, 18 - skipped, 0, skipped)
    assert (
        f"6 of 6 trials\t{18 - skipped} of {18 - skipped}, {skipped} skipped"
        in run(status, f"results_dir={raced.folder}").out
    )
    assert _progress_in(folder, 18 + 6) == ("started", 18), "what is skipped is not left"
    effort = read_effort(stored, folder, records_of(stored, folder))
    assert effort.trials == 6 and effort.marks["f"] == "3 of 6 trials"
    assert effort.epochs == len(raced.trained)
    assert "searcher.stop_behind" in run(tables, f"results_dir={raced.folder}").out
    curve = read_search(folder)
    assert curve is not None
    assert curve.scores[0] == [pytest.approx(100 * (t["map_at_r"] or t["estimate"])) for t in trials_of(raced.folder)]


def test_the_option_is_part_of_the_study_and_without_it_nothing_changes(compose_study: Callable[..., Study]) -> None:
    default, off, two, three = (
        compose_study(*[f"searcher.stop_behind={points}"] * (points is not None)) for points in (None, "null", 2, 3)
    )
    assert default.identity("f") == off.identity("f") and len({s.identity("f") for s in (off, two, three)}) == 3
    assert "stop_behind" not in default.science("f")["searcher"]
    assert two.science("f")["searcher"]["stop_behind"] == 2
    rule = "benchmark.protocol.racing"
    assert rule not in search_code(default).modules and rule in search_code(two).modules
    assert training_code(default) == training_code(two) and rule not in training_code(two).modules
