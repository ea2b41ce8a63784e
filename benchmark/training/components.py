"""The components of training: modules, training images, evaluation images and schedule."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from benchmark.core.pulse import beat
from benchmark.core.records import JsonObject
from benchmark.heads import Head
from benchmark.images import Images
from benchmark.losses import Loss
from benchmark.samplers import Sampler
from benchmark.training.precision import forward
from benchmark.trunks import Trunk

Weights = dict[str, dict[str, Tensor]]  # by module (trunk, head, loss): its `state_dict`


class TrunkModule(Trunk, nn.Module):
    """A `torch.nn.Module` that is a `Trunk`, for annotations only: trunks derive from `torch.nn.Module` alone."""


class HeadModule(Head, nn.Module):
    """A `torch.nn.Module` that is a `Head`, for annotations only."""


class LossModule(Loss, nn.Module):
    """A `torch.nn.Module` that is a `Loss`, for annotations only."""


@dataclass(frozen=True)
class Schedule:
    """How long to train, when to evaluate and when to stop. An epoch is a fixed number of iterations.

    Attributes:
        iterations_per_epoch: optimiser steps in an epoch.
        evaluate_every: epochs between two evaluations.
        patience: epochs without a better MAP@R after which training stops.
        max_epochs: largest number of epochs.
        freeze_batchnorm: whether the trunk's batch-norm layers keep their statistics; "all" freezes their affine
            parameters too.
        retrieval: metric of the search, as in `retrieval_metrics`.
        seed: seed of the augmentation.
        retrieval_options: further arguments of `retrieval_metrics`, such as `curvature`.
        warmup_epochs: number of initial epochs during which the trunk's weights are not updated.
        clip: largest absolute `value` of a gradient's element, or largest `norm` of a gradient; empty: no clipping.
        decay: schedule of all learning rates, see `learning_rate_factor`; empty: constant rates.
        gradient_chunk: images per pass of the two-pass gradient, see `loop.backward`; 0: the usual gradient.
    """

    iterations_per_epoch: int
    evaluate_every: int
    patience: int
    max_epochs: int
    freeze_batchnorm: bool | str
    retrieval: str
    seed: int
    retrieval_options: JsonObject = field(default_factory=dict)
    warmup_epochs: int = 0
    clip: dict[str, float] = field(default_factory=dict)
    decay: JsonObject = field(default_factory=dict)
    gradient_chunk: int = 0


@dataclass
class EvaluationSet:
    """Images to evaluate on: each is searched among all others, or queries are searched among the other images.

    Attributes:
        images: M images on the training device.
        labels: (M,) int64.
        is_query: (M,) bool, true for a query; None: every image is searched among all others.
        recall_at: each K of Recall@K, which is recorded in addition to MAP@R, R-Precision and Precision@1.
    """

    images: Images
    labels: Tensor
    is_query: Tensor | None = None
    recall_at: tuple[int, ...] = ()


@dataclass
class TrainingComponents:
    """The modules, optimisers and data of one training.

    Attributes:
        trunk: images to features.
        head: features to embeddings.
        loss: loss of a batch of embeddings; its parameters have their own optimiser.
        optimizers: optimisers by the name of the module that they update: trunk, head and, if it has parameters, loss.
        sampler: rows of each training batch.
        images: N training images on the training device.
        labels: (N,) int64 in 0..C-1.
        validation: images of held-out classes, whose MAP@R chooses the best epoch and stops training; None: training
            runs to its last epoch.
        monitored: images that are scored at each evaluation without influencing training.
        keep_monitored: whether the weights of the epoch that is best on the monitored images are kept.
        on_monitored: called with an epoch and the embeddings (M, D) of the monitored images, before they are scored.
        precision: precision of trunk and head, see `precision.forward`.
    """

    trunk: TrunkModule
    head: HeadModule
    loss: LossModule
    optimizers: dict[str, torch.optim.Optimizer]
    sampler: Sampler
    images: Images
    labels: Tensor
    validation: EvaluationSet | None
    monitored: EvaluationSet | None = None
    keep_monitored: bool = False
    on_monitored: Callable[[int, Tensor], None] | None = None
    precision: str = "ieee"

    @property
    def modules(self) -> dict[str, nn.Module]:
        """Trunk, head and loss by name."""
        return {"trunk": self.trunk, "head": self.head, "loss": self.loss}

    def embedder(self, batch: Tensor) -> Tensor:
        """A module that maps normalised images (B, Ch, H, W) to embeddings (B, D)."""
        beat()
        return forward(self.trunk, self.head, batch, self.precision)

    def features(self, batch: Tensor) -> Tensor:
        """Features (B, F) of normalised images (B, Ch, H, W), without the head."""
        beat()
        return forward(self.trunk, nn.Identity(), batch, self.precision)

    def weights(self) -> Weights:
        """Copy the whole state of trunk, head and loss to the CPU, which includes a hierarchy that the loss learned."""
        return {name: _copy(module.state_dict().items()) for name, module in self.modules.items()}


def _copy(tensors: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors}
