"""A bootstrap interval over the test classes: how much a run's score depends on which classes were tested.

The interval over runs holds the noise of training, and none of the choice of the test classes, which is the same in all
runs. Here, classes are drawn with replacement, as many as there are, and a class that is drawn twice counts twice; the
metric is the mean over the queries of the drawn classes. Each query keeps its score, so that its gallery stays whole.

Source: Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7, 1979; percentile interval of
Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapter 13; whole clusters are drawn as in Field and
Welsh, "Bootstrapping clustered data", Journal of the Royal Statistical Society B 69, 2007.
"""

from dataclasses import dataclass

import numpy as np

BLOCK = 256  # resamples that are drawn at a time


@dataclass(frozen=True)
class ClassInterval:
    """The interval of a mean over queries when their classes are drawn again.

    Attributes:
        mean: the mean over all queries.
        low: lower end of the percentile interval.
        high: its upper end.
        error: standard deviation of the resampled means.
        num_classes: number of classes with a scored query.
    """

    mean: float
    low: float
    high: float
    error: float
    num_classes: int


def over_classes(
    scores: np.ndarray, labels: np.ndarray, *, resamples: int, seed: int = 0, confidence: float = 0.95
) -> ClassInterval:
    """The bootstrap interval of the mean score when classes are drawn with replacement.

    Args:
        scores: (Q,) the score of each query; NaN for one that does not count, such as the only image of its class.
        labels: (Q,) class of each query.
        resamples: number of draws, at least 2.
        seed: seed of the draws.
        confidence: probability mass of the interval, strictly between 0 and 1.

    Raises:
        ValueError: shapes or numbers do not fit, or fewer than two classes have a score.
    """
    if scores.ndim != 1 or scores.shape != labels.shape:
        raise ValueError(f"scores are {scores.shape} and labels {labels.shape}; both must be (Q,).")
    if resamples < 2 or not 0 < confidence < 1:
        raise ValueError(f"resamples={resamples}, confidence={confidence}: at least 2, and between 0 and 1.")
    counted = ~np.isnan(scores)
    classes, own = np.unique(labels[counted], return_inverse=True)
    num_classes = len(classes)
    if num_classes < 2:
        raise ValueError(f"{num_classes} class has a scored query; a bootstrap over classes needs 2.")
    sums, sizes = np.bincount(own, scores[counted]), np.bincount(own)  # (C,)
    draws = np.random.default_rng(seed)
    means = np.concatenate([
        _means(draws.integers(num_classes, size=(min(BLOCK, resamples - first), num_classes)), sums, sizes)
        for first in range(0, resamples, BLOCK)
    ])  # fmt: skip
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    mean = float(sums.sum() / sizes.sum())
    return ClassInterval(mean, float(low), float(high), float(means.std(ddof=1)), num_classes)


def _means(drawn: np.ndarray, sums: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Means (R,) over the queries of the drawn classes (R, C), from the sum (C,) and size (C,) of each class."""
    means: np.ndarray = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    return means
