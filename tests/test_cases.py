"""A test of many cases fails with all that fail, as a parametrised test would, and only the named ones are fast."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.cases import for_each, slow_except


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


def test_cases_that_are_not_named_are_slow_and_none_is_lost() -> None:
    assert [(case.values, [mark.name for mark in case.marks]) for case in slow_except(["b"], "abc")] == [
        (("a",), ["slow"]), (("b",), []), (("c",), ["slow"])
    ]  # fmt: skip
    with pytest.raises(AssertionError, match="d"):
        slow_except(["d"], "abc")

    @for_each("letter", "abc", fast="b")
    def check(letter: str) -> None: ...

    (mark,) = check.pytestmark  # type: ignore[attr-defined]
    assert [(case.values[0], [one.name for one in case.marks]) for case in mark.args[1]] == [
        ("b", []), (["a", "c"], ["slow"])
    ]  # fmt: skip


def test_a_mark_is_on_a_test() -> None:
    """A function that is written between a mark and its test takes the mark, and pytest does not say so."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parent.rglob("*.py"))]
    marked = [part for text in texts for part in re.split(r"\n\n+", text) if part.startswith("@pytest.mark.")]
    names = [found[1] for part in marked if (found := re.search(r"^(?:def|class) (\w+)", part, re.MULTILINE))]
    assert len(names) > 500
    assert not [name for name in names if not name.lower().startswith("test")]
