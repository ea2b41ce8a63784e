"""Arithmetic that the losses share: float32 under mixed precision, distances without cancellation, no overflow.

Departure from plain `torch.autocast`: products run in at least float32. Around 1, bfloat16 resolves cosines in steps of
2^-8, and a scale of 100 turns such a step into 0.4 of a logit. TF32, whose steps are 2^-11, is switched off for a loss
and its gradient by the training (`training.loop.backward`).
"""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional


class BackwardContext(Protocol):
    """What `torch.autograd.Function` passes to `forward` and `backward` as `ctx`."""

    saved_tensors: tuple[Tensor, ...]

    def save_for_backward(self, *tensors: Tensor) -> None:
        """Keep tensors of any shape for the backward pass."""
        ...


def at_least_float32(vectors: Tensor) -> Tensor:
    """Convert half-precision vectors, of any shape, to float32; return float32 and float64 unchanged."""
    return vectors.to(torch.promote_types(vectors.dtype, torch.float32))


def cosine_similarity(embeddings: Tensor, proxies: Tensor) -> Tensor:
    """Cosine (B, P) of every embedding with every proxy, in float32, or in float64 if the embeddings are float64.

    Args:
        embeddings: (B, D), of any norm and floating type.
        proxies: (P, D), of any norm; converted to the dtype of the result.

    Raises:
        ValueError: an argument is not a matrix, for example because a class has several proxies.
    """
    if embeddings.dim() != 2 or proxies.dim() != 2:
        raise ValueError(
            f"Cosines need matrices (B, D) and (P, D), not {tuple(embeddings.shape)} and {tuple(proxies.shape)}."
        )
    embeddings = at_least_float32(embeddings)
    with torch.autocast(embeddings.device.type, enabled=False):
        # Embeddings first: if both are the same tensor, the order affects the last bit of its accumulated gradient.
        unit = functional.normalize(embeddings, dim=1)
        return unit @ functional.normalize(proxies.to(unit.dtype), dim=1).mT


def euclidean(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances (A, B) between the rows of a (A, D) and b (B, D), with no (A, B, D) tensor in memory."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def log_one_plus_sum_exp(values: Tensor, keep: Tensor, dim: int) -> Tensor:
    """log(1 + sum of exp) over the kept entries of each row or column, without overflow; 0 if none is kept.

    >>> log_one_plus_sum_exp(torch.tensor([[900.0, 5.0]]), torch.tensor([[True, False]]), dim=1)
    tensor([900.])

    Args:
        values: (A, B).
        keep: (A, B) bool.
        dim: the dimension to sum over: 0 gives (B,), 1 gives (A,).
    """
    kept = values.masked_fill(~keep, -torch.inf)
    one = torch.zeros_like(values.narrow(dim, 0, 1))  # exp(0) = 1
    return torch.cat([one, kept], dim=dim).logsumexp(dim=dim)
