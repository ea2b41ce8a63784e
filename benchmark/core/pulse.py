"""The pulse of a process: long work calls `beat` as it advances, so that whoever listens can tell slow from hung.

Work that takes minutes on a large data set beats in its innermost loop: for each batch, decoded image, hashed file or
block of queries, and while it waits for another process. A worker listens while it runs a unit and writes the unit's
heartbeat (`jobs/heartbeat.py`); without a listener, a beat does nothing.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

_listener: Callable[[], None] | None = None


def beat() -> None:
    """Say that work has advanced; from any thread, but not from two at a time."""
    if _listener is not None:
        _listener()


@contextlib.contextmanager
def heard_by(listener: Callable[[], None]) -> Iterator[None]:
    """Call `listener` at every beat of this process during the block."""
    global _listener
    before, _listener = _listener, listener
    try:
        yield
    finally:
        _listener = before


def beating(items: Iterable[Item]) -> Iterator[Item]:
    """Yield items, with a beat before each."""
    for item in items:
        beat()
        yield item
