"""A fold that is killed at any time, any number of times, ends exactly like an uninterrupted one."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmark.core import records
from benchmark.core.errors import UserError
from benchmark.training.components import Schedule, TrainingComponents
from benchmark.training.loop import Outcome, train_fold
from tests.cases import slow_except
from tests.training.small_fold import a_checkpoint, a_fold, a_schedule, nothing

# Evaluations at epochs 0, 2, 4, 6 and 7 of three iterations each; or until the first one without improvement.
SCHEDULES = {
    "max_epochs": a_schedule(iterations_per_epoch=3, evaluate_every=2, patience=20, max_epochs=7),
    "patience": a_schedule(iterations_per_epoch=3, evaluate_every=2, patience=1, max_epochs=99),
}
SCHEDULE = SCHEDULES["max_epochs"]


class KilledError(Exception):
    """Ends training from outside."""


def killer(after: int) -> Any:
    """Return an `on_epoch` that kills training at call number `after`, counted from 0."""
    calls = iter(range(100))

    def on_epoch(history: list[dict[str, Any]]) -> None:
        if next(calls) == after:
            raise KilledError

    return on_epoch


def everything(fold: TrainingComponents) -> list[torch.Tensor]:
    """Return all tensors of the modules and their optimisers."""
    states = [part.state_dict() for part in (fold.trunk, fold.head, fold.loss)]
    states += [slots for o in fold.optimizers.values() for slots in o.state_dict()["state"].values()]
    return [torch.as_tensor(value) for state in states for value in state.values()]


def train_uninterrupted(folder: Path, stopped: str) -> tuple[Outcome, list[torch.Tensor]]:
    fold = a_fold()
    outcome = train_fold(fold, SCHEDULES[stopped], a_checkpoint(folder / "uninterrupted.pt"), nothing)
    assert outcome.result["stopped"] == stopped
    return outcome, everything(fold)


def check_equal(outcome: Outcome, fold: TrainingComponents, uninterrupted: tuple[Outcome, list[torch.Tensor]]) -> None:
    expected, tensors = uninterrupted
    assert outcome.result == expected.result
    assert outcome.weights is not None and expected.weights is not None
    for part, state in expected.weights.items():
        assert list(outcome.weights[part]) == list(state)
        assert all(torch.equal(outcome.weights[part][key], value) for key, value in state.items())
    assert all(torch.equal(a, b) for a, b in zip(everything(fold), tensors, strict=True))


@pytest.mark.parametrize("stopped", slow_except(["patience"], SCHEDULES))
def test_a_fold_killed_after_any_evaluation_ends_bit_equal(tmp_path: Path, stopped: str) -> None:
    uninterrupted = train_uninterrupted(tmp_path, stopped)
    for after in range(len(uninterrupted[0].result["history"]) + 1):  # at the end, only the record is missing
        path = tmp_path / f"{after}.pt"
        with pytest.raises(KilledError):
            train_fold(a_fold(), SCHEDULES[stopped], a_checkpoint(path), killer(after))
        fold = a_fold(seed=99 if after else 0)  # other initial weights: all of them must come from the checkpoint
        outcome = train_fold(fold, SCHEDULES[stopped], a_checkpoint(path), nothing)
        check_equal(outcome, fold, uninterrupted)
        assert outcome.seconds["train"] > 0 and outcome.seconds["evaluate"] > 0


def train_until_killed(fold: TrainingComponents, schedule: Schedule, path: Path, iteration: int) -> None:
    """Train a fold with a checkpoint until it is killed before an iteration."""
    draw = fold.sampler.batch

    def batch(number: int) -> Any:
        if number == iteration:
            raise KilledError
        return draw(number)

    fold.sampler.batch = batch
    with pytest.raises(KilledError):
        train_fold(fold, schedule, a_checkpoint(path), nothing)


@pytest.mark.parametrize("iteration", slow_except([0, 6, 20], [0, 1, 6, 13, 20]))
def test_a_fold_killed_during_an_epoch_ends_bit_equal(tmp_path: Path, iteration: int) -> None:
    train_until_killed(a_fold(), SCHEDULE, tmp_path / "checkpoint.pt", iteration)
    fold = a_fold()
    outcome = train_fold(fold, SCHEDULE, a_checkpoint(tmp_path / "checkpoint.pt"), nothing)
    check_equal(outcome, fold, train_uninterrupted(tmp_path, "max_epochs"))


def test_a_fold_killed_after_every_evaluation_ends_bit_equal(tmp_path: Path) -> None:
    for _ in range(5):
        with pytest.raises(KilledError):
            train_fold(a_fold(), SCHEDULE, a_checkpoint(tmp_path / "checkpoint.pt"), killer(1))
    fold = a_fold()
    outcome = train_fold(fold, SCHEDULE, a_checkpoint(tmp_path / "checkpoint.pt"), nothing)
    check_equal(outcome, fold, train_uninterrupted(tmp_path, "max_epochs"))


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_checkpoint_is_named_and_not_trained_from(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(KilledError):
        train_fold(a_fold(), SCHEDULE, a_checkpoint(path), killer(2))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes({"cut": data[: len(data) // 2], "flipped": data, "empty": b""}[damage])
    with pytest.raises(records.CorruptFileError, match=r"checkpoint\.pt is damaged"):
        train_fold(a_fold(), SCHEDULE, a_checkpoint(path), nothing)


def test_a_checkpoint_of_another_training_is_reported_and_not_resumed(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(KilledError):
        train_fold(a_fold(), SCHEDULE, a_checkpoint(path, "another"), killer(2))
    with pytest.raises(records.ForeignFileError, match=r"checkpoint\.pt does not belong here: it is of .*another"):
        train_fold(a_fold(), SCHEDULE, a_checkpoint(path), nothing)


def test_a_full_disk_is_an_error_and_not_a_divergence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises((OSError, UserError), match="disk is full"):
        train_fold(a_fold(), SCHEDULE, a_checkpoint(tmp_path / "checkpoint.pt"), nothing)


def test_on_epoch_receives_the_history_at_the_start_and_after_each_evaluation(tmp_path: Path) -> None:
    lengths: list[int] = []
    with pytest.raises(KilledError):
        train_fold(a_fold(), SCHEDULE, a_checkpoint(tmp_path / "checkpoint.pt"), killer(2))
    train_fold(
        a_fold(), SCHEDULE, a_checkpoint(tmp_path / "checkpoint.pt"), lambda history: lengths.append(len(history))
    )
    assert lengths == [2, 3, 4, 5]
