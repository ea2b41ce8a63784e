"""Images as training and evaluation read them: uint8 batches, whether they lie in memory or in files."""

from typing import Protocol

import numpy as np
import torch
from torch import Tensor


class Images(Protocol):
    """N images of one size, on the device that trains.

    Attributes:
        channels: 1 grey, 3 RGB.
        eval_batch_size: images in one forward pass of an evaluation; part of a result's last digits.
        device: where batches are handed out.
        threads: that read a batch beside the caller; 0: none, the caller does it all.
    """

    channels: int
    eval_batch_size: int
    device: torch.device
    threads: int

    def __len__(self) -> int: ...

    def part(self, rows: np.ndarray) -> "Images":
        """Images at these rows (int64), in this order."""
        ...

    def plain(self, rows: np.ndarray) -> Tensor:
        """uint8 (B, Ch, H, W), as images are evaluated."""
        ...

    def augmented(self, rows: np.ndarray, generator: torch.Generator) -> Tensor:
        """uint8 (B, Ch, H, W), as images are trained on; a function of the rows and the generator's state."""
        ...
