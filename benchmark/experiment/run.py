"""Run the studies of an experiment as commands of their own, side by side where there is room.

Every study is a process `python -m benchmark COMMAND ...`, whose lines are printed with the study's name in front. With
local workers, a command gets as many as it has trainings to do at a time, and several run at once while workers are
free: under the traditional protocol with one run for each study, otherwise all workers but one would be idle. Other
executors spread a study's trainings themselves, so there the studies run one after the other.

A study that fails does not stop the others. Those with `preset=base` start when all searches have ended, since their
setting is what the search of their base chose; if that failed, their command says so and fails. A signal ends all
commands, each of which ends its workers.
"""

import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmark.core import invocation
from benchmark.core.console import OutputError, write
from benchmark.core.invocation import key_of
from benchmark.core.paths import module_arguments
from benchmark.experiment.plan import Planned
from benchmark.experiment.selected import StudyOf
from benchmark.study.base import PRESET

GRACE_SECONDS = 20.0  # for a command to end its workers, before it is killed
LAST_LINES = 3  # of a command's messages that its failure is reported with


@dataclass(frozen=True)
class Command:
    """A command to run for a study.

    Attributes:
        name: printed in front of its lines.
        verb: the command.
        overrides: its options, in Hydra's grammar.
    """

    name: str
    verb: str
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Fault:
    """A command that failed.

    Attributes:
        command: the command.
        status: its exit status; negative for the signal that killed it.
        text: the last lines of its messages.
    """

    command: Command
    status: int
    text: str

    def __str__(self) -> str:
        how = f"killed by signal {-self.status}" if self.status < 0 else f"status {self.status}"
        name = f"{self.command.name}: " if self.command.name else ""
        return f"{name}{self.command.verb} failed ({how}). {self.text}".rstrip()


class Child:
    """A command in a process of its own; its lines are printed until it ends.

    Args:
        command: the command.
        environment: variables that it gets in addition.
        ended: receives this object when the process has ended, or the error that printing its lines caused.

    Attributes:
        command: the command.
        slots: numbers of the workers that it uses.
    """

    def __init__(
        self, command: Command, environment: Mapping[str, str], ended: "queue.Queue[Child | BaseException]"
    ) -> None:
        self.command, self.slots = command, list[int]()
        self._ended, self._messages, self._is_quiet = ended, deque[str](maxlen=LAST_LINES), False
        form = {invocation.STARTED_AS: os.environ.get(invocation.FORM, "make"), "PYTHONUNBUFFERED": "1"}
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(invocation.FROM_MAKE)}
        words = [sys.executable, *module_arguments(["benchmark", command.verb, *command.overrides])]
        self._process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
            errors="replace", env=inherited | form | dict(environment), start_new_session=True,
        )  # fmt: skip
        self._readers = [threading.Thread(target=self._read, args=(number,), daemon=True) for number in (1, 2)]
        threading.Thread(target=self._wait, daemon=True).start()

    @property
    def fault(self) -> Fault | None:
        """How it failed; None if it did not. It has ended."""
        status = self._process.wait()
        return Fault(self.command, status, " ".join(self._messages)) if status else None

    def stop(self) -> None:
        """Ask the command to end, without waiting for it; its lines are no longer printed."""
        self._is_quiet = True
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def end(self) -> None:
        """Wait until the command has ended, and kill it if that takes too long."""
        try:
            self._process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)  # its workers notice that their driver is gone
            self._process.wait()

    def _wait(self) -> None:
        for reader in self._readers:
            reader.start()
        for reader in self._readers:
            reader.join()
        self._process.wait()
        self._ended.put(self)

    def _read(self, descriptor: int) -> None:
        stream = self._process.stdout if descriptor == 1 else self._process.stderr
        assert stream is not None
        with stream:
            for line in stream:
                text = line.rstrip("\n")
                if descriptor == 2 and text.strip():
                    self._messages.append(text.strip())
                if self._is_quiet or text.startswith("Next: "):  # the experiment goes on itself
                    continue
                try:
                    prefix = f"{self.command.name}: " if self.command.name and text else ""
                    write(prefix + text, error=descriptor == 2)
                except (OSError, OutputError) as error:  # our own output has no reader, or its disk is full
                    self._is_quiet = True
                    self._ended.put(error)


@dataclass(frozen=True)
class Job:
    """Commands that run one after the other, until one fails.

    Attributes:
        steps: the commands.
        wanted: how many workers each of them can use, by verb; 1 for one that is not listed.
    """

    steps: tuple[Command, ...]
    wanted: Mapping[str, int] = field(default_factory=dict)


