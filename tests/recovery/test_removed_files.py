"""Files of a study that are removed while a search runs, or are in its way: a sentence, and the command goes on."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from benchmark.bo import bo
from benchmark.core.records import read_record
from tests.command_line import study_dir, tiny, trainings

REMOVED = {
    "all results": "../../..",
    "the study": ".",
    "the search": "bo",
    "the description": "study.yaml",
    "the lock": "lock",
    "the logs": "logs",
    "a finished trial": "bo/trial_000.json bo/trial_000",
    "the record of a finished trial": "bo/trial_000.json",
    "the folds of a finished trial": "bo/trial_000",
    "the trial in training": "bo/trial_001",
    "the proposal of the trial in training": "bo/trial_001/ask.json",
    "the fold that is finished": "bo/trial_001/fold_0",
    "the record of the fold that is finished": "bo/trial_001/fold_0/record.json",
    "the fold in training": "bo/trial_001/fold_1",
    "the lock of the fold in training": "bo/trial_001/fold_1/lock",
    "the log of the fold in training": "bo/trial_001/fold_1/log",
    "the heartbeat of the fold in training": "bo/trial_001/fold_1/alive.json",
    "the curves of the fold in training": "bo/trial_001/fold_1/curves",
    "the checkpoint of the fold in training": "bo/trial_001/fold_1/checkpoint.pt",
}
IN_THE_WAY = {
    "a file for the study": (".", "file"),
    "a link to nothing for the study": (".", "link"),
    "a file for all studies": ("../..", "file"),
    "a folder for the description": ("study.yaml", "folder"),
    "a folder for the lock": ("lock", "folder"),
    "a link to nothing for the lock": ("lock", "link"),
    "a file for the search": ("bo", "file"),
    "a folder for the choice": ("bo/best.yaml", "folder"),
    "a folder for a trial's record": ("bo/trial_001.json", "folder"),
    "a file for a trial's folder": ("bo/trial_001", "file"),
    "a link to nothing for a trial's folder": ("bo/trial_001", "link"),
    "a folder for a proposal": ("bo/trial_001/ask.json", "folder"),
    "a file for a fold's folder": ("bo/trial_001/fold_1", "file"),
    "a folder for a fold's record": ("bo/trial_001/fold_1/record.json", "folder"),
    "a folder for a fold's lock": ("bo/trial_001/fold_1/lock", "folder"),
    "a folder for a fold's log": ("bo/trial_001/fold_1/log", "folder"),
    "a folder for a fold's heartbeat": ("bo/trial_001/fold_1/alive.json", "folder"),
    "a folder for a fold's checkpoint": ("bo/trial_001/fold_1/checkpoint.pt", "folder"),
    "a file for a fold's curves": ("bo/trial_001/fold_1/curves", "file"),
    "a folder for the session's times": ("bo/sessions.jsonl", "folder"),
}
FAULT = pytest.mark.bad_input("environment", "files removed or in the way")
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_fsync")]


@pytest.fixture
def results(searched: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished tiny search, in the same folder for every test: composed studies stay cached."""
    place = tmp_path_factory.getbasetemp() / "removed_files"
    shutil.rmtree(place, ignore_errors=True)
    return Path(shutil.copytree(searched, place / "results"))


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def trials_of(folder: Path) -> dict[int, Any]:
    """The results of a search's trials, which hold those of their folds."""
    return {number: read_record(folder / "bo" / f"trial_{number:03d}.json").result for number in range(2)}


def leave_one_fold(results: Path) -> Path:
    """Remove what makes the last fold of the search finished, and return the study's folder."""
    folder = study_dir(results)
    (folder / "bo" / "trial_001.json").unlink()
    (folder / "bo" / "trial_001" / "fold_1" / "record.json").unlink()
    return folder


@FAULT
@pytest.mark.parametrize("name", REMOVED)
def test_after_files_are_removed_under_a_search_the_same_command_goes_on(
    name: str, results: Path, searched: Path
) -> None:
    folder = leave_one_fold(results)

    def remove_now(number: int, parts: Any) -> None:
        embedder: Callable[[Tensor], Tensor] = parts.embedder
        left = [folder / path for path in REMOVED[name].split()] if number == 0 else []

        def remove_and_embed(batch: Tensor) -> Tensor:
            while left:
                remove(left.pop())
            return embedder(batch)

        parts.embedder = remove_and_embed

    with trainings(remove_now):
        ended = tiny(bo, results)
    assert ended.status == 0 or (ended.status == 2 and f"{folder}" in ended.err and "same command" in ended.err), ended
    again = tiny(bo, results)
    assert again.status == 0, again
    assert trials_of(folder) == trials_of(study_dir(searched))


@FAULT
@pytest.mark.parametrize("name", IN_THE_WAY)
def test_what_is_in_the_way_is_named_or_moved_and_nothing_finished_is_lost(
    name: str, results: Path, searched: Path
) -> None:
    folder = leave_one_fold(results)
    place, kind = IN_THE_WAY[name]
    path, kept = Path(f"{folder}/{place}").resolve(), results.with_name("kept")
    if path.exists():
        path.rename(kept)
    if kind == "folder":
        path.mkdir()
    elif kind == "file":
        path.write_text("notes")
    else:
        path.symlink_to("gone")
    ended = tiny(bo, results)
    assert ended.status == 0 or (ended.status == 2 and f"{path}" in ended.err), ended
    if ended.status == 2:
        remove(path)
    if kept.exists() and not path.exists():
        kept.rename(path)
    again = tiny(bo, results)
    assert again.status == 0, again
    assert trials_of(folder) == trials_of(study_dir(searched))
