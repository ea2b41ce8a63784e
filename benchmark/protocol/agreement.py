"""Whether a reproduced mean agrees with a published one.

Source: Welch, "The generalization of 'Student's' problem when several different population variances are involved",
Biometrika 34, 1947, for two means with their own standard errors; Bonferroni's bound for several numbers of one row.
"""

import math
from dataclasses import dataclass

from benchmark.protocol.statistics import Interval

ROUNDING = 0.005  # a published number has two decimals


@dataclass(frozen=True)
class Agreement:
    """A reproduced number beside a published one.

    Attributes:
        difference: reproduced minus published.
        tolerance: the largest absolute difference at which they agree.
    """

    difference: float
    tolerance: float

    @property
    def agrees(self) -> bool:
        """Whether the difference is within the tolerance."""
        return abs(self.difference) <= self.tolerance


def agreement(ours: Interval, theirs: Interval, num_comparisons: int = 1, confidence: float = 0.95) -> Agreement:
    """Compare a reproduced mean with a published one, each of which has its own training noise.

    The standard errors e1 and e2 follow from the half widths. The tolerance is t * sqrt(e1^2 + e2^2), with Welch's
    degrees of freedom, plus the rounding of the published number. With one comparison and ten runs each, it is 0.93 of
    sqrt(h1^2 + h2^2) for the half widths h1 and h2; with six, it is 1.31 of it.

    Args:
        ours: the reproduced mean, of at least two runs, in percent.
        theirs: the published mean, in percent; without half width, it is taken to be as noisy as ours.
        num_comparisons: how many numbers must all agree: one that trains alike then agrees in all of them with at least
            the probability `confidence`.
        confidence: confidence level of both intervals, and of the comparison.

    Raises:
        ValueError: ours is the mean of a single run, or a number is out of range.
    """
    if ours.half_width is None or ours.n < 2 or num_comparisons < 1:
        raise ValueError(f"n={ours.n}, num_comparisons={num_comparisons}: at least 2 runs and 1 comparison are needed.")
    from scipy.special import stdtrit  # only the quantile function: scipy.stats takes three times as long to import

    def error(interval: Interval) -> float:
        assert interval.half_width is not None
        return interval.half_width / float(stdtrit(interval.n - 1, (1 + confidence) / 2))

    published = Interval(theirs.mean, ours.half_width, ours.n) if theirs.half_width is None else theirs
    squares = error(ours) ** 2, error(published) ** 2
    difference = ours.mean - theirs.mean
    if not sum(squares):
        return Agreement(difference, ROUNDING)
    freedom = sum(squares) ** 2 / (squares[0] ** 2 / (ours.n - 1) + squares[1] ** 2 / (published.n - 1))
    quantile = float(stdtrit(freedom, 1 - (1 - confidence) / (2 * num_comparisons)))
    return Agreement(difference, quantile * math.sqrt(sum(squares)) + ROUNDING)
