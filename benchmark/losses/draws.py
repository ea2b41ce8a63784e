"""Roles that the samples of a batch get by chance, such as anchor and positive, whatever the order of the batch."""

import torch
from torch import Tensor

from benchmark.protocol.seeds import stable_seed


def random_ranks(labels: Tensor, *key: int | str) -> Tensor:
    """A random order (B,) of a batch, on its device; the host does not wait for it.

    Args:
        labels: (B,).
        key: seeds the draw, such as a seed, a name and the number of a step; the global generator is not used.
    """
    on_gpu = labels.device.type == "cuda"
    generator = torch.Generator().manual_seed(stable_seed(*key))
    ranks = torch.randperm(len(labels), generator=generator, pin_memory=on_gpu)
    return ranks.to(labels.device, non_blocking=on_gpu)


def places_in_class(labels: Tensor, ranks: Tensor) -> Tensor:
    """Place (B,) of each sample among those of its class by ascending rank, from 0.

    Args:
        labels: (B,).
        ranks: (B,), all different.
    """
    same = labels[:, None] == labels
    return (same & (ranks < ranks[:, None])).sum(dim=1)


def in_own_order(points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Sort a batch by first coordinate, then class; equal points of one class share their gradient.

    The value and the gradient of a loss that draws by position then do not depend on the order of the batch.

    Args:
        points: (B, D).
        labels: (B,).

    Returns:
        Points (B, D) and labels (B,) in the new order.
    """
    order = labels.argsort(stable=True)
    order = order[points.detach()[order, 0].argsort(stable=True)]
    points, labels = points[order], labels[order]
    differs = (points[1:] != points[:-1]).any(dim=1) | (labels[1:] != labels[:-1])
    kind = torch.cat([differs.new_zeros(1), differs]).cumsum(dim=0)  # (B,) rises by 1 at each new point
    equal = (kind[:, None] == kind).double()  # (B, B); a product in float64 has a fixed order, and is exact here
    return (equal @ points.double() / equal.sum(dim=1, keepdim=True)).to(points.dtype), labels
