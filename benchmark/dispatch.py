"""Hand units to an executor and take back what they found, retrying those whose worker died."""

import concurrent.futures
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from benchmark.places import make_executor, num_workers
from benchmark.provenance import software
from benchmark.study import Study

Unit = dict[str, Any]


class Jobs:
    """Units on their way through an executor.

    Args:
        study: says which executor, how many workers and how many retries.
        run: does one unit in this process (`executor=inline`).
        module: serves units as `python -m module` (every other executor).
        on_progress: called, from any thread, with what units report.
    """

    def __init__(
        self,
        study: Study,
        run: Callable[[Unit, Callable[[Unit], None]], Unit],
        module: list[str],
        on_progress: Callable[[Unit], None],
    ) -> None:
        self._retries = study.config.executor.retries
        self.num_workers = num_workers(study.config)
        logs = study.directory / "logs"
        self._executor = make_executor(study.config, self.num_workers, run, module, logs, on_progress)
        self._waiting: deque[Unit] = deque()
        self._running: dict[concurrent.futures.Future[Unit], Unit] = {}
        self._tries: dict[str, int] = {}

    def __enter__(self) -> "Jobs":
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.close()

    def add(self, spec: Unit, *, first: bool = False) -> None:
        """Queue a unit, in front of the others if `first`; whoever does it must have this process's software."""
        (self._waiting.appendleft if first else self._waiting.append)(spec | {"software": software()})

    def finished(self) -> Iterator[tuple[Unit, Unit]]:
        """Yield (unit, answer) as units finish, until none is left; units may be added meanwhile.

        Raises:
            Exception: what a unit raised, or `WorkerDied` once its retries are used up.
        """
        while self._waiting or self._running:
            while self._waiting and len(self._running) < self.num_workers:
                spec = self._waiting.popleft()
                self._running[self._executor.submit(spec)] = spec
            done, _ = concurrent.futures.wait(self._running, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in done:
                spec = self._running.pop(future)
                if self._again(spec, future.exception()):
                    self.add(spec, first=True)
                else:
                    yield spec, future.result()

    def _again(self, spec: Unit, error: BaseException | None) -> bool:
        """Whether a unit whose worker died is started once more."""
        if not getattr(error, "worker_died", False):
            return False
        self._tries[spec["directory"]] = self._tries.get(spec["directory"], 0) + 1
        return self._tries[spec["directory"]] <= self._retries
