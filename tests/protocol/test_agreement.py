"""Whether a reproduced mean agrees with a published one, compared with scipy's Welch test and by simulation."""

import numpy as np
import pytest
from scipy import stats

from benchmark.protocol.agreement import ROUNDING, agreement
from benchmark.protocol.statistics import Interval, t_interval


@pytest.mark.parametrize("num_comparisons", [1, 6])
@pytest.mark.parametrize("shift", [0.2, 0.27, 0.3, 0.34, 0.4, 0.6])
def test_two_means_agree_exactly_if_welch_s_test_does_not_reject(shift, num_comparisons):
    rng = np.random.default_rng(3)
    ours, theirs = rng.normal(26 + shift, 0.28, 10), rng.normal(26, 0.35, 10)
    found = agreement(t_interval(ours), t_interval(theirs), num_comparisons)
    p = stats.ttest_ind(ours, theirs, equal_var=False).pvalue
    assert (abs(found.difference) <= found.tolerance - ROUNDING) == (p * num_comparisons >= 0.05)


def test_the_tolerance_of_six_numbers_is_1_31_times_the_combined_half_widths():
    found = agreement(Interval(26.4, 0.2, 10), Interval(26.45, 0.2, 10), 6)
    assert found.tolerance - ROUNDING == pytest.approx(1.31 * (0.2**2 + 0.2**2) ** 0.5, abs=1e-3)
    assert found.agrees and found.difference == pytest.approx(-0.05)


@pytest.mark.slow
def test_a_training_like_the_published_one_passes_in_all_six_numbers_19_times_out_of_20():
    rng, passed, other = np.random.default_rng(0), 0, 0
    common = np.array([1.0, 0.9, 1.0, 0.8, 0.7, 0.8])  # the numbers of a run vary together
    for _ in range(500):
        draws = [0.3 * (common * rng.normal(size=(10, 1)) + 0.5 * rng.normal(size=(10, 6))) for _ in range(2)]
        ours, theirs = ([t_interval(column) for column in draw.T] for draw in draws)
        passed += all(agreement(a, b, 6).agrees for a, b in zip(ours, theirs, strict=True))
        other += all(agreement(Interval(a.mean + 0.8, a.half_width, 10), b, 6).agrees
                     for a, b in zip(ours, theirs, strict=True))  # fmt: skip
    assert passed / 500 >= 0.95 and other / 500 < 0.05  # 0.8 is 2.4 standard deviations of a run


def test_a_number_that_is_printed_without_interval_is_taken_to_be_as_noisy_as_ours():
    ours = Interval(26.4, 0.2, 10)
    assert agreement(ours, Interval(26.4, None, 10)).tolerance == agreement(ours, Interval(26.4, 0.2, 10)).tolerance


def test_equal_runs_agree_within_the_rounding():
    same = Interval(26.45, 0.0, 3)
    assert agreement(Interval(26.454, 0.0, 3), same).agrees and not agreement(Interval(26.456, 0.0, 3), same).agrees


@pytest.mark.parametrize(("ours", "num"), [(Interval(1.0, None, 1), 1), (Interval(1.0, 0.1, 5), 0)])
def test_a_single_run_cannot_be_judged(ours, num):
    with pytest.raises(ValueError, match="at least 2"):
        agreement(ours, Interval(1.0, 0.1, 10), num)
