"""Samplers: which images make a batch."""

from typing import Protocol

import numpy as np


class Sampler(Protocol):
    """Draws the rows of each training batch.

    A batch is a pure function of the sampler's arguments and the iteration, so a resumed training draws the batches
    that an uninterrupted one would. The constructor takes `labels` (N,), the class id of each training image,
    `batch_size` and `seed`, and raises `UserError` for a batch that cannot be drawn from these labels.
    """

    def batch(self, iteration: int) -> np.ndarray:
        """Rows (B,), int64, of the images in the batch.

        Args:
            iteration: counts from 0.
        """
        ...
