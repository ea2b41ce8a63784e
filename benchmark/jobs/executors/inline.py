"""Units in this process, one after the other: for tests, debugging, and a single GPU."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

Unit = dict[str, Any]
Report = Callable[[Unit], None]


class Inline:
    """Runs each unit when it is submitted, in the calling thread; `submit` returns when the unit is done.

    Args:
        run: does one unit; gets the spec and a function to report progress with.
        on_progress: receives those reports.
    """

    def __init__(self, run: Callable[[Unit, Report], Unit], on_progress: Report | None = None) -> None:
        self._run, self._on_progress = run, on_progress or (lambda message: None)

    def submit(self, spec: Unit) -> Future[Unit]:
        """A finished future of the unit's result, or of the exception that it raised.

        Raises:
            KeyboardInterrupt: at once, as does anything else that is no `Exception`; it is meant for the driver.
        """
        future: Future[Unit] = Future()
        try:
            future.set_result(self._run(spec, self._on_progress))
        except Exception as error:  # whatever a unit raises belongs to its future
            future.set_exception(error)
        return future

    def close(self) -> None:
        """Nothing is left to end."""
