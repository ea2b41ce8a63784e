"""A test of many cases fails with all that fail, as a parametrised test would."""

from typing import Any

import pytest

from tests.cases import for_each


@pytest.fixture
def limit() -> int:
    return 3


@for_each("number", range(3))
def test_a_case_is_given_with_the_fixtures(number: int, limit: int) -> None:
    assert 0 <= number < limit


def test_every_case_that_fails_is_named_with_its_failure() -> None:
    seen = []

    @for_each("number", range(4))
    def check(number: int, found: list[Any]) -> None:
        found.append(number)
        assert number != 1, "one is wrong"
        with pytest.raises(ValueError, match="three"):
            raise ValueError("three") if number != 2 else KeyError("two")
        if number == 3:
            pytest.fail("three is refused")

    with pytest.raises(BaseExceptionGroup, match="3 of 4 cases fail: 1, 2, 3") as caught:
        check(found=seen)
    assert seen == [0, 1, 2, 3]
    assert [failure.__notes__ for failure in caught.value.exceptions] == [[f"number: {n}"] for n in (1, 2, 3)]
    assert [type(failure) for failure in caught.value.exceptions] == [AssertionError, KeyError, pytest.fail.Exception]
    assert "one is wrong" in str(caught.value.exceptions[0])


def test_a_test_without_a_case_is_refused() -> None:
    with pytest.raises(AssertionError, match="no case of number"):
        for_each("number", [])
