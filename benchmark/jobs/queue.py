"""Hand units to an executor and collect their answers; retry units after a dead or hung worker or a defect.

An error that the user can fix stops the command at once. A unit whose worker died or hung is retried from its
checkpoint, at most `executor.retries` times; a unit that failed because of a defect is retried at most twice. A unit
that exhausts its retries is reported as lost, and the command continues without it. Every failure is displayed and
appended to the study's `trouble.jsonl`; the traceback of a defect is displayed too, and is in the unit's log.
"""

import concurrent.futures
import re
import time
import traceback
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from benchmark.core import errors, records
from benchmark.core.errors import WorkerDiedError
from benchmark.core.records import JsonObject
from benchmark.jobs import unit_log
from benchmark.jobs.executors import CanKill, Report, RunUnit
from benchmark.jobs.executors.messages import UnitFailedError
from benchmark.jobs.heartbeat import HangDetector, last_heartbeat
from benchmark.jobs.placement import make_executor, num_workers
from benchmark.jobs.unit import Answer, FinishedUnit, LostUnit, Unit
from benchmark.study.study import Study

LOGS = "logs"  # folder of the workers, in a study's folder
DEFECT_RETRIES = 2  # fewer than for lost machines, since a retry seldom cures a defect


class Jobs:
    """A queue of units for an executor.

    Args:
        study: configures the executor, its workers, the number of retries, and when a unit counts as hung.
        run: runs one unit in this process (`executor=inline`).
        module: serves units as `python -m module` (every other executor).
        on_progress: called, from any thread, with what units report, and with `{"trouble": text}` for each failure.
        most_units: how many units can run at the same time; no more workers are started. None if that is not known.
    """

    def __init__(
        self, study: Study, run: RunUnit, module: list[str], on_progress: Report, most_units: int | None = None
    ) -> None:
        self._retries, self._minutes = study.config.executor.retries, study.config.executor.timeout_minutes
        room = num_workers(study.config)
        self.num_workers = room if most_units is None else max(1, min(room, most_units))
        logs = study.directory / LOGS
        self._executor = make_executor(study.config, self.num_workers, run, module, logs, on_progress)
        self._on_progress, self._directory = on_progress, study.directory
        can_kill = isinstance(self._executor, CanKill)
        self._hang_detector = HangDetector(60 * self._minutes if can_kill and self._minutes is not None else None)
        self._waiting: deque[Unit] = deque()
        self._running: dict[concurrent.futures.Future[JsonObject], Unit] = {}
        self._failures: dict[tuple[Path, bool], int] = {}  # by the unit's folder and whether its worker died
        self._hung: set[concurrent.futures.Future[JsonObject]] = set()
        self._withdrawn: set[int] = set()

    def __enter__(self) -> "Jobs":
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.close()

    def add(self, unit: Unit, *, first: bool = False) -> None:
        """Queue a unit, before the others if `first`."""
        (self._waiting.appendleft if first else self._waiting.append)(unit)

    def withdraw(self, index: int) -> None:
        """Forget the units of a trial or run: those that wait never start, and nobody hears of those that run.

        Args:
            index: number of the trial or run.
        """
        self._waiting = deque(unit for unit in self._waiting if unit.index != index)
        self._withdrawn.add(index)

    def finished(self) -> Iterator[tuple[Unit, Answer]]:
        """Yield each unit with its answer as it finishes or is lost, until none is left; more may be added meanwhile.

        Raises:
            UserError: a unit failed for a reason that the user can fix.
        """
        while self._waiting or self._running:
            while self._waiting and len(self._running) < self.num_workers:
                self._submit(self._waiting.popleft())
            done, _ = concurrent.futures.wait(
                self._running, timeout=self._hang_detector.every, return_when=concurrent.futures.FIRST_COMPLETED
            )
            for future in done:
                unit, error = self._running.pop(future), future.exception()
                if unit.index in self._withdrawn:
                    self._hung.discard(future)
                    continue
                if error is None:
                    yield unit, FinishedUnit.from_json(future.result())
                    continue
                if not isinstance(error, WorkerDiedError) and (message := errors.message_for_user(error)) is not None:
                    log = unit.directory / unit_log.NAME
                    raise errors.UserError(f"{message}\nUnit {unit.name}, log: {log}") from error
                reason = self._reason(future, error)
                if self._report_failure(unit, error, reason):
                    self.add(unit, first=True)
                else:
                    yield unit, _lost_unit(unit, error, reason)
            self._kill_hung_workers()

    def _submit(self, unit: Unit) -> None:
        leftover = last_heartbeat(unit.directory)  # before the attempt can write its own
        future = self._executor.submit(unit.to_json())
        self._running[future] = unit
        self._hang_detector.begin(future, leftover)

    def _kill_hung_workers(self) -> None:
        queues = self._executor.queues
        attempts = {f: (unit.directory, f.running() and not queues) for f, unit in self._running.items()}
        for future in self._hang_detector.hung(attempts):
            assert isinstance(self._executor, CanKill)  # otherwise the detector is disabled
            self._hung.add(future)
            self._executor.kill(future)

    def _reason(self, future: "concurrent.futures.Future[JsonObject]", error: BaseException) -> str:
        """Why a unit failed, in one line."""
        if future in self._hung:
            self._hung.remove(future)
            return f"no progress in {self._minutes:g} min (executor.timeout_minutes): its worker was killed"
        return first_line(error)

    def _report_failure(self, unit: Unit, error: BaseException, reason: str) -> bool:
        """Display a unit's failure, append it to `trouble.jsonl`, and return whether the unit is retried.

        The traceback of a defect is displayed the first time only, since retries usually fail in the same way.
        """
        died = isinstance(error, WorkerDiedError)
        limit = self._retries if died else min(self._retries, DEFECT_RETRIES)
        self._failures[unit.directory, died] = number = self._failures.get((unit.directory, died), 0) + 1
        retry = number <= limit
        ending = f"tried again ({number} of {limit})" if retry else f"given up after {number} tries"
        log = str(unit.directory / unit_log.NAME)
        details = "" if died or number > 1 else f"\n{_traceback(error)}"
        self._on_progress({"trouble": f"{unit.name}: {reason}   {ending}, see {log}{details}"})
        line = {"at": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "unit": unit.name, "reason": reason,
                "tries": number, "lost": not retry, "log": log}  # fmt: skip
        records.append_line(self._directory / "trouble.jsonl", line)
        return retry


def first_line(error: BaseException) -> str:
    """Describe an error in one line, without the excerpt from its worker's log.

    >>> first_line(KeyError("gone"))
    "KeyError: 'gone'"
    """
    names_itself = isinstance(error, UnitFailedError | WorkerDiedError)
    lines = (str(error) if names_itself else f"{type(error).__name__}: {error}").splitlines()
    return re.sub(r"\. .* ends:$", "", lines[0])


def _traceback(error: BaseException) -> str:
    """The traceback of an error; an error from another process carries its traceback as its message."""
    text = str(error) if isinstance(error, UnitFailedError) else "".join(traceback.format_exception(error))
    return text.rstrip()


def _lost_unit(unit: Unit, error: BaseException, reason: str) -> LostUnit:
    log = unit.directory / unit_log.NAME
    end_of_error = "".join(traceback.format_exception(error))[-unit_log.TAIL_CHARACTERS :]
    return LostUnit(unit.name, reason, str(log), unit_log.tail(log), end_of_error)
