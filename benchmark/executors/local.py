"""Long-lived worker processes on this machine, spoken to in JSON lines over their standard input and output.

    driver -> worker   {"id": 3, "spec": {...}}
    worker -> driver   {"ready": true}   {"id": 3, "progress": {...}}   {"id": 3, "result": {...}}
                       {"id": 3, "error": {"type": "OSError", "message": "...", "traceback": "..."}}

Imports are paid once per worker. A worker that dies fails its own unit only and is replaced. Workers end with their
driver, however it ends: their standard input closes, and on Linux the kernel is asked to kill them as well. They run in
sessions of their own, so that Ctrl-C reaches the driver alone.
"""

import contextlib
import ctypes
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TextIO

Unit = dict[str, Any]
Report = Callable[[Unit], None]
TAIL_CHARACTERS = 2000
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
PR_SET_PDEATHSIG = 1


class WorkerDied(RuntimeError):  # noqa: N818 - says what happened
    """A worker process ended in the middle of a unit, or could not start."""

    worker_died = True


class UnitFailed(RuntimeError):  # noqa: N818
    """A unit raised an exception in its worker; the message holds the worker's traceback."""


class Local:
    """A fixed number of worker processes, each doing one unit at a time, in the order of submission.

    Args:
        command: argument list that starts a worker, which calls `serve`.
        workers: number of processes.
        log_dir: gets `worker_<i>.log` with what a worker prints.
        on_progress: called, from the workers' threads, with what units report.
        environments: variables of each worker, over this process's own; one mapping per worker.
    """

    def __init__(
        self,
        command: list[str],
        workers: int,
        log_dir: Path,
        on_progress: Report | None = None,
        environments: list[dict[str, str]] | None = None,
    ) -> None:
        log_dir.mkdir(parents=True, exist_ok=True)
        self._command, self._on_progress = command, on_progress or (lambda message: None)
        self._queue: queue.SimpleQueue[tuple[Unit, Future[Unit]] | None] = queue.SimpleQueue()
        self._processes: dict[int, subprocess.Popen[str]] = {}
        self._closed = threading.Event()
        self._threads = [
            threading.Thread(
                target=self._drive, daemon=True, args=(i, log_dir / f"worker_{i}.log", (environments or [{}] * workers)[i])
            )
            for i in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, spec: Unit) -> Future[Unit]:
        """Queue a unit for the first free worker.

        The future raises `WorkerDied` if the worker ended. An `OSError` or `ValueError` that speaks to people is raised as
        itself, anything else a unit raises as `UnitFailed`.
        """
        future: Future[Unit] = Future()
        self._queue.put((spec, future))
        return future

    def close(self) -> None:
        """End all workers at once; unfinished units go on from their checkpoints another time."""
        self._closed.set()
        for _ in self._threads:
            self._queue.put(None)
        for process in list(self._processes.values()):
            _kill(process)
        for thread in self._threads:
            thread.join()

    def _drive(self, number: int, log_path: Path, environment: dict[str, str]) -> None:
        """One worker's thread: keep a process alive and feed it."""
        process: subprocess.Popen[str] | None = None
        with open(log_path, "a", encoding="utf-8") as log:
            process = self._start(number, log, environment)
            while (work := self._queue.get()) is not None and not self._closed.is_set():
                spec, future = work
                if process.poll() is not None:
                    process = self._start(number, log, environment)
                try:
                    future.set_result(self._converse(process, spec, log_path))
                except BaseException as error:  # noqa: BLE001 - it belongs to the future
                    future.set_exception(error)
            _kill(process)

    def _start(self, number: int, log: TextIO, environment: dict[str, str]) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True,
            env=os.environ | ONE_THREAD | environment, preexec_fn=None,
        )  # fmt: skip
        self._processes[number] = process
        return process

    def _converse(self, process: subprocess.Popen[str], spec: Unit, log_path: Path) -> Unit:
        """Hand one unit to a worker and read until it is done."""
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps({"spec": spec}) + "\n")
            process.stdin.flush()
        for line in process.stdout:
            message = json.loads(line)
            if "progress" in message:
                self._on_progress(message["progress"])
            elif "result" in message:
                return dict(message["result"])
            elif "error" in message:
                raise _as_exception(message["error"])
        code = process.wait()
        raise WorkerDied(f"A worker ended with exit code {code} in the middle of a job. {log_path} ends:\n{_tail(log_path)}")


def _kill(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _tail(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")[-TAIL_CHARACTERS:].strip() or "(empty)"


def _as_exception(error: dict[str, Any]) -> Exception:
    if error["said"] and error["type"] == "OSError":
        return OSError(error["errno"] or 0, error["message"])
    if error["said"] and error["type"] == "ValueError":
        return ValueError(error["message"])
    return UnitFailed(f"{error['type']}: {error['message']}\n{error['traceback']}")


def serve(run: Callable[[Unit, Report], Unit]) -> None:
    """The worker's side: take units from standard input until it closes.

    Standard output is kept for the conversation; whatever else prints goes to standard error.

    Args:
        run: does one unit.
    """
    speech = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    _die_with_parent()
    units: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(units,), daemon=True).start()
    lock = threading.Lock()

    def say(message: Unit) -> None:
        with lock:
            speech.write(json.dumps(message) + "\n")
            speech.flush()

    while True:
        spec = json.loads(units.get())["spec"]
        try:
            say({"result": run(spec, lambda progress: say({"progress": progress}))})
        except Exception as error:  # noqa: BLE001 - the driver decides what it means
            say({"error": _described(error)})


def _described(error: Exception) -> Unit:
    """An exception as JSON; `said` marks a sentence for people, raised on purpose by the package this file is in."""
    innermost = Path(traceback.extract_tb(error.__traceback__)[-1].filename).resolve()
    said = innermost.is_relative_to(Path(__file__).resolve().parent.parent)
    return {
        "type": next((t.__name__ for t in (OSError, ValueError) if isinstance(error, t)), type(error).__name__),
        "said": said, "errno": getattr(error, "errno", None), "traceback": traceback.format_exc(),
        "message": str(getattr(error, "strerror", None) or error),
    }  # fmt: skip


def _listen(units: "queue.SimpleQueue[str]") -> None:
    """Pass lines on; when the driver is gone, end this process wherever it is: every file is whole or absent."""
    for line in sys.stdin:
        units.put(line)
    os._exit(0)


def _die_with_parent() -> None:
    """Ask Linux for a SIGKILL when the driver's thread ends; elsewhere the closed standard input has to do."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
