"""Long-lived worker processes on this machine, driven by JSON lines over their standard input and output.

    worker -> driver   {"ready": true}, once its imports are done
    driver -> worker   {"id": 3, "spec": {...}}
    worker -> driver   {"id": 3, "progress": {...}}, any number of times, then one of
                       {"id": 3, "result": {...}}
                       {"id": 3, "error": {"type": "UnitFailedError", "message": "..."}}

Imports take seconds, but only once per worker. A worker that dies fails its own unit only and is replaced. Workers run
in sessions of their own, so that Ctrl-C reaches the driver alone. They end with their driver, however it ends: their
standard input closes, and on Linux the kernel is asked to kill them as well. `serve.py` is the worker's side.
"""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path

from benchmark.core.errors import UserError, WorkerDiedError
from benchmark.core.paths import module_arguments
from benchmark.core.records import JsonObject, not_a_link
from benchmark.core.threads import WORKERS_HERE, environment, usable_cores
from benchmark.jobs.executors import Job, Report
from benchmark.jobs.executors.messages import UnitFailedError, WorkerStartError, result_of
from benchmark.jobs.executors.pool import Pool
from benchmark.jobs.gpu_share import measured_share
from benchmark.jobs.unit_log import TAIL_CHARACTERS

ONE_THREAD = environment(1)  # until a unit sets its own number
STARTS = 2  # a worker that ends this often before it is ready will not start a third time either


@dataclass(frozen=True)
class Options:
    """Keys of `conf/executor/local.yaml`.

    Attributes:
        workers: number of worker processes; None: `workers_per_gpu` on each GPU, or without GPUs one per core.
        workers_per_gpu: how many workers share a GPU; `auto`: as many as `make bench-gpu` found best for it.

    Raises:
        UserError: a value cannot work.
    """

    workers: int | None = None
    workers_per_gpu: int | str = 1

    def __post_init__(self) -> None:
        share = self.workers_per_gpu
        if share != "auto" and (not isinstance(share, int) or isinstance(share, bool) or share < 1):
            raise UserError(
                f"executor.workers_per_gpu={share!r}: give 1, or a larger number to share each GPU, or auto."
            )

    def num_workers(self, device: str) -> int:
        """How many workers this machine has room for, unless their number is configured."""
        if self.workers is not None:
            return self.workers
        if device not in ("auto", "cuda", "cpu"):
            return self._share() if device.startswith("cuda") else 1  # one device, by its name
        gpus = gpus_here(device)
        return len(gpus) * self._share() if gpus else usable_cores()

    def _share(self) -> int:
        if isinstance(self.workers_per_gpu, int):
            return self.workers_per_gpu
        import torch

        return measured_share(torch.cuda.get_device_name())

    def fewer_per_gpu(self) -> str:
        """Half of the configured workers, which may share a GPU, or else of those that do."""
        if self.workers is not None:
            return f"executor.workers={self.workers // 2}" if self.workers > 1 else ""
        share = 2 if self.workers_per_gpu == "auto" else int(self.workers_per_gpu)
        return f"executor.workers_per_gpu={share // 2}" if share > 1 else ""

    def on_this_machine(self) -> bool:
        """True: in processes next to the driver's."""
        return True

    def make(self, job: Job) -> "Local":
        """Start the workers."""
        command = [sys.executable, *module_arguments(job.module)]
        return Local(command, job.workers, job.log_dir, job.on_progress, slots(job.device, job.workers))


def gpus_here(device: str) -> list[str]:
    """The names by which this machine's GPUs are made visible to workers; empty if the study uses none or a given one.

    Args:
        device: the study's device, see `Job`.
    """
    import torch

    if device not in ("auto", "cuda"):
        return []
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name.strip() for name in given.split(",")] if given else [str(i) for i in range(torch.cuda.device_count())]
    return names[: torch.cuda.device_count()]


