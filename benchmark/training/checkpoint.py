"""Checkpoints: the file from which an interrupted training resumes, and the files of its best weights.

A checkpoint is written by elapsed time and beside the training. At the end of an iteration or of an evaluation, the
state is copied to the CPU; a thread serialises and writes the copy while training goes on. Weights of the best epoch
have a file of their own, which is written only when they change and before the checkpoint that names its epoch. A kill
at any moment therefore leaves a checkpoint whose files are all there.

Everything is loaded to the CPU first, from where `load_state_dict` copies it to the place that it must have. The `step`
of `torch.optim.Adam`, for example, has to stay on the CPU: on a GPU, each step would wait once for each parameter.
"""

import contextlib
import io
import pickle
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import msgspec
import torch
from torch import Tensor

from benchmark.core import records
from benchmark.core.records import JsonObject
from benchmark.core.typed import AtLeastOne, Count, Seconds, Text
from benchmark.training.components import Schedule, TrainingComponents, Weights
from benchmark.training.history import HistoryRow

CHECKPOINT_NAME = "checkpoint.pt"
SECONDS = 60.0  # of training that a kill costs at most
SHARE = 0.02  # of the time that checkpoints may take
CPU = torch.device("cpu")


@dataclass
class Progress:
    """Progress of an unfinished fold, saved in its checkpoint next to the states of modules and optimisers.

    Attributes:
        epoch: the last epoch that was trained and evaluated; -1 before the untrained model is evaluated.
        incumbent: the epoch with the highest MAP@R so far, the untrained one (0) included; patience counts from it.
        best_epoch: the trained epoch with the highest MAP@R so far; None before the first one.
        history: one row per evaluated epoch.
        train_seconds: wall-clock time spent training.
        evaluate_seconds: wall-clock time spent evaluating.
        devices: kinds of the devices that trained so far, without repetition.
        losses: mean training loss of each epoch that was trained since the last evaluation.
        iterations: iterations trained of the epoch after these.
        loss_sum: sum of their training losses.
    """

    epoch: int = -1
    incumbent: Count = 0
    best_epoch: AtLeastOne | None = None
    history: list[HistoryRow] = field(default_factory=list)
    train_seconds: Seconds = 0.0
    evaluate_seconds: Seconds = 0.0
    devices: list[Text] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    iterations: Count = 0
    loss_sum: float = 0.0


@dataclass(frozen=True)
class Best:
    """The weights of an epoch that is the best one so far.

    Attributes:
        epoch: the epoch.
        weights: its weights, which nothing may change.
    """

    epoch: int
    weights: Weights


@dataclass(frozen=True)
class Checkpoint:
    """The file from which an interrupted training resumes.

    Attributes:
        path: the file.
        identity: the training's identity, as JSON.
        mismatch: describes how the identity in a file differs from the training's; an empty string if it agrees.
        seconds: how much training a kill costs at most, unless checkpoints would then take more than `SHARE` of the
            time; 0: the time since the last evaluation, after each of which training waits for its checkpoint.
    """

    path: Path
    identity: JsonObject
    mismatch: Callable[[JsonObject | None], str]
    seconds: float = SECONDS

    def best_path(self, name: str, epoch: int) -> Path:
        """The file of the weights of the epoch that is best on the `validation` or the `monitored` images."""
        return self.path.with_name(f"{self.path.stem}.{name}-{epoch}.pt")


def delete_checkpoint(folder: Path) -> None:
    """Delete the checkpoint in a unit's folder and the files of its best weights; there may be none."""
    path = folder / CHECKPOINT_NAME
    path.unlink(missing_ok=True)  # first: what it names must be there as long as it is
    for best in _best_files(path):
        best.unlink(missing_ok=True)


def _best_files(path: Path) -> Iterator[Path]:
    return path.parent.glob(f"{path.stem}.*-*.pt")


# -- writing ----------------------------------------------------------------------------------------------------------


class _Cost(NamedTuple):
    """What a checkpoint has cost: seconds of the processor, and seconds until its files were written."""

    cpu: float
    wall: float


