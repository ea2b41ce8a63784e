"""One unit of work, run anywhere: train one model on one fold.

A unit arrives as JSON (study, trial or run, fold, setting), rebuilds its components, and writes a record. It is
idempotent: a finished unit returns its record, an unfinished one resumes from its checkpoint. It can read only training
classes.

Run as `python -m benchmark.jobs.train_unit`, it runs units for a driver, see `executors/serve.py`.
"""

if __name__ == "__main__":  # before the slow imports
    from benchmark.core.process import begin_worker

    begin_worker()

import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmark.core import records
from benchmark.core.errors import UserError
from benchmark.core.memory import keep_freed_memory, peak_bytes, reset_peak
from benchmark.core.provenance import device_facts, provenance
from benchmark.core.pulse import heard_by
from benchmark.core.records import JsonObject
from benchmark.core.threads import use_threads
from benchmark.jobs import unit_log
from benchmark.jobs.executors import Report
from benchmark.jobs.heartbeat import FILE_NAME, WRITE_SECONDS, Heartbeat
from benchmark.jobs.placement import fewer_per_gpu
from benchmark.jobs.unit import FinishedUnit, Unit
from benchmark.losses import HasRecordFields, HasWarnings
from benchmark.study import contents
from benchmark.study.assemble import build
from benchmark.study.version_1 import record_defaults
from benchmark.training.checkpoint import CHECKPOINT_NAME, Checkpoint, delete_checkpoint, read_state, write_state
from benchmark.training.components import Schedule, TrainingComponents
from benchmark.training.curves import write_curves
from benchmark.training.history import HistoryRow
from benchmark.training.loop import Outcome, train_fold
from benchmark.training.precision import NOT_DETERMINISTIC, effective_precision, use_precision
from benchmark.training.trial_batch import try_batch

CURVES_SECONDS = 30.0  # between two writes of the training curves, which cost a few disk flushes each
TRIED = ("cuda",)  # kinds of devices on which a batch is tried before a unit trains
LOCK_SECONDS = 180.0  # a network file system frees the lock of a lost machine after its lease, usually 90 s


@dataclass(frozen=True)
class Trained:
    """A finished training.

    Attributes:
        outcome: its scores, times and best weights.
        parts: the trained components, as of the last epoch.
        notes: sentences about files that were quarantined.
    """

    outcome: Outcome
    parts: TrainingComponents
    notes: tuple[str, ...]

    def warnings(self) -> list[str]:
        """The loss's warnings, for example about a part of it that never ran; most losses have none."""
        loss = self.parts.loss
        return loss.warnings() if isinstance(loss, HasWarnings) else []

    def costs(self) -> JsonObject:
        """Seconds of training per iteration, and the peak memory of the device or, without CUDA, of this process."""
        seconds, steps = self.outcome.seconds["train"], self.outcome.iterations
        return {
            "seconds_per_iteration": seconds / steps if steps else None,
            "peak_memory_bytes": peak_bytes(self.parts.images.device),
        }

    def device(self) -> JsonObject:
        """The device that trained, see `provenance.device_facts`."""
        device = self.parts.images.device
        return device_facts(device, effective_precision(self.parts.precision, device), self.outcome.devices)


def train_unit(body: JsonObject, report: Report) -> JsonObject:
    """Train one fold, or return its record if it is finished already.

    Args:
        body: a `Unit` as JSON.
        report: called after each evaluation with the unit's `kind`, `index`, `fold` and the history's last `row`.

    Returns:
        A `FinishedUnit` as JSON.

    Raises:
        UserError: the data or the software on this machine differs from the driver's, its device cannot compute in the
            study's precision, or another process still holds the unit after `LOCK_SECONDS`.
    """
    unit = Unit.from_json(body)
    path = unit.directory / "record.json"
    with holding(unit):
        record, note = finished_record(unit, path, contents.Fold)
        if record is not None and _weights_are_there(unit, record):
            remove_leftovers(unit.directory)
            return FinishedUnit(record.result, record.provenance, record.identity).to_json()
        with running(unit) as heartbeat:
            trained = train(unit, report, heartbeat, functools.partial(_build, unit))
            outcome = trained.outcome
            write_curves(unit.directory / "curves", outcome.result["history"])
            record = records.Record("fold", fold_result(unit, trained), provenance(
                seconds=outcome.seconds, finished=time.strftime("%Y-%m-%dT%H:%M:%S%z"), fingerprint=unit.fingerprint,
                warnings=trained.warnings(), device=trained.device(), **trained.costs(),
            ), unit.identity().to_json())  # fmt: skip
            if unit.keep_weights and outcome.weights is not None:
                write_state(unit.directory / "best.pt", outcome.weights, unit.identity().to_json())
            contents.write(path, record, contents.Fold)
            delete_checkpoint(unit.directory)
        notes = [*([note] if note else []), *trained.notes]
        return FinishedUnit(record.result, record.provenance, record.identity, notes).to_json()


