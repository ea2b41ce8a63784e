"""Heartbeats of running units, and detection of hung ones.

The work itself writes `alive.json` as it advances (`core/pulse.py`), so the file proves that a unit advances and not
only that a thread is alive. It holds the number of beats and, for display, the writer's wall-clock time. The detector
looks for changes and measures time by its own monotonic clock, so a jump of the wall clock on either machine neither
kills nor saves a unit.
"""

import contextlib
import json
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from benchmark.core import records
from benchmark.core.records import JsonObject
from benchmark.jobs import unit_log

FILE_NAME = "alive.json"
WRITE_SECONDS = 10.0
CHECK_SECONDS = 5.0
START_SECONDS = 300.0  # minimum time allowed before a unit's first heartbeat, for imports from a slow disk
Key = TypeVar("Key", bound=Hashable)


class Heartbeat:
    """The heartbeat of one unit: call `tick` at each beat and `stop` at the end, which deletes the file.

    Args:
        unit: folder of the unit.
        every: minimum number of seconds between two writes of the file.
        clock: monotonic clock in seconds.

    Attributes:
        epoch: the last scored epoch, for display.
    """

    def __init__(self, unit: Path, every: float = WRITE_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._every, self._clock, self._next = unit / FILE_NAME, every, clock, 0.0
        self._worker = unit_log.this_worker() | {"started": time.time()}
        self._beats = 0
        self.epoch: int | None = None
        self._write()

    def tick(self) -> None:
        """Count a beat."""
        self._beats += 1
        if self._clock() >= self._next:
            self._write()

    def stop(self) -> None:
        """Delete the file at the end of the unit, whether it succeeded or failed."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _write(self) -> None:
        body = self._worker | {"at": time.time(), "beats": self._beats, "epoch": self.epoch}
        with contextlib.suppress(OSError):  # a disk error is reported when the checkpoint is written
            records.write_whole(self._path, json.dumps(body).encode(), durable=False)
        self._next = self._clock() + self._every


def last_heartbeat(unit: Path) -> JsonObject | None:
    """The content of a unit's heartbeat file; None if it is missing or incomplete."""
    try:
        content = json.loads(records.read_file(unit / FILE_NAME, records.MOST_BYTES))
    except (OSError, records.CorruptFileError, ValueError, RecursionError):  # RecursionError: endless nesting
        return None
    return content if isinstance(content, dict) else None


@dataclass
class _Attempt:
    """What the detector knows about one attempt at a unit.

    Attributes:
        leftover: the heartbeat from before the attempt; any other is the attempt's own.
        latest: the heartbeat at the last check.
        silent_seconds: seconds for which the heartbeat has not changed.
        started: whether a worker is known to have started the unit.
    """

    leftover: JsonObject | None
    latest: JsonObject | None
    silent_seconds: float = 0.0
    started: bool = False


class HangDetector:
    """Finds units whose heartbeat has not changed for too long.

    Args:
        seconds: longest time allowed without a change; None disables the detector.
        clock: monotonic clock in seconds.

    Attributes:
        every: seconds between two checks; None if the detector is disabled.
    """

    def __init__(self, seconds: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._clock, self._last_check = seconds, clock, clock()
        self.every = None if seconds is None else min(CHECK_SECONDS, seconds / 4)
        self._attempts: dict[Hashable, _Attempt] = {}

    def begin(self, key: Hashable, leftover: JsonObject | None) -> None:
        """Note that an attempt is about to start.

        Args:
            key: identifies the attempt.
            leftover: the heartbeat that an earlier attempt left behind, if any.
        """
        if self._limit is not None:  # otherwise no check would ever remove the attempt
            self._attempts[key] = _Attempt(leftover, leftover)

    def hung(self, attempts: Mapping[Key, tuple[Path, bool]]) -> list[Key]:
        """Check all attempts in progress, and return the keys of those that hang.

        Time between two checks counts as at most two check intervals: if the driver was suspended along with its
        workers, they get another chance. Time in a queue does not count: an attempt is timed from the moment it is
        known to have started, or from its first heartbeat.

        Args:
            attempts: for each key passed to `begin`, the unit's folder and whether the attempt is known to have
                started.
        """
        if self._limit is None or self.every is None:
            return []
        now = self._clock()
        passed, self._last_check = min(now - self._last_check, 2 * self.every), now
        self._attempts = {key: self._attempts[key] for key in attempts}
        hanging = []
        for key, (unit, known_to_run) in attempts.items():
            attempt, current = self._attempts[key], last_heartbeat(unit)
            changed = current != attempt.latest
            attempt.started = attempt.started or known_to_run or changed
            attempt.silent_seconds = 0.0 if changed or not attempt.started else attempt.silent_seconds + passed
            attempt.latest = current
            starting = current == attempt.leftover
            if attempt.silent_seconds >= (max(self._limit, START_SECONDS) if starting else self._limit):
                hanging.append(key)
        return hanging
