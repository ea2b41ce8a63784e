"""Units as SLURM jobs, one job each: the worker's command is prefixed with `srun ...` or `sbatch ...`.

A unit travels as `job_<id>.json` in the logs folder, which all machines must see. Its messages come back, one JSON line
each, in `job_<id>.answer.jsonl`. The job's exit code is ignored: SLURM without accounting does not distinguish a full
disk from a lost machine, but only a job that ran to its end has answered. So a job without an answer was cancelled,
preempted, ran out of time or memory, or lost its machine: `WorkerDiedError`, and its unit can resume from its
checkpoint.

A job that ends before its imports are done is submitted once more before that counts as an error. Once any job has
started, though, the configuration is known to work, so that the cluster must be at fault: such a job is then a worker
that died as well, after a pause in which a controller that is down may come back.

Jobs have a name derived from the logs folder. A driver first cancels the jobs that an earlier, killed driver has left
running, and removes its files.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from pathlib import Path

from benchmark.core.errors import UserError, WorkerDiedError
from benchmark.core.paths import module_arguments
from benchmark.core.records import JsonObject, not_a_link
from benchmark.jobs.executors import Job, Report
from benchmark.jobs.executors.local import ONE_THREAD, STARTS, exit_summary
from benchmark.jobs.executors.messages import WorkerStartError, result_of
from benchmark.jobs.executors.pool import Pool
from benchmark.jobs.executors.serve import answer_path

SCRIPT = Path(__file__).with_name("batch_job.sh")  # sbatch takes scripts only; this one runs its arguments
_POLL_SECONDS = 0.5  # between two reads of a job's messages
_END_SECONDS = 10.0  # for srun to see its job end, before it is killed itself
_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 300.0  # seconds after a job that did not start; they double in between


@dataclass(frozen=True)
class Options:
    """Keys of `conf/executor/slurm.yaml`.

    Attributes:
        workers: number of jobs at a time, queued or running.
        prefix: argument list in front of a worker's command.

    Raises:
        UserError: a value cannot work.
    """

    workers: int | None
    prefix: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.workers is None:
            raise UserError("executor.workers=auto: give the number of SLURM jobs at a time, such as 8.")
        if not isinstance(self.prefix, list) or not self.prefix or shutil.which(str(self.prefix[0])) is None:
            raise UserError(
                f"executor.prefix={self.prefix}: its first word must be a program of this machine, such as "
                "'executor.prefix=[srun,-G1,-t120]'. Run this where jobs are submitted."
            )

    def num_workers(self, device: str) -> int:
        """The configured number of jobs."""
        assert self.workers is not None
        return self.workers

    def on_this_machine(self) -> bool:
        """False: on the cluster's nodes."""
        return False

    def make(self, job: Job) -> "Slurm":
        """Make ready to submit jobs."""
        command = [sys.executable, *module_arguments(job.module)]
        return Slurm([str(word) for word in self.prefix], command, job.workers, job.log_dir, job.on_progress)


class Slurm(Pool):
    """A number of jobs at a time, queued or running; units start in the order of submission.

    Args:
        prefix: argument list that submits a command and waits for it, such as `["srun", "--gpus=1", "--time=60"]` or
            `["sbatch", "--partition=gpu"]`; any other launcher of a command works as well.
        command: argument list that starts a worker, which calls `serve`; identical on all machines.
        workers: number of jobs at a time, 1 or more.
        log_dir: folder for units and answers, and for `worker_<i>.log` with what workers print.
        on_progress: receives what units report, from several threads; must not raise.

    Raises:
        ValueError: there is no worker.
    """

    queues = True

    def __init__(
        self, prefix: list[str], command: list[str], workers: int, log_dir: Path, on_progress: Report | None = None
    ) -> None:
        log_dir = log_dir.resolve()
        log_dir.mkdir(parents=True, exist_ok=True)
        self._name = "benchmark-" + hashlib.sha256(str(log_dir).encode()).hexdigest()[:12]
        self._cancel()
        for left in log_dir.glob("job_*.json*"):  # by a driver that was killed
            left.unlink(missing_ok=True)
        report = on_progress or (lambda message: None)
        any_started = threading.Event()
        self._jobs = [_Jobs(prefix, command, self._name, log_dir, i, report, any_started) for i in range(workers)]
        super().__init__(self._jobs)

    def close(self) -> None:
        """Cancel all jobs and wait until they have ended; futures that are not done raise `CancelledError`."""
        for jobs in self._jobs:  # all before one is waited for: whoever stops this command may not wait for long
            jobs.stop()
        super().close()
        self._cancel()  # the jobs of sbatch, and those just being submitted

    def _cancel(self) -> None:
        _scancel(f"--name={self._name}")


