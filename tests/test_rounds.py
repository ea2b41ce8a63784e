"""Several settings proposed at a time: from the same history, whatever finishes first."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmark.bo import bo
from benchmark.core import records
from benchmark.jobs import session
from benchmark.jobs.queue import Jobs
from benchmark.jobs.unit import Unit
from benchmark.searchers import Parameter, Trial
from benchmark.searchers.ax import Ax
from benchmark.searchers.sobol import Sobol
from benchmark.study.study import Study
from tests.command_line import results_of, study_dir, tiny, trainings

SPACE = {"x": Parameter((0.0, 1.0)), "n": Parameter((1, 9), type="int")}


@pytest.mark.slow
def test_a_round_is_proposed_from_the_rounds_before_it_and_what_is_pending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[list[int], int]] = []
    ask = Sobol.ask

    def listen(self: Sobol, history: Any, pending: Any = ()) -> Any:
        asked.append(([trial.index for trial in history], len(pending)))
        return ask(self, history, pending)

    monkeypatch.setattr(Sobol, "ask", listen)
    assert tiny(bo, tmp_path, "searcher.round=3", "trials=5").status == 0
    assert asked == [([], 0), ([], 1), ([], 2), ([0, 1, 2], 0), ([0, 1, 2], 1)]
    how = records.read_record(study_dir(tmp_path) / "bo" / "trial_004" / "ask.json").provenance
    assert (how["told"], how["pending"]) == (3, 1)


@pytest.mark.slow
def test_the_order_in_which_units_finish_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Backwards(Jobs):
        def add(self, unit: Unit, *, first: bool = False) -> None:
            super().add(unit, first=True)

    assert tiny(bo, tmp_path / "one", "searcher.round=2", "trials=3").status == 0
    monkeypatch.setattr(session, "Jobs", Backwards)
    with trainings() as trained:
        assert tiny(bo, tmp_path / "other", "searcher.round=2", "trials=3").status == 0
    assert trained[:2] == ["trial_001/fold_1", "trial_001/fold_0"]
    assert results_of(study_dir(tmp_path / "one")) == results_of(study_dir(tmp_path / "other"))


@pytest.mark.slow
def test_an_asynchronous_search_proposes_as_soon_as_a_trial_is_finished_and_says_that_it_cannot_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NewestFirst(Jobs):
        def add(self, unit: Unit, *, first: bool = False) -> None:
            super().add(unit, first=True)

    monkeypatch.setattr(session, "Jobs", NewestFirst)
    options = ("searcher.round=2", "searcher.asynchronous=true", "trials=4")
    with trainings() as trained:
        ended = tiny(bo, tmp_path, *options)
    assert ended.status == 0 and "cannot be reproduced" in ended.out
    assert trained[:4] == [f"trial_00{i}/fold_{f}" for i, f in ((1, 1), (1, 0), (2, 1), (2, 0))]
    folder = study_dir(tmp_path) / "bo"
    how = [records.read_record(folder / f"trial_00{i}" / "ask.json").provenance for i in range(4)]
    assert [h["in_training"] for h in how] == [[], [0], [0], [0]] and [h["told"] for h in how] == [0, 0, 1, 2]
    settings = [records.read_record(folder / f"trial_00{i}.json").result["setting"]["proxy_lr"] for i in range(4)]
    assert len(set(settings)) == 4, "points of a design are used once"

    before = results_of(study_dir(tmp_path))
    for path in (folder / "trial_000.json", folder / "trial_003.json"):  # as a kill leaves it: not in order
        path.unlink()
    with trainings() as trained:
        assert tiny(bo, tmp_path, *options).status == 0
    assert not trained and results_of(study_dir(tmp_path)) == before


@pytest.mark.slow
def test_a_round_that_was_killed_half_way_resumes_with_the_same_proposals(tmp_path: Path) -> None:
    options = ("searcher.round=2", "trials=4")
    assert tiny(bo, tmp_path / "one", *options).status == 0
    assert tiny(bo, tmp_path / "other", *options).status == 0
    folder = study_dir(tmp_path / "other") / "bo"
    for name in ("trial_001", "trial_002", "trial_003"):  # the first of the first round is there
        (folder / f"{name}.json").unlink()
        (folder / name / "ask.json").unlink()
    assert tiny(bo, tmp_path / "other", *options).status == 0
    assert results_of(study_dir(tmp_path / "one")) == results_of(study_dir(tmp_path / "other"))


def test_rounds_of_one_keep_the_identity_and_longer_ones_change_it(compose_study: Callable[..., Study]) -> None:
    one, default, two = (compose_study(*o) for o in (["searcher.round=1"], [], ["searcher.round=2"]))
    assert one.identity("f") == default.identity("f") != two.identity("f")
    both = compose_study("searcher.round=2", "searcher.asynchronous=true")
    assert both.identity("f") != two.identity("f")
    assert "asynchronous" not in two.science("f")["searcher"]
    assert "round" not in default.science("f")["searcher"] and two.science("f")["searcher"]["round"] == 2


@pytest.mark.parametrize("searcher", [Sobol(SPACE, 3), pytest.param(Ax(SPACE, 3), marks=pytest.mark.slow)])
def test_pending_settings_use_up_points_of_the_design(searcher: Any) -> None:
    settings = []
    for _ in range(4):
        settings.append(searcher.ask([], settings) if settings else searcher.ask([]))
    history: list[Trial] = []
    for index, setting in enumerate(settings):
        assert searcher.ask(history) == setting, "the same points as one after the other"
        history.append(Trial(index, setting, 0.1 * index))


@pytest.mark.slow
def test_the_model_proposes_away_from_pending_settings() -> None:
    searcher = Ax(SPACE, 3)
    history: list[Trial] = []
    for index in range(5):
        setting = searcher.ask(history)
        history.append(Trial(index, setting, 1 - (float(setting["x"]) - 0.4) ** 2))
    first = searcher.ask(history)
    second = searcher.ask(history, [first])
    assert second != first and second == Ax(SPACE, 3).ask(history, [first])
