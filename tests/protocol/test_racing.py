"""The rule that stops a trial, against sums in exact arithmetic."""

import random
from fractions import Fraction

import pytest

from benchmark.protocol.racing import estimate, stops_after


def by_sums(scores: list[float], leader: list[float], margin: float) -> int | None:
    """The first k folds, not all, whose sum is behind by more than margin * sqrt(k): both sides are squared."""
    behind = Fraction(0)
    for k in range(1, len(leader)):
        if k > len(scores):
            return None
        behind += Fraction(leader[k - 1]) - Fraction(scores[k - 1])
        if behind > 0 and behind**2 > k * Fraction(margin) ** 2:
            return k
    return None


def test_the_rule_is_that_of_the_sums() -> None:
    draw = random.Random(0)
    found = set()
    for _ in range(3000):
        num_folds, margin = draw.randint(2, 6), draw.choice([0.001, 0.02, 0.1])
        leader = [draw.uniform(0.2, 0.6) for _ in range(num_folds)]
        scores = [score + draw.gauss(-0.02, 0.05) for score in leader[: draw.randint(0, num_folds)]]
        after = stops_after(scores, leader, margin)
        assert after == by_sums(scores, leader, margin)
        found.add(after)
    assert found == {None, 1, 2, 3, 4, 5}


def test_a_distance_of_the_margin_is_not_clearly_behind() -> None:
    assert stops_after([0.25], [0.5, 0.5], 0.25) is None and stops_after([0.25], [0.5, 0.5], 0.2499) == 1


@pytest.mark.parametrize(
    ("scores", "after"),
    [
        ([None, 0.1, 0.1], None),
        ([0.1, None, 0.1], 1),
        ([0.49, None, 0.1], None),
        ([0.5, 0.5, 0.5, 0.0], None),
        ([], None),
    ],
)
def test_folds_without_a_score_and_the_last_one_stop_nothing(scores: list[float | None], after: int | None) -> None:
    assert stops_after(scores, [0.5, 0.5, 0.5, 0.5], 0.1) == after


def test_the_estimate_has_the_leader_s_ratio_between_first_and_other_folds() -> None:
    # The leader's first fold has half of its mean, 0.4; so would the trial's, whose first fold has 0.1.
    mean, error = estimate([0.1], [0.2, 0.6, 0.4, 0.4])
    assert mean == pytest.approx(0.2)
    assert error == pytest.approx((0.08 / 3) ** 0.5), "squares of -0.2, 0.2, 0 and 0, over n - 1; one fold"
    assert estimate([0.0, 0.0], [0.2, 0.6, 0.4, 0.4]) == (0.0, pytest.approx(error / 2**0.5))
