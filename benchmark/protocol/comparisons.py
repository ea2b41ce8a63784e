"""Comparison of methods by the values of their runs: differences, tests, groups of equals, ranks.

Methods are compared by the differences between runs that share their seeds (a paired t-test), which leaves out what the
runs have in common, such as the split of the classes and the initial weights. Sources: Student, "The probable error of
a mean", Biometrika 6, 1908 (paired test); Welch, Biometrika 34, 1947 (unpaired test); Holm, "A simple sequentially
rejective multiple test procedure", Scandinavian Journal of Statistics 6, 1979; Cohen, "Statistical power analysis for
the behavioral sciences", 1988, chapter 2 (number of runs).

*The group of the best.* The method with the highest mean is chosen by the same runs that are tested. The group still
has the property of a comparison with the best: the method with the highest true mean is in it with a probability of at
least 95 % (in simulations of 2 to 17 methods with 3 or 10 runs: 97 % or more). Equally good methods are left out more
often: of nine equal ones with 10 runs, at least one in 12 % of studies. So a method outside the group is unlikely to be
the best one, and a difference that was of interest before the runs, such as that from a base, is read from its own
test. Source: Hsu, "Multiple comparisons: theory and methods", 1996, chapter 4.

No record depends on this module, so that it may change without another version of a study's code.
"""

import math
import statistics
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmark.protocol.statistics import standard_error, t_interval, t_quantile

if TYPE_CHECKING:  # tables of a single row need no NumPy
    import numpy as np

POWER = 0.8  # probability with which the number of runs finds a difference, the convention of Cohen 1988
MOST_RUNS = 1000  # more are not counted
RESAMPLES = 2000

Values = Mapping[Any, float]  # the values of one method, by run: its number, or the pair of search and run
Pair = Callable[[str, str], tuple[Values, Values]]


@dataclass(frozen=True)
class Difference:
    """The difference between two methods: the mean of the first minus that of the second.

    Attributes:
        mean: the difference of the means.
        half_width: half the width of its t-interval; None for a single run.
        p: two-sided p-value of the t-test that the difference is 0; None for a single run.
        n: number of pairs; if not paired, the smaller number of runs.
        paired: whether runs with shared seeds were subtracted from each other.
        deviation: standard deviation of the differences between runs; None for a single run, or if not paired.
    """

    mean: float
    half_width: float | None
    p: float | None
    n: int
    paired: bool
    deviation: float | None


def difference(first: Values, second: Values, confidence: float = 0.95) -> Difference:
    """Return the difference between two methods, paired if they have the same runs, else by Welch's test.

    Args:
        first: values by run.
        second: values by run. Equal runs must have equal seeds; otherwise call `unpaired_difference`.
        confidence: probability mass of the interval.

    Raises:
        ValueError: a method has no values, one is not finite, or the confidence is not between 0 and 1.
    """
    if first.keys() != second.keys():
        return unpaired_difference(list(first.values()), list(second.values()), confidence)
    differences = [first[run] - second[run] for run in first]
    interval = t_interval(differences, confidence)
    error = standard_error(differences)
    if error is None:
        return Difference(interval.mean, None, None, 1, True, None)
    p = _two_sided(interval.mean, error, len(differences) - 1)
    return Difference(interval.mean, interval.half_width, p, len(differences), True, statistics.stdev(differences))


def unpaired_difference(first: Sequence[float], second: Sequence[float], confidence: float = 0.95) -> Difference:
    """Return the difference between two methods whose runs share no seeds, by Welch's test.

    The degrees of freedom are those of Welch and Satterthwaite.

    Args:
        first: one finite number per run.
        second: one finite number per run.
        confidence: probability mass of the interval.

    Raises:
        ValueError: a method has no values, one is not finite, or the confidence is not between 0 and 1.
    """
    one, two = t_interval(first, confidence), t_interval(second, confidence)
    mean, n = one.mean - two.mean, min(one.n, two.n)
    errors = standard_error(first), standard_error(second)
    if errors[0] is None or errors[1] is None:
        return Difference(mean, None, None, n, False, None)
    squares = errors[0] ** 2, errors[1] ** 2
    if not sum(squares):
        return Difference(mean, 0.0, _two_sided(mean, 0.0, 1), n, False, None)
    freedom = sum(squares) ** 2 / (squares[0] ** 2 / (one.n - 1) + squares[1] ** 2 / (two.n - 1))
    error = math.sqrt(sum(squares))
    half_width = t_quantile(freedom, (1 + confidence) / 2) * error
    return Difference(mean, half_width, _two_sided(mean, error, freedom), n, False, None)


