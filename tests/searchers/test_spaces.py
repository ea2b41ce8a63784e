"""Parameters, trials and histories: accepted and refused values."""

from statistics import fmean

import numpy as np
import pytest
from scipy.stats import ttest_rel

from benchmark.core.errors import UserError
from benchmark.searchers import Parameter, Trial, best_by_mean, best_or_default, check_history

SPACE = {"lr": Parameter((1e-4, 1e-1), "log"), "n": Parameter((2, 9), type="int")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((0.0, 1.0), "log"), "on a log scale both must be positive"),
        (((1.0, 1.0), "linear"), "two finite numbers, the lower one first"),
        (((0.0, float("inf")), "linear"), "two finite numbers"),
        (((float("nan"), 1.0), "linear"), "two finite numbers"),
        (((1.5, 3.0), "linear", "int"), "whole numbers"),
        (((1.0, 3.0), "cubic"), "scale='cubic'"),
        (((1.0, 3.0), "linear", "bool"), "type='bool'"),
    ],
)
def test_invalid_ranges_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        Parameter(*arguments)


def test_values_become_plain_numbers_on_or_between_the_bounds():
    lr, n = SPACE.values()
    assert [lr.cast(v) for v in (0.1 + 1e-17, 0.10000001, 1e-4 - 1e-12, 0.01)] == [0.1, 0.1, 1e-4, 0.01]
    assert [n.cast(v) for v in (1.7, 2.4, 8.6, 9.0, 9.4)] == [2, 2, 9, 9, 9]
    assert type(n.cast(3.0)) is int and type(lr.cast(0)) is float


def test_the_best_is_the_first_of_the_highest_means():
    history = [Trial(0, {}, None), Trial(1, {}, 0.25), Trial(2, {}, 0.5), Trial(3, {}, 0.5)]
    assert best_by_mean(history) == 2
    with pytest.raises(UserError, match="None of the 1 trials has a score"):
        best_by_mean(history[:1])


def scored(index, folds):
    return Trial(index, {}, fmean(folds), folds=tuple(folds))


def test_the_default_is_kept_unless_a_paired_test_calls_the_best_trial_better():
    rng, kept = np.random.default_rng(0), []
    for _ in range(200):
        difficulty, gain = rng.normal(0.4, 0.1, 4), rng.choice([0.0, 0.02])
        folds = [list(difficulty + (gain if index else 0) + rng.normal(0, 0.01, 4)) for index in range(3)]
        best = max(range(3), key=lambda index: fmean(folds[index]))
        is_better = ttest_rel(folds[best], folds[0], alternative="greater").pvalue < 0.05
        assert best_or_default([scored(index, each) for index, each in enumerate(folds)]) == (best if is_better else 0)
        kept.append(best != 0 and not is_better)
    assert 20 < sum(kept) < 180


def test_without_a_score_of_the_default_the_best_mean_is_chosen():
    others = [scored(1, [0.3, 0.4]), scored(2, [0.4, 0.4])]
    for default in ([], [Trial(0, {}, None)], [Trial(0, {}, None, is_lost=True)]):
        assert best_or_default([*default, *others]) == 2
    always = [scored(0, [0.25, 0.5]), scored(1, [0.375, 0.625])]  # by the same amount on every fold
    assert best_or_default(always) == 1 and best_or_default(always[::-1]) == 1
    assert best_or_default([scored(0, [0.3, 0.5]), scored(1, [0.3, 0.5])]) == 0
    with pytest.raises(UserError, match="None of the 1 trials has a score"):
        best_or_default([Trial(0, {}, None)])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_failure_is_never_a_number(bad):
    with pytest.raises(ValueError, match="without a finite score its mean is None"):
        Trial(3, {}, bad)
    with pytest.raises(ValueError, match="Trial 3 has sem"):
        Trial(3, {}, 0.5, bad)


@pytest.mark.parametrize(
    ("index", "parameters", "message"),
    [
        (1, {"lr": 1e-2}, r"Trial 1 set \['lr'\], but the search space is \['lr', 'n'\]"),
        (1, {"lr": 0.2, "n": 3}, "Trial 1 set lr=0.2, which .* does not allow"),
        (1, {"lr": 1e-2, "n": 3.5}, "Trial 1 set n=3.5"),
        (1, {"lr": float("nan"), "n": 3}, "Trial 1 set lr=nan"),
    ],
)
def test_a_history_of_another_space_is_refused(index, parameters, message):
    good = Trial(0, {"lr": 1e-4, "n": 9}, 0.5)
    check_history([good], SPACE)
    with pytest.raises(UserError, match=message):
        check_history([good, Trial(index, parameters, 0.5)], SPACE)


def test_a_history_out_of_order_raises_a_value_error():
    trial = Trial(0, {"lr": 1e-4, "n": 9}, 0.5)
    with pytest.raises(ValueError, match="Trial 0 comes after trial 0"):
        check_history([trial, trial], SPACE)
