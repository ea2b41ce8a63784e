"""Heads that are not trained: the features themselves, and their principal components.

Source: the row without training in the tables of the Reality Check (Musgrave, Belongie, Lim, ECCV 2020,
arXiv:2003.08505), whose features are reduced to the dimension of the embeddings by a principal component analysis.
"""

import torch
from torch import Tensor, nn

from benchmark.core.errors import UserError


class Features(nn.Module):
    """Passes features (B, F) on as embeddings.

    Args:
        in_features: F.
        embedding_dim: not used; an embedding has F dimensions.
    """

    def __init__(self, in_features: int, embedding_dim: int = 128) -> None:
        super().__init__()
        self.out_features = in_features

    def forward(self, features: Tensor) -> Tensor:
        """Return the features (B, F)."""
        return features


class PrincipalComponents(nn.Module):
    """Projects features (B, F) on the D principal components of the training images' features, without whitening.

    Args:
        in_features: F.
        embedding_dim: D, at most F.

    Raises:
        UserError: D is above F.
    """

    centre: Tensor
    components: Tensor

    def __init__(self, in_features: int, embedding_dim: int = 128) -> None:
        super().__init__()
        if not 1 <= embedding_dim <= in_features:
            raise UserError(
                f"{embedding_dim} principal components of {in_features} features: allowed are 1 to {in_features} "
                "(protocol.embedding_dim)."
            )
        self.out_features = embedding_dim
        self.register_buffer("centre", torch.zeros(in_features))
        self.register_buffer("components", torch.eye(embedding_dim, in_features))

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, F) to embeddings (B, D)."""
        return (features - self.centre) @ self.components.T

    @torch.no_grad()
    def fit(self, features: Tensor) -> None:
        """Fit the components, in descending order of variance, to features (N, F).

        The sign of a component, which is free and changes no distance, makes its largest element positive.

        Raises:
            UserError: there are fewer images than components.
        """
        if len(features) < self.out_features:
            raise UserError(f"{self.out_features} principal components of {len(features)} training images: give more.")
        points = features.double()
        centre = points.mean(dim=0)
        covariance = (points - centre).T @ (points - centre)
        components = torch.linalg.eigh(covariance).eigenvectors.flip(1)[:, : self.out_features].T  # (D, F)
        largest = components.gather(1, components.abs().argmax(dim=1, keepdim=True))
        self.centre.copy_(centre)
        self.components.copy_(components * largest.sign())
