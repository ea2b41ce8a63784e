"""Racing over folds: a trial whose first folds are clearly behind those of the best trial is not trained further.

The classes of a fold are easy or hard for every setting, so scores differ more between folds than between settings.
Two trials are therefore compared on the same folds.

Source: Maron, Moore, "Hoeffding Races: Accelerating Model Selection Search for Classification and Function
Approximation", NIPS 1993 (racing over single examples). Departures: a margin that is given in place of a bound, which
needs more than a few folds; and a trial is compared with the best finished one only.
"""

import math
from collections.abc import Sequence
from statistics import fmean, stdev


def stops_after(scores: Sequence[float | None], leader: Sequence[float], margin: float) -> int | None:
    """Return the number of first folds after which a trial is clearly behind the leader; None if it is not.

    It is after k folds, but not all of them, if their mean is lower than the leader's by more than margin / sqrt(k).

    >>> stops_after([0.29, 0.25], [0.30, 0.30, 0.35, 0.25], margin=0.02), stops_after([0.29], [0.30, 0.30], margin=0.02)
    (2, None)

    Args:
        scores: scores of the trial's first folds, in order, as far as they are known; None for a fold without a score,
            after which the trial is not stopped.
        leader: scores of all folds of the best trial.
        margin: the distance that counts after one fold, in the unit of the scores.
    """
    known: list[float] = []
    for score in scores[: len(leader) - 1]:
        if score is None:
            return None
        known.append(score)
        if fmean(leader[: len(known)]) - fmean(known) > margin / math.sqrt(len(known)):
            return len(known)
    return None


def estimate(scores: Sequence[float], leader: Sequence[float]) -> tuple[float, float]:
    """Return an estimate of a stopped trial's mean over all folds, and its standard error.

    The estimate is the leader's mean, times the ratio of the means over the first folds: at least 0, and below the
    leader's mean. On the trials that the rule would have stopped in the committed searches, it is nearer to their means
    than the leader's mean minus the difference over the first folds. The standard error is that of the leader, if it
    had as few folds.

    Args:
        scores: scores of the trial's first folds.
        leader: scores of all folds, at least two, of the best trial, whose mean over the first ones is higher.
    """
    mean = fmean(leader) * fmean(scores) / fmean(leader[: len(scores)])
    return mean, stdev(leader) / math.sqrt(len(scores))
