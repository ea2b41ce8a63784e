"""A small convolutional network for 32 x 32 images, trained from scratch on one CPU core.

Source: this project; no paper. Every stage consists of convolution, batch normalisation and ReLU, and the last map is
pooled by average plus maximum, the sum that HPL (section 4.2) uses on its backbones. The first stage has a 4 x 4 window
with stride 2, so only one convolution runs at the costly full resolution; early stages have few channels and late
stages many.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from benchmark.core.errors import UserError
from benchmark.trunks.pooling import check_pool, global_pool

DIVISORS = (8, 4, 2, 2, 1)
STRIDES = (2, 2, 2, 1, 2)


class SmallConv(nn.Module):
    """Maps images (B, in_channels, H, W) to features (B, channels of the last stage).

    Weights have PyTorch's default initialisation, drawn from the global generator: fork and seed it around the call.

    Args:
        width: channels of the last stage if `channels` is not given; the earlier stages have 1/8, 1/4, 1/2 and 1/2 of
            that. A multiple of 8.
        channels: channels of each stage; replaces `width`.
        strides: stride of each stage, one for each entry of `channels`. The first window is two pixels wider than its
            stride, the others are 3 x 3.
        in_channels: channels of the images: 1 for grey, 3 for RGB.
        pool: global pooling of the last map: avg+max, avg or max.
        mean: mean of the pixels scaled to [0, 1]; the caller subtracts it.
        std: standard deviation of the pixels scaled to [0, 1]; the caller divides by it.

    Raises:
        UserError: `width` is not a positive multiple of 8; `channels` and `strides` differ in length, are empty or hold
            a number below 1; or `pool` is unknown.
    """

    def __init__(
        self,
        width: int = 128,
        *,
        channels: Sequence[int] | None = None,
        strides: Sequence[int] = STRIDES,
        in_channels: int = 1,
        pool: Literal["avg+max", "avg", "max"] = "avg+max",
        mean: Sequence[float] = (0.1,),
        std: Sequence[float] = (0.27,),
    ) -> None:
        super().__init__()
        channels = stage_channels(width) if channels is None else tuple(channels)
        if not channels or len(channels) != len(strides) or min(*channels, *strides) < 1:
            raise UserError(
                f"small_conv has channels={list(channels)} and strides={list(strides)}: give one stride of at least 1 "
                "for every stage, and at least one stage of at least one channel."
            )
        check_pool("small_conv", pool)
        self.pool, self.mean, self.std = pool, tuple(mean), tuple(std)
        self.out_features = channels[-1]
        inputs = (in_channels, *channels[:-1])
        shapes = enumerate(zip(inputs, channels, strides, strict=True))
        self.stages = nn.Sequential(*(_stage(i, o, s, s + 2 if n == 0 else 3) for n, (i, o, s) in shapes))
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (B, in_channels, H, W) to features (B, out_features)."""
        return global_pool(self.last_map(images), self.pool)

    def last_map(self, images: Tensor) -> Tensor:
        """Map normalised images (B, in_channels, H, W) to the last map (B, out_features, h, w), before pooling."""
        found: Tensor = self.stages(images)
        return found


def stage_channels(width: int) -> tuple[int, ...]:
    """Return the channels of the five default stages; the last one has `width`.

    Raises:
        UserError: `width` is not a positive multiple of 8.

    >>> stage_channels(128)
    (16, 32, 64, 64, 128)
    """
    if width < 8 or width % 8:
        raise UserError(f"small_conv has width={width}; it must be a positive multiple of 8, for example 64 or 128.")
    return tuple(width // divisor for divisor in DIVISORS)


def _stage(inputs: int, outputs: int, stride: int, kernel: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))
