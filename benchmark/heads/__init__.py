"""Heads: the layer between a trunk's features and the embedding."""

from typing import Protocol

from torch import Tensor


class Head(Protocol):
    """A module that maps features to embeddings."""

    def __call__(self, features: Tensor) -> Tensor:
        """(B, F) -> (B, D)."""
        ...
