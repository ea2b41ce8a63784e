"""A thread for each worker, wherever the worker runs, and the queue from which they take units."""

import contextlib
import functools
import json
import queue
import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from typing import Protocol

from benchmark.core.errors import UserError
from benchmark.core.records import JsonObject
from benchmark.jobs.executors.messages import WorkerStartError


class Worker(Protocol):
    """Does one unit at a time. A single thread uses it, except for `end` and `close`."""

    def prepare(self) -> None:
        """Get ready for a unit before there is one, however long that takes.

        Raises:
            OSError: this failed; `do` tries again, and reports a second failure to its unit.
            WorkerStartError: see above.
            CancelledError: the worker was closed.
        """

    def do(self, text: str) -> JsonObject:
        """Do a unit, given as JSON, and return its result or raise the exception for its future."""

    def end(self) -> None:
        """Abort the unit that hangs in `do`, without waiting for it: `do` then raises `WorkerDiedError`."""

    def close(self) -> None:
        """End what is running, soon, and start nothing more; may be called while another method is running."""


class Pool:
    """Workers, each doing one unit at a time; units start in the order of submission.

    Args:
        workers: one or more, of any kind.

    Attributes:
        queues: whether a unit that a worker has taken may still wait in a queue, for example a cluster's.

    Raises:
        ValueError: there is no worker.
        UserError: the system refuses a thread.
    """

    queues = False

    def __init__(self, workers: Sequence[Worker]) -> None:
        if not workers:
            raise ValueError("0 workers do no work; give 1 or more.")
        self._workers = workers
        self._queue: queue.SimpleQueue[tuple[str, Future[JsonObject]] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._doing: dict[Future[JsonObject], Worker] = {}
        self._closed = False
        self._threads = [threading.Thread(target=self._drive, args=(worker,), daemon=True) for worker in workers]
        try:
            for thread in self._threads:
                thread.start()
        except RuntimeError as error:
            raise UserError(
                f"No thread could be started for each of {len(workers)} workers ({error}). Use fewer workers "
                "(executor.workers=1), or raise the limit of processes (ulimit -u)."
            ) from error

    def submit(self, spec: JsonObject) -> Future[JsonObject]:
        """Queue a unit for the first free worker; `Executor.submit` describes the future.

        Raises:
            TypeError: the spec is not JSON.
            RuntimeError: the executor is closed.
        """
        text, future = json.dumps(spec), Future[JsonObject]()
        with self._lock:
            if self._closed:
                raise RuntimeError("This executor is closed and takes no more units.")
            self._queue.put((text, future))
        return future

    def kill(self, future: Future[JsonObject]) -> None:
        """End the worker that does a unit; the future raises `WorkerDiedError`, and the worker is replaced."""
        with self._lock:  # else the worker may have moved on to the next unit
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
        """One worker's thread. Only a worker that is ready takes a unit, as another may have room for it sooner."""
        while True:
            with contextlib.suppress(CancelledError, OSError, WorkerStartError):  # `do` tries again
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
