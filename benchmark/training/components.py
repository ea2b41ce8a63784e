"""What a training is made of: its schedule, its parts, and the images by which it is judged."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from benchmark.images import Images


@dataclass(frozen=True)
class Schedule:
    """When to evaluate, when to stop, and what is frozen. Epochs are `iterations_per_epoch` iterations."""

    iterations_per_epoch: int
    evaluate_every: int
    patience: int
    max_epochs: int
    freeze_batchnorm: bool | str  # of the trunk: true, its statistics; "all", its affine parameters as well
    retrieval: str
    seed: int
    retrieval_options: dict[str, Any] = field(default_factory=dict)
    warmup_epochs: int = 0  # at the start, in which the trunk's weights stay as they are
    clip: dict[str, float] = field(default_factory=dict)  # of gradients: `value`, or `norm`
    decay: dict[str, Any] = field(default_factory=dict)  # of all learning rates, see `learning_rate_factor`


@dataclass
class EvaluationSet:
    """Images that are searched among themselves; with `is_query` (M,) the queries among the others.

    Attributes:
        images: on the training device.
        labels: (M,) int64.
        recall_at: the K of Recall@K that are recorded beside MAP@R, R-Precision and P@1.
    """

    images: Images
    labels: Tensor
    is_query: Tensor | None = None
    recall_at: tuple[int, ...] = ()


@dataclass
class TrainingComponents:
    """What is trained, with what, on what.

    Attributes:
        images: N training images, on the training device.
        labels: (N,) int64 in 0..C-1.
        validation: of other classes; its MAP@R decides about the best epoch and the stop. None: nothing decides.
        monitored: scored at each evaluation as well, without deciding anything.
        beat: called for each batch, trained on or evaluated.
    """

    trunk: torch.nn.Module
    head: torch.nn.Module
    loss: torch.nn.Module
    optimizers: dict[str, torch.optim.Optimizer]
    sampler: Any
    images: Images
    labels: Tensor
    validation: EvaluationSet | None
    monitored: EvaluationSet | None = None
    beat: Callable[[], None] | None = None

    def embedder(self, batch: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D)."""
        if self.beat is not None:
            self.beat()
        return self.head(self.trunk(batch))

    def weights(self) -> dict[str, Any]:
        """A copy of the weights of the embedding model and of the loss's learnt state."""
        parts = {"trunk": self.trunk, "head": self.head}
        copies = {name: {k: v.detach().clone() for k, v in p.state_dict().items()} for name, p in parts.items()}
        return copies | {"loss": {k: v.detach().clone() for k, v in self.loss.named_parameters()}}
