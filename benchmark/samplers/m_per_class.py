"""Batches with m images per class, drawn in passes over the classes.

Source: Musgrave, Belongie, Lim. A Metric Learning Reality Check. ECCV 2020, arXiv:2003.08505, with the sampler of
pytorch-metric-learning 0.9.88 (`m_per_class_sampler`): an index list of 100,000 images, cut to a multiple of
m x classes (or to one pass, if that is longer), is filled pass by pass; a pass shuffles the classes and appends m
images of each, without replacement within a class, or with replacement if the class has fewer than m. Batches are
consecutive slices of the list, the incomplete last one is dropped, and then a new list begins. A batch may straddle two
passes and hold a class twice.

Departures: list number n is drawn from a generator seeded by (seed, n), so a batch is a function of (seed, iteration)
and resuming needs no saved state. If a batch is longer than the list, the list is made just long enough; the original
would yield nothing. `fresh_classes` is the `batch_size` rule of pytorch-metric-learning 2.x: each batch has its own
batch / m different classes.
"""

import numpy as np

from benchmark.core.errors import UserError

LIST_LENGTH = 100_000


class MPerClass:
    """Draws batches with m images per class.

    Args:
        labels: (N,) class id of each training image; any integers.
        batch_size: B, images in a batch.
        m: number of images per class in a pass (4 for losses over pairs, 1 for losses over proxies).
        seed: seed of all lists.
        fresh_classes: whether each batch draws its own batch_size / m different classes instead of slicing passes.

    Raises:
        UserError: m or batch_size is below 1, there are fewer than 2 classes, or, with `fresh_classes`, batch_size is
            not a multiple of m or needs more classes than exist.
    """

    def __init__(self, labels: np.ndarray, batch_size: int, m: int, seed: int, *, fresh_classes: bool = False) -> None:
        classes, compact, self._counts = np.unique(labels, return_inverse=True, return_counts=True)
        _check(len(classes), batch_size, m, fresh_classes)
        self._by_class = np.argsort(compact, kind="stable")  # rows, grouped by class
        self._starts = np.cumsum(self._counts) - self._counts
        self._m, self._batch_size, self._seed, self._fresh = m, batch_size, seed, fresh_classes
        images_in_pass = m * len(classes)
        self._num_passes = max(LIST_LENGTH // images_in_pass, -(-batch_size // images_in_pass))
        self._batches_in_list = self._num_passes * images_in_pass // batch_size
        self._list_number, self._list = -1, np.empty(0, np.int64)

    def batch(self, iteration: int) -> np.ndarray:
        """Return the rows (B,), int64, of the batch of an iteration, from 0; they depend on iteration and seed only."""
        if self._fresh:
            rng = np.random.default_rng((self._seed, iteration))
            classes = rng.permutation(len(self._counts))[: self._batch_size // self._m]
            return self._images_of(classes, rng)
        number, position = divmod(iteration, self._batches_in_list)
        if number != self._list_number:
            self._list, self._list_number = self._make_list(number), number
        return self._list[position * self._batch_size : (position + 1) * self._batch_size].copy()

    def _make_list(self, number: int) -> np.ndarray:
        rng = np.random.default_rng((self._seed, number))
        classes = [rng.permutation(len(self._counts)) for _ in range(self._num_passes)]
        return self._images_of(np.concatenate(classes), rng)

    def _images_of(self, classes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw rows (E m,): m images for each of the E entries of `classes` (E,), independently for each entry."""
        counts = self._counts[classes]
        chosen = np.empty((len(classes), self._m), np.int64)  # positions within the class
        few = counts < self._m
        chosen[few] = rng.integers(0, counts[few, None], (few.sum(), self._m))
        chosen[~few] = _distinct(counts[~few], self._m, rng)
        rows: np.ndarray = self._by_class[self._starts[classes, None] + chosen]
        return rows.reshape(-1)


def _distinct(counts: np.ndarray, m: int, rng: np.random.Generator) -> np.ndarray:
    """Draw (E, m) numbers for counts (E,): row r has m distinct ones of 0 .. counts[r] - 1, all orders equally likely.

    Floyd's sampling, all rows at once: for j = count - m .. count - 1, draw t in 0..j and take t, or j if t is taken.
    Floyd's set is uniform but its order is not, so each row is shuffled at the end.
    """
    chosen = np.empty((len(counts), m), np.int64)
    for column in range(m):
        last = counts - m + column
        drawn = rng.integers(0, last + 1)
        taken = (chosen[:, :column] == drawn[:, None]).any(axis=1)
        chosen[:, column] = np.where(taken, last, drawn)
    return rng.permuted(chosen, axis=1) if m > 1 else chosen


def _check(num_classes: int, batch_size: int, m: int, fresh_classes: bool) -> None:
    if m < 1 or batch_size < 1:
        raise UserError(f"The sampler got m={m}, batch_size={batch_size}; both must be at least 1.")
    if num_classes < 2:
        raise UserError(f"The sampler got images of {num_classes} class; metric learning needs at least 2 classes.")
    if not fresh_classes:
        return
    if batch_size % m:
        raise UserError(f"fresh_classes needs batch_size to be a multiple of m, got batch_size={batch_size}, m={m}.")
    if num_classes < batch_size // m:
        raise UserError(
            f"fresh_classes needs batch_size / m = {batch_size} / {m} = {batch_size // m} classes, but the fold has "
            f"{num_classes}. Use fresh_classes=false, the pass-based rule, or a larger m or a smaller batch_size."
        )
