"""The contract of a trunk: a network that maps images to features."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor


class Trunk(Protocol):
    """A `torch.nn.Module` that maps normalised images to features.

    Its constructor takes `in_channels` (1 for grey, 3 for RGB) and draws random weights from torch's global generator.
    Callers normalise images with `mean` and `std`, in the order R, G, B; any further conversion for its weights is up
    to the trunk. In training mode it may update batch-norm statistics, which callers can freeze.

    """

    @property
    def out_features(self) -> int:
        """F, the number of features."""
        ...

    @property
    def mean(self) -> Sequence[float]:
        """Mean of the pixels scaled to [0, 1]; one number, or one per channel."""
        ...

    @property
    def std(self) -> Sequence[float]:
        """Standard deviation of the pixels scaled to [0, 1]; one number, or one per channel."""
        ...

    def __call__(self, images: Tensor) -> Tensor:
        """Map normalised images, float32 (B, in_channels, H, W), to features (B, F)."""
        ...


@runtime_checkable
class HasLastMap(Protocol):
    """A trunk that pools a last map to its features, for figures; a transformer, say, has none."""

    pool: str

    def last_map(self, images: Tensor) -> Tensor:
        """Map normalised images, float32 (B, in_channels, H, W), to the map (B, F, h, w) that `pool` pools."""
        ...
