"""Mean, standard error and t-interval over the runs or folds of one method.

Source: Musgrave, Belongie, Lim, "A Metric Learning Reality Check", ECCV 2020 (arXiv 2003.08505), section 3 on
confidence intervals: 95 % intervals over 10 runs. As in the authors' released code, the interval is Student's t with
n - 1 degrees of freedom around the mean, scaled by the standard error with ddof 1; half its width is printed after the
+- sign, 2.262 s / sqrt(10) for 10 runs.

Departure: a single value has no spread, so its half width and its standard error are None, never 0 or the mean.
"""

import math
import statistics  # the standard library's mean and stdev round only once, at the end
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """A mean with its t-interval.

    Attributes:
        mean: mean of the values.
        half_width: half the width of the interval; None for a single value.
        n: number of values.
    """

    mean: float
    half_width: float | None
    n: int


def t_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Return the mean of the values and half the width of their two-sided t-interval: t(n-1) * s / sqrt(n).

    Args:
        values: one finite number per run.
        confidence: probability mass of the interval, strictly between 0 and 1.

    Raises:
        ValueError: there are no values, one is not finite (exclude failed runs: a failure is never a number), or the
            confidence is not between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; allowed is a fraction between 0 and 1, such as 0.95.")
    error, mean, n = standard_error(values), statistics.mean(_finite(values)), len(values)
    if error is None:
        return Interval(mean, None, n)
    return Interval(mean, t_quantile(n - 1, (1 + confidence) / 2) * error, n)


def t_quantile(freedom: float, probability: float) -> float:
    """Return a quantile of Student's t.

    Args:
        freedom: degrees of freedom.
        probability: the probability below it.
    """
    from scipy.special import stdtrit  # only the quantile function: scipy.stats takes three times as long to import

    return float(stdtrit(freedom, probability))


def standard_error(values: Sequence[float]) -> float | None:
    """Standard error of the mean, s / sqrt(n) with s over n - 1 (ddof 1); None for a single value.

    >>> standard_error([0.25, 0.75])
    0.25

    Args:
        values: one finite number per fold or run.

    Raises:
        ValueError: there are no values, or one is not finite.
    """
    values = _finite(values)
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None


def _finite(values: Sequence[float]) -> list[float]:
    values = [float(value) for value in values]
    if not values:
        raise ValueError("There are no values to average; at least one finished run is needed.")
    bad = [value for value in values if not math.isfinite(value)]
    if bad:
        raise ValueError(f"{len(bad)} of {len(values)} values are not finite ({bad[0]}); exclude failed runs.")
    return values
