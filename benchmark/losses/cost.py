"""Memory and time of a step of a loss with made-up embeddings of many classes."""

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import count

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmark.core.memory import peak_allocated
from benchmark.losses import HasMemory

# The number of training classes of Stanford Online Products, the most in the papers, and that of its training images.
NUM_CLASSES, NUM_IMAGES = 11_318, 59_551


def step_costs(loss: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[float, float]]:
    """Yield MB of temporaries in forward and backward, without parameters and their gradients, and seconds.

    Args:
        loss: the loss.
        batches: embeddings (B, D) and labels (B,).
    """
    for embeddings, labels in batches:
        embeddings.requires_grad_()
        started = time.perf_counter()
        loss(embeddings, labels).backward()
        seconds = time.perf_counter() - started
        loss.zero_grad(set_to_none=True)
        embeddings.grad = None
        peak = peak_allocated(lambda: loss(embeddings, labels).backward())  # noqa: B023 - called here
        gradients = sum(p.grad.nbytes for p in loss.parameters() if p.grad is not None)
        yield (peak - gradients) / 1e6, seconds


def made_up_batches(
    batch: Callable[[int], np.ndarray], labels: np.ndarray, dim: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """An endless stream of unit vectors (B, D) and labels (B,).

    Args:
        batch: the rows (B,) of the batch with a number, as a sampler draws them.
        labels: int64 (N,), the class of each made-up image.
        dim: D.
    """
    generator = torch.Generator().manual_seed(0)
    for number in count():
        rows = batch(number)
        yield functional.normalize(torch.randn(len(rows), dim, generator=generator)), torch.from_numpy(labels[rows])


def fill_memory(loss: nn.Module, num_classes: int) -> None:
    """Fill the memory of a loss, or of a part of it, as after an epoch; other losses stay as they are.

    Args:
        loss: the loss.
        num_classes: C.
    """
    for part in loss.modules():
        if isinstance(part, HasMemory):
            memory = torch.randn(part.memory_shape(), generator=torch.Generator().manual_seed(1))
            part.remember(memory, torch.arange(len(memory)) % num_classes)