def job_of(one: Planned) -> Job:
    """The commands that run a study.

    Args:
        one: the study, which could be composed.
    """
    assert one.composed is not None
    study, config = one.study, one.composed.config
    name, overrides = f"{study.member.dataset}/{study.name}", (*study.overrides, "display=plain")
    folds, runs = config.protocol.num_folds, config.protocol.num_runs
    wanted = {"bo": folds * config.searcher.round, "final-eval": folds * runs, "traditional": runs}
    return Job(tuple(Command(name, verb, overrides) for verb in study.verbs), wanted)


def drawing_of(study: StudyOf, figures: Sequence[str], projection: str) -> Job:
    """The commands that draw a study's figures; a sweep belongs to the whole experiment and is drawn with its table.

    Args:
        study: the study, which is finished.
        figures: names of the experiment's figures.
        projection: how embeddings are drawn in two dimensions.
    """
    name, folder = f"{study.member.dataset}/{study.name}", invocation.override("study", str(study.directory))
    drawn = [figure for figure in figures if figure not in ("sweep", "robustness")]
    steps = (
        [Command(name, "figures", (folder, f"figure=[{','.join(drawn)}]", f"projection={projection}"))] if drawn else []
    )
    steps += [Command(name, "robustness", (folder,))] if "robustness" in figures else []
    return Job(tuple(steps))


def run_studies(studies: Sequence[Planned], slots: Sequence[Mapping[str, str]] = ()) -> list[Fault]:
    """Run studies until all have ended, those at the optimum of their base after all others.

    Args:
        studies: the studies, which could be composed.
        slots: as in `run_all`.

    Returns:
        The commands that failed.

    Raises:
        Stopped: a signal arrived; all commands have ended.
        BrokenPipeError: the reader of standard output has ended; all commands have ended.
        OutputError: standard output cannot be written for another reason; all commands have ended.
    """
    searched = [job_of(one) for one in studies if one.study.member.preset != PRESET]
    at_base = [job_of(one) for one in studies if one.study.member.preset == PRESET]
    return [*run_all(searched, slots), *run_all(at_base, slots)]


def run_all(jobs: Sequence[Job], slots: Sequence[Mapping[str, str]] = ()) -> list[Fault]:
    """Run jobs until all have ended.

    Args:
        jobs: the jobs, in the order in which they start.
        slots: environment variables of each local worker; empty if only one command is to run at a time, with the
            executor's own workers.

    Returns:
        The commands that failed.

    Raises:
        Stopped: a signal arrived; all commands have ended.
        BrokenPipeError: the reader of standard output has ended; all commands have ended.
        OutputError: standard output cannot be written for another reason; all commands have ended.
    """
    waiting = deque((job, 0) for job in jobs)  # and the number of the next step
    ended: queue.Queue[Child | BaseException] = queue.Queue()
    free, running, faults = list(range(len(slots) or 1)), dict[Child, tuple[Job, int]](), list[Fault]()
    try:
        while waiting or running:
            while waiting and free:
                job, step = waiting.popleft()
                command = job.steps[step]
                taken = free[: job.wanted.get(command.verb, 1)] if slots else free[:1]
                free = free[len(taken) :]
                child = start(command, [slots[slot] for slot in taken] if slots else [], ended)
                child.slots = taken
                running[child] = job, step + 1
            found = ended.get()
            if isinstance(found, BaseException):
                raise found
            job, step = running.pop(found)
            free = sorted([*free, *found.slots])
            if fault := found.fault:
                faults.append(fault)
            elif step < len(job.steps):
                waiting.appendleft((job, step))
    finally:
        for child in running:
            child.stop()
        for child in running:
            child.end()
    return faults


def start(command: Command, slots: Sequence[Mapping[str, str]], ended: "queue.Queue[Child | BaseException]") -> Child:
    """Start a command on some local workers.

    Args:
        command: the command.
        slots: environment variables of each worker that it may use; empty for another executor.
        ended: receives the child when it has ended.
    """
    environment: dict[str, str] = {}
    if slots:
        others = [entry for entry in command.overrides if key_of(entry) != "executor.workers"]
        command = Command(command.name, command.verb, (*others, f"executor.workers={len(slots)}"))
        if devices := list(dict.fromkeys(slot["CUDA_VISIBLE_DEVICES"] for slot in slots if slot)):
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
    return Child(command, environment, ended)


def status_of(faults: Iterable[Fault]) -> int:
    """The exit status of an experiment: the highest of its commands', where a killed one counts as incomplete."""
    return max((min(fault.status, 2) if fault.status > 0 else 1 for fault in faults), default=0)
