"""Many cases of one test: all in one, or only one of each kind on every push."""

import functools
import inspect
from collections.abc import Callable, Collection, Iterable
from typing import Any

import pytest
from _pytest.mark import ParameterSet


def slow_except(fast: Collection[Any], cases: Iterable[Any]) -> list[ParameterSet]:
    """Values of an argument for `pytest.mark.parametrize`, slow ones except for those in `fast`: one of each kind."""
    cases = list(cases)
    assert fast and all(case in cases for case in fast), [case for case in fast if case not in cases]
    return [pytest.param(case, marks=[] if case in fast else [pytest.mark.slow]) for case in cases]


def for_each(
    argument: str, cases: Collection[Any], fast: Collection[Any] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Run a test for each value of an argument, as one test that fails with the failure of each and its value.

    A case takes less time than pytest and its workers take for a test, 6 ms.

    Args:
        argument: the argument.
        cases: its values.
        fast: those that are checked on every push, if not all; the others are a slow test.
    """
    assert cases, f"no case of {argument}"
    assert all(case in cases for case in fast)

    def decorate(check: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(check)
        def checked(these: Collection[Any] = cases, **fixtures: Any) -> None:
            failures: list[BaseException] = []
            failed: list[str] = []
            for case in these:
                try:
                    check(**{argument: case}, **fixtures)
                except (Exception, pytest.fail.Exception) as error:
                    error.add_note(f"{argument}: {case}")
                    failures.append(error)
                    failed.append(str(case))
            if failures:
                raise BaseExceptionGroup(f"{len(failed)} of {len(these)} cases fail: {', '.join(failed)}", failures)

        signature = inspect.signature(check)
        others = [parameter for name, parameter in signature.parameters.items() if name != argument]
        if fast:
            others.append(inspect.Parameter("these", inspect.Parameter.KEYWORD_ONLY))
        checked.__signature__ = signature.replace(parameters=others)  # type: ignore[attr-defined]
        if not fast:
            return checked
        rest = [case for case in cases if case not in fast]
        groups = [pytest.param(fast, id="fast"), pytest.param(rest, id="others", marks=pytest.mark.slow)]
        return pytest.mark.parametrize("these", groups)(checked)

    return decorate
