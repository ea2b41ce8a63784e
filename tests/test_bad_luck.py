"""What breaks in the middle costs its own piece and no other: diverging losses, damaged files, a full disk."""

import errno
import os
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmark.bo import bo
from benchmark.core import records
from benchmark.final_eval import final_eval
from benchmark.searchers import Trial
from benchmark.searchers.sobol import Sobol
from tests.command_line import Diverging, assert_refused, results_of, study_dir, tiny, trainings


def diverge(trainings_hit: range, after: int) -> Callable[[int, Any], None]:
    """Make the loss of some trainings not a number after so many iterations; an epoch has 2."""

    def change(number: int, parts: Any) -> None:
        if number in trainings_hit:
            parts.loss = Diverging(parts.loss, after)

    return change


# -- diverging trainings ----------------------------------------------------------------------------------------------


def test_a_fold_that_diverges_after_a_trained_evaluation_keeps_its_score_and_is_marked(tmp_path: Path) -> None:
    with trainings(diverge(range(1, 2), after=2)):
        ended = tiny(bo, tmp_path, "trials=1", "dataset.max_epochs=3")
    result = records.read_record(study_dir(tmp_path) / "bo" / "trial_000.json").result
    fold = result["folds"][1]
    assert ended.status == 0
    assert (fold["stopped"], fold["best_epoch"], fold["reason"]) == (
        "diverged",
        1,
        "the training loss is nan in epoch 2",
    )
    assert result["status"] == "completed"
    assert result["map_at_r"] == (result["folds"][0]["map_at_r"] + fold["map_at_r"]) / 2
    assert "diverged: fold 1 (score of epoch 1; the training loss is nan in epoch 2)" in ended.out


def test_a_trial_without_a_score_is_abandoned_with_its_reason_and_the_search_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[list[Trial]] = []
    ask = Sobol.ask
    monkeypatch.setattr(Sobol, "ask", lambda self, history: (told.append(history), ask(self, history))[1])
    with trainings(diverge(range(1), after=0)) as trained:
        ended = tiny(bo, tmp_path)
    folder = study_dir(tmp_path) / "bo"
    failed = records.read_record(folder / "trial_000.json").result
    assert ended.status == 0 and len(trained) == 4
    assert (failed["status"], failed["map_at_r"], failed["standard_error"]) == ("failed", None, None)
    assert failed["reason"] == "fold 0: the training loss is nan in epoch 1"
    assert failed["folds"][1]["map_at_r"] is not None, "the other fold is kept as it is"
    assert told == [[], [Trial(0, failed["setting"], None, None)]]
    assert yaml.safe_load((folder / "best.yaml").read_text())["trial"] == 1
    assert "no score (fold 0: the training loss is nan in epoch 1)" in ended.out and "1 without a score" in ended.out


def test_a_search_in_which_everything_diverges_ends_with_advice_and_no_choice(tmp_path: Path) -> None:
    ended = tiny(bo, tmp_path, "training.optimizers.trunk.lr=1e30")
    assert_refused(
        ended,
        "None of the 2 trials of proxy_nca on glyphs_small",
        "the training loss is nan",
        "training.optimizers.trunk.lr",
        "variant=NAME",
    )
    assert not (study_dir(tmp_path) / "bo" / "best.yaml").exists()
    with trainings() as trained:
        again = tiny(bo, tmp_path, "training.optimizers.trunk.lr=1e30")
    assert again.err == ended.err and not trained
    assert_refused(tiny(final_eval, tmp_path, "training.optimizers.trunk.lr=1e30"), "2 of 2 trials", "make bo")


# -- damaged files ----------------------------------------------------------------------------------------------------


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def scramble(path: Path) -> None:
    path.write_bytes(bytes(range(256)))


def alter(path: Path) -> None:
    """Change one digit of the first fraction in it, so that the file still parses."""
    text = path.read_text()
    place = re.search(r"\d\.\d", text).end() - 1  # type: ignore[union-attr]
    path.write_text(text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :])


# The file, what of the study is not there yet (a search killed in the middle), and the trainings that it takes.
DAMAGES = {
    "bo/trial_001.json": ((), []),
    "bo/trial_001/fold_1/record.json": (("bo/trial_001.json",), ["trial_001/fold_1"]),
    "bo/trial_001/ask.json": (("bo/trial_001.json",), []),
    "study.yaml": ((), []),
    "bo/best.yaml": ((), []),
}


