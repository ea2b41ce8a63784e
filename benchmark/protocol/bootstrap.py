"""A bootstrap over the test classes: how much a score, and a method's rank, depends on which classes were tested.

The interval over runs holds the noise of training, and none of the choice of the test classes, which is the same in all
runs. Here, classes are drawn with replacement, as many as there are, and a class that is drawn twice counts twice; the
metric is the mean over the queries of the drawn classes. Each query keeps its score, so that its gallery stays whole.

Source: Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7, 1979; percentile interval of
Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapter 13; whole clusters are drawn as in Field and
Welsh, "Bootstrapping clustered data", Journal of the Royal Statistical Society B 69, 2007.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from benchmark.protocol.comparisons import Rank, ranks_of

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
    means, mean, num_classes = _resampled(scores[None], labels, resamples, seed)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return ClassInterval(float(mean[0]), float(low), float(high), float(means.std(ddof=1)), num_classes)


def ranks_over_classes(
    scores: Mapping[str, np.ndarray], labels: np.ndarray, *, resamples: int, seed: int = 0
) -> dict[str, Rank]:
    """Return each method's rank when classes are drawn with replacement, the same ones for all methods.

    Args:
        scores: (Q,) the score of each query by method, for a run or averaged over runs; NaN for one that does not
            count.
        labels: (Q,) class of each query.
        resamples: number of draws.
        seed: seed of the draws.

    Raises:
        ValueError: there are no methods, shapes do not fit, or fewer than two classes have a score.
    """
    if {each.shape for each in scores.values()} != {labels.shape}:
        raise ValueError(f"scores are {[each.shape for each in scores.values()]} and labels {labels.shape}.")
    return ranks_of(scores, _resampled(np.stack(list(scores.values())), labels, resamples, seed)[0])


def _resampled(scores: np.ndarray, labels: np.ndarray, resamples: int, seed: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Draw classes; a query without a score in any row counts in none.

    Args:
        scores: (M, Q) scores of the queries.
        labels: (Q,) class of each query.
        resamples: R, the number of draws.
        seed: seed of the draws.

    Returns:
        (R, M) means over the queries of the drawn classes, (M,) means over all queries, and the number of classes.

    Raises:
        ValueError: fewer than two classes have a score.
    """
    counted = ~np.isnan(scores).any(axis=0)
    classes, own = np.unique(labels[counted], return_inverse=True)
    num_classes = len(classes)
    if num_classes < 2:
        raise ValueError(f"{num_classes} class has a scored query; a bootstrap over classes needs 2.")
    sums, sizes = np.array([np.bincount(own, row[counted]) for row in scores]), np.bincount(own)  # (M, C) and (C,)
    draws, means = np.random.default_rng(seed), []
    for first in range(0, resamples, BLOCK):
        drawn = draws.integers(num_classes, size=(min(BLOCK, resamples - first), num_classes))
        means.append(np.array([row[drawn].sum(axis=1) for row in sums]).T / sizes[drawn].sum(axis=1)[:, None])
    return np.concatenate(means), sums.sum(axis=1) / sizes.sum(), num_classes
