"""A damaged file or a full disk is named, and costs only its own unit. These tests run in-process, in milliseconds."""

import errno
import os
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmark.bo import bo
from benchmark.core import records
from benchmark.final_eval import final_eval
from tests.command_line import assert_refused, results_of, study_dir, tiny, trainings

pytestmark = pytest.mark.slow


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def scramble(path: Path) -> None:
    path.write_bytes(bytes(range(256)))


def alter(path: Path) -> None:
    """Change one digit of the first fraction in a file, which still parses afterwards."""
    text = path.read_text()
    place = re.search(r"\d\.\d", text).end() - 1  # type: ignore[union-attr]
    path.write_text(text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :])


# By file: other files that are missing because the search was killed midway; units that are retrained; kinds of damage.
# JSON and YAML have one reader each, so one file of each kind is enough for all kinds of damage.
DAMAGES = {
    "bo/trial_001.json": ((), [], (truncate, scramble, alter)),
    "bo/trial_001/fold_1/record.json": (("bo/trial_001.json",), ["trial_001/fold_1"], (truncate,)),
    "bo/trial_001/ask.json": (("bo/trial_001.json",), [], (alter,)),
    "study.yaml": ((), [], (truncate, scramble, alter)),
    "bo/best.yaml": ((), [], (scramble,)),
}


@pytest.mark.parametrize(("name", "damage"), [(name, damage) for name in DAMAGES for damage in DAMAGES[name][2]])
def test_a_damaged_file_is_named_quarantined_and_costs_only_its_own_unit(
    name: str, damage: Callable[[Path], None], results: Path
) -> None:
    folder = study_dir(results)
    before, choice = results_of(folder), (folder / "bo" / "best.yaml").read_text()
    missing, expected, _ = DAMAGES[name]
    for other in missing:
        (folder / other).unlink()
    damage(folder / name)
    with trainings() as trained:
        ended = tiny(bo, results)
    assert ended.status == 0, ended
    assert trained == expected
    assert results_of(folder) == before and (folder / "bo" / "best.yaml").read_text() == choice
    if name != "bo/best.yaml":  # every search chooses again
        assert str(folder / name) in ended.out and "kept as" in ended.out
        assert len(list((folder / name).parent.glob("*.damaged-*"))) == 1


def test_a_damaged_checkpoint_costs_only_its_fold(results: Path) -> None:
    folder = study_dir(results)
    before, unit = results_of(folder), folder / "bo" / "trial_001" / "fold_0"
    (folder / "bo" / "trial_001.json").unlink()
    (unit / "record.json").unlink()
    records.write_checked(unit / "checkpoint.pt", bytes(1000))
    truncate(unit / "checkpoint.pt")
    with trainings() as trained:
        ended = tiny(bo, results)
    assert ended.status == 0 and set(trained) == {"trial_001/fold_0"}
    assert f"{unit / 'checkpoint.pt'} is damaged" in ended.out and "this unit is trained again" in ended.out
    assert results_of(folder) == before


@pytest.mark.usefixtures("no_fsync")
def test_what_killed_processes_left_half_written_is_deleted(results: Path) -> None:
    folder = study_dir(results)
    (folder / "bo" / "trial_001.json").unlink()
    left = [folder / "bo" / ".trial_001.json.7.tmp", folder / "bo" / "trial_001" / "fold_1" / ".checkpoint.pt.7.tmp"]
    for path in left:
        path.write_bytes(b"half")
    with trainings() as trained:
        assert tiny(bo, results).status == 0
    assert not trained and not any(path.exists() for path in left)


def test_a_damaged_study_file_next_to_trials_of_another_configuration_is_not_replaced(results: Path) -> None:
    path = study_dir(results) / "study.yaml"
    truncate(path)
    damaged = path.read_bytes()
    assert_refused(
        tiny(bo, results, "seed=5"), str(path), "trial_000.json was made with another", "configuration", "variant=NAME"
    )
    assert path.read_bytes() == damaged


@pytest.mark.parametrize("damage", [truncate, scramble, alter])
def test_final_eval_refuses_a_damaged_choice_and_names_the_command(
    damage: Callable[[Path], None], results: Path
) -> None:
    path = study_dir(results) / "bo" / "best.yaml"
    damage(path)
    with trainings() as trained:
        ended = tiny(final_eval, results)
    assert_refused(ended, str(path), "damaged", f"make bo STUDY={study_dir(results)}")
    assert not trained


def test_a_damaged_run_is_named_and_only_that_run_is_repeated(results: Path) -> None:
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


@pytest.mark.parametrize(("name", "works"), [("fsync", 17), ("replace", 9)])
def test_a_full_disk_stops_the_search_with_advice_and_loses_nothing(
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


def test_a_full_disk_inside_a_library_gives_the_usual_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