class Saver:
    """Writes the checkpoints of one training; as a context manager, it waits for the last one.

    A failure to write is raised by the next call of a method, or at the end of the block.

    Args:
        checkpoint: the file, and how much training a kill may cost.
        best: the best weights whose files are there already, as `resume` returned them.
        clock: monotonic clock in seconds.
    """

    def __init__(
        self, checkpoint: Checkpoint, best: Mapping[str, Best], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._checkpoint, self._clock = checkpoint, clock
        self._written = {name: found.epoch for name, found in best.items()}
        self._due = clock() + checkpoint.seconds / 2  # before it is known how long writing takes
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[_Cost] | None = None
        self._started, self._pause = 0.0, 0.0

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, _: object, error: BaseException | None, __: TracebackType | None) -> None:
        """Wait until the files are written.

        Raises:
            WriteError: they cannot be written; if the block has failed too, its exception gets a note instead.
        """
        self._writer.shutdown()
        try:
            self._finish()
        except Exception as failure:
            if error is None:
                raise
            error.add_note(f"The last checkpoint was not written, either: {failure}")

    def is_due(self, *, evaluated: bool) -> bool:
        """Whether a checkpoint is to be written now.

        Args:
            evaluated: whether the last epoch has just been evaluated.

        Raises:
            WriteError: the last one could not be written.
        """
        if self._writing is not None:
            if not self._writing.done():
                return False
            self._finish()
        return self._clock() >= self._due if self._checkpoint.seconds else evaluated

    def save(self, parts: TrainingComponents, progress: Progress, best: Mapping[str, Best]) -> None:
        """Copy the state and have it written, once the last write is finished.

        Args:
            parts: the components.
            progress: how far they are trained.
            best: the best weights so far.

        Raises:
            WriteError: the last checkpoint could not be written, or this one if training waits for it.
        """
        self._finish()
        self._started = self._clock()
        state = _state(parts, progress, best)
        self._pause = self._clock() - self._started
        if self._checkpoint.seconds:
            self._writing = self._writer.submit(self._write, state, dict(best))
        else:
            self._write(state, best)

    def _finish(self) -> None:
        """Wait for the write in progress, if any, and decide when the next one is due."""
        if (writing := self._writing) is not None:
            self._writing = None
            cost = writing.result()
            wait = max(self._checkpoint.seconds - 2 * cost.wall, (self._pause + cost.cpu) / SHARE)
            self._due = self._started + wait

    def _write(self, state: JsonObject, best: Mapping[str, Best]) -> _Cost:
        """Write the best weights that have changed, then the checkpoint, and delete files that it does not name."""
        cpu, wall = time.thread_time(), self._clock()
        checkpoint = self._checkpoint
        for name, found in best.items():
            if self._written.get(name) != found.epoch:
                write_state(checkpoint.best_path(name, found.epoch), found.weights, checkpoint.identity)
                self._written[name] = found.epoch
        write_state(checkpoint.path, state, checkpoint.identity)
        named = {checkpoint.best_path(name, found.epoch) for name, found in best.items()}
        for path in {*_best_files(checkpoint.path)} - named:
            with contextlib.suppress(OSError):  # it is deleted with the checkpoint at the latest
                path.unlink()
        return _Cost(time.thread_time() - cpu, self._clock() - wall)


def _state(parts: TrainingComponents, progress: Progress, best: Mapping[str, Best]) -> JsonObject:
    """A copy of everything that training changes, on the CPU; the best weights only by their epochs."""
    modules = {name: module.state_dict() for name, module in parts.modules.items()}
    for state in modules.values():
        state.update({key: _copied(value) for key, value in state.items()})  # keeps the versions of its modules
    return {
        "progress": asdict(progress),
        "best": {name: found.epoch for name, found in best.items()},
        "modules": modules,
        "optimizers": {name: _copied(optimizer.state_dict()) for name, optimizer in parts.optimizers.items()},
    }


def _copied(value: object) -> object:
    if isinstance(value, Tensor):
        return value.detach().to(CPU, copy=True)
    if isinstance(value, dict):
        return {key: _copied(inner) for key, inner in value.items()}
    return [_copied(inner) for inner in value] if isinstance(value, list) else value


