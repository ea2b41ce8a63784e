"""Batches drawn in passes over all images in random order, regardless of their classes.

Source: the loaders of Proxy-Anchor (arXiv 2003.13911), SoftTriple (arXiv 1909.05235), ProxyGML (arXiv 2010.13636) and
HIST (CVPR 2022): PyTorch's `DataLoader(shuffle=True, drop_last=True)`. A pass holds every image once; batches are
consecutive slices of it, the incomplete last one is dropped, and then the next pass begins.

Departure: pass number n is drawn from a generator seeded by (seed, n), so a batch is a function of (seed, iteration)
and resuming needs no saved state.
"""

import numpy as np

from benchmark.core.errors import UserError


class Random:
    """Draws batches of images in random order, each image at most once per pass.

    Args:
        labels: (N,) class id of each training image; any integers.
        batch_size: B, images in a batch, 1..N.
        seed: seed of all passes.

    Raises:
        UserError: batch_size is not in 1..N, or there are fewer than 2 classes.
    """

    def __init__(self, labels: np.ndarray, batch_size: int, seed: int) -> None:
        num_classes = len(np.unique(labels))
        if num_classes < 2:
            raise UserError(f"The sampler got images of {num_classes} class; metric learning needs at least 2 classes.")
        if not 1 <= batch_size <= len(labels):
            raise UserError(
                f"The sampler got batch_size={batch_size}, but there are {len(labels)} images, and a batch holds no "
                f"image twice; set protocol.batch_size to 1..{len(labels)}."
            )
        self._num_images, self._batch_size, self._seed = len(labels), batch_size, seed
        self._pass_number, self._pass = -1, np.empty(0, np.int64)

    def batch(self, iteration: int) -> np.ndarray:
        """Return the rows (B,), int64, of the batch of an iteration, from 0; they depend on iteration and seed only."""
        number, position = divmod(iteration, self._num_images // self._batch_size)
        if number != self._pass_number:
            self._pass = np.random.default_rng((self._seed, number)).permutation(self._num_images)
            self._pass_number = number
        return self._pass[position * self._batch_size : (position + 1) * self._batch_size].copy()
