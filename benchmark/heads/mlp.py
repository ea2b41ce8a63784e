"""A head with one hidden layer: Linear, ReLU, Linear.

Source: the embedder of powerful-benchmarker (Musgrave, Belongie, Lim, ECCV 2020, arXiv:2003.08505) with two layers; the
Reality Check used one. It is for features of a frozen trunk, where one linear map may be too little.
"""

from torch import Tensor, nn

from benchmark.core.errors import UserError


class MLP(nn.Module):
    """Maps trunk features (B, F) to embeddings (B, D) through a hidden layer, without normalising them.

    Args:
        in_features: F, the trunk's `out_features`.
        embedding_dim: D, the number of dimensions of an embedding.
        hidden: H, the width of the hidden layer.

    Raises:
        UserError: a size is below 1.
    """

    def __init__(self, in_features: int, embedding_dim: int = 128, *, hidden: int = 512) -> None:
        super().__init__()
        if min(in_features, embedding_dim, hidden) < 1:
            raise UserError(
                f"The head mlp has in_features={in_features}, embedding_dim={embedding_dim}, hidden={hidden}; "
                "allowed >= 1."
            )
        self.layers = nn.Sequential(nn.Linear(in_features, hidden), nn.ReLU(), nn.Linear(hidden, embedding_dim))
        self.out_features = embedding_dim

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, F) to embeddings (B, D)."""
        embeddings: Tensor = self.layers(features)
        return embeddings
