"""Train one model on one fold: loop, early stopping, checkpoints, best-epoch weights.

Source: Musgrave, Belongie, Lim, "A Metric Learning Reality Check", ECCV 2020 (arXiv 2003.08505), section 3, following
its published code: an epoch is a fixed number of iterations; the validation classes are scored every `evaluate_every`
epochs; training stops at the first evaluation with `epoch - incumbent > patience`, where only a strictly higher MAP@R
makes an incumbent and the untrained model (epoch 0) is the first one.

Departures: a fold's score is that of its best *trained* epoch (MLRC's aggregate ignores epoch 0 too); the trunk-only
evaluation ("epoch -1"), which MLRC logs and never uses, is skipped; a fold that diverges after a trained epoch was
scored keeps that score and is marked as diverged, and a fold without a score records the reason (MLRC reported a score
of 0 to its searcher).
"""

import io
import math
import pickle
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import cast

import msgspec
import numpy as np
import torch
from torch import Tensor

from benchmark.core import records
from benchmark.core.records import JsonObject
from benchmark.core.typed import AtLeastOne, Count, Seconds, Text
from benchmark.images.batches import embed, read_ahead, to_batch
from benchmark.losses import HasAfterStep, HasDiagnostics
from benchmark.protocol.modes import metrics_of
from benchmark.protocol.seeds import stable_seed
from benchmark.training.components import EvaluationSet, Schedule, TrainingComponents, Weights
from benchmark.training.history import HistoryRow, Scores
from benchmark.training.lr_schedule import learning_rate_factor


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
    """

    epoch: int = -1
    incumbent: Count = 0
    best_epoch: AtLeastOne | None = None
    history: list[HistoryRow] = field(default_factory=list)
    train_seconds: Seconds = 0.0
    evaluate_seconds: Seconds = 0.0
    devices: list[Text] = field(default_factory=list)


@dataclass(frozen=True)
class Checkpoint:
    """The file from which an interrupted training resumes.

    Attributes:
        path: the file.
        identity: the training's identity, as JSON.
        mismatch: describes how the identity in a file differs from the training's; an empty string if it agrees.
    """

    path: Path
    identity: JsonObject
    mismatch: Callable[[JsonObject | None], str]


@dataclass(frozen=True)
class Outcome:
    """A finished fold.

    Attributes:
        result: content of the fold's record; equal inputs give an equal result, bit for bit.
        seconds: wall-clock time by activity, `train` and `evaluate`.
        weights: weights of the best trained epoch; None if no trained epoch has a score.
        devices: kinds of the devices that trained it; more than one if it resumed on another kind of device.
        monitored_weights: weights of the trained epoch with the highest Precision@1 on the monitored images, the first
            of equal ones; None unless the components keep them.
        iterations: number of optimiser steps.
    """

    result: JsonObject
    seconds: dict[str, float]
    weights: Weights | None
    devices: tuple[str, ...] = ()
    monitored_weights: Weights | None = None
    iterations: int = 0


class _DivergedError(Exception):
    """The loss or an embedding is not finite."""


def train_fold(
    parts: TrainingComponents, schedule: Schedule, checkpoint: Checkpoint, on_epoch: Callable[[list[HistoryRow]], None]
) -> Outcome:
    """Train until the stopping rule applies or `max_epochs` is reached, resuming from the checkpoint if there is one.

    Args:
        parts: freshly initialised components; a checkpoint overwrites their state.
        schedule: how long to train, when to evaluate and when to stop.
        checkpoint: file that is rewritten after each evaluation; the caller deletes it.
        on_epoch: called with the history so far, at the start and after each evaluation.

    Raises:
        UserError: the checkpoint cannot be written.
        CorruptFileError: the checkpoint is damaged, does not fit the components, or belongs to another training.
    """
    progress, best = _resume(parts, checkpoint)
    on_epoch(progress.history)
    if (kind := parts.images.device.type) not in progress.devices:
        progress.devices.append(kind)
    reason = None
    while (stopped := _stopped(progress, schedule)) is None:  # checked first: a resumed fold may already have stopped
        try:
            if progress.epoch >= 0:
                _train(parts, schedule, progress)
            _evaluate(parts, schedule, progress, best)
        except _DivergedError as error:
            stopped, reason = "diverged", str(error)
            break
        _save(parts, progress, best, checkpoint)
        on_epoch(progress.history)
    return Outcome(
        _result(progress, stopped, reason),
        {"train": progress.train_seconds, "evaluate": progress.evaluate_seconds},
        best.get("validation"),
        tuple(progress.devices),
        best.get("monitored"),
        max(0, progress.epoch) * schedule.iterations_per_epoch,
    )


def _stopped(progress: Progress, schedule: Schedule) -> str | None:
    """Return why training stops after the last evaluation; None while it continues."""
    if progress.epoch - progress.incumbent > schedule.patience:
        return "patience"
    return "max_epochs" if progress.epoch >= schedule.max_epochs else None


def _train(parts: TrainingComponents, schedule: Schedule, progress: Progress) -> None:
    """Train until the next evaluation."""
    started = time.perf_counter()
    first = progress.epoch + 1
    last = min(first + schedule.evaluate_every - 1, schedule.max_epochs)
    losses = []
    for epoch in range(first, last + 1):
        set_train_mode(parts, schedule.freeze_batchnorm)
        if schedule.decay:
            _set_rates(parts, learning_rate_factor(schedule.decay, epoch, schedule.max_epochs))
        iterations = range((epoch - 1) * schedule.iterations_per_epoch, epoch * schedule.iterations_per_epoch)
        losses.append(train_epoch(parts, schedule, iterations))
        if not math.isfinite(losses[-1]):
            raise _DivergedError(f"the training loss is {losses[-1]} in epoch {epoch}")
    progress.train_seconds += time.perf_counter() - started
    progress.epoch = last
    progress.history.append({"epoch": last, "loss": math.fsum(losses) / len(losses)})


def set_train_mode(parts: TrainingComponents, freeze_batchnorm: bool | str) -> None:
    """Put all modules into training mode, except for batch-norm layers of the trunk that are frozen.

    As in MLRC, freezing keeps the statistics of these layers and trains their affine parameters.

    Args:
        parts: the components whose modules are set.
        freeze_batchnorm: see `Schedule`.
    """
    for module in parts.modules.values():
        module.train()
    if freeze_batchnorm:
        for layer in parts.trunk.modules():
            if "BatchNorm" in type(layer).__name__:
                layer.eval()
                layer.requires_grad_(freeze_batchnorm != "all")


def _set_rates(parts: TrainingComponents, factor: float) -> None:
    """Set every learning rate to `factor` times its initial value."""
    for optimizer in parts.optimizers.values():
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor


def train_epoch(parts: TrainingComponents, schedule: Schedule, iterations: range) -> float:
    """Train for some iterations and return their mean loss; batches and augmentation depend on seed and iteration only.

    Args:
        parts: what is trained, already in training mode.
        schedule: its seed, warm-up and clipping apply.
        iterations: numbers of the iterations, counted from 0 over the whole training.
    """
    device = parts.images.device
    total = torch.zeros((), device=device)
    warming_up = iterations.stop <= schedule.warmup_epochs * schedule.iterations_per_epoch
    active = [o for name, o in parts.optimizers.items() if not (warming_up and name == "trunk")]

    def read(iteration: int) -> tuple[int, np.ndarray, Tensor]:
        rows = parts.sampler.batch(iteration)
        generator = torch.Generator().manual_seed(stable_seed(schedule.seed, "augment", iteration))
        return iteration, rows, parts.images.augmented(rows, generator)

    for iteration, rows, pixels in read_ahead(read, iterations, parts.images.threads):
        labels = parts.labels[torch.from_numpy(rows).to(device)]
        loss = parts.loss(parts.embedder(to_batch(pixels, parts.trunk.mean, parts.trunk.std)), labels)
        for optimizer in parts.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if schedule.clip:
            _clip(parts, schedule.clip)
        for optimizer in active:
            optimizer.step()
        total += loss.detach()
        if isinstance(parts.loss, HasAfterStep):
            try:
                parts.loss.after_step()
            except FloatingPointError as error:
                raise _DivergedError(f"{error} at iteration {iteration + 1}") from error
    return float(total) / len(iterations)


def _clip(parts: TrainingComponents, clip: dict[str, float]) -> None:
    """Clip gradients by element (`value`) or by `norm`, taken over trunk and head together and over the loss alone."""
    for group in ((parts.trunk, parts.head), (parts.loss,)):
        parameters = [p for module in group for p in module.parameters() if p.grad is not None]
        if not parameters:  # a loss without parameters: torch does not clip an empty list
            continue
        if "value" in clip:
            torch.nn.utils.clip_grad_value_(parameters, clip["value"])
        if "norm" in clip:
            torch.nn.utils.clip_grad_norm_(parameters, clip["norm"])


def _evaluate(parts: TrainingComponents, schedule: Schedule, progress: Progress, best: dict[str, Weights]) -> None:
    """Evaluate the model, complete the last row of the history, and update the best trained weights so far."""
    started = time.perf_counter()
    if progress.epoch < 0:
        progress.epoch = 0
        progress.history.append({"epoch": 0, "loss": None})
    row = progress.history[-1]
    try:
        if parts.validation is not None:
            row.update(_scores(parts, parts.validation, schedule))
        if parts.monitored is not None:
            row["watched"] = _scores(parts, parts.monitored, schedule, progress.epoch)
    except _DivergedError as error:
        progress.history.pop()
        raise _DivergedError(f"{error} after epoch {progress.epoch}") from None
    row["diagnostics"] = parts.loss.diagnostics() if isinstance(parts.loss, HasDiagnostics) else {}
    if parts.validation is not None:
        map_at_r = {r["epoch"]: r["map_at_r"] for r in progress.history}
        if row["map_at_r"] > map_at_r[progress.incumbent]:
            progress.incumbent = progress.epoch
        if progress.epoch > 0 and (progress.best_epoch is None or row["map_at_r"] > map_at_r[progress.best_epoch]):
            progress.best_epoch = progress.epoch
            best["validation"] = parts.weights()
    if parts.keep_monitored and progress.epoch > 0:
        earlier = [r["watched"]["precision_at_1"] for r in progress.history[:-1] if r["epoch"] > 0]
        if all(row["watched"]["precision_at_1"] > value for value in earlier):
            best["monitored"] = parts.weights()
    progress.evaluate_seconds += time.perf_counter() - started


def _scores(
    parts: TrainingComponents, evaluated: EvaluationSet, schedule: Schedule, monitored_epoch: int | None = None
) -> Scores:
    embeddings = embed(parts.embedder, evaluated.images, parts.trunk, parts.head)
    if not bool(torch.isfinite(embeddings).all()):
        raise _DivergedError("the embeddings are not finite")
    if monitored_epoch is not None and parts.on_monitored is not None:
        parts.on_monitored(monitored_epoch, embeddings)
    metrics = metrics_of(embeddings, evaluated.labels, evaluated.is_query, metric=schedule.retrieval,
                         recall_at=evaluated.recall_at, **schedule.retrieval_options)  # fmt: skip
    names = ("map_at_r", "r_precision", "precision_at_1", *(f"recall_at_{k}" for k in evaluated.recall_at))
    return cast(Scores, {name: metrics[name] for name in names})


def _result(progress: Progress, stopped: str, reason: str | None) -> JsonObject:
    """Return the part of a fold's record that is compared bit for bit."""
    rows = {row["epoch"]: row for row in progress.history}
    best = rows[progress.best_epoch] if progress.best_epoch is not None else None
    return {
        "map_at_r": best["map_at_r"] if best else None,
        "precision_at_1": best["precision_at_1"] if best else None,
        "r_precision": best["r_precision"] if best else None,
        "best_epoch": progress.best_epoch,
        "last_epoch": progress.epoch,
        "stopped": stopped,
        "reason": reason,
        "history": progress.history,
    }