@pytest.mark.parametrize("damage", [truncate, scramble, alter])
@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_file_is_named_kept_aside_and_only_its_piece_is_done_again(
    name: str, damage: Callable[[Path], None], results: Path
) -> None:
    folder = study_dir(results)
    before, choice = results_of(folder), (folder / "bo" / "best.yaml").read_text()
    missing, expected = DAMAGES[name]
    for other in missing:
        (folder / other).unlink()
    damage(folder / name)
    with trainings() as trained:
        ended = tiny(bo, results)
    assert ended.status == 0, ended
    assert trained == expected
    assert results_of(folder) == before and (folder / "bo" / "best.yaml").read_text() == choice
    if name != "bo/best.yaml":  # a choice is made anew by every search, whatever stood there
        assert str(folder / name) in ended.out and "kept as" in ended.out
        assert len(list((folder / name).parent.glob("*.damaged-*"))) == 1


def test_a_damaged_checkpoint_costs_its_fold_only(results: Path) -> None:
    folder = study_dir(results)
    before, unit = results_of(folder), folder / "bo" / "trial_001" / "fold_0"
    (folder / "bo" / "trial_001.json").unlink()
    (unit / "record.json").unlink()
    records.write_checked(unit / "checkpoint.pt", bytes(1000))
    truncate(unit / "checkpoint.pt")
    with trainings() as trained:
        ended = tiny(bo, results)
    assert ended.status == 0 and set(trained) == {"trial_001/fold_0"}
    assert f"{unit / 'checkpoint.pt'} is damaged" in ended.out and "this fold starts again" in ended.out
    assert results_of(folder) == before


def test_a_damaged_study_file_beside_trials_of_another_configuration_is_not_replaced(results: Path) -> None:
    path = study_dir(results) / "study.yaml"
    truncate(path)
    damaged = path.read_bytes()
    assert_refused(tiny(bo, results, "seed=5"), str(path), "ask.json", "another configuration", "variant=NAME")
    assert path.read_bytes() == damaged


@pytest.mark.parametrize("damage", [truncate, scramble, alter])
def test_final_eval_refuses_a_damaged_choice_and_names_the_command(
    damage: Callable[[Path], None], results: Path
) -> None:
    path = study_dir(results) / "bo" / "best.yaml"
    damage(path)
    with trainings() as trained:
        ended = tiny(final_eval, results)
    assert_refused(ended, str(path), "damaged", "make bo DATASET=glyphs_small LOSS=proxy_nca")
    assert not trained


def test_a_damaged_run_is_named_and_only_that_run_is_done_again(results: Path) -> None:
    assert tiny(final_eval, results).status == 0
    before = results_of(study_dir(results))
    (path,) = study_dir(results).glob("final_eval/*/run_01.json")
    truncate(path)
    with trainings() as trained:
        ended = tiny(final_eval, results)
    assert ended.status == 0 and sorted(trained) == ["run_01/fold_0", "run_01/fold_1"]
    assert str(path) in ended.out and "kept as" in ended.out
    assert results_of(study_dir(results)) == before


# -- a full disk ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "works"), [("fsync", 4), ("fsync", 17), ("replace", 9)])
def test_a_full_disk_says_what_to_do_and_loses_nothing(
    name: str, works: int, tmp_path: Path, searched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = getattr(os, name), 0

    def full(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > works:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*arguments)

    with monkeypatch.context() as patch, trainings() as trained:
        patch.setattr(os, name, full)
        ended = tiny(bo, tmp_path)
    assert_refused(
        ended, "Cannot write", "the disk is full", "Free some space", "same command", "nothing finished is lost"
    )
    assert not list(tmp_path.rglob("*.tmp"))
    finished = {"/".join(p.parent.parts[-2:]) for p in tmp_path.rglob("fold_*/record.json")}
    assert finished <= set(trained) and calls > works
    with trainings() as trained:
        assert tiny(bo, tmp_path).status == 0
    assert not finished & set(trained), "a finished fold was trained again"
    assert results_of(study_dir(tmp_path)) == results_of(study_dir(searched))


def test_a_disk_that_is_full_for_a_library_is_said_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_for_sqlite(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    def full_for_another(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "somewhere")

    for path, full in {
        "record_keeper.RecordKeeper.save_records": full_for_sqlite,
        "torch.save": full_for_another,
    }.items():
        with monkeypatch.context() as patch:
            patch.setattr(path, full)
            assert_refused(tiny(bo, tmp_path), "disk is full", "Free some space", "same command")
    assert tiny(bo, tmp_path).status == 0