def finished_record(unit: Unit, path: Path, kind: type[contents.Content]) -> tuple[records.Record | None, str | None]:
    """Read the record of a finished unit; one that is damaged or has another identity is quarantined.

    Args:
        unit: the unit.
        path: where its record is.
        kind: what the record holds.

    Returns:
        The record, or None if the unit has none; and a note for the user if a file was quarantined, else None.

    Raises:
        NewerFileError: a newer version wrote the record.
    """
    try:
        record = contents.read(path, kind)
    except FileNotFoundError:
        return None, None
    except records.CorruptFileError as error:
        return None, quarantine(path, error)
    if difference := unit.identity(kind.kind).mismatch(record.identity, unit.accepted):
        foreign = records.ForeignFileError(f"{path} does not belong to this unit: {difference}.")
        return None, quarantine(path, foreign)
    return record, None


def quarantine(path: Path, error: records.CorruptFileError) -> str:
    """Quarantine a file of a unit, and return a note for the user.

    Args:
        path: the file.
        error: why it cannot be used.
    """
    kept = records.quarantine(path, error.why)
    return f"{error} It is kept as {kept.name}; this unit is trained again."


@contextlib.contextmanager
def holding(unit: Unit) -> Iterator[None]:
    """Hold the unit's lock during the block, after deleting files that a killed worker left half-written.

    Raises:
        LockedError: another process still holds the unit after `LOCK_SECONDS`.
    """
    with records.only_one(unit.directory / "lock", f"Unit {unit.directory}", wait_seconds=LOCK_SECONDS):
        records.remove_unfinished(unit.directory)
        yield


def remove_leftovers(folder: Path) -> None:
    """Delete the checkpoint and the heartbeat of a unit with a record, whose worker was killed at the very end."""
    delete_checkpoint(folder)
    (folder / FILE_NAME).unlink(missing_ok=True)


@contextlib.contextmanager
def running(unit: Unit) -> Iterator[Heartbeat]:
    """Write the unit's log during the block, and its heartbeat at every beat of this process."""
    minutes = unit.study.config.executor.timeout_minutes
    with unit_log.recording(unit.directory, capture="BENCHMARK_WORKER" in os.environ):
        every = WRITE_SECONDS if minutes is None else min(WRITE_SECONDS, 60 * minutes / 4)
        heartbeat = Heartbeat(unit.directory, every)
        try:
            with heard_by(heartbeat.tick):
                yield heartbeat
        finally:
            heartbeat.stop()


def _build(unit: Unit) -> tuple[TrainingComponents, Schedule]:
    assert unit.fold is not None, "only final_eval and traditional have units without a fold, and run them themselves"
    return build(
        unit.study, unit.setting, fingerprint=unit.fingerprint, kind=unit.kind, index=unit.index, fold=unit.fold
    )


def _weights_are_there(unit: Unit, record: records.Record) -> bool:
    """Whether a unit with a record is finished: if its weights are still needed, they must be readable."""
    if not unit.keep_weights or record.result["map_at_r"] is None:
        return True
    try:
        read_state(unit.directory / "best.pt", torch.device("cpu"), mismatch_of(unit))
    except (FileNotFoundError, records.CorruptFileError):
        return False
    return True


def mismatch_of(unit: Unit, fold: int | None = None) -> Callable[[JsonObject | None], str]:
    """A function that describes how the identity of a weights file differs from that of a unit's training.

    Args:
        unit: the unit.
        fold: number of the fold; None for the unit's own.
    """
    return functools.partial(unit.identity(fold=fold).mismatch, accepted=unit.accepted)


