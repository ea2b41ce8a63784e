"""Checkpoints: written by elapsed time and beside the training, which after a kill ends like an undisturbed one."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmark.core import records
from benchmark.core.errors import UserError
from benchmark.training import checkpoint as module
from benchmark.training import loop
from benchmark.training.checkpoint import CPU, Best, Progress, Saver, delete_checkpoint, read_state, resume
from benchmark.training.loop import Outcome, train_fold
from tests.training.small_fold import ProxyLoss, a_checkpoint, a_fold, a_schedule, nothing
from tests.training.test_resume import KilledError, check_equal, everything, killer

# Evaluations at epochs 0, 2 and 3 of two iterations each.
SCHEDULE = a_schedule(iterations_per_epoch=2, evaluate_every=2, patience=20, max_epochs=3)
pytestmark = pytest.mark.usefixtures("no_fsync")


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, list[torch.Tensor]]:
    """The outcome of a fold that is not killed, and all its tensors."""
    fold = a_fold()
    return train_fold(fold, SCHEDULE, a_checkpoint(tmp_path_factory.mktemp("whole") / "c.pt"), nothing), everything(
        fold
    )


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that `write_state` writes, in order."""
    names: list[str] = []
    write = module.write_state

    def noted(path: Path, state: Any, identity: Any) -> None:
        write(path, state, identity)
        names.append(path.name)

    monkeypatch.setattr(module, "write_state", noted)
    return names


