"""Samplers: they choose the images of each training batch."""

from typing import Protocol

import numpy as np


class Sampler(Protocol):
    """Draws the rows of each training batch.

    A batch is a pure function of the sampler's arguments and the iteration, so resuming continues with the batches of
    an uninterrupted training. The constructor takes `labels` (N,), the class id of each training image, `batch_size`
    and `seed`, and raises `UserError` if no such batch can be drawn from these labels.
    """

    def batch(self, iteration: int) -> np.ndarray:
        """Return the rows (B,), int64, of the images in the batch.

        Args:
            iteration: number of the iteration, from 0.
        """
        ...
