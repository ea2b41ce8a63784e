"""Train one model on one fold: loop, early stopping, best-epoch weights.

Source: Musgrave, Belongie, Lim, "A Metric Learning Reality Check", ECCV 2020 (arXiv 2003.08505), section 3, following
its published code: an epoch is a fixed number of iterations; the validation classes are scored every `evaluate_every`
epochs; training stops at the first evaluation with `epoch - incumbent > patience`, where only a strictly higher MAP@R
makes an incumbent and the untrained model (epoch 0) is the first one.

Departures: a fold's score is that of its best *trained* epoch (MLRC's aggregate ignores epoch 0 too); the trunk-only
evaluation ("epoch -1"), which MLRC logs and never uses, is skipped; a fold that diverges after a trained epoch was
scored keeps that score and is marked as diverged, and a fold without a score records the reason (MLRC reported a score
of 0 to its searcher).
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from benchmark.core.errors import UserError
from benchmark.core.records import JsonObject
from benchmark.heads import HasFit
from benchmark.images.batches import embed, read_ahead, to_batch, to_device
from benchmark.losses import HasAfterStep, HasDiagnostics
from benchmark.protocol.modes import metrics_of
from benchmark.protocol.nearest import ieee_products
from benchmark.protocol.seeds import stable_seed
from benchmark.training.checkpoint import Best, Checkpoint, Progress, Saver, resume
from benchmark.training.components import EvaluationSet, Schedule, TrainingComponents, Weights
from benchmark.training.history import HistoryRow, Scores
from benchmark.training.layer_draws import seeded_draws
from benchmark.training.lr_schedule import learning_rate_factor


@dataclass(frozen=True)
class Outcome:
    """A finished fold.

    Attributes:
        result: content of the fold's record; equal inputs give an equal result, bit for bit.
        seconds: wall-clock time by activity, `train` and `evaluate`.
        weights: weights of the best trained epoch, on the CPU; None if no trained epoch has a score.
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


class _DivergedError(FloatingPointError):
    """The loss or an embedding is not finite."""


def train_fold(
    parts: TrainingComponents, schedule: Schedule, checkpoint: Checkpoint, on_epoch: Callable[[list[HistoryRow]], None]
) -> Outcome:
    """Train until the stopping rule applies or `max_epochs` is reached, resuming from the checkpoint if there is one.

    Args:
        parts: freshly initialised components; a checkpoint overwrites their state.
        schedule: how long to train, when to evaluate and when to stop.
        checkpoint: file that is rewritten from time to time; the caller deletes it.
        on_epoch: called with the history so far, at the start and after each evaluation.

    Raises:
        UserError: the checkpoint cannot be written, or `gradient_chunk` does not fit the network.
        CorruptFileError: the checkpoint is damaged, does not fit the components, or belongs to another training.
    """
    progress, best = resume(parts, schedule, checkpoint)
    on_epoch(progress.history)
    if progress.epoch < 0 and isinstance(parts.head, HasFit):
        with seeded_draws(parts.images.device) as seed_draws:
            seed_draws(stable_seed(schedule.seed, "fit"))
            parts.head.fit(embed(parts.features, parts.images, parts.trunk, parts.head))
    if (kind := parts.images.device.type) not in progress.devices:
        progress.devices.append(kind)
    reason = None
    with Saver(checkpoint, best) as saver:
        while (stopped := _stopped(progress, schedule)) is None:  # checked first: a resumed fold may have stopped
            try:
                if progress.epoch >= 0:
                    _train(parts, schedule, progress, saver, best)
                _evaluate(parts, schedule, progress, best)
            except _DivergedError as error:
                stopped, reason = "diverged", str(error)
                break
            if saver.is_due(evaluated=True):
                saver.save(parts, progress, best)
            on_epoch(progress.history)
    weights = {name: found.weights for name, found in best.items()}
    return Outcome(
        _result(progress, stopped, reason),
        {"train": progress.train_seconds, "evaluate": progress.evaluate_seconds},
        weights.get("validation"),
        tuple(progress.devices),
        weights.get("monitored"),
        max(0, progress.epoch) * schedule.iterations_per_epoch,
    )


