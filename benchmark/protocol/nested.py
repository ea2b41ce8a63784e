"""Intervals that cover the search: over searches s that were repeated with other seeds, and final runs r of each.

The score of a run is modelled as y[s, r] = mu + a[s] + e[s, r], with independent normal effects of the search (which
setting it found) and of the run. The card's interval over the runs of one search covers only e: it is an interval for
mu + a[0], what this one setting reaches, and intervals of two searches of the same method can exclude each other.

*Statistic.* The means over runs, m[s], are independent with the variance of a plus 1/n of that of e, whatever the two
are; the interval is Student's t over the S means with S - 1 degrees of freedom. For two methods whose runs share their
seeds, it is the same over the S means of the paired differences y[s, r] - z[s, r]. Runs of one search are never counted
as if they were searches: an interval over all S n runs with S n - 1 degrees of freedom is far too narrow.

*Target.* The expected score over searches and runs on these test classes. A class effect is the same in every run, so
it is part of mu and adds nothing; how it interacts with searches and runs is part of a and e. For other classes of the
same kind, the variance between classes / their number would be added, which no number of runs reduces.

*Coverage* of the 95 % interval for n = 10 runs, in percent, in 200,000 simulated studies (standard error 0.05). The
ratio is that of the standard deviations of searches and runs. "Records" has those of the two committed searches of
ProxyNCA on glyphs (3.6 and 1.0 points of MAP@R; HPL-PA's are 0.5 and 0.6, with the same coverage) and 2.1 for the
classes. "Best of 10" draws the effect of a search as the highest of ten normal scores, which is skewed; "resampled" as
the best of 10 of ProxyNCA's 16 committed trials, without replacement, so that searches often find the same trial. The
last columns count all S n runs as one sample:

| S | ratio 0 | ratio 1 | ratio 4 | records | best of 10 | resampled | one sample, ratio 1 | one sample, records |
|---|---|---|---|---|---|---|---|---|
| 2 | 95.0 | 95.0 | 95.1 | 95.0 | 94.9 | 81.0 | 53.7 | 33.0 |
| 3 | 94.9 | 95.0 | 95.1 | 95.0 | 94.9 | 74.9 | 56.0 | 38.4 |
| 5 | 95.0 | 95.0 | 95.0 | 95.0 | 94.8 | 88.7 | 57.4 | 42.4 |

Few searches make the interval wide: Student's factor is 12.7 for two searches, 4.3 for three and 2.8 for five.

*Where it is too narrow.* The interval is exact for normal effects. Where most searches find the same setting and a few
miss it, effects have a long lower tail: in 26 % of "resampled" studies of three searches, all three find one trial, so
that the interval is that of the runs, around a value that is too high. For the nine losses of the reference results
(the best of 10 of 16 trials, or of 5 of 10), it covers 71 to 95 %, and in most misses it lies too high. More searches
do not help: 57 to 95 % with five, 74 to 95 % with ten. There is no remedy in these numbers, since searches that agree
do not say how far another one would fall. A lower bound on the variance between searches, such as half of that between
runs, raises "resampled" to 93 % or more, but ratio 1 to over 99 %. The band of `best_so_far` shows whether a loss is of
this kind.

Source: Searle, Casella, McCulloch, "Variance Components", Wiley 1992, chapter 3 (balanced one-way random model).
"""

import statistics
from collections.abc import Mapping

from benchmark.protocol.comparisons import Difference, difference
from benchmark.protocol.statistics import Interval, t_interval

Scores = Mapping[tuple[int, int], float]  # scores of one method by search and run


def over_searches(scores: Scores, confidence: float = 0.95) -> Interval:
    """Return the mean over searches and runs, and half the width of its interval; its `n` is the number of searches.

    Args:
        scores: one finite number for each pair of search and run; all searches have the same runs.
        confidence: probability mass of the interval, strictly between 0 and 1.

    Raises:
        ValueError: there are no scores, one is not finite, the searches have different runs, or the confidence is not
            between 0 and 1.
    """
    return t_interval(list(search_means(scores).values()), confidence)


def difference_over_searches(first: Scores, second: Scores, confidence: float = 0.95) -> Difference:
    """Return the paired difference of two methods, the first minus the second, with an interval that covers the search.

    Args:
        first: scores by search and run.
        second: scores by search and run; the seeds of equal pairs are equal.
        confidence: probability mass of the interval, strictly between 0 and 1.

    Raises:
        ValueError: the methods have other searches or runs, a method has no scores, one is not finite, the searches
            have different runs, or the confidence is not between 0 and 1.
    """
    if first.keys() != second.keys():
        raise ValueError("The two methods have other searches or runs, so they cannot be paired.")
    return difference(search_means(first), search_means(second), confidence)


def search_means(scores: Scores) -> dict[int, float]:
    """Return the mean over the runs of each search.

    >>> search_means({(0, 0): 1.0, (0, 1): 2.0, (1, 0): 4.0, (1, 1): 4.0})
    {0: 1.5, 1: 4.0}

    Args:
        scores: scores by search and run; all searches have the same runs.

    Raises:
        ValueError: the searches have different runs.
    """
    runs: dict[int, dict[int, float]] = {}
    for (search, run), score in scores.items():
        runs.setdefault(search, {})[run] = score
    if len({frozenset(found) for found in runs.values()}) > 1:
        raise ValueError(f"The searches have different runs: { ({s: sorted(found) for s, found in runs.items()}) }.")
    return {search: statistics.mean(found.values()) for search, found in runs.items()}
