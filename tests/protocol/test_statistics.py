"""Mean, standard error and t-interval, compared with scipy.stats, the standard library and tabulated quantiles."""

import math
import statistics

import numpy as np
import pytest

from benchmark.protocol.statistics import Interval, standard_error, t_interval

RUNS = [0.2634, 0.2581, 0.2702, 0.2655, 0.2619, 0.2688, 0.2597, 0.2640, 0.2611, 0.2673]


@pytest.mark.parametrize(("n", "quantile"), [(2, 12.706), (4, 3.182), (10, 2.262), (11, 2.228)])
def test_the_half_width_is_the_tabulated_quantile_times_the_standard_error(n, quantile):
    values = [*(RUNS * 2)[: n - 1], 0.25]
    interval = t_interval(values)
    assert interval.n == n
    assert interval.mean == pytest.approx(statistics.fmean(values), abs=1e-15)
    assert interval.half_width == pytest.approx(quantile * statistics.stdev(values) / math.sqrt(n), rel=3e-4)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.99])
def test_the_interval_is_the_one_of_scipy_stats(confidence):
    from scipy import stats

    low, high = stats.t.interval(confidence, len(RUNS) - 1, loc=np.mean(RUNS), scale=stats.sem(RUNS))
    interval = t_interval(RUNS, confidence)
    assert interval.half_width == pytest.approx((high - low) / 2, rel=1e-12)
    assert interval.mean - interval.half_width == pytest.approx(low, rel=1e-12)


def test_the_standard_error_divides_by_n_minus_1_and_root_n():
    # Deviations of (1, 2, 3, 6) from 3: -2, -1, 0, 3; squares sum to 14; s = sqrt(14 / 3); / sqrt(4).
    assert standard_error([1.0, 2.0, 3.0, 6.0]) == pytest.approx(math.sqrt(14 / 3) / 2, rel=1e-15)


def test_one_value_has_no_spread():
    assert t_interval([0.25]) == Interval(0.25, None, 1)
    assert standard_error([0.25]) is None


def test_equal_values_have_a_width_of_zero():
    assert t_interval([0.1, 0.1, 0.1]) == Interval(0.1, 0.0, 3)


def test_numpy_values_become_plain_floats():
    interval = t_interval(np.array(RUNS, dtype=np.float64))
    assert type(interval.mean) is float and type(interval.half_width) is float


@pytest.mark.parametrize(
    ("values", "message"),
    [([], "no values"), ([0.5, math.nan], "1 of 2 values are not finite"), ([math.inf], "not finite")],
)
def test_values_that_are_missing_or_not_finite_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        t_interval(values)
    with pytest.raises(ValueError, match=message):
        standard_error(values)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95])
def test_a_confidence_in_percent_is_refused(confidence):
    with pytest.raises(ValueError, match="confidence is"):
        t_interval(RUNS, confidence)
