"""A loss of pytorch-metric-learning, with or without a miner, computed in at least float32.

Without this wrapper, the tensors that these losses create have the dtype of the embeddings: under mixed precision
FastAP's bin edges and Margin's beta keep only three digits. Float32 and float64 embeddings give the library's own
numbers.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmark.losses.numerics import at_least_float32


class FullPrecision(nn.Module):
    """The library's loss on all pairs or triplets of a batch, or on those that a miner selects.

    Args:
        loss: creates the library's loss.
        miner: takes embeddings (B, D) and labels (B,) and returns the library's indices of pairs or triplets; None
            selects all of them. If the miner selects none, the loss is 0.
        embedding_dim: D, for a loss with a vector per class; the library calls it `embedding_size`.
        arguments: passed to `loss`, such as the number of classes.
    """

    def __init__(
        self,
        loss: Callable[..., nn.Module],
        miner: nn.Module | None = None,
        *,
        embedding_dim: int | None = None,
        **arguments: int,
    ) -> None:
        super().__init__()
        if embedding_dim is not None:
            arguments["embedding_size"] = embedding_dim
        self.loss = loss(**arguments)
        self.miner = miner

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar loss of embeddings (B, D) with labels (B,)."""
        with torch.autocast(embeddings.device.type, enabled=False):
            embeddings = at_least_float32(embeddings)
            chosen = self.miner(embeddings, labels) if self.miner is not None else None
            loss: Tensor = self.loss(embeddings, labels, chosen)
            return loss
