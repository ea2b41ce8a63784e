"""The embedding layer: one linear map with bias.

Source: Musgrave, Belongie, Lim. A Metric Learning Reality Check. ECCV 2020, arXiv:2003.08505, and the configuration of
powerful-benchmarker (`config_models`): an MLP with the single layer size 128, that is Linear(F, 128) with PyTorch's
default initialisation, no non-linearity and no normalisation (losses and the retrieval metrics normalise).

Departures, all off by default:
- two layer norms without learned gain or bias: `normalize_features` before the linear map, as in Proxy-NCA++ (Teh,
  DeVries, Taylor, ECCV 2020, arXiv:2004.01113), and `layer_norm` after it, as in HIST (Lim et al., CVPR 2022);
- `init="kaiming_fan_out"`, as in the published code of Proxy-Anchor (Kim et al., CVPR 2020, arXiv:2003.13911).
"""

from typing import Literal

from torch import Tensor, nn

from benchmark.core.errors import UserError


class Linear(nn.Module):
    """Maps trunk features (B, F) to embeddings (B, D), without normalising them.

    Args:
        in_features: F, the trunk's `out_features`.
        embedding_dim: D, the number of dimensions of an embedding.
        layer_norm: whether to standardise every embedding to mean 0 and variance 1, without learned parameters.
        normalize_features: whether to standardise the features of every image to mean 0 and variance 1.
        init: initial weight and bias: "default", PyTorch's, or "kaiming_fan_out", normal with variance 2 / D, bias 0.

    Raises:
        UserError: a size is below 1, `init` is unknown, or a layer norm would act on a single dimension and give only
            zeros.
    """

    def __init__(
        self,
        in_features: int,
        embedding_dim: int = 128,
        *,
        layer_norm: bool = False,
        normalize_features: bool = False,
        init: Literal["default", "kaiming_fan_out"] = "default",
    ) -> None:
        super().__init__()
        if in_features < 1 or embedding_dim < 1:
            raise UserError(
                f"The linear head has in_features={in_features}, embedding_dim={embedding_dim}; allowed >= 1."
            )
        if init not in ("default", "kaiming_fan_out"):
            raise UserError(f"The linear head has init={init}; allowed are default and kaiming_fan_out.")
        if layer_norm and embedding_dim == 1:
            raise UserError("The linear head has layer_norm=true, embedding_dim=1: every embedding would be 0.")
        if normalize_features and in_features == 1:
            raise UserError("The linear head has normalize_features=true, in_features=1: every feature would be 0.")
        self.feature_norm = nn.LayerNorm(in_features, elementwise_affine=False) if normalize_features else nn.Identity()
        self.linear = nn.Linear(in_features, embedding_dim)
        if init == "kaiming_fan_out":
            nn.init.kaiming_normal_(self.linear.weight, mode="fan_out")
            nn.init.zeros_(self.linear.bias)
        self.norm = nn.LayerNorm(embedding_dim, elementwise_affine=False) if layer_norm else nn.Identity()
        self.out_features = embedding_dim

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, F) to embeddings (B, D)."""
        embeddings: Tensor = self.norm(self.linear(self.feature_norm(features)))
        return embeddings
