"""Executors: where units of work run.

Units and their results travel as JSON; an executor knows nothing else of this project. It neither retries nor
interprets: whether a unit hangs and whether it is tried again is for the driver to decide.

To add an executor, write `conf/executor/NAME.yaml` and `NAME.py` in this folder with a class `Options`: a frozen
dataclass that satisfies the protocol of that name below. Its fields are `workers` and the keys of the YAML file except
those of all executors, which `study.config.ExecutorConfig` lists; its constructor refuses values that cannot work. The
modules `messages`, `pool` and `serve` are for executors to share.
"""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from benchmark.core.records import JsonObject

Report = Callable[[JsonObject], None]  # receives what units report while they run
RunUnit = Callable[[JsonObject, Report], JsonObject]  # does a unit, given a function to report progress with


class Executor(Protocol):
    """Runs units.

    Attributes:
        queues: whether a unit that has been started may still wait in a queue, for example a cluster's.
    """

    queues: bool

    def submit(self, spec: JsonObject) -> Future[JsonObject]:
        """Start a unit as soon as a worker is free; units start in the order of submission.

        The future holds the unit's result or raises `UserError`, `WorkerDiedError` (the unit may be tried again),
        `WorkerStartError`, or for a defect `UnitFailedError`; in the driver's own process, the defect itself.
        """
        ...

    def close(self) -> None:
        """End all workers; futures that are not done raise `CancelledError`."""
        ...


@runtime_checkable
class CanKill(Protocol):
    """An executor that can end a unit that hangs; without it, no timeout applies."""

    def kill(self, future: Future[JsonObject]) -> None:
        """End the worker that does a unit, without waiting; its future then raises `WorkerDiedError`."""
        ...


@dataclass(frozen=True)
class Job:
    """What an executor is made for.

    Attributes:
        run: does one unit in this process.
        module: does units in another process, which is started as `python -m MODULE ARGUMENT ...`.
        workers: number of units at a time.
        log_dir: folder for what workers print.
        on_progress: receives what units report, from any thread; must not raise.
        device: the study's device: `auto`, `cpu`, `cuda`, or the name of one device.
    """

    run: RunUnit
    module: list[str]
    workers: int
    log_dir: Path
    on_progress: Report
    device: str


class Options(Protocol):
    """An executor's part of the configuration; its module has a class of this name.

    Attributes:
        workers: number of units at a time; None for `auto`.
    """

    @property
    def workers(self) -> int | None:
        """Number of units at a time; None for `auto`."""
        ...

    def num_workers(self, device: str) -> int:
        """How many units run at a time: `workers`, or as many as there is room for.

        Args:
            device: the study's device, see `Job`.

        Raises:
            UserError: there is no room for any.
        """
        ...

    def on_this_machine(self) -> bool:
        """Whether all units run on the driver's machine, so that their device can be checked before any starts."""
        ...

    def make(self, job: Job) -> Executor:
        """Start the executor.

        Raises:
            UserError: it cannot be started.
        """
        ...


@runtime_checkable
class SharesGpus(Protocol):
    """Options with which several workers can share a GPU."""

    def fewer_per_gpu(self) -> str:
        """The override with which fewer workers share a GPU, such as `executor.workers_per_gpu=1`; empty for one."""
        ...


def is_number(value: object) -> bool:
    """Whether an option's value is a finite number; `true` is none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")
