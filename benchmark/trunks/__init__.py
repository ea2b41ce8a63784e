"""Trunks: networks that map images to features."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor


class Trunk(Protocol):
    """A module that maps normalised images to features.

    Attributes:
        out_features: F.
        mean: mean of a channel in [0, 1]; one number, or one per channel.
        std: standard deviation of a channel in [0, 1]; one number, or one per channel.
    """

    out_features: int
    mean: Sequence[float]
    std: Sequence[float]

    def __call__(self, images: Tensor) -> Tensor:
        """(B, Ch, H, W) float32 -> (B, F)."""
        ...
