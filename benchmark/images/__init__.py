"""Image sources and batches for training and evaluation: uint8, from memory or from image files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:  # so that a data set can be described without torch
    import torch
    from torch import Tensor


class Source(Protocol):
    """Decoded image files of any sizes, read one at a time: `cache.Cache` or `decoded_on_read.DecodedOnRead`.

    Attributes:
        short_side: length in pixels to which the shorter side of every image was resized; None: original sizes.
    """

    short_side: int | None

    @property
    def contents(self) -> str:
        """SHA-256 over the SHA-256 of every file's bytes, in order."""
        ...

    def __len__(self) -> int: ...

    def pixels(self, index: int) -> np.ndarray:
        """Return one image, uint8 (H, W, 3), read-only."""
        ...


class Images(Protocol):
    """N images of one size, on the training device.

    Attributes:
        eval_batch_size: images in one forward pass of an evaluation; it affects the last digits of a result.
        device: where batches are placed.
        threads: additional threads that read a batch; 0: only the caller's thread reads.
    """

    eval_batch_size: int
    device: torch.device
    threads: int

    @property
    def channels(self) -> int:
        """1 for grey, 3 for RGB; for the features of a frozen trunk, their number."""
        ...

    def __len__(self) -> int: ...

    def part(self, rows: np.ndarray) -> Images:
        """Return the images at the given rows, int64 (M,), in this order."""
        ...

    def plain(self, rows: np.ndarray) -> Tensor:
        """Return the images at the given rows, int64 (B,), without augmentation: uint8 (B, Ch, H, W)."""
        ...

    def augmented(self, rows: np.ndarray, generator: torch.Generator) -> Tensor:
        """Return the images at the given rows, int64 (B,), augmented for training: uint8 (B, Ch, H, W).

        The result is a function of the rows and the generator's state.
        """
        ...
