"""Hand units to an executor and take back what they found; try those again whose worker died, hung, or failed.

What a user can mend (a `ValueError` or `OSError` with a sentence for people) stops the story at once. Anything else
that keeps a unit from its record is tried again from its checkpoint, `executor.retries` times at most, a defect twice;
then the unit is lost, which is an answer as well, and the story goes on without it. Every trouble is told to the
display, and is a line in the study's `trouble.jsonl`.
"""

import concurrent.futures
import re
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmark.core import errors, records
from benchmark.core.provenance import software
from benchmark.jobs import unit_log
from benchmark.jobs.executors import CanKill
from benchmark.jobs.executors.messages import UnitFailedError, WorkerDiedError
from benchmark.jobs.heartbeat import HangDetector, last_beat
from benchmark.jobs.placement import make_executor, num_workers
from benchmark.study.study import Study

Unit = dict[str, Any]
DEFECT_RETRIES = 2  # a defect is seldom cured by trying again, however often machines may be lost


class Jobs:
    """Units on their way through an executor.

    Args:
        study: says which executor, how many workers, how many retries, and after which time a unit hangs.
        run: does one unit in this process (`executor=inline`).
        module: serves units as `python -m module` (every other executor).
        on_progress: called, from any thread, with what units report, and with `{"trouble": sentence}`.
    """

    def __init__(
        self,
        study: Study,
        run: Callable[[Unit, Callable[[Unit], None]], Unit],
        module: list[str],
        on_progress: Callable[[Unit], None],
    ) -> None:
        self._retries, self._minutes = study.config.executor.retries, study.config.executor.timeout_minutes
        self.num_workers = num_workers(study.config)
        logs = study.directory / "logs"
        self._executor = make_executor(study.config, self.num_workers, run, module, logs, on_progress)
        self._on_progress, self._directory = on_progress, study.directory
        self._judge = HangDetector(None if self._minutes is None else 60 * self._minutes)
        self._waiting: deque[Unit] = deque()
        self._running: dict[concurrent.futures.Future[Unit], Unit] = {}
        self._tries: dict[tuple[str, bool], int] = {}
        self._hung: dict[concurrent.futures.Future[Unit], str] = {}

    def __enter__(self) -> "Jobs":
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.close()

    def add(self, spec: Unit, *, first: bool = False) -> None:
        """Queue a unit, in front of the others if `first`; whoever does it must have this process's software."""
        (self._waiting.appendleft if first else self._waiting.append)(spec | {"software": software()})

    def finished(self) -> Iterator[tuple[Unit, Unit]]:
        """Yield (unit, answer) as units finish, until none is left; units may be added meanwhile.

        The answer of a unit that is lost is `{"lost": {...}}` with its `unit`, the `reason`, the path of its `log` and
        the `tail` of that.

        Raises:
            OSError, ValueError: what a user can mend.
        """
        while self._waiting or self._running:
            while self._waiting and len(self._running) < self.num_workers:
                spec = self._waiting.popleft()
                left = last_beat(Path(spec["directory"]))
                self._running[future := self._executor.submit(spec)] = spec
                self._judge.begin(future, left)
            done, _ = concurrent.futures.wait(
                self._running, timeout=self._judge.every, return_when=concurrent.futures.FIRST_COMPLETED
            )
            for future in done:
                spec = self._running.pop(future)
                if (error := future.exception()) is None:
                    yield spec, future.result()
                elif not isinstance(error, WorkerDiedError) and errors.message_for_user(error) is not None:
                    raise error
                elif self._again(spec, error, reason := self._hung.pop(future, None) or short(error)):
                    self.add(spec, first=True)
                else:
                    yield spec, {"lost": self._lost(spec, reason, error)}
            self._end_what_hangs()

    def _end_what_hangs(self) -> None:
        if not isinstance(self._executor, CanKill):
            return
        queues = self._executor.queues
        units = {f: (Path(spec["directory"]), f.running() and not queues) for f, spec in self._running.items()}
        for future in self._judge.hung(units):
            self._hung[future] = f"no batch in {self._minutes:g} min (executor.timeout_minutes): its worker was ended"
            self._executor.kill(future)

    def _again(self, spec: Unit, error: BaseException, reason: str) -> bool:
        """Say what happened to a unit, and whether it is tried again."""
        directory, died = spec["directory"], isinstance(error, WorkerDiedError)
        limit = self._retries if died else min(self._retries, DEFECT_RETRIES)
        self._tries[directory, died] = number = self._tries.get((directory, died), 0) + 1
        again = number <= limit
        ending = f"tried again ({number} of {limit})" if again else f"given up after {number} tries"
        log = str(Path(directory) / unit_log.NAME)
        where = "" if died or number > 1 else "\n" + "".join(traceback.format_exception(error)).rstrip()
        self._on_progress({"trouble": f"{name_of(directory)}: {reason}   {ending}, see {log}{where}"})
        line = {"at": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "unit": name_of(directory), "reason": reason,
                "tries": number, "lost": not again, "log": log}  # fmt: skip
        records.append_line(self._directory / "trouble.jsonl", line)
        return again

    def _lost(self, spec: Unit, reason: str, error: BaseException | None) -> Unit:
        log = Path(spec["directory"]) / unit_log.NAME
        return {
            "unit": name_of(spec["directory"]), "reason": reason, "log": str(log), "tail": unit_log.tail(log),
            "error": "".join(traceback.format_exception(error))[-unit_log.TAIL_CHARACTERS :],
        }  # fmt: skip


def short(error: BaseException) -> str:
    """An error in one line, without where its worker's log is."""
    ours = isinstance(error, UnitFailedError | WorkerDiedError)
    lines = (str(error) if ours else f"{type(error).__name__}: {error}").splitlines()
    return re.sub(r"\. .* ends:$", "", lines[0])


def name_of(directory: str) -> str:
    """What a person calls a unit, as in `make logs ARGS=unit=trial_003/fold_1`."""
    return "/".join(Path(directory).parts[-2:])


def incomplete(study: Study, target: str, pieces: dict[str, list[dict[str, Any]]]) -> errors.IncompleteError:
    """What to raise when a story ends without some of its pieces.

    Args:
        study: whose pieces they are.
        target: the make target that tries them again.
        pieces: the lost units of each, by what a person calls it.
    """
    lines = [f"  {piece}: {unit['unit']}: {unit['reason']}\n    log: {unit['log']}"
             for piece, units in pieces.items() for unit in units]  # fmt: skip
    last = next(reversed(pieces.values()))[-1]
    ends = f"\nThe last log ends:\n{last['tail']}" if last["tail"] else ""
    return errors.IncompleteError(
        f"{study.title} is incomplete, for no reason that lies in its setting:\n" + "\n".join(lines) + ends + "\nThe "
        f'same command tries this again, from the checkpoints, and repeats nothing finished: "{study.command(target)}"'
    )