def slots(device: str, workers: int) -> list[dict[str, str]]:
    """The environment variables of each worker on this machine: one GPU each, in turn, if there are any."""
    gpus = gpus_here(device)
    return [{"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} if gpus else {} for i in range(workers)]


class Local(Pool):
    """A fixed number of worker processes, each doing one unit at a time; units start in the order of submission.

    Args:
        command: argument list (not a shell command) that starts a worker, which calls `serve`.
        workers: number of processes, 1 or more.
        log_dir: folder for `worker_<i>.log` with everything that worker i prints.
        on_progress: receives what units report, from the workers' threads; must not raise.
        environments: for each worker, variables that override this process's environment and its one thread.
        cwd: the folder in which workers start; None for this process's.

    Raises:
        ValueError: there is no worker, or not one environment for each.
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
        here = {WORKERS_HERE: str(workers)}
        if workers < 1 or len(environments) != workers:
            raise ValueError(f"{workers} workers with {len(environments)} environments; give 1 or more, one each.")
        log_dir.mkdir(parents=True, exist_ok=True)
        report = on_progress or (lambda message: None)
        self._processes = [
            _Worker(command, log_dir / f"worker_{i}.log", report, here | environment, cwd)
            for i, environment in enumerate(environments)
        ]
        super().__init__(self._processes)

    def close(self) -> None:
        """Kill all workers at once and wait for them; futures that are not done raise `CancelledError`."""
        super().close()
        for process in self._processes:
            process.discard()


class _Worker:
    """One process at a time, and the messages to and from it. A single thread uses it, except for `end` and `close`."""

    def __init__(
        self, command: list[str], log_path: Path, on_progress: Report, environment: dict[str, str], cwd: str | None
    ) -> None:
        self._command, self._log_path, self._on_progress = command, log_path, on_progress
        named = {"BENCHMARK_WORKER": log_path.stem}
        self._environment, self._cwd = os.environ | ONE_THREAD | named | environment, cwd
        self._process: subprocess.Popen[str] | None = None
        self._ready = self._closed = False
        self._log_start = 0  # where the current process's part of the log begins, in bytes
        self._lock = threading.Lock()
        self._ids = itertools.count()

    def prepare(self) -> None:
        """Start a process unless there is one; it imports while no unit is there yet."""
        if self._process is None or self._process.poll() is not None:
            self.start()

    def start(self) -> None:
        """Start a new process in place of the last; it is not ready yet."""
        self.discard()
        with self._lock, open(self._log_path, "ab", opener=not_a_link) as log:
            if self._closed:
                raise CancelledError
            self._ready, self._log_start = False, log.tell()
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=self._environment,
                cwd=self._cwd, start_new_session=True, encoding="utf-8", errors="replace",
            )  # fmt: skip

    def do(self, text: str) -> JsonObject:
        """Send one unit to the process and wait for its answer."""
        self._make_ready()
        assert self._process is not None and self._process.stdin is not None
        number = next(self._ids)
        try:
            with contextlib.suppress(BrokenPipeError):  # it has just died; then there will be no answer
                self._process.stdin.write(f'{{"id": {number}, "spec": {text}}}\n')
                self._process.stdin.flush()
            answer = self._answer(number)
        except BaseException:
            self.kill()  # else the next unit would receive the rest of this one's messages
            raise
        if answer is None:
            raise WorkerDiedError(f"A worker ended in the middle of a unit, {self._exit_summary()}")
        try:
            return result_of(answer)
        except (UnitFailedError, WorkerDiedError):
            self.kill()  # a defect may leave a process unusable, as a CUDA error does, or out of memory
            raise

    def kill(self) -> None:
        """End the process and its children; files are complete or absent at any moment, so it needs no warning."""
        self.end()
        if self._process is not None:
            self._process.wait()

    def end(self) -> None:
        """Kill the process from another thread; one that waits for a dead disk ends later."""
        if (process := self._process) is not None and process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Kill the process and start no other; may be called while another thread waits for its messages."""
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
                raise WorkerStartError(f"No worker could be started with {self._command}: {error}") from error
            if self._ready or any("ready" in message for message in self._messages()):
                self._ready = True
                return
            last = self._exit_summary()
            if self._process is not None and (self._process.returncode or 0) < 0:
                raise WorkerDiedError(f"A worker ended before it could take a unit, {last}")  # killed by somebody
        raise WorkerStartError(f"{STARTS} workers in a row ended before they could take a unit, the last {last}")

    def _answer(self, number: int) -> JsonObject | None:
        """Pass on a unit's progress and return its last message; None if the process ends before that."""
        for message in self._messages():
            if message.get("id") == number:
                if "progress" not in message:
                    return message
                self._on_progress(message["progress"])
        return None

    def _messages(self) -> Iterator[JsonObject]:
        """The process's messages until it closes its output; other lines go to the log."""
        assert self._process is not None and self._process.stdout is not None
        for line in self._process.stdout:
            try:
                message = json.loads(line)
            except json.JSONDecodeError:
                message = None
            if isinstance(message, dict):
                yield message
            elif line.strip():
                with open(self._log_path, "a", encoding="utf-8", opener=not_a_link) as log:
                    log.write(line)

    def _exit_summary(self) -> str:
        """How the process ended and what it printed last."""
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)  # its output closes a moment before it ends
        self.kill()
        if self._closed:
            raise CancelledError
        return exit_summary(self._process.returncode, self._log_path, self._log_start)


def exit_summary(code: int, log_path: Path, start: int) -> str:
    """How a process ended and what it printed last.

    Args:
        code: its exit code, negative for a signal.
        log_path: the file with what it printed.
        start: where its part of that file begins, in bytes.
    """
    how = f"killed by signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"with exit code {code}"
    with open(log_path, "rb") as log:
        log.seek(start)
        printed = log.read().decode("utf-8", errors="replace").strip()[-TAIL_CHARACTERS:]
    return f"{how}. {log_path} ends:\n{printed or '(it printed nothing)'}"
