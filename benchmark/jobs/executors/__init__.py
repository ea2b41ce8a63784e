"""Executors: where units of work run.

Units and their results travel as JSON; nothing of ours is below. An executor neither retries nor interprets: whether a
unit hangs, and whether it is tried again, is the driver's decision. `messages`, `pool` and `serve` are what the
executors share.
"""

from concurrent.futures import Future
from typing import Any, Protocol


class Executor(Protocol):
    """A place where units run."""

    def submit(self, spec: dict[str, Any]) -> "Future[dict[str, Any]]":
        """Start a unit as soon as a worker is free; the future holds its result or the exception that it raised."""
        ...

    def close(self) -> None:
        """End all workers; futures that are not done raise `CancelledError`."""
        ...
