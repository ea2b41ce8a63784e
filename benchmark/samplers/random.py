"""Batches drawn by passes over all images in random order, whatever their classes.

Source: the loaders of Proxy-Anchor (arXiv 2003.13911), SoftTriple (arXiv 1909.05235), ProxyGML (arXiv 2010.13636) and
HIST (CVPR 2022): PyTorch's `DataLoader(shuffle=True, drop_last=True)`. A pass holds every image once; batches are
consecutive slices of it, the incomplete last one is dropped, and then the next pass begins.

Departure: pass number n is drawn from a generator seeded by (seed, n), so a batch is a function of (seed, iteration)
and a resumed training needs no saved state.
"""

import numpy as np


class Random:
    """Which images make a batch: any, none twice.

    Args:
        labels: Class id of every training image, shape (N,); any integers.
        batch_size: B, images in a batch, 1..N.
        seed: Seed of every pass.

    Raises:
        ValueError: If batch_size is not in 1..N, or there are fewer than 2 classes.
    """

    def __init__(self, labels: np.ndarray, batch_size: int, seed: int) -> None:
        num_classes = len(np.unique(labels))
        if num_classes < 2:
            raise ValueError(
                f"The sampler has images of {num_classes} class; learning a metric needs at least 2 classes."
            )
        if not 1 <= batch_size <= len(labels):
            raise ValueError(
                f"The sampler has batch_size={batch_size}, but there are {len(labels)} images and none comes twice in"
                f" a batch; set protocol.batch_size to 1..{len(labels)}."
            )
        self._num_images, self._batch_size, self._seed = len(labels), batch_size, seed
        self._pass_number, self._pass = -1, np.empty(0, np.int64)

    def batch(self, iteration: int) -> np.ndarray:
        """Positions (B,) of the images of iteration 0, 1, 2, ...; a function of the seed and the iteration only."""
        number, place = divmod(iteration, self._num_images // self._batch_size)
        if number != self._pass_number:
            self._pass = np.random.default_rng((self._seed, number)).permutation(self._num_images)
            self._pass_number = number
        return self._pass[place * self._batch_size : (place + 1) * self._batch_size].copy()
