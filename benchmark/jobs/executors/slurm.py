"""Units as jobs of SLURM, one job each, by putting `srun ...` or `sbatch ...` in front of the worker's command.

A unit travels as `job_<id>.json` in the logs folder, which all machines must see; its messages come back, a JSON line
each, as `job_<id>.answer.jsonl`, whatever the exit code of the job is: SLURM without accounting does not tell a full
disk from a lost machine, but only a job that ran to its end has answered. So a job without an answer has been
cancelled, preempted, ran out of time or memory, or lost its machine: `WorkerDied`, and its unit can go on from its
checkpoint. A job that ends before its imports are done is started once more before that is an error.

Jobs carry a name made from the logs folder. A driver first cancels what an earlier one, killed, has left running, and
removes its files.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

from benchmark.jobs.executors.local import ONE_THREAD, STARTS, obituary
from benchmark.jobs.executors.messages import Report, Unit, WorkerCannotStart, WorkerDied, result_of
from benchmark.jobs.executors.pool import Pool
from benchmark.jobs.executors.serve import answer_path

SCRIPT = Path(__file__).with_name("batch_job.sh")  # sbatch takes scripts only; this one runs its arguments
_LOOK_SECONDS = 0.5  # between looks at what a job says
_END_SECONDS = 10.0  # for srun to see its job end, before it is killed itself


class Slurm(Pool):
    """A number of jobs at a time, queued or running; units start in the order of submission.

    Args:
        prefix: argument list that submits a command and waits for it, such as `["srun", "--gpus=1", "--time=60"]` or
            `["sbatch", "--partition=gpu"]`; any other launcher of a command will do as well.
        command: argument list that starts a worker, which calls `serve`; the same on every machine.
        workers: jobs at a time.
        log_dir: gets the units and answers, and `worker_<i>.log` with what they print.
        on_progress: called, from threads, with what units report; must not raise.

    Raises:
        ValueError: for no workers.
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
        heard = on_progress or (lambda message: None)
        super().__init__([_Jobs(prefix, command, self._name, log_dir, i, heard) for i in range(workers)])

    def close(self) -> None:
        """Cancel all jobs and wait until they have ended; futures that are not done raise `CancelledError`."""
        super().close()
        self._cancel()  # sbatch's, and what was being submitted

    def _cancel(self) -> None:
        if shutil.which("scancel"):
            subprocess.run(["scancel", "--quiet", f"--name={self._name}"], check=False, stderr=subprocess.DEVNULL)


class _Jobs:
    """One job at a time. Used by one thread, but for `end` and `close`."""

    def __init__(
        self, prefix: list[str], command: list[str], name: str, log_dir: Path, number: int, on_progress: Report
    ) -> None:
        self._log_path = log_dir / f"worker_{number}.log"
        self._launch = [*prefix, *launcher_options(prefix[0] if prefix else "", name, self._log_path), *command]
        self._on_progress = on_progress
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._log_start = 0
        self._lock = threading.Lock()

    def prepare(self) -> None:
        """There is nothing to prepare: a job that waits would hold a machine."""

    def do(self, text: str) -> Unit:
        """Submit a job for the unit and follow what it says."""
        for _ in range(STARTS):
            unit = self._log_path.with_name(f"job_{uuid.uuid4().hex}.json")
            try:
                unit.write_text(text, encoding="utf-8")
                answer_path(unit).touch()  # there from the start: a network file system remembers what is absent
                started, answer, how = self._run(unit)
            finally:
                unit.unlink(missing_ok=True)
                answer_path(unit).unlink(missing_ok=True)
            if answer is not None:
                return result_of(answer)
            if self._closed:
                raise CancelledError
            if started:
                raise WorkerDied(f"The job of a unit ended before it answered, {how}")
        raise WorkerCannotStart(f"{STARTS} jobs in a row ended before they could take a unit, the last {how}")

    def end(self) -> None:
        """Cancel the job: srun does so when it is told to end, what sbatch has submitted is known by its number."""
        if (process := self._process) is None or process.poll() is not None:
            return
        with open(self._log_path, "rb") as log:
            log.seek(self._log_start)
            numbers = re.findall(rb"^Submitted batch job (\d+)$", log.read(), re.M)
        for number in numbers[-1:]:
            subprocess.run(["scancel", "--quiet", number.decode()], check=False, stderr=subprocess.DEVNULL)
        process.terminate()

    def close(self) -> None:
        """Tell srun to end its job, and start no other; `scancel` takes care of sbatch's."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.terminate()
                    self._process.wait(_END_SECONDS)
                self._process.kill()

    def _run(self, unit: Path) -> tuple[bool, dict[str, Any] | None, str]:
        """Whether a job started, its answer if there was one, and how it ended."""
        with self._lock, open(self._log_path, "ab") as log:
            if self._closed:
                raise CancelledError
            self._log_start = start = log.tell()
            try:
                self._process = process = subprocess.Popen(
                    [*self._launch, "--unit", str(unit)], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    env=os.environ | ONE_THREAD | {"BENCHMARK_WORKER": self._log_path.stem}, start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                raise WorkerCannotStart(f"No job could be submitted with {self._launch}: {error}") from error
        started, answer = False, None
        try:
            for message in _messages(answer_path(unit), process):
                if "progress" in message:
                    self._on_progress(message["progress"])
                elif answer is None and message.keys() & {"result", "error"}:
                    answer = message
                started = True
        finally:
            process.terminate()  # where listening has failed; else it has ended
            process.wait()
        return started, answer, obituary(process.returncode, self._log_path, start)


def launcher_options(program: str, name: str, log_path: Path) -> list[str]:
    """What our jobs need whatever else the user asks of them: one process, a name, and for sbatch a log and a wait.

    >>> launcher_options("/usr/bin/srun", "ours", Path("w.log"))
    ['--job-name=ours', '--ntasks=1']
    """
    common = [f"--job-name={name}", "--ntasks=1"]
    log = str(log_path).replace("%", "%%")  # sbatch's marks begin with it
    return {
        "srun": common,
        "sbatch": [*common, "--wait", f"--output={log}", "--open-mode=append", str(SCRIPT)],
    }.get(Path(program).name, [])


def _messages(path: Path, process: "subprocess.Popen[bytes]") -> Iterator[dict[str, Any]]:
    """The lines that a file gets until a process has ended; each look opens it anew, as network file systems want."""
    read, ended = 0, False
    while not ended:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_LOOK_SECONDS)
            ended = True
        with open(path, "rb") as file:
            file.seek(read)
            whole = file.read().rpartition(b"\n")[0]
        read += len(whole) + 1 if whole else 0
        yield from (json.loads(line) for line in whole.splitlines())