def write_state(path: Path, state: Mapping[str, object], identity: JsonObject) -> None:
    """Write tensors and plain values by name, atomically, with a checksum and their identity.

    Args:
        path: the file to write; an existing one is replaced.
        state: values that `torch.save` accepts and `torch.load(weights_only=True)` can read.
        identity: the training's identity, as JSON.

    Raises:
        UserError: the file cannot be written.
    """
    buffer = io.BytesIO()
    torch.save({"identity": identity, "state": dict(state)}, buffer)
    records.write_checked(path, buffer.getbuffer())


# -- reading ----------------------------------------------------------------------------------------------------------


def read_state(path: Path, device: torch.device, mismatch: Callable[[JsonObject | None], str]) -> JsonObject:
    """Read what `write_state` wrote, with its tensors on a device.

    Args:
        path: the file to read.
        device: the device of all tensors.
        mismatch: describes how an identity differs from the expected one; an empty string if it agrees.

    Raises:
        CorruptFileError: the checksum does not match, or the content was not written by `write_state`.
        ForeignFileError: the identity is not the expected one.
        FileNotFoundError: the file does not exist.
    """
    payload = records.read_checked(path)
    try:
        content = torch.load(io.BytesIO(payload), map_location=device, weights_only=True)
        state, identity = content["state"], content["identity"]
        difference = mismatch(identity if isinstance(identity, dict) else None)
    except (RuntimeError, ValueError, LookupError, TypeError, EOFError, pickle.UnpicklingError) as error:
        raise records.CorruptFileError(f"{path} is damaged: it cannot be loaded ({type(error).__name__}).") from error
    if difference:
        raise records.ForeignFileError(f"{path} does not belong here: {difference}.")
    return dict(state)


def resume(parts: TrainingComponents, schedule: Schedule, checkpoint: Checkpoint) -> tuple[Progress, dict[str, Best]]:
    """Load the checkpoint, if any, into the components, and return the progress and the best weights.

    The latter are those of the epochs that are best on the `validation` and on the `monitored` images, by these names.

    Args:
        parts: freshly initialised components.
        schedule: their schedule.
        checkpoint: the file.

    Raises:
        CorruptFileError: it is damaged, does not fit the components, or belongs to another training.
    """
    try:
        state = read_state(checkpoint.path, CPU, checkpoint.mismatch)
    except FileNotFoundError:
        return Progress(), {}
    try:
        progress, epochs = _load(state, parts, schedule)
        return progress, _read_best(epochs, parts, progress, checkpoint)
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        fault = str(error).splitlines()[0]
        raise records.CorruptFileError(f"{checkpoint.path} does not fit this training: {fault}.") from error


def _load(state: JsonObject, parts: TrainingComponents, schedule: Schedule) -> tuple[Progress, Mapping[str, int]]:
    """Load a checkpoint's content into the components, and return the progress and the epochs of the best weights.

    Raises:
        ValueError: it does not fit; other exceptions come from what loads it.
    """
    msgspec.convert(state["progress"], Progress, strict=True)  # checks the fields
    progress, epochs = Progress(**state.pop("progress")), state.pop("best")
    _check_progress(progress, parts, schedule)
    for name, module in parts.modules.items():
        module.load_state_dict(state["modules"].pop(name))
    for name, optimizer in parts.optimizers.items():
        optimizer.load_state_dict(state["optimizers"].pop(name))
    for name, optimizer in parts.optimizers.items():
        _check_moments(optimizer, name)
    if unused := [*state.pop("modules"), *state.pop("optimizers"), *state]:
        raise ValueError(f"it has unknown entries: {', '.join(unused)}")
    return progress, epochs


