"""Small images held in memory, on the training device.

Source: this project. A random shift is the only augmentation; for glyphs, a flip would turn b into d.
"""

import numpy as np
import torch
from torch import Tensor, nn

from benchmark.core.errors import UserError
from benchmark.images.batches import to_device


class InMemoryImages:
    """Images in memory, an `Images`.

    Args:
        images: uint8, (N, H, W) grey or (N, H, W, 3) colour.
        shift: largest random shift in pixels; each image is shifted by its own whole number of pixels in -shift ..
            shift, vertically and horizontally, and padded with 0.
        device: device of the images, by default the CPU.

    Raises:
        ValueError: the images are not uint8 or have another shape.
        UserError: the shift is negative or not smaller than the image side.
    """

    eval_batch_size = 512
    threads = 0

    def __init__(self, images: np.ndarray, *, shift: int = 0, device: torch.device | None = None) -> None:
        if images.dtype != np.uint8 or images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] != 3):
            raise ValueError(f"images are {images.dtype} of shape {images.shape}; allowed is uint8, (N, H, W[, 3]).")
        smallest = min(images.shape[1:3])
        if not 0 <= shift < smallest:
            height, width = images.shape[1:3]
            raise UserError(
                f"shift={shift} pixels; allowed are 0 to {smallest - 1} for {height} x {width} images (training.shift)."
            )
        planes = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)  # (N, Ch, H, W)
        self._take(torch.from_numpy(np.ascontiguousarray(planes)).to(device or "cpu"), shift)

    def _take(self, images: Tensor, shift: int) -> None:
        self.images, self.shift = images, shift
        self.channels, self.device = images.shape[1], images.device

    def __len__(self) -> int:
        return len(self.images)

    def part(self, rows: np.ndarray) -> "InMemoryImages":
        """Return a copy of the images at the given rows, int64 (M,), in this order."""
        some = InMemoryImages.__new__(InMemoryImages)
        some._take(self.plain(rows), self.shift)
        return some

    def plain(self, rows: np.ndarray) -> Tensor:
        """Return the images at the given rows, int64 (B,): uint8 (B, Ch, H, W)."""
        return self.images[to_device(rows, self.device)]

    def augmented(self, rows: np.ndarray, generator: torch.Generator) -> Tensor:
        """Return the images at the given rows, int64 (B,), each shifted at random: uint8 (B, Ch, H, W)."""
        images = self.plain(rows)
        return _shifted(images, self.shift, generator) if self.shift else images


def _shifted(images: Tensor, shift: int, generator: torch.Generator) -> Tensor:
    batch, _, height, width = images.shape
    moves = to_device(torch.randint(2 * shift + 1, (2, batch), generator=generator).numpy(), images.device)
    padded = nn.functional.pad(images, (shift, shift, shift, shift))
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (B, Ch, 2 shift + 1, 2 shift + 1, H, W), a view
    return windows[torch.arange(batch, device=images.device), :, moves[0], moves[1]]
