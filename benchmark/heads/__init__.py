"""Heads: modules that map a trunk's features to embeddings."""

from typing import Protocol, runtime_checkable

from torch import Tensor


class Head(Protocol):
    """An `nn.Module` that maps features to embeddings; its constructor receives `in_features` and `embedding_dim`."""

    def __call__(self, features: Tensor) -> Tensor:
        """Map features (B, F) to embeddings (B, D), of any norm."""
        ...


@runtime_checkable
class HasFit(Protocol):
    """A head that is fitted to the features of the training images before the first epoch."""

    def fit(self, features: Tensor) -> None:
        """Fit the head to the features (N, F) of all training images of the fold.

        Raises:
            UserError: they are too few.
        """
        ...