def _stopped(progress: Progress, schedule: Schedule) -> str | None:
    """Return why training stops after the last evaluation; None while it continues."""
    if progress.epoch - progress.incumbent > schedule.patience:
        return "patience"
    return "max_epochs" if progress.epoch >= schedule.max_epochs else None


def _train(
    parts: TrainingComponents, schedule: Schedule, progress: Progress, saver: Saver, best: dict[str, Best]
) -> None:
    """Train until the next evaluation, from the iteration at which a checkpoint was written if there is one."""
    started, length = time.perf_counter(), schedule.iterations_per_epoch
    last = min(progress.epoch + schedule.evaluate_every, schedule.max_epochs)

    def after_iteration(iteration: int, total: Tensor) -> None:
        nonlocal started
        # Not before an evaluation, for which a loss may report numbers of its last batch.
        if iteration + 1 < last * length and saver.is_due(evaluated=False):
            progress.iterations, progress.loss_sum = iteration % length + 1, float(total)
            now = time.perf_counter()
            progress.train_seconds, started = progress.train_seconds + now - started, now
            saver.save(parts, progress, best)

    for epoch in range(progress.epoch + len(progress.losses) + 1, last + 1):
        set_train_mode(parts, schedule.freeze_batchnorm)
        if schedule.decay:
            _set_rates(parts, learning_rate_factor(schedule.decay, epoch, schedule.max_epochs))
        iterations = range((epoch - 1) * length + progress.iterations, epoch * length)
        total = train_epoch(parts, schedule, iterations, progress.loss_sum, after_iteration)
        progress.losses.append(total / length)
        progress.iterations, progress.loss_sum = 0, 0.0
        if not math.isfinite(progress.losses[-1]):
            raise _DivergedError(f"the training loss is {progress.losses[-1]} in epoch {epoch}")
    progress.train_seconds += time.perf_counter() - started
    progress.epoch = last
    progress.history.append({"epoch": last, "loss": math.fsum(progress.losses) / len(progress.losses)})
    progress.losses = []


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


def train_epoch(
    parts: TrainingComponents,
    schedule: Schedule,
    iterations: range,
    loss_sum: float = 0.0,
    after_iteration: Callable[[int, Tensor], None] | None = None,
) -> float:
    """Train for some iterations and return the sum of their losses.

    Batches, augmentation, and what layers draw from torch's generators depend on seed and iteration only.

    Args:
        parts: what is trained, already in training mode.
        schedule: its seed, warm-up and clipping apply.
        iterations: numbers of the iterations, counted from 0 over the whole training.
        loss_sum: sum of the losses of earlier iterations of the epoch, with which the sum starts.
        after_iteration: called after each iteration with its number and the sum so far, a scalar.

    Raises:
        UserError: `gradient_chunk` does not fit the network.
    """
    check_chunks(schedule.gradient_chunk, schedule.freeze_batchnorm, parts.trunk, parts.head)
    device = parts.images.device
    total = torch.full((), loss_sum, device=device)
    warming_up = iterations.stop <= schedule.warmup_epochs * schedule.iterations_per_epoch
    active = [o for name, o in parts.optimizers.items() if not (warming_up and name == "trunk")]

    def read(iteration: int) -> tuple[int, np.ndarray, Tensor]:
        rows = parts.sampler.batch(iteration)
        generator = torch.Generator().manual_seed(stable_seed(schedule.seed, "augment", iteration))
        return iteration, rows, parts.images.augmented(rows, generator)

    with seeded_draws(device) as seed_draws:
        for iteration, rows, pixels in read_ahead(read, iterations, parts.images.threads):
            seed_draws(stable_seed(schedule.seed, "layers", iteration))
            labels = parts.labels[to_device(rows, device)]
            for optimizer in parts.optimizers.values():
                optimizer.zero_grad(set_to_none=True)
            loss = backward(parts, pixels, labels, schedule.gradient_chunk)
            if schedule.clip:
                _clip(parts, schedule.clip)
            for optimizer in active:
                optimizer.step()
            total += loss
            if isinstance(parts.loss, HasAfterStep):
                try:
                    parts.loss.after_step()
                except FloatingPointError as error:
                    raise _DivergedError(f"{error} at iteration {iteration + 1}") from error
            if after_iteration is not None:
                after_iteration(iteration, total)
    return float(total)


