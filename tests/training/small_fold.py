"""A fold that trains in milliseconds, with the real trunk, head, sampler and optimisers."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmark.heads.linear import Linear
from benchmark.images.in_memory import InMemoryImages
from benchmark.samplers.m_per_class import MPerClass
from benchmark.training.checkpoint import Checkpoint
from benchmark.training.components import EvaluationSet, Schedule, TrainingComponents
from benchmark.training.history import HistoryRow
from benchmark.trunks.small_conv import SmallConv


class ProxyLoss(nn.Module):
    """A proxy loss with a step counter in a buffer; it can return given values or fail after a given step."""

    def __init__(self, values: Iterator[float] | None = None, fault: Callable[[int], None] | None = None) -> None:
        super().__init__()
        self.proxies = nn.Parameter(torch.randn(4, 6))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.values, self.fault = values, fault

    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        loss = nn.functional.cross_entropy(embeddings @ self.proxies.T * (1 + self.steps / 9), labels)
        return loss if self.values is None else loss * 0 + next(self.values)

    def after_step(self) -> None:
        self.steps += 1
        if self.fault is not None:
            self.fault(int(self.steps))

    def diagnostics(self) -> dict[str, float]:
        return {"steps": float(self.steps)}


def a_fold(seed: int = 0, loss: nn.Module | None = None, shift: int = 1) -> TrainingComponents:
    """Return a fold of four training and three validation classes of five 8 x 8 images; `seed` sets the weights."""
    torch.manual_seed(seed)
    trunk, head, loss = SmallConv(channels=(4, 8), strides=(2, 2)), Linear(8, 6), loss or ProxyLoss()
    optimizers: dict[str, torch.optim.Optimizer] = {
        "trunk": torch.optim.Adam(trunk.parameters(), lr=0.01),
        "head": torch.optim.RMSprop(head.parameters(), lr=0.001, momentum=0.9),
        "loss": torch.optim.RMSprop(loss.parameters(), lr=0.01, momentum=0.9),
    }
    rng = np.random.default_rng(0)
    images = InMemoryImages(rng.integers(0, 256, (35, 8, 8), dtype=np.uint8), shift=shift)
    labels = torch.from_numpy(np.repeat(np.arange(4), 5))
    sampler = MPerClass(labels.numpy(), batch_size=6, m=2, seed=7)
    validation = EvaluationSet(images.part(np.arange(20, 35)), torch.from_numpy(np.repeat([11, 12, 13], 5)))
    return TrainingComponents(trunk, head, loss, optimizers, sampler, images.part(np.arange(20)), labels, validation)


def a_schedule(**changes: Any) -> Schedule:
    settings: dict[str, Any] = {
        "iterations_per_epoch": 1, "evaluate_every": 1, "patience": 9, "max_epochs": 1000, "freeze_batchnorm": False,
        "retrieval": "cosine", "seed": 3,
    }  # fmt: skip
    return Schedule(**settings | changes)


def a_checkpoint(path: Path, training: str = "this training", seconds: float = 0.0) -> Checkpoint:
    """A checkpoint that refuses that of any other training, by default one that is written after each evaluation."""
    mine = {"of": training}
    return Checkpoint(path, mine, lambda found: "" if found == mine else f"it is of {found}", seconds)


def nothing(history: list[HistoryRow]) -> None:
    """An `on_epoch` that does nothing."""
