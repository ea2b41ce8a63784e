"""Heads: modules that map a trunk's features to embeddings."""

from typing import Protocol

from torch import Tensor


class Head(Protocol):
    """An `nn.Module` that maps features to embeddings; its constructor receives `in_features` and `embedding_dim`."""

    def __call__(self, features: Tensor) -> Tensor:
        """Map features (B, F) to embeddings (B, D), of any norm."""
        ...