def train(
    unit: Unit, report: Report, heartbeat: Heartbeat, make: Callable[[], tuple[TrainingComponents, Schedule]]
) -> Trained:
    """Train a unit: from its checkpoint, or from scratch if that is missing, damaged or of another training.

    Args:
        unit: the unit, whose folder holds the checkpoint, curves and log.
        report: called after each evaluation.
        heartbeat: shows the last scored epoch.
        make: builds fresh components and their schedule.

    Raises:
        UserError: the device cannot compute in the study's precision, or a GPU has not enough memory.
    """
    use_threads(unit.study.config.threads)
    keep_freed_memory()
    config = unit.study.config
    use_precision(config.precision, unit.study.make_device(), config.deterministic)
    reset_peak(unit.study.make_device())
    folder, identity = unit.directory, unit.identity()
    # A checkpoint of other code is not continued even if that code is accepted: a unit is computed by one version.
    seconds = unit.study.config.checkpoint_seconds
    checkpoint = Checkpoint(folder / CHECKPOINT_NAME, identity.to_json(), identity.mismatch, seconds)
    written = time.monotonic()

    def on_epoch(history: list[HistoryRow]) -> None:
        nonlocal written
        if not history:
            return
        heartbeat.epoch = history[-1]["epoch"]
        unit_log.note(folder, epoch_line(history[-1]))
        if time.monotonic() - written >= CURVES_SECONDS:
            write_curves(folder / "curves", history)
            written = time.monotonic()
        report({"kind": unit.kind, "index": unit.index, "fold": unit.fold, "row": history[-1]})

    def attempt() -> tuple[Outcome, TrainingComponents]:
        parts, schedule = make()
        if (device := parts.images.device).type in TRIED:
            _try_memory(unit, parts, schedule)
            reset_peak(device)
        if checkpoint.path.exists():
            unit_log.note(folder, "resume: the next line shows the epoch of the checkpoint")
        return train_fold(parts, schedule, checkpoint, on_epoch), parts

    try:
        trained = Trained(*attempt(), notes=())
    except records.CorruptFileError as error:
        note = quarantine(checkpoint.path, error)
        unit_log.note(folder, note)
        trained = Trained(*attempt(), notes=(note,))
    except RuntimeError as error:
        if NOT_DETERMINISTIC not in str(error):
            raise
        raise UserError(
            f"deterministic=true: {str(error).splitlines()[0]} Leave deterministic out, which changes no score but its "
            "last digits, or train on the CPU (device=cpu)."
        ) from error
    for text in trained.warnings():
        unit_log.note(folder, f"WARNING: {text}")
    return trained


def _try_memory(unit: Unit, parts: TrainingComponents, schedule: Schedule) -> None:
    """Try a batch on the GPU: a lack of memory is reported at once, instead of after retries of the whole unit.

    Raises:
        UserError: the GPU has not enough memory.
    """
    try:
        try_batch(parts, schedule)
    except torch.cuda.OutOfMemoryError as error:
        raise UserError(out_of_memory(unit, str(error).splitlines()[0])) from error


def out_of_memory(unit: Unit, said: str) -> str:
    """The message for a unit whose batch does not fit into the memory of its GPU.

    Args:
        unit: the unit.
        said: what PyTorch said.
    """
    config, target = unit.study.config, "bo" if unit.kind == "trial" else "final-eval"
    key, size = "protocol.batch_size", config.protocol.batch_size
    if config.protocol.story == "traditional":
        key, size, target = "training.batch_size", config.training.batch_size or size, "traditional"
    ways = [f"start another study with a smaller batch: {key}={max(1, size // 2)} variant=NAME"]
    ways += [f"with a gradient in chunks: training.gradient_chunk={max(1, size // 4)} variant=NAME"]
    if fewer := fewer_per_gpu(config):
        ways.insert(0, f'if workers share it, let fewer do so ({fewer}): "{unit.study.command(target, fewer)}"')
    return (
        f"The GPU has too little memory for {unit.name}: a trial batch with {key}={size} failed ({said}). Nothing of "
        f"it was trained. If other programs use the GPU, end them; {', or '.join(ways)}."
    )


def epoch_line(row: HistoryRow) -> str:
    """The line in a unit's log for a scored epoch.

    >>> epoch_line({"epoch": 3, "loss": 0.25, "map_at_r": 0.5})
    'epoch 3   loss 0.25   validation MAP@R 50.00'
    """
    cells = [f"epoch {row['epoch']}", *([] if row["loss"] is None else [f"loss {row['loss']:.4g}"])]
    cells += [f"validation MAP@R {100 * row['map_at_r']:.2f}"] if "map_at_r" in row else []
    return "   ".join(cells)


def fold_result(unit: Unit, trained: Trained) -> JsonObject:
    """The result in a fold's record: what the training found, and the fields that the loss adds."""
    found, loss = trained.outcome.result, trained.parts.loss
    history, best_epoch = found["history"], found["best_epoch"]
    own = loss.record_fields(history, best_epoch) if isinstance(loss, HasRecordFields) else {}
    scope = {"fold": unit.fold, "setting": dict(unit.setting)}
    return found | scope | record_defaults(has_best=best_epoch is not None) | own


if __name__ == "__main__":
    from benchmark.jobs.executors.serve import serve

    serve(train_unit)
