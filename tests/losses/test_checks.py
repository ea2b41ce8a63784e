"""Checks of settings: accepted values, and refused values with their messages."""

import math

import pytest

from benchmark.core.errors import UserError
from benchmark.losses.checks import check_choice, check_non_negative, check_positive, check_whole


def test_values_in_range_pass():
    check_positive("L", a=1e-300, b=7)
    check_non_negative("L", a=0.0, b=7)
    check_whole("L", at_least=0, a=0, b=7, c=2.0)
    check_choice("L", ("x", "y"), a="x")


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_values_that_are_not_positive_and_finite_are_refused(value):
    with pytest.raises(UserError, match=f"^b={value} of L must be a finite number above 0.$"):
        check_positive("L", a=1.0, b=value)


@pytest.mark.parametrize("value", [-1e-9, math.inf, math.nan])
def test_values_that_are_negative_or_not_finite_are_refused(value):
    with pytest.raises(UserError, match=f"^b={value} of L must be a finite number of at least 0.$"):
        check_non_negative("L", a=1.0, b=value)


@pytest.mark.parametrize("value", [1, -3, 2.5, math.inf, math.nan])
def test_values_that_are_not_whole_numbers_or_too_small_are_refused(value):
    with pytest.raises(UserError, match=f"^b={value} of L must be a whole number of at least 2.$"):
        check_whole("L", at_least=2, a=5, b=value)


def test_an_unknown_choice_is_refused_with_the_allowed_ones():
    with pytest.raises(UserError, match=r"^b='z' of L must be one of x, y\.$"):
        check_choice("L", ("x", "y"), a="x", b="z")