def _save(parts: TrainingComponents, progress: Progress, best: dict[str, Weights], checkpoint: Checkpoint) -> None:
    states = {name: module.state_dict() for name, module in parts.modules.items()}
    optimizers = {name: optimizer.state_dict() for name, optimizer in parts.optimizers.items()}
    state = {"progress": asdict(progress), "best": best, "modules": states, "optimizers": optimizers}
    write_state(checkpoint.path, state, checkpoint.identity)


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
    records.write_checked(path, buffer.getvalue())


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


def _resume(parts: TrainingComponents, checkpoint: Checkpoint) -> tuple[Progress, dict[str, Weights]]:
    """Load the checkpoint, if any, into the components, and return the progress and the best weights.

    The latter are those of the epochs that are best on the `validation` and on the `monitored` images, by these names.

    Raises:
        CorruptFileError: it is damaged, does not fit the components, or belongs to another training.
    """
    try:
        state = read_state(checkpoint.path, parts.images.device, checkpoint.mismatch)
    except FileNotFoundError:
        return Progress(), {}
    try:
        msgspec.convert(state["progress"], Progress, strict=True)  # checks the fields
        progress, best = Progress(**state.pop("progress")), state.pop("best")
        _check_progress(progress, parts)
        for name, module in parts.modules.items():
            module.load_state_dict(state["modules"].pop(name))
        for name, optimizer in parts.optimizers.items():
            optimizer.load_state_dict(state["optimizers"].pop(name))
        for name, optimizer in parts.optimizers.items():
            _check_moments(optimizer, name)
        if unused := [*state.pop("modules"), *state.pop("optimizers"), *state]:
            raise ValueError(f"it has unknown entries: {', '.join(unused)}")
        best = {name: weights for name, weights in best.items() if name != "monitored" or parts.keep_monitored}
        fitting = _shapes({name: module.state_dict() for name, module in parts.modules.items()})
        kept = {"validation": progress.best_epoch is not None, "monitored": parts.keep_monitored and progress.epoch > 0}
        if _shapes(best) != {name: fitting for name in kept if kept[name]}:
            raise ValueError("the best weights have other names or shapes than the model, or are missing")
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        fault = str(error).splitlines()[0]
        raise records.CorruptFileError(f"{checkpoint.path} does not fit this training: {fault}.") from error
    return progress, best


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


def _check_progress(progress: Progress, parts: TrainingComponents) -> None:
    """Check that a checkpoint's history agrees with its epochs, and has the scores that training needs to continue.

    Raises:
        ValueError: an epoch or a score is missing, or an epoch is too many.
    """
    rows = {row["epoch"]: row for row in progress.history}
    if not rows or [*rows] != sorted(rows) or len(rows) < len(progress.history) or {0, progress.epoch} - {*rows}:
        raise ValueError(f"the history has the epochs {[*rows]}, but the last epoch is {progress.epoch}")
    if progress.epoch != max(rows):
        raise ValueError(f"the history ends at epoch {max(rows)}, but the last epoch is {progress.epoch}")
    if any((row["loss"] is None) != (epoch == 0) for epoch, row in rows.items()):
        raise ValueError("a loss is missing in the history, or epoch 0 has one")
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
