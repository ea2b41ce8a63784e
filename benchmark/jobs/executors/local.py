"""Long-lived worker processes on this machine, spoken to in JSON lines over their standard input and output.

    worker -> driver   {"ready": true}, once its imports are done
    driver -> worker   {"id": 3, "spec": {...}}
    worker -> driver   {"id": 3, "progress": {...}}, any number of times, then one of
                       {"id": 3, "result": {...}}
                       {"id": 3, "error": {"type": "KeyError", "message": "...", "traceback": "...", ...}}

Imports (seconds each) are paid once a worker, not once a unit. A worker that dies fails its own unit only and is
replaced. Workers run in sessions of their own, so that Ctrl-C reaches the driver alone, and end with their driver,
however it ends: their standard input closes, and on Linux the kernel is asked to kill them as well. `serving.py` is the
worker's half.
"""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

from benchmark.core.threads import environment
from benchmark.jobs.executors.messages import Report, Unit, UnitFailed, WorkerCannotStart, WorkerDied, result_of
from benchmark.jobs.executors.pool import Pool
from benchmark.jobs.executors.serve import serve

__all__ = ["Local", "UnitFailed", "WorkerCannotStart", "WorkerDied", "serve"]

ONE_THREAD = environment(1)  # until a unit says otherwise
_TAIL_CHARACTERS = 2000
STARTS = 2  # a worker that ends this often before it is ready will not start a third time either


class Local(Pool):
    """A fixed number of worker processes, each doing one unit at a time; units start in the order of submission.

    Args:
        command: argument list (never a shell's) that starts a worker, which calls `serve`.
        workers: number of processes.
        log_dir: gets `worker_<i>.log` with everything that worker i prints.
        on_progress: called, from the workers' threads, with what units report; must not raise.
        environments: variables of each worker, over this process's own and one thread per worker; one mapping each.
        cwd: the folder in which workers start; None for this process's.

    Raises:
        ValueError: for no workers, or another number of environments.
    """

    def __init__(
        self,
        command: list[str],
        workers: int,
        log_dir: Path,
        on_progress: Report | None = None,
        environments: list[dict[str, str]] | None = None,
        cwd: str | None = None,
    ) -> None:
        environments = [{}] * workers if environments is None else environments
        if workers < 1 or len(environments) != workers:
            raise ValueError(f"{workers} workers with {len(environments)} environments; give 1 or more, one each.")
        log_dir.mkdir(parents=True, exist_ok=True)
        heard = on_progress or (lambda message: None)
        self._processes = [
            _Worker(command, log_dir / f"worker_{i}.log", heard, environment, cwd)
            for i, environment in enumerate(environments)
        ]
        super().__init__(self._processes)

    def close(self) -> None:
        """Kill all workers at once and wait for them; futures that are not done raise `CancelledError`."""
        super().close()
        for process in self._processes:
            process.discard()


class _Worker:
    """One process at a time, and the conversation with it. Used by one thread, but for `end` and `close`."""

    def __init__(
        self, command: list[str], log_path: Path, on_progress: Report, environment: dict[str, str], cwd: str | None
    ) -> None:
        self._command, self._log_path, self._on_progress = command, log_path, on_progress
        named = {"BENCHMARK_WORKER": log_path.stem}
        self._environment, self._cwd = os.environ | ONE_THREAD | named | environment, cwd
        self._process: subprocess.Popen[str] | None = None
        self._ready = self._closed = False
        self._log_start = 0  # where the present process's part of the log begins
        self._lock = threading.Lock()
        self._ids = itertools.count()

    def prepare(self) -> None:
        """Start a process unless there is one; its imports go on while it waits for a unit."""
        if self._process is None or self._process.poll() is not None:
            self.start()

    def start(self) -> None:
        """Start a fresh process in place of the last; it is not ready yet."""
        self.discard()
        with self._lock, open(self._log_path, "ab") as log:
            if self._closed:
                raise CancelledError
            self._ready, self._log_start = False, log.tell()
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=self._environment,
                cwd=self._cwd, start_new_session=True, encoding="utf-8", errors="replace",
            )  # fmt: skip

    def do(self, text: str) -> Unit:
        """Hand one unit to the process and listen until it is done."""
        self._make_ready()
        assert self._process is not None and self._process.stdin is not None
        number = next(self._ids)
        try:
            with contextlib.suppress(BrokenPipeError):  # it has just died, as the missing answer will show
                self._process.stdin.write(f'{{"id": {number}, "spec": {text}}}\n')
                self._process.stdin.flush()
            answer = self._answer(number)
        except BaseException:
            self.kill()  # else the next unit would hear the end of this one
            raise
        if answer is None:
            raise WorkerDied(f"A worker ended in the middle of a unit, {self._obituary()}")
        try:
            return result_of(answer)
        except UnitFailed:
            self.kill()  # a defect may have left it unfit for other units, as one of CUDA's does
            raise

    def kill(self) -> None:
        """End the process with all that it started; files are whole or absent at any moment, so it needs no warning."""
        self.end()
        if self._process is not None:
            self._process.wait()

    def end(self) -> None:
        """Kill the process from another thread; a stopped one dies as well, one that waits for a dead disk later."""
        if (process := self._process) is not None and process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Kill the process and start no other; may be called while another thread listens to it."""
        with self._lock:
            self._closed = True
        self.kill()

    def discard(self) -> None:
        """Kill the process and close its pipes."""
        self.kill()
        if self._process is not None:
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
            self._process = None

    def _make_ready(self) -> None:
        for _ in range(STARTS):
            try:
                self.prepare()
            except OSError as error:
                raise WorkerCannotStart(f"No worker could be started with {self._command}: {error}") from error
            if self._ready or any("ready" in message for message in self._messages()):
                self._ready = True
                return
            last = self._obituary()
            if self._process is not None and (self._process.returncode or 0) < 0:
                raise WorkerDied(f"A worker ended before it could take a unit, {last}")  # by no fault of its own
        raise WorkerCannotStart(f"{STARTS} workers in a row ended before they could take a unit, the last {last}")

    def _answer(self, number: int) -> dict[str, Any] | None:
        """The last message about a unit, after passing on its progress; None if the process ends before it."""
        for message in self._messages():
            if message.get("id") == number:
                if "progress" not in message:
                    return message
                self._on_progress(message["progress"])
        return None

    def _messages(self) -> Iterator[dict[str, Any]]:
        """What the process says until it closes its output; what is no message of ours goes to the log."""
        assert self._process is not None and self._process.stdout is not None
        for line in self._process.stdout:
            try:
                message = json.loads(line)
            except json.JSONDecodeError:
                message = None
            if isinstance(message, dict):
                yield message
            elif line.strip():
                with open(self._log_path, "a", encoding="utf-8") as log:
                    log.write(line)

    def _obituary(self) -> str:
        """How the process ended and what it printed last."""
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)  # its output closes a moment before it ends
        self.kill()
        if self._closed:
            raise CancelledError
        return obituary(self._process.returncode, self._log_path, self._log_start)


def obituary(code: int, log_path: Path, start: int) -> str:
    """How a process ended and what it printed last.

    Args:
        code: its exit code, negative for a signal.
        log_path: what it printed into.
        start: where its part of that file begins, in bytes.
    """
    how = f"killed by signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"with exit code {code}"
    with open(log_path, "rb") as log:
        log.seek(start)
        said = log.read().decode("utf-8", errors="replace").strip()[-_TAIL_CHARACTERS:]
    return f"{how}. {log_path} ends:\n{said or '(it printed nothing)'}"