@pytest.fixture
def every_iteration(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Write a checkpoint after each iteration and evaluation, and let training wait for it."""
    monkeypatch.setattr(Saver, "is_due", lambda self, *, evaluated: True)
    yield


def a_best(epoch: int) -> Best:
    return Best(epoch, a_fold(seed=epoch).weights())


@pytest.mark.usefixtures("every_iteration")
@pytest.mark.parametrize("iteration", [1, 2, 3, 5])
def test_a_fold_killed_between_two_iterations_resumes_there_and_ends_bit_equal(
    tmp_path: Path, iteration: int, undisturbed: Any
) -> None:
    drawn: list[int] = []

    def fold(seed: int, last: int) -> Any:
        parts = a_fold(seed)
        draw = parts.sampler.batch

        def batch(number: int) -> Any:
            if number == last:
                raise KilledError
            drawn.append(number)
            return draw(number)

        parts.sampler.batch = batch  # type: ignore[method-assign]
        return parts

    with pytest.raises(KilledError):
        train_fold(fold(0, iteration), SCHEDULE, a_checkpoint(tmp_path / "killed.pt"), nothing)
    resumed = fold(99, -1)
    outcome = train_fold(resumed, SCHEDULE, a_checkpoint(tmp_path / "killed.pt"), nothing)
    check_equal(outcome, resumed, undisturbed)
    assert drawn == list(range(6)), "an iteration was trained twice, or not at all"


@pytest.mark.usefixtures("every_iteration")
def test_a_loss_that_reports_its_last_batch_does_so_after_a_kill_in_an_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Remembering(ProxyLoss):
        def forward(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            loss = super().forward(embeddings, labels)
            self.last = float(loss.detach())
            return loss

        def diagnostics(self) -> dict[str, float]:
            return {"last": self.last} if hasattr(self, "last") else {}

    def fold() -> Any:
        torch.manual_seed(0)
        return a_fold(loss=Remembering())

    whole = train_fold(fold(), SCHEDULE, a_checkpoint(tmp_path / "whole.pt"), nothing)
    calls, metrics = iter(range(9)), loop.metrics_of

    def killed(*arguments: Any, **options: Any) -> Any:
        if next(calls) == 1:
            raise KilledError
        return metrics(*arguments, **options)

    monkeypatch.setattr(loop, "metrics_of", killed)
    with pytest.raises(KilledError):
        train_fold(fold(), SCHEDULE, a_checkpoint(tmp_path / "killed.pt"), nothing)
    resumed = train_fold(fold(), SCHEDULE, a_checkpoint(tmp_path / "killed.pt"), nothing)
    assert resumed.result == whole.result and "last" in whole.result["history"][1]["diagnostics"]


def test_a_fold_whose_checkpoints_are_written_beside_it_ends_bit_equal_wherever_it_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: Any
) -> None:
    monkeypatch.setattr(module, "SHARE", 1e9)  # whatever they cost
    resumed_from = set()
    for after in range(1, 4):
        path = tmp_path / f"{after}.pt"
        with pytest.raises(KilledError):
            train_fold(a_fold(), SCHEDULE, a_checkpoint(path, seconds=1e-6), killer(after))
        if path.exists():
            progress = read_state(path, CPU, lambda found: "")["progress"]
            resumed_from.add((progress["epoch"], len(progress["losses"]), progress["iterations"]))
        fold = a_fold(seed=99 if path.exists() else 0)
        outcome = train_fold(fold, SCHEDULE, a_checkpoint(path, seconds=1e-6), nothing)
        check_equal(outcome, fold, undisturbed)
    assert len(resumed_from) >= 2


def test_a_checkpoint_is_due_when_a_minute_would_be_lost_or_its_cost_is_a_fiftieth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, costs = Clock(), iter([(0.2, 1.0), (0.1, 3.0), (2.0, 4.0)])

    def write(self: Saver, state: Any, best: Any) -> Any:
        return module._Cost(*next(costs))

    def state(*_: Any) -> dict[str, Any]:
        clock.now += 0.5  # for which training stops
        return {}

    monkeypatch.setattr(Saver, "_write", write)
    monkeypatch.setattr(module, "_state", state)
    due = []
    with Saver(a_checkpoint(tmp_path / "c.pt", seconds=60.0), {}, clock) as saver:
        while clock.now < 400:
            if saver.is_due(evaluated=False):
                due.append(round(clock.now))
                if len(due) == 4:
                    break
                saver.save(a_fold(), Progress(), {})
                saver._writing.result()  # type: ignore[union-attr]
            clock.now = round(clock.now) + 1.0
    # Half a minute at first; 60 - 2 x 1 s, as 0.7 s are less than 2 % of it; 60 - 2 x 3 s; 2.5 s / 2 %.
    assert due == [30, 88, 142, 267]


def test_training_goes_on_while_a_checkpoint_is_written_and_the_end_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, let_go = threading.Event(), threading.Event()
    write, threads = module.write_state, set()

    def slow(path: Path, state: Any, identity: Any) -> None:
        threads.add(threading.current_thread())
        assert trained.wait(20), "training waited for the writer"
        write(path, state, identity)
        let_go.set()

    monkeypatch.setattr(module, "write_state", slow)

    def on_epoch(history: Any) -> None:
        if len(history) == 4:
            assert not (tmp_path / "checkpoint.pt").exists()
            trained.set()

    train_fold(a_fold(), a_schedule(max_epochs=3), a_checkpoint(tmp_path / "checkpoint.pt", seconds=1e-6), on_epoch)
    assert let_go.is_set() and (tmp_path / "checkpoint.pt").exists()
    assert threads and threading.main_thread() not in threads


def test_what_is_written_is_the_state_at_the_moment_of_the_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed, write = threading.Event(), module.write_state

    def late(*arguments: Any) -> None:
        changed.wait(20)
        write(*arguments)

    monkeypatch.setattr(module, "write_state", late)
    fold, checkpoint = a_fold(), a_checkpoint(tmp_path / "checkpoint.pt", seconds=60.0)
    train_fold(fold, a_schedule(max_epochs=2), a_checkpoint(tmp_path / "other.pt", seconds=60.0), nothing)
    before = [tensor.clone() for tensor in everything(fold)]
    with Saver(checkpoint, {}) as saver:
        saver.save(fold, Progress(), {})
        for tensor in everything(fold):
            tensor.zero_()
        changed.set()
    state = read_state(checkpoint.path, CPU, lambda found: "")
    kept = [state["modules"][name] for name in ("trunk", "head", "loss")]
    kept += [slots for o in state["optimizers"].values() for slots in o["state"].values()]
    found = [torch.as_tensor(value) for part in kept for value in part.values()]
    assert all(torch.equal(a, b) for a, b in zip(found, before, strict=True)) and len(found) > 20


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise records.WriteError("the disk is full")

    monkeypatch.setattr(module, "write_state", full)


@pytest.mark.usefixtures("full_disk")
@pytest.mark.parametrize("evaluated", [True, False])
def test_an_error_of_the_writer_is_raised_at_the_next_boundary(tmp_path: Path, evaluated: bool) -> None:
    with pytest.raises(UserError, match="disk is full"), Saver(a_checkpoint(tmp_path / "c.pt", seconds=60.0), {}) as s:
        s.save(a_fold(), Progress(), {})
        s._writer.submit(int).result()  # after the write, since there is one thread
        s.is_due(evaluated=evaluated)
        pytest.fail("the error was not raised")


@pytest.mark.usefixtures("full_disk")
def test_an_error_of_the_last_write_is_raised_at_the_end_and_noted_on_another_exception(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="disk is full"), Saver(a_checkpoint(tmp_path / "c.pt", seconds=60.0), {}) as s:
        s.save(a_fold(), Progress(), {})
    with pytest.raises(KilledError) as caught, Saver(a_checkpoint(tmp_path / "c.pt", seconds=60.0), {}) as s:
        s.save(a_fold(), Progress(), {})
        raise KilledError
    assert "the disk is full" in caught.value.__notes__[0]


def test_the_best_weights_are_written_when_they_change_and_before_the_checkpoint_that_names_them(
    tmp_path: Path, written: list[str]
) -> None:
    fold, best = a_fold(), {"validation": a_best(2), "monitored": a_best(3)}
    with Saver(a_checkpoint(tmp_path / "c.pt"), {"monitored": best["monitored"]}) as saver:
        saver.save(fold, Progress(), best)
        saver.save(fold, Progress(), best)
        saver.save(fold, Progress(), best | {"validation": a_best(4)})
    assert written == ["c.validation-2.pt", "c.pt", "c.pt", "c.validation-4.pt", "c.pt"]
    assert {path.name for path in tmp_path.iterdir()} == {"c.pt", "c.validation-4.pt"}


def test_a_kill_between_the_best_weights_and_the_checkpoint_leaves_the_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: Any
) -> None:
    write, path = module.write_state, tmp_path / "killed" / "checkpoint.pt"
    for number in range(1, 9):
        calls = iter(range(1, 99))

        def killed(*arguments: Any, last: int = number, calls: Iterator[int] = calls) -> None:
            if next(calls) == last:
                raise KilledError
            write(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(module, "write_state", killed)
            try:
                outcome: Outcome | None = train_fold(a_fold(), SCHEDULE, a_checkpoint(path), nothing)
            except KilledError:
                outcome = None
        if outcome is not None:
            break
    assert outcome is not None and number > 3
    assert outcome.result == undisturbed[0].result


def test_a_checkpoint_whose_best_weights_are_gone_or_damaged_is_not_continued(tmp_path: Path) -> None:
    checkpoint = a_checkpoint(tmp_path / "checkpoint.pt")
    train_fold(a_fold(), a_schedule(max_epochs=2), checkpoint, nothing)
    (best,) = tmp_path.glob("checkpoint.validation-*.pt")
    content = best.read_bytes()
    best.write_bytes(content[:-9])
    with pytest.raises(
        records.CorruptFileError, match=r"checkpoint\.pt cannot be continued: .*validation-\d\.pt is dam"
    ):
        train_fold(a_fold(), a_schedule(max_epochs=3), checkpoint, nothing)
    best.unlink()
    with pytest.raises(records.CorruptFileError, match=r"does not fit this training: .*validation-\d\.pt is missing"):
        train_fold(a_fold(), a_schedule(max_epochs=3), checkpoint, nothing)


def test_a_checkpoint_is_loaded_to_the_cpu_whatever_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_fold(a_fold(), a_schedule(max_epochs=1), a_checkpoint(tmp_path / "checkpoint.pt"), nothing)
    fold, places, load = a_fold(), [], torch.load
    fold.images.device = torch.device("meta")  # which keeps no numbers

    def noted(file: Any, map_location: Any, weights_only: bool) -> Any:
        places.append(map_location)
        return load(file, map_location=map_location, weights_only=weights_only)

    monkeypatch.setattr(torch, "load", noted)
    progress, best = resume(fold, a_schedule(max_epochs=1), a_checkpoint(tmp_path / "checkpoint.pt"))
    assert progress.epoch == 1 and best["validation"].epoch == 1 and places == [CPU, CPU]


def test_deleting_a_checkpoint_deletes_its_best_weights_and_nothing_else(tmp_path: Path) -> None:
    kept = ["best.pt", "log", "record.json"]
    for name in (*kept, "checkpoint.pt", "checkpoint.validation-2.pt", "checkpoint.monitored-12.pt"):
        (tmp_path / name).touch()
    delete_checkpoint(tmp_path)
    delete_checkpoint(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == kept
