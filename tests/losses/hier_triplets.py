"""HIER's loss of each triplet, of which the module itself computes only the mean."""

from typing import Any

import torch
from torch import Tensor

from benchmark.losses.hier import Choices, _add_gradient, _losses_and_choices


def triplet_losses(distances: Tensor, triplets: Tensor, noise: Tensor, *, margin: float, temperature: float) -> Tensor:
    """Losses (T,) of triplets (3, T) by distances (N, M), differentiated as `mean_triplet_loss` does."""
    losses: Tensor = _TripletLosses.apply(distances, triplets, noise, margin, temperature)
    return losses


class _TripletLosses(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, distances: Tensor, triplets: Tensor, noise: Tensor, margin: float, temperature: float
    ) -> Tensor:
        losses, choices = _losses_and_choices(distances, triplets, noise, margin, temperature)
        ctx.save_for_backward(distances, triplets, *choices)
        ctx.temperature = temperature
        return losses

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        distances, triplets, *choices = ctx.saved_tensors
        total = torch.zeros_like(distances)
        _add_gradient(total, distances, triplets, Choices._make(choices), gradients[0], ctx.temperature)
        return total, None, None, None, None
