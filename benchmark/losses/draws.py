"""Roles that the samples of a class get by chance, such as anchor and positive."""

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
