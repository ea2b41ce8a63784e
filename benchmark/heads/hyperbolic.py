"""The embedding layer of HIER and of Hyp, which maps features to points of a Poincare ball.

Source: Kim, Jeong and Kwak, "HIER: Metric Learning Beyond Class Labels via Hierarchical Regularization", CVPR 2023,
arXiv 2212.14258, and the authors' code: layer norm without gain or bias on the features, one linear map with orthogonal
initial weights and bias 0, clipping, exponential map at 0 (`benchmark.protocol.hyperbolic`, in float32 under autocast).
Hyp (Ermolov et al., CVPR 2022, arXiv 2203.10833, and its authors' code) has no layer norm and an ordinary gradient.
"""

from torch import Tensor, nn

from benchmark.core.errors import UserError
from benchmark.protocol.hyperbolic import check_ball, exponential_map, to_ball


class Hyperbolic(nn.Module):
    """Maps trunk features (B, F) to points (B, D) within the ball of radius 1 / sqrt(curvature).

    The points are compared by hyperbolic distance; normalising them to unit norm would undo the map.

    Args:
        in_features: F, the trunk's `out_features`, at least 1; 2 with layer norm, which would map a single one to 0.
        embedding_dim: D, at least 1.
        curvature: c, above 0.
        clip_radius: norm to which vectors are clipped before the exponential map, above 0.
        layer_norm: whether features are normalised.
        riemannian: whether gradients are multiplied by the inverse of the ball's metric, see `to_ball`.

    Raises:
        UserError: an argument is out of range.
    """

    def __init__(
        self,
        in_features: int,
        embedding_dim: int = 128,
        *,
        curvature: float,
        clip_radius: float,
        layer_norm: bool = True,
        riemannian: bool = True,
    ) -> None:
        super().__init__()
        if in_features < (2 if layer_norm else 1) or embedding_dim < 1:
            raise UserError(
                f"The hyperbolic head has in_features={in_features}, embedding_dim={embedding_dim}; allowed are at"
                " least 2 features, or 1 with layer_norm=false, and 1 dimension."
            )
        check_ball(curvature, clip_radius)
        self.curvature, self.clip_radius, self.riemannian = curvature, clip_radius, riemannian
        self.norm = nn.LayerNorm(in_features, elementwise_affine=False) if layer_norm else nn.Identity()
        self.linear = nn.Linear(in_features, embedding_dim)
        nn.init.orthogonal_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.out_features = embedding_dim

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, F) to points (B, D)."""
        vectors = self.linear(self.norm(features))
        to_points = to_ball if self.riemannian else exponential_map
        return to_points(vectors, curvature=self.curvature, clip_radius=self.clip_radius)
