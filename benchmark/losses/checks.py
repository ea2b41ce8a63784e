"""Checks of a loss's settings; the error names the setting, its value and the allowed values."""

import math
from collections.abc import Sequence

from benchmark.core.errors import UserError


def check_positive(owner: str, **values: float) -> None:
    """Check that settings are finite and above 0.

    >>> check_positive("arcface", scale=-1.0)
    Traceback (most recent call last):
        ...
    benchmark.core.errors.UserError: scale=-1.0 of arcface must be a finite number above 0.

    Args:
        owner: name of the loss, for the message.
        values: settings by name.

    Raises:
        UserError: a setting is NaN, infinite, 0 or negative.
    """
    for name, value in values.items():
        if not (value > 0 and math.isfinite(value)):
            raise UserError(f"{name}={value} of {owner} must be a finite number above 0.")


def check_non_negative(owner: str, **values: float) -> None:
    """Check that settings are finite and at least 0.

    Args:
        owner: name of the loss, for the message.
        values: settings by name.

    Raises:
        UserError: a setting is NaN, infinite or negative.
    """
    for name, value in values.items():
        if not (value >= 0 and math.isfinite(value)):
            raise UserError(f"{name}={value} of {owner} must be a finite number of at least 0.")


def check_whole(owner: str, *, at_least: int, **values: float) -> None:
    """Check that settings are whole numbers of at least `at_least`.

    Args:
        owner: name of the loss, for the message.
        at_least: smallest number allowed.
        values: settings by name.

    Raises:
        UserError: a setting is too small or not a whole number.
    """
    for name, value in values.items():
        if not (value >= at_least and value % 1 == 0):  # false for NaN and infinity
            raise UserError(f"{name}={value} of {owner} must be a whole number of at least {at_least}.")


def check_choice(owner: str, choices: Sequence[str], **values: str) -> None:
    """Check that settings are among the allowed values.

    Args:
        owner: name of the loss, for the message.
        choices: allowed values.
        values: settings by name.

    Raises:
        UserError: a setting is not among the choices.
    """
    for name, value in values.items():
        if value not in choices:
            raise UserError(f"{name}={value!r} of {owner} must be one of {', '.join(choices)}.")
