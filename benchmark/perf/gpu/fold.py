"""A whole fold on the device: twice, resumed, deterministic, and on the CPU."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmark.core.records import JsonObject
from benchmark.images.in_memory import InMemoryImages
from benchmark.perf.gpu.fact import Fact, Target
from benchmark.perf.gpu.training import CLASSES, EACH, made_up, study_for, training
from benchmark.training.checkpoint import Checkpoint
from benchmark.training.components import EvaluationSet
from benchmark.training.history import HistoryRow
from benchmark.training.loop import train_fold

LOSSES = ("proxy_anchor", "hpl_pa", "contrastive", "hier")


def facts(target: Target) -> Iterator[Fact]:
    """Yield whether the same fold gives the same scores, and what `deterministic` costs.

    Args:
        target: the device that trains.
    """
    for loss in LOSSES[:1] if target.small else LOSSES:
        one, two = trained(target, loss), trained(target, loss)
        resumed = trained(target, loss, stop_after=3)
        fixed, again = (trained(target, loss, "deterministic=true") for _ in range(2))
        cpu = trained(Target(torch.device("cpu"), target.small), loss)
        yield Fact(f"{loss}: MAP@R", 100 * one[0]["map_at_r"], "%", f"{100 * cpu[0]['map_at_r']:.4g} on the CPU")
        yield Fact(f"{loss}: the same", note=f"twice: {same(one, two)}, resumed: {same(one, resumed)}, deterministic: "
                   f"twice {same(fixed, again)}")  # fmt: skip
        yield Fact(f"{loss}: time with deterministic=true", again[1] / two[1], "x")


def same(one: tuple[JsonObject, float], two: tuple[JsonObject, float]) -> str:
    """Whether two folds have equal results."""
    return "yes" if one[0] == two[0] else "NO"


def trained(target: Target, loss: str, *overrides: str, stop_after: int = 0) -> tuple[JsonObject, float]:
    """The result of a fold, and its seconds.

    Args:
        target: the device that trains.
        loss: a file of `conf/loss/`.
        overrides: further options of the study, in Hydra's grammar.
        stop_after: number of evaluations after which the training is interrupted and resumed; 0: never.
    """
    study = study_for(
        "small_conv", 16 if target.small else 128, target, f"loss={loss}", "dataset.evaluate_every=1",
        f"dataset.iterations_per_epoch={2 if target.small else 10}", "dataset.max_epochs=4", "dataset.patience=9",
        *overrides,
    )  # fmt: skip
    images = InMemoryImages(made_up(CLASSES * EACH, 32), shift=2, device=target.device)

    class _StoppedError(Exception):
        """The training was interrupted."""

    with tempfile.TemporaryDirectory() as folder:
        checkpoint, calls = Checkpoint(Path(folder) / "checkpoint.pt", {}, lambda identity: "", seconds=0), 0

        def on_epoch(history: list[HistoryRow]) -> None:
            nonlocal calls
            calls += 1
            if calls == stop_after:
                raise _StoppedError

        started = time.perf_counter()
        while True:
            parts, schedule = training(study, target, images)
            parts.validation = EvaluationSet(images, parts.labels)
            try:
                result = train_fold(parts, schedule, checkpoint, on_epoch).result
            except _StoppedError:
                continue
            return result, time.perf_counter() - started
