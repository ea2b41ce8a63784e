"""A thread for each worker, wherever it is, and the queue from which they take units: what the executors share."""

import contextlib
import functools
import json
import queue
import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from typing import Protocol

from benchmark.jobs.executors.messages import Unit


class Worker(Protocol):
    """What does one unit at a time. One thread uses it, but for `end` and `close`."""

    def prepare(self) -> None:
        """Make ready for a unit before one is there, for as long as that takes.

        Raises:
            OSError: it cannot; `do` tries again and tells the unit.
            CancelledError: it was closed.
        """

    def do(self, text: str) -> Unit:
        """Do a unit, given as JSON, and return its result or raise what its future shall raise."""

    def end(self) -> None:
        """Make the unit that hangs in `do` end, without waiting for it: `do` then raises `WorkerDied`."""

    def close(self) -> None:
        """End what is running, soon, and start nothing more; may be called while another thread is in the others."""


class Pool:
    """Workers, each doing one unit at a time; units start in the order of submission.

    Args:
        workers: of any kind.

    Attributes:
        queues: whether a unit may wait in a queue elsewhere after a worker has taken it.

    Raises:
        ValueError: there is none.
    """

    queues = False

    def __init__(self, workers: Sequence[Worker]) -> None:
        if not workers:
            raise ValueError("0 workers do no work; give 1 or more.")
        self._workers = workers
        self._queue: queue.SimpleQueue[tuple[str, Future[Unit]] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._doing: dict[Future[Unit], Worker] = {}
        self._closed = False
        self._threads = [threading.Thread(target=self._drive, args=(worker,), daemon=True) for worker in workers]
        for thread in self._threads:
            thread.start()

    def submit(self, spec: Unit) -> Future[Unit]:
        """Queue a unit for the first free worker.

        The future gives the unit's result, or raises `WorkerDied`, `WorkerCannotStart`, an `OSError` or `ValueError`
        that the unit's own package raised as a sentence for people (or a full disk), and for anything else
        `UnitFailed`.

        Raises:
            TypeError: the spec is not JSON.
            RuntimeError: the executor is closed.
        """
        text, future = json.dumps(spec), Future[Unit]()
        with self._lock:
            if self._closed:
                raise RuntimeError("This executor is closed and takes no more units.")
            self._queue.put((text, future))
        return future

    def kill(self, future: Future[Unit]) -> None:
        """End the worker that does a unit, however it hangs; the future raises `WorkerDied`, the worker is replaced."""
        with self._lock:  # so that it is not at the next unit already
            if future in self._doing:
                self._doing[future].end()

    def close(self) -> None:
        """End all workers at once and wait for them; futures that are not done raise `CancelledError`."""
        with self._lock:
            self._closed = True
            with contextlib.suppress(queue.Empty):
                while (work := self._queue.get_nowait()) is not None:
                    work[1].cancel()
            for _ in self._threads:
                self._queue.put(None)
        for worker in self._workers:
            worker.close()
        for thread in self._threads:
            thread.join()

    def _drive(self, worker: Worker) -> None:
        """One worker's thread. A unit is taken only by a worker that is ready: another may have room for it sooner."""
        while True:
            with contextlib.suppress(CancelledError, OSError):  # told to the next unit, which tries again
                worker.prepare()
            work = self._queue.get()
            if work is None:
                return
            text, future = work
            if not future.set_running_or_notify_cancel():
                continue
            with self._lock:
                self._doing[future] = worker
            try:
                done = functools.partial(future.set_result, worker.do(text))
            except BaseException as error:  # whatever it is, it belongs to the unit's future
                done = functools.partial(future.set_exception, error)
            with self._lock:
                del self._doing[future]
            done()