class _Jobs:
    """One job at a time. A single thread uses it, except for `end`, `stop` and `close`."""

    def __init__(
        self,
        prefix: list[str],
        command: list[str],
        name: str,
        log_dir: Path,
        number: int,
        on_progress: Report,
        any_started: threading.Event,
    ) -> None:
        self._log_path = log_dir / f"worker_{number}.log"
        self._launch = [*prefix, *launcher_options(prefix[0] if prefix else "", name, self._log_path), *command]
        self._on_progress = on_progress
        self._any_started = any_started  # shared by all workers
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = threading.Event()
        self._pause = _FIRST_PAUSE
        self._lock = threading.Lock()

    def prepare(self) -> None:
        """Prepare nothing: a job that waits would occupy a machine."""

    def do(self, text: str) -> JsonObject:
        """Submit a job for the unit and follow its messages."""
        for _ in range(STARTS):
            unit = self._log_path.with_name(f"job_{uuid.uuid4().hex}.json")
            try:
                unit.write_text(text, encoding="utf-8")
                answer_path(unit).touch()  # at once: a network file system caches that a file is absent
                started, answer, ending = self._run(unit)
            finally:
                unit.unlink(missing_ok=True)
                answer_path(unit).unlink(missing_ok=True)
            if answer is not None:
                return result_of(answer)
            if self._closed.is_set():
                raise CancelledError
            if started:
                raise WorkerDiedError(f"The job of a unit ended before it answered, {ending}")
            if self._any_started.is_set():
                self._back_off()
                raise WorkerDiedError(f"A job ended before it could take a unit, {ending}")
        raise WorkerStartError(f"{STARTS} jobs in a row ended before they could take a unit, the last {ending}")

    def end(self) -> None:
        """End the process that waits for the job: srun then cancels the job, and `_run` cancels that of sbatch."""
        if self._process is not None:
            self._process.terminate()

    def stop(self) -> None:
        """Make srun end its job, without waiting for it, and start no other; `Slurm.close` cancels those of sbatch."""
        with self._lock:
            self._closed.set()
            if self._process is not None:
                self._process.terminate()

    def close(self) -> None:
        """Make srun end its job, and wait for it, but not for long."""
        self.stop()
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_SECONDS)
            self._process.kill()

    def _run(self, unit: Path) -> tuple[bool, JsonObject | None, str]:
        """Run a job; return whether it started, its answer if there was one, and how it ended."""
        with self._lock, open(self._log_path, "ab", opener=not_a_link) as log:
            if self._closed.is_set():
                raise CancelledError
            start = log.tell()
            try:
                self._process = process = subprocess.Popen(
                    [*self._launch, "--unit", str(unit)], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    env=os.environ | ONE_THREAD | {"BENCHMARK_WORKER": self._log_path.stem}, start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                raise WorkerStartError(f"No job could be submitted with {self._launch}: {error}") from error
        started, answer = False, None
        try:
            for message in _messages(answer_path(unit), process):
                if "progress" in message:
                    self._on_progress(message["progress"])
                elif answer is None and message.keys() & {"result", "error"}:
                    answer = message
                started, self._pause = True, _FIRST_PAUSE
                self._any_started.set()
        finally:
            process.terminate()  # it still runs only if reading its messages failed
            process.wait()
            if process.returncode != 0 and not self._closed.is_set():
                self._cancel(start)
        return started, answer, exit_summary(process.returncode, self._log_path, start)

    def _cancel(self, start: int) -> None:
        """Cancel the job that an sbatch may have left behind if it was killed, as that would keep the unit locked.

        Args:
            start: where the output of sbatch begins in the log, in bytes.
        """
        with open(self._log_path, "rb") as log:
            log.seek(start)
            numbers = re.findall(rb"^Submitted batch job (\d+)$", log.read(), re.M)
        for number in numbers[-1:]:
            _scancel(number.decode())

    def _back_off(self) -> None:
        """Wait after a job that did not start, longer each time; `stop` ends the wait."""
        pause, self._pause = self._pause, min(2 * self._pause, _LONGEST_PAUSE)
        if self._closed.wait(pause):
            raise CancelledError


def _scancel(which: str) -> None:
    if shutil.which("scancel"):
        subprocess.run(["scancel", "--quiet", which], check=False, stderr=subprocess.DEVNULL)


def launcher_options(program: str, name: str, log_path: Path) -> list[str]:
    """The options that every job of ours needs: one process, a name, and with sbatch a log file and waiting.

    SLURM must not requeue a preempted job of sbatch: it would wait again after its first heartbeat, and count as hung.

    >>> launcher_options("/usr/bin/srun", "ours", Path("w.log"))
    ['--job-name=ours', '--ntasks=1']
    >>> launcher_options("sbatch", "ours", Path("w.log"))[2:5]
    ['--wait', '--no-requeue', '--output=w.log']
    """
    common = [f"--job-name={name}", "--ntasks=1"]
    log = str(log_path).replace("%", "%%")  # sbatch replaces patterns such as %j
    return {
        "srun": common,
        "sbatch": [*common, "--wait", "--no-requeue", f"--output={log}", "--open-mode=append", str(SCRIPT)],
    }.get(Path(program).name, [])


def _messages(path: Path, process: "subprocess.Popen[bytes]") -> Iterator[JsonObject]:
    """The messages appended to a file until a process ends; reopens it each time, as network file systems require."""
    read, ended = 0, False
    while not ended:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_POLL_SECONDS)
            ended = True
        with open(path, "rb") as file:
            file.seek(read)
            whole = file.read().rpartition(b"\n")[0]
        read += len(whole) + 1 if whole else 0
        yield from (json.loads(line) for line in whole.splitlines())