def backward(parts: TrainingComponents, pixels: Tensor, labels: Tensor, chunk: int = 0) -> Tensor:
    """Add the gradient of a batch's loss to the parameters of trunk, head and loss, and return the loss, a scalar.

    The loss is differentiated with respect to the embeddings first, so that its own products, in both directions, are
    computed in float32 where those of trunk and head are in TF32.

    The two-pass gradient needs memory for `chunk` images at a time, for any loss: it embeds the batch in chunks without
    a graph, differentiates the loss with respect to the embeddings (and its own parameters), then embeds each chunk
    again, with a graph, and passes its part of that gradient on. For a network that treats each image by itself, it is
    the usual gradient up to rounding, and takes one more forward pass.

    Source: Revaud, Almazan, Rezende, de Souza, "Learning with Average Precision: Training Image Retrieval with a
    Listwise Loss", ICCV 2019, arXiv 1906.07589, Section 3.3; used by Patel, Tolias, Matas, CVPR 2022, arXiv 2108.11179.

    Args:
        parts: what is trained; see `check_chunks`.
        pixels: the batch, uint8 (B, Ch, H, W).
        labels: (B,).
        chunk: images in a chunk; 0, or at least B: the usual gradient.
    """

    def embeddings(some: Tensor) -> Tensor:
        return parts.embedder(to_batch(some, parts.trunk.mean, parts.trunk.std))

    if two_passes := 0 < chunk < len(labels):
        with torch.no_grad():
            whole = torch.cat([embeddings(some) for some in pixels.split(chunk)])  # (B, D)
    else:
        whole = embeddings(pixels)
    points = whole.detach().requires_grad_()
    with ieee_products():
        loss: Tensor = parts.loss(points, labels)
        loss.backward()
    if points.grad is None:  # a batch without pairs may have no gradient
        return loss.detach()
    if two_passes:
        for some, gradient in zip(pixels.split(chunk), points.grad.split(chunk), strict=True):
            embeddings(some).backward(gradient)
    elif whole.requires_grad:
        whole.backward(points.grad)
    return loss.detach()


def check_chunks(chunk: int, freeze_batchnorm: bool | str, trunk: nn.Module, head: nn.Module) -> None:
    """Check that a network treats each image by itself, and twice in the same way, if its gradient takes two passes.

    Args:
        chunk: images in a chunk; 0 for the usual gradient.
        freeze_batchnorm: see `Schedule`.
        trunk: maps images to features.
        head: maps features to embeddings.

    Raises:
        UserError: a layer's output for an image depends on the other images or on chance.
    """
    if not chunk:
        return
    trained = [] if freeze_batchnorm else [*trunk.modules()]
    if any("BatchNorm" in type(layer).__name__ for layer in (*trained, *head.modules())):
        raise UserError(
            f"training.gradient_chunk={chunk} embeds a batch in chunks, but batch norm that is trained needs the whole "
            "batch. Freeze its statistics (training.freeze_batchnorm=true), take a trunk without batch norm, or give "
            "training.gradient_chunk=0."
        )
    chances = [getattr(layer, name, 0.0) for layer in (*trunk.modules(), *head.modules()) for name in ("p", "drop_prob")
               if "Drop" in type(layer).__name__]  # fmt: skip
    if any(chances):
        raise UserError(
            f"training.gradient_chunk={chunk} embeds each image twice, but dropout would draw other numbers each time. "
            "Take a trunk without dropout, or give training.gradient_chunk=0."
        )


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


def _evaluate(parts: TrainingComponents, schedule: Schedule, progress: Progress, best: dict[str, Best]) -> None:
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
        scored = progress.epoch > 0 or schedule.max_epochs == 0  # 0: nothing is trained
        if scored and (progress.best_epoch is None or row["map_at_r"] > map_at_r[progress.best_epoch]):
            progress.best_epoch = progress.epoch
            best["validation"] = Best(progress.epoch, parts.weights())
    if parts.keep_monitored and progress.epoch > 0:
        earlier = [r["watched"]["precision_at_1"] for r in progress.history[:-1] if r["epoch"] > 0]
        if all(row["watched"]["precision_at_1"] > value for value in earlier):
            best["monitored"] = Best(progress.epoch, parts.weights())
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