def _two_sided(mean: float, error: float, freedom: float) -> float:
    """Return the p-value of a mean with a standard error; without spread, 1 for a mean of 0 and else 0."""
    if error == 0:
        return float(mean == 0)
    from scipy.special import stdtr

    return 2 * float(stdtr(freedom, -abs(mean) / error))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values adjusted for their number, in the same order.

    Rejecting those at most alpha rejects any true hypothesis of the family with a probability of at most alpha.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]

    Args:
        p_values: the p-values of one family of tests.
    """
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def against_best(methods: Mapping[str, Values], confidence: float = 0.95, pair: Pair | None = None) -> dict[str, float]:
    """Return the Holm-adjusted p-value of each method's difference from the one with the highest mean, 1 for that one.

    The family is all methods but the best. Empty if there are fewer than two methods, or one has a single run.

    Args:
        methods: values by run, for each method.
        confidence: probability mass of the intervals.
        pair: the values to compare for the best method and another one, by their names; by default those in `methods`.

    Raises:
        ValueError: a method has no values, or one is not finite.
    """
    if len(methods) < 2 or any(len(values) < 2 for values in methods.values()):
        return {}
    best = max(methods, key=lambda name: t_interval(list(methods[name].values())).mean)
    others = [name for name in methods if name != best]
    pair = pair or (lambda *names: (methods[names[0]], methods[names[1]]))
    tests = [difference(*pair(best, name), confidence) for name in others]
    adjusted = holm([test.p for test in tests if test.p is not None])
    # By the values of `pair`, another one may be ahead, which is no reason to tell it from the best.
    return {best: 1.0} | {
        name: p if test.mean > 0 else 1.0 for name, test, p in zip(others, tests, adjusted, strict=True)
    }


def cannot_be_told_from_best(
    methods: Mapping[str, Values], confidence: float = 0.95, pair: Pair | None = None
) -> set[str]:
    """Return the methods whose difference from the best one is not significant, the best one among them.

    Args:
        methods: values by run, for each method.
        confidence: 1 minus the level of the tests.
        pair: see `against_best`.

    Raises:
        ValueError: a method has no values, or one is not finite.
    """
    return {name for name, p in against_best(methods, confidence, pair).items() if p > 1 - confidence}


def runs_needed(mean: float, deviation: float, confidence: float = 0.95, power: float = POWER) -> int | None:
    """Return how many paired runs find a difference by a t-test; None if more than `MOST_RUNS`.

    Args:
        mean: the true difference between two methods.
        deviation: standard deviation of the difference between paired runs.
        confidence: 1 minus the level of the two-sided test.
        power: probability that the test rejects.
    """
    if mean == 0:
        return None
    if deviation == 0:
        return 2
    from scipy.special import nctdtr

    def found(n: int) -> float:
        shift, limit = math.sqrt(n) * abs(mean) / deviation, t_quantile(n - 1, (1 + confidence) / 2)
        # The other tail is far below the power, and `nctdtr` is not accurate there.
        return 1 - float(nctdtr(n - 1, shift, limit)) if shift < 30 else 1.0

    low, high = 1, MOST_RUNS  # `low` is too few
    if found(high) < power:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if found(middle) >= power else (middle, high)
    return high


@dataclass(frozen=True)
class Rank:
    """How a method ranks among others when runs are drawn again.

    Attributes:
        first: share of the resamples in which it has the highest mean; equal ones share it.
        mean: its mean rank, 1 for the highest mean; equal ones have the mean of their ranks.
    """

    first: float
    mean: float


def rank_stability(methods: Mapping[str, Values], seed: int = 0) -> dict[str, Rank]:
    """Return each method's rank over `RESAMPLES` bootstrap samples of the runs that all methods share.

    A run is drawn for all methods at once. Runs of several searches are named (search, run): then searches are drawn,
    and runs within each. Empty if there are fewer than two methods or shared runs.

    Args:
        methods: values by run, for each method.
        seed: seed of the draws.
    """
    import numpy as np

    shared = [run for run in next(iter(methods.values()), {}) if all(run in values for values in methods.values())]
    if len(methods) < 2 or len(shared) < 2:
        return {}
    searches: dict[Hashable, list[int]] = {}
    for column, name in enumerate(shared):
        searches.setdefault(name[0] if isinstance(name, tuple) else "", []).append(column)
    lengths = np.array([len(group) for group in searches.values()])
    columns = np.zeros((len(lengths), lengths.max()), dtype=int)  # of each search, padded to the longest
    for number, group in enumerate(searches.values()):
        columns[number, : len(group)] = group
    values = np.array([[of[run] for run in shared] for of in methods.values()])
    draws = np.random.default_rng(seed)
    search = draws.integers(len(lengths), size=(RESAMPLES, len(lengths), 1))
    run = (draws.random((RESAMPLES, len(lengths), lengths.max())) * lengths[search]).astype(int)
    drawn = np.arange(lengths.max()) < lengths[search]  # a short search has fewer runs
    means = ((values[:, columns[search, run]] * drawn).sum(axis=(2, 3)) / drawn.sum(axis=(1, 2))).T
    return ranks_of(methods, means)


def ranks_of(methods: Iterable[str], means: "np.ndarray") -> dict[str, Rank]:
    """Return each method's rank over resamples.

    Args:
        methods: names of the M methods.
        means: (R, M) mean of each method in each resample.
    """
    import numpy as np

    higher = (means[:, None, :] > means[:, :, None]).sum(axis=2)
    equal = (means[:, None, :] == means[:, :, None]).sum(axis=2)
    first = np.where(higher == 0, 1 / equal, 0.0).mean(axis=0)
    ranks = (1 + higher + (equal - 1) / 2).mean(axis=0)
    return {name: Rank(float(f), float(r)) for name, f, r in zip(methods, first, ranks, strict=True)}
