"""Train one model on one fold: loop, early stopping, checkpoints, best-epoch weights.

Source: Musgrave, Belongie, Lim, "A Metric Learning Reality Check", ECCV 2020 (arXiv 2003.08505), section 3, as its
published code does it: an epoch is a fixed number of iterations; the validation classes are scored every
`evaluate_every` epochs; training stops at the first evaluation with `epoch - incumbent > patience`, where only a
strictly higher MAP@R makes an incumbent and the untrained model (epoch 0) is the first one.

Departures: a fold's score is its best *trained* epoch (MLRC's aggregate ignores epoch 0 as well); the trunk-only
evaluation ("epoch -1"), which MLRC logs and never uses, is left out; a fold that diverges after a finite trained
evaluation keeps that score and is marked, and one without a score says why (MLRC told its searcher 0).
"""

import io
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmark.core import records
from benchmark.images.batches import embed, read_ahead, to_batch
from benchmark.protocol.modes import metrics_of
from benchmark.protocol.seeds import stable_seed
from benchmark.training.components import EvaluationSet, Schedule, TrainingComponents
from benchmark.training.lr_schedule import learning_rate_factor


@dataclass
class Progress:
    """Everything about an unfinished fold that its checkpoint must hold, beside the parts' own states."""

    epoch: int = -1  # last epoch finished and evaluated; -1: nothing yet
    incumbent: int = 0
    best_epoch: int | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    train_seconds: float = 0.0
    evaluate_seconds: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """A finished fold: `result` is bit-equal for equal inputs, `seconds` is not; `weights` are the best epoch's."""

    result: dict[str, Any]
    seconds: dict[str, float]
    weights: dict[str, Any] | None


class _DivergedError(Exception):
    """The loss or an embedding is not finite."""


def train_fold(
    parts: TrainingComponents, schedule: Schedule, checkpoint: Path, on_epoch: Callable[[list[dict[str, Any]]], None]
) -> Outcome:
    """Train until the stopping rule or `max_epochs`, going on from `checkpoint` where there is one.

    Args:
        parts: fresh parts; a checkpoint overwrites their state.
        schedule: when to evaluate and stop.
        checkpoint: file that is rewritten after each evaluation; the caller deletes it.
        on_epoch: called with the history so far, at the start and after each evaluation.

    Raises:
        OSError: the checkpoint cannot be written.
        records.CorruptFileError: the checkpoint is damaged.
    """
    progress, best = _resume(parts, checkpoint)
    on_epoch(progress.history)
    reason = None
    while (stopped := _stopped(progress, schedule)) is None:  # first of all: a resumed fold may be over already
        try:
            if progress.epoch >= 0:
                _train(parts, schedule, progress)
            best = _evaluate(parts, schedule, progress, best)
        except _DivergedError as error:
            stopped, reason = "diverged", str(error)
            break
        _save(parts, progress, best, checkpoint)
        on_epoch(progress.history)
    return Outcome(
        _result(progress, stopped, reason),
        {"train": progress.train_seconds, "evaluate": progress.evaluate_seconds},
        best,
    )


def _stopped(progress: Progress, schedule: Schedule) -> str | None:
    """Why training ends after the last evaluation; None while it goes on."""
    if progress.epoch - progress.incumbent > schedule.patience:
        return "patience"
    return "max_epochs" if progress.epoch >= schedule.max_epochs else None


def _train(parts: TrainingComponents, schedule: Schedule, progress: Progress) -> None:
    """Train up to the next evaluation."""
    started = time.perf_counter()
    first = progress.epoch + 1
    last = min(first + schedule.evaluate_every - 1, schedule.max_epochs)
    losses = []
    for epoch in range(first, last + 1):
        _set_train_mode(parts, schedule.freeze_batchnorm)
        if schedule.decay:
            _set_rates(parts, learning_rate_factor(schedule.decay, epoch, schedule.max_epochs))
        iterations = range((epoch - 1) * schedule.iterations_per_epoch, epoch * schedule.iterations_per_epoch)
        losses.append(_train_epoch(parts, schedule, iterations))
        if not math.isfinite(losses[-1]):
            raise _DivergedError(f"the training loss is {losses[-1]} in epoch {epoch}")
    progress.train_seconds += time.perf_counter() - started
    progress.epoch = last
    progress.history.append({"epoch": last, "loss": math.fsum(losses) / len(losses)})


def _set_train_mode(parts: TrainingComponents, freeze_batchnorm: bool | str) -> None:
    """MLRC: statistics of the trunk's batch-norm layers stay frozen, their affine parameters are trained."""
    for part in (parts.trunk, parts.head, parts.loss):
        part.train()
    if freeze_batchnorm:
        for module in parts.trunk.modules():
            if "BatchNorm" in type(module).__name__:
                module.eval()
                module.requires_grad_(freeze_batchnorm != "all")


def _set_rates(parts: TrainingComponents, factor: float) -> None:
    """Every learning rate becomes `factor` times the one that its optimiser was made with."""
    for optimizer in parts.optimizers.values():
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor


