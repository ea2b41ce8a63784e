"""What the losses over the pairs of a batch share: distances, the pairs of one and of two classes, and averages.

No shape depends on the labels or the distances, so the host never waits for the device: pairs are masks (B, B).

Departures from pytorch-metric-learning, whose averages these are:
- the Euclidean distance subtracts coordinate by coordinate, see `numerics.euclidean`;
- a NaN is not filtered out of an average, which would hide that a training has diverged.
"""

import torch
from torch import Tensor
from torch.nn import functional

from benchmark.losses.numerics import at_least_float32, euclidean


def unit_distances(embeddings: Tensor, others: Tensor | None = None) -> Tensor:
    """Distances (B, R) of vectors of any norm, scaled to norm 1; at least float32, also under autocast.

    Equal rows have distance 0 and no gradient.

    Args:
        embeddings: (B, D).
        others: (R, D); None for the embeddings themselves.
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        unit = functional.normalize(at_least_float32(embeddings), dim=1)
        return euclidean(unit, unit if others is None else functional.normalize(at_least_float32(others), dim=1))


def pairs_of(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Masks (B, B) of the ordered pairs of one class, without a sample's pair with itself, and of two classes."""
    negative = labels[:, None] != labels
    return (~negative).fill_diagonal_(False), negative


def mean_above_zero(values: Tensor, keep: Tensor) -> Tensor:
    """Return the mean, a scalar, of the kept values (B, R) that are above 0; 0 if there are none."""
    active = keep & ~(values <= 0)  # true for NaN
    return values.where(active, 0).sum() / active.sum().clamp(min=1)
