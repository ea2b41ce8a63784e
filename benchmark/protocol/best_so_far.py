"""The best score of a search against the number of its trials, and how much of it is luck.

Of n finished trials, any k could have been the first k. Over all these subsets, drawn without replacement, the best
score has a mean, a standard deviation and quantiles, which are computed exactly: the i-th lowest score is the best of
C(i - 1, k - 1) of the C(n, k) subsets. If the curve still rises at k = n, more trials would find a better setting; if
the band is wide before n, a repeated search would find another one.

The subsets ignore the order of the trials. For a searcher that learns from earlier trials, the band therefore shows the
luck of the draw among the settings that were tried, not what k trials of that searcher would find.

Source: Dodge, Gururangan, Card, Schwartz, Smith, "Show Your Work: Improved Reporting of Experimental Results", EMNLP
2019 (arXiv 1909.03004), section 3.1. Departure: they draw with replacement; without, the band ends in the best trial.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class BestOf:
    """The best score of k trials.

    Attributes:
        k: number of trials.
        mean: mean over all subsets of k trials that have a score.
        deviation: standard deviation over the same subsets.
        low: lower end of the band.
        high: upper end of the band.
    """

    k: int
    mean: float
    deviation: float
    low: float
    high: float


def best_of_subsets(scores: Sequence[float | None], confidence: float = 0.95) -> list[BestOf]:
    """Return the best score of any k trials for k = 1, 2, ..., n.

    >>> [(best.k, best.mean) for best in best_of_subsets([1.0, 3.0, None])]
    [(1, 2.0), (2, 2.3333333333333335), (3, 3.0)]

    Args:
        scores: score of each trial; None for a trial without one, which counts as a trial but is never the best.
        confidence: share of the subsets whose best score lies within the band, at least.

    Raises:
        ValueError: a score is not finite, or the confidence is not between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; allowed is a fraction between 0 and 1, such as 0.95.")
    known = sorted(score for score in scores if score is not None)
    if bad := [score for score in known if not math.isfinite(score)]:
        raise ValueError(f"{len(bad)} of {len(known)} scores are not finite ({bad[0]}); a failed trial has none.")
    failed = len(scores) - len(known)
    return [_best_of(k, known, failed, (1 - confidence) / 2) for k in range(1, len(scores) + 1) if known]


def _best_of(k: int, known: Sequence[float], failed: int, tail: float) -> BestOf:
    """The best score of k trials.

    Args:
        k: number of trials.
        known: all scores, ascending.
        failed: number of further trials, without a score.
        tail: share of subsets below the band, and above it.
    """
    counts = [math.comb(failed + below, k - 1) for below in range(len(known))]  # subsets in which each is the best
    total = sum(counts)
    mean = sum(count * score for count, score in zip(counts, known, strict=True)) / total
    variance = sum(count * (score - mean) ** 2 for count, score in zip(counts, known, strict=True)) / total

    def quantile(share: float) -> float:
        reached = 0
        for count, score in zip(counts, known, strict=True):
            reached += count
            if reached >= share * total:
                return score
        return known[-1]

    return BestOf(k, mean, math.sqrt(variance), quantile(tail), quantile(1 - tail))


def best_in_order(scores: Sequence[float | None]) -> list[float | None]:
    """Return the best score of the first trials, after each trial; None before the first score.

    >>> best_in_order([None, 1.0, 0.5, 2.0])
    [None, 1.0, 1.0, 2.0]
    """
    best: float | None = None
    found = []
    for score in scores:
        best = score if best is None or (score is not None and score > best) else best
        found.append(best)
    return found
