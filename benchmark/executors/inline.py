"""Jobs in this process, one after the other: for tests, debugging, and a single GPU."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

Unit = dict[str, Any]


class Inline:
    """Runs a unit when it is submitted, in the calling thread.

    Args:
        run: does one unit; gets a function to report progress with.
        on_progress: receives those reports.
    """

    def __init__(
        self,
        run: Callable[[Unit, Callable[[Unit], None]], Unit],
        on_progress: Callable[[Unit], None] | None = None,
    ) -> None:
        self._run = run
        self._on_progress = on_progress or (lambda message: None)

    def submit(self, spec: Unit) -> Future[Unit]:
        """Run a unit now. Its exception is kept in the future; Ctrl-C is raised at once."""
        future: Future[Unit] = Future()
        try:
            future.set_result(self._run(spec, self._on_progress))
        except Exception as error:  # noqa: BLE001 - whatever a unit raises belongs to its future
            future.set_exception(error)
        return future

    def close(self) -> None:
        """Nothing to end."""
