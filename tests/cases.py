"""Check many cases in one test where a case takes less time than pytest and its workers take for a test, 6 ms."""

import functools
import inspect
from collections.abc import Callable, Collection
from typing import Any

import pytest


def for_each(argument: str, cases: Collection[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Run a test for each value of an argument, as one test that fails with the failure of each and its value."""
    assert cases, f"no case of {argument}"

    def decorate(check: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(check)
        def checked(**fixtures: Any) -> None:
            failures: list[BaseException] = []
            failed: list[str] = []
            for case in cases:
                try:
                    check(**{argument: case}, **fixtures)
                except (Exception, pytest.fail.Exception) as error:
                    error.add_note(f"{argument}: {case}")
                    failures.append(error)
                    failed.append(str(case))
            if failures:
                raise BaseExceptionGroup(f"{len(failed)} of {len(cases)} cases fail: {', '.join(failed)}", failures)

        signature = inspect.signature(check)
        others = [parameter for name, parameter in signature.parameters.items() if name != argument]
        checked.__signature__ = signature.replace(parameters=others)  # type: ignore[attr-defined]
        return checked

    return decorate
