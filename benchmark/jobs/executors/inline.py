"""Units in this process, one after the other: for tests, debugging, and a single GPU."""

from concurrent.futures import Future
from dataclasses import dataclass

from benchmark.core.records import JsonObject
from benchmark.jobs.executors import Job, Report, RunUnit


@dataclass(frozen=True)
class Options:
    """Keys of `conf/executor/inline.yaml`."""

    workers: int | None = 1

    def num_workers(self, device: str) -> int:
        """How many units are started before the first is asked for: 1 unless configured."""
        return self.workers or 1

    def on_this_machine(self) -> bool:
        """True: in the driver's process."""
        return True

    def make(self, job: Job) -> "Inline":
        """The executor, which needs no worker."""
        return Inline(job.run, job.on_progress)


class Inline:
    """Runs each unit when it is submitted, in the calling thread; `submit` returns when the unit is done.

    Args:
        run: does one unit; receives the spec and a function to report progress with.
        on_progress: receives those reports.
    """

    queues = False

    def __init__(self, run: RunUnit, on_progress: Report | None = None) -> None:
        self._run, self._on_progress = run, on_progress or (lambda message: None)

    def submit(self, spec: JsonObject) -> Future[JsonObject]:
        """Run a unit and return a finished future, which holds its result or the exception that it raised.

        Raises:
            KeyboardInterrupt: raised at once, like every other exception that is no `Exception`: it is meant
                for the driver; but a plug-in that calls `sys.exit` is a defect.
        """
        future: Future[JsonObject] = Future()
        try:
            future.set_result(self._run(spec, self._on_progress))
        except (Exception, SystemExit) as error:  # whatever a unit raises belongs to its future
            future.set_exception(error)
        return future

    def close(self) -> None:
        """Do nothing: no worker is left to end."""
