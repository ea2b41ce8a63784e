"""Samplers: which images make a batch."""

from typing import Protocol

import numpy as np


class Sampler(Protocol):
    """Batches of row numbers; a pure function of the iteration, so that a resumed training draws the same ones."""

    def batch(self, iteration: int) -> np.ndarray:
        """Rows (B,) int64 of the training images in the batch of an iteration, which counts from 0."""
        ...