def _read_best(
    epochs: Mapping[str, int], parts: TrainingComponents, progress: Progress, checkpoint: Checkpoint
) -> dict[str, Best]:
    """Read the best weights that a checkpoint names.

    Raises:
        ValueError: an epoch is wrong, a file is missing, or its weights have other names or shapes than the model.
        CorruptFileError: a file is damaged, or belongs to another training.
    """
    kept = {"validation": progress.best_epoch is not None, "monitored": parts.keep_monitored and progress.epoch > 0}
    evaluated = {row["epoch"] for row in progress.history} - {0}
    named = {name: epoch for name, epoch in epochs.items() if name != "monitored" or parts.keep_monitored}
    if {*named} != {name for name in kept if kept[name]} or not {*named.values()} <= evaluated:
        raise ValueError(f"the best weights are those of {dict(epochs)}, which does not fit the history")
    if named.get("validation") != progress.best_epoch:
        raise ValueError(f"the best weights are not those of the best epoch, {progress.best_epoch}")
    best, fitting = {}, _shapes({name: module.state_dict() for name, module in parts.modules.items()})
    for name, epoch in named.items():
        path = checkpoint.best_path(name, epoch)
        try:
            best[name] = Best(epoch, read_state(path, CPU, checkpoint.mismatch))
        except FileNotFoundError:
            raise ValueError(f"{path.name} is missing") from None
        except records.CorruptFileError as error:
            raise type(error)(f"{checkpoint.path} cannot be continued: {error}") from error
        if _shapes(best[name].weights) != fitting:
            raise ValueError(f"the weights in {path.name} have other names or shapes than the model")
    return best


def _check_moments(optimizer: torch.optim.Optimizer, name: str) -> None:
    """Check that an optimiser's state for each parameter consists of numbers, and of tensors that fit its shape.

    Args:
        optimizer: the optimiser.
        name: its name, for messages.

    Raises:
        ValueError: a value is neither.
    """
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            shape = value.shape if isinstance(value, Tensor) else torch.Size()
            fits = len(shape) <= parameter.ndim and all(
                size in (1, other) for size, other in zip(shape[::-1], parameter.shape[::-1], strict=False)
            )
            if not fits or not isinstance(value, Tensor | float | int):
                raise ValueError(f"{key} of the optimiser of the {name} does not fit its parameter")


def _check_progress(progress: Progress, parts: TrainingComponents, schedule: Schedule) -> None:
    """Check that a checkpoint's history agrees with its epochs, and has the scores that training needs to continue.

    Raises:
        ValueError: an epoch or a score is missing, or an epoch or an iteration is too many.
    """
    rows = {row["epoch"]: row for row in progress.history}
    if not rows or [*rows] != sorted(rows) or len(rows) < len(progress.history) or {0, progress.epoch} - {*rows}:
        raise ValueError(f"the history has the epochs {[*rows]}, but the last epoch is {progress.epoch}")
    if progress.epoch != max(rows):
        raise ValueError(f"the history ends at epoch {max(rows)}, but the last epoch is {progress.epoch}")
    if any((row["loss"] is None) != (epoch == 0) for epoch, row in rows.items()):
        raise ValueError("a loss is missing in the history, or epoch 0 has one")
    begun = len(progress.losses) + (progress.iterations > 0)
    if begun > schedule.evaluate_every or progress.iterations > schedule.iterations_per_epoch:
        raise ValueError(
            f"it is {len(progress.losses)} epochs and {progress.iterations} iterations after epoch {progress.epoch}, "
            f"but an evaluation follows after {schedule.evaluate_every} of {schedule.iterations_per_epoch} each"
        )
    named = {progress.incumbent, progress.best_epoch or 0}
    if parts.validation is not None and (named - {*rows} or (progress.best_epoch is None) != (len(rows) == 1)):
        raise ValueError(
            f"the best epochs {progress.incumbent} and {progress.best_epoch} do not fit the history's epochs {[*rows]}"
        )
    for part, needed in ((parts.validation, "map_at_r"), (parts.monitored, "watched")):
        if part is not None and any(needed not in row for row in progress.history):
            raise ValueError(f"{needed} is missing in the history")


def _shapes(weights: object) -> object:
    """The shapes of the tensors in nested mappings, in the same nesting; other values by their `repr`."""
    if isinstance(weights, Mapping):
        return {name: _shapes(value) for name, value in weights.items()}
    return tuple(weights.shape) if isinstance(weights, Tensor) else repr(weights)
