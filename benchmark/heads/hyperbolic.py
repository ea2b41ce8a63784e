"""The embedding layer of HIER, which maps features to points of a Poincare ball.

Source: Kim, Jeong and Kwak, "HIER: Metric Learning Beyond Class Labels via Hierarchical Regularization", CVPR 2023,
arXiv 2212.14258, and the authors' code: layer norm without gain or bias on the features, one linear map with orthogonal
initial weights and bias 0, clipping, exponential map at 0 (`benchmark.protocol.hyperbolic`, in float32 under autocast).
"""

from torch import Tensor, nn

from benchmark.core.errors import UserError
from benchmark.protocol.hyperbolic import check_ball, to_ball


class Hyperbolic(nn.Module):
    """Maps trunk features (B, F) to points (B, D) within the ball of radius 1 / sqrt(curvature).

    The points are compared by hyperbolic distance; normalising them to unit norm would undo the map.

    Args:
        in_features: F, the trunk's `out_features`, at least 2: layer norm would map a single feature to 0.
        embedding_dim: D, at least 1.
        curvature: c, above 0.
        clip_radius: norm to which vectors are clipped before the exponential map, above 0.

    Raises:
        UserError: an argument is out of range.
    """

    def __init__(self, in_features: int, embedding_dim: int = 128, *, curvature: float, clip_radius: float) -> None:
        super().__init__()
        if in_features < 2 or embedding_dim < 1:
            raise UserError(
                f"The hyperbolic head has in_features={in_features}, embedding_dim={embedding_dim}; allowed are at"
                " least 2 features, which it normalises, and 1 dimension."
            )
        check_ball(curvature, clip_radius)
        self.curvature, self.clip_radius = curvature, clip_radius
        self.norm = nn.LayerNorm(in_features, elementwise_affine=False)
        self.linear = nn.Linear(in_features, embedding_dim)
        nn.init.orthogonal_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.out_features = embedding_dim

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, F) to points (B, D)."""
        vectors = self.linear(self.norm(features))
        return to_ball(vectors, curvature=self.curvature, clip_radius=self.clip_radius)