def _train_epoch(parts: TrainingComponents, schedule: Schedule, iterations: range) -> float:
    """The mean loss over the given iterations; batches and augmentation depend on the seed and the iteration only."""
    device = parts.images.device
    total = torch.zeros((), device=device)
    after_step = getattr(parts.loss, "after_step", None)
    warming_up = iterations.stop <= schedule.warmup_epochs * schedule.iterations_per_epoch
    moving = [o for name, o in parts.optimizers.items() if not (warming_up and name == "trunk")]
    mean, std = parts.trunk.mean, parts.trunk.std

    def read(iteration: int) -> tuple[int, np.ndarray, Tensor]:
        rows = parts.sampler.batch(iteration)
        generator = torch.Generator().manual_seed(stable_seed(schedule.seed, "augment", iteration))
        return iteration, rows, parts.images.augmented(rows, generator)

    for iteration, rows, pixels in read_ahead(read, iterations, parts.images.threads):
        labels = parts.labels[torch.from_numpy(rows).to(device)]
        loss = parts.loss(parts.embedder(to_batch(pixels, mean, std)), labels)  # type: ignore[arg-type]
        for optimizer in parts.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if schedule.clip:
            _clip(parts, schedule.clip)
        for optimizer in moving:
            optimizer.step()
        total += loss.detach()
        if after_step is not None:
            try:
                after_step()
            except FloatingPointError as error:
                raise _DivergedError(f"{error} at iteration {iteration + 1}") from error
    return float(total) / len(iterations)


def _clip(parts: TrainingComponents, clip: dict[str, float]) -> None:
    """Clip gradients element by element (`value`), or to a largest `norm` of the network's and of the loss's."""
    for group in ((parts.trunk, parts.head), (parts.loss,)):
        parameters = [p for part in group for p in part.parameters() if p.grad is not None]
        if not parameters:  # of a loss without any, at which torch stumbles
            continue
        if "value" in clip:
            torch.nn.utils.clip_grad_value_(parameters, clip["value"])
        if "norm" in clip:
            torch.nn.utils.clip_grad_norm_(parameters, clip["norm"])


def _evaluate(
    parts: TrainingComponents, schedule: Schedule, progress: Progress, best: dict[str, Any] | None
) -> dict[str, Any] | None:
    """Score what is to be scored, complete the history's last row, and return the best trained weights so far."""
    started = time.perf_counter()
    if progress.epoch < 0:
        progress.epoch = 0
        progress.history.append({"epoch": 0, "loss": None})
    row = progress.history[-1]
    try:
        if parts.validation is not None:
            row |= _scores(parts, parts.validation, schedule)
        if parts.monitored is not None:
            row["watched"] = _scores(parts, parts.monitored, schedule)
    except _DivergedError as error:
        progress.history.pop()
        raise _DivergedError(f"{error} after epoch {progress.epoch}") from None
    diagnostics = getattr(parts.loss, "diagnostics", None)
    row["diagnostics"] = diagnostics() if diagnostics is not None else {}
    if parts.validation is not None:
        score = {r["epoch"]: r["map_at_r"] for r in progress.history}
        if row["map_at_r"] > score[progress.incumbent]:
            progress.incumbent = progress.epoch
        if progress.epoch > 0 and (progress.best_epoch is None or row["map_at_r"] > score[progress.best_epoch]):
            progress.best_epoch = progress.epoch
            best = parts.weights()
    progress.evaluate_seconds += time.perf_counter() - started
    return best


def _scores(parts: TrainingComponents, scored: EvaluationSet, schedule: Schedule) -> dict[str, float]:
    """The metrics that a history's row records."""
    embeddings = embed(parts.embedder, scored.images, parts.trunk, parts.head)
    if not bool(torch.isfinite(embeddings).all()):
        raise _DivergedError("the embeddings are not finite")
    metrics = metrics_of(embeddings, scored.labels, scored.is_query, metric=schedule.retrieval,
                         recall_at=scored.recall_at, **schedule.retrieval_options)  # fmt: skip
    names = ("map_at_r", "r_precision", "precision_at_1", *(f"recall_at_{k}" for k in scored.recall_at))
    return {name: metrics[name] for name in names}


def _result(progress: Progress, stopped: str, reason: str | None) -> dict[str, Any]:
    """The part of a fold's record that is compared bit for bit."""
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


def _save(parts: TrainingComponents, progress: Progress, best: dict[str, Any] | None, checkpoint: Path) -> None:
    write_state(checkpoint, {
        "progress": asdict(progress),
        "best": best,
        "trunk": parts.trunk.state_dict(),
        "head": parts.head.state_dict(),
        "loss": parts.loss.state_dict(),
        "optimizers": {name: optimizer.state_dict() for name, optimizer in parts.optimizers.items()},
    })  # fmt: skip


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Write tensors by name, whole and with a checksum."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    records.write_checked(path, buffer.getvalue())


def read_state(path: Path, device: torch.device) -> dict[str, Any]:
    """Read what `write_state` wrote, with its tensors on a device.

    Raises:
        CorruptFileError: the checksum does not match.
        FileNotFoundError: there is no such file.
    """
    state: dict[str, Any] = torch.load(io.BytesIO(records.read_checked(path)), map_location=device, weights_only=True)
    return state


def _resume(parts: TrainingComponents, checkpoint: Path) -> tuple[Progress, dict[str, Any] | None]:
    """Load a checkpoint into the parts; fresh parts where there is none."""
    try:
        state = read_state(checkpoint, parts.images.device)
    except FileNotFoundError:
        return Progress(), None
    for name in ("trunk", "head", "loss"):
        getattr(parts, name).load_state_dict(state[name])
    for name, optimizer in parts.optimizers.items():
        optimizer.load_state_dict(state["optimizers"][name])
    return Progress(**state["progress"]), state["best"]
