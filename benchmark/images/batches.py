"""uint8 images to normalised float batches, and a model's embeddings of many images.

Source: this project. Images stay uint8 until a batch is needed and are normalised as a batch on their own device. The
random shift is the only augmentation: it suits glyphs, where a flip would turn b into d.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


def to_batch(
    images: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    shift: int = 0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Normalised float32 images (B, Ch, H, W), laid out channels last: (pixel / 255 - mean) / std.

    Args:
        images: uint8, (B, H, W) or (B, Ch, H, W).
        mean: Mean of a channel in 0..1; one number, or one for each channel.
        std: Standard deviation of a channel in 0..1; one number, or one for each channel.
        shift: Largest random shift in pixels; each image moves by its own whole number of pixels in
            -shift .. shift, down and sideways, and the edge it leaves is filled with 0.
        generator: Where the shifts are drawn from, on the CPU; None is torch's global generator.

    Raises:
        ValueError: If the images are not uint8 of 3 or 4 dimensions, `shift` is negative or not smaller than an
            image, or `mean` and `std` do not fit the channels.
    """
    if images.dtype != torch.uint8 or images.ndim not in (3, 4):
        raise ValueError(
            f"images are {images.dtype} of shape {tuple(images.shape)}; allowed is uint8, (B, H, W) or (B, Ch, H, W)."
        )
    images = images[:, None] if images.ndim == 3 else images  # (B, Ch, H, W)
    channels = images.shape[1]
    if not {len(mean), len(std)} <= {1, channels}:
        raise ValueError(
            f"mean={list(mean)} and std={list(std)} do not fit images of {channels} channels: give 1 or {channels}."
        )
    if shift:
        images = _shifted(images, shift, generator)
    batch = images.to(torch.float32, memory_format=torch.channels_last)
    scale = torch.tensor(std, device=images.device).reciprocal().view(1, -1, 1, 1)
    offset = torch.tensor(mean, device=images.device).view(1, -1, 1, 1) * scale
    return batch.mul_(scale / 255).sub_(offset)


def _shifted(images: Tensor, shift: int, generator: torch.Generator | None) -> Tensor:
    batch, _, height, width = images.shape
    if not 0 < shift < min(height, width):
        raise ValueError(
            f"shift={shift} pixels; allowed are 0 to {min(height, width) - 1} for {height} x {width} images."
        )
    moves = torch.randint(-shift, shift + 1, (2, batch), generator=generator).to(images.device) + shift
    padded = nn.functional.pad(images, (shift, shift, shift, shift))
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (B, Ch, places down, places sideways, H, W), a view
    return windows[torch.arange(batch, device=images.device), :, moves[0], moves[1]]


def embed(
    embedder: Callable[[Tensor], Tensor], images: Tensor, trunk: nn.Module, head: nn.Module, *, batch_size: int = 512
) -> Tensor:
    """Embeddings (N, D), float32 on the images' device, in evaluation mode and without gradients.

    Every module gets back the mode it had, one by one: batch-norm layers frozen in evaluation mode stay frozen.

    Args:
        embedder: Maps a normalised batch (B, Ch, H, W) to (B, D) with `trunk` and `head`.
        images: uint8, (N, H, W) or (N, Ch, H, W), on the device of the modules.
        trunk: Its `mean` and `std` normalise the images.
        head: The module after the trunk.
        batch_size: Images in one forward pass; part of the result's last digits, since sums depend on it.

    Raises:
        ValueError: If there are no images or `batch_size` is below 1.
    """
    if not len(images) or batch_size < 1:
        raise ValueError(f"embed got {len(images)} images and batch_size={batch_size}; both must be at least 1.")
    mean, std = trunk.mean, trunk.std
    modes = [(module, module.training) for part in (trunk, head) for module in part.modules()]
    try:
        for module, _ in modes:
            module.training = False
        with torch.inference_mode():
            parts = [embedder(to_batch(part, mean, std)).float() for part in images.split(batch_size)]  # type: ignore[arg-type]
            embeddings = torch.cat(parts)  # (N, D)
    finally:
        for module, training in modes:
            module.training = training
    return embeddings.clone()  # an inference tensor could not enter autograd later
