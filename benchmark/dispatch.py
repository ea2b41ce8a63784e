"""Hand units to an executor and take back what they found, retrying those whose worker died."""

import concurrent.futures
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from benchmark.study import Study

Unit = dict[str, Any]


class Jobs:
    """Units on their way through an executor.

    Args:
        study: says which executor, how many workers and how many retries.
        run: does one unit in this process (`executor=inline`).
        module: serves units as `python -m module` (`executor=local`).
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
        self.num_workers = num_workers(study)
        self._executor = _make_executor(study, self.num_workers, run, module, on_progress)
        self._waiting: deque[Unit] = deque()
        self._running: dict[concurrent.futures.Future[Unit], Unit] = {}
        self._tries: dict[str, int] = {}

    def __enter__(self) -> "Jobs":
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.close()

    def add(self, spec: Unit, *, first: bool = False) -> None:
        """Queue a unit, in front of the others if `first`."""
        (self._waiting.appendleft if first else self._waiting.append)(spec)

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


def num_workers(study: Study) -> int:
    """Jobs at a time: as configured, else one per GPU, else one per core that this process may use.

    Raises:
        ValueError: the configured number is not a positive integer.
    """
    import torch

    wanted = study.config.executor.workers
    if wanted != "auto":
        if not isinstance(wanted, int) or wanted < 1:
            raise ValueError(f"executor.workers={wanted!r}: give a positive number, or auto.")
        return wanted
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return torch.cuda.device_count() or usable


def _make_executor(study: Study, workers: int, run: Any, module: list[str], on_progress: Any) -> Any:
    if study.config.executor.name == "inline":
        from benchmark.executors.inline import Inline

        return Inline(run, on_progress=on_progress)
    import torch

    from benchmark.executors.local import Local

    gpus = torch.cuda.device_count()
    environments = [{"CUDA_VISIBLE_DEVICES": str(i % gpus)} if gpus else {} for i in range(workers)]
    return Local([sys.executable, "-m", *module], workers, study.directory / "logs", on_progress, environments)
