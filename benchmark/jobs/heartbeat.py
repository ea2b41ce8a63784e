"""Heartbeats of running units, and detection of hung ones.

`alive.json` is written by the training loop itself, batch after batch, so it proves that training advances and not only
that a thread lives. It holds a count of batches and, for people, the writer's wall clock. The detector compares counts
and measures time by its own monotonic clock, so a wall clock that jumps, on either machine, neither kills nor saves a
unit.
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
START_SECONDS = 300.0  # at least this long may pass before a unit's first heartbeat: imports from a cold, slow disk
Key = TypeVar("Key", bound=Hashable)


class Heartbeat:
    """The heartbeat of one unit: call `tick` for each batch and `stop` at the end, which deletes the file.

    Args:
        unit: folder of the unit.
        every: seconds between two writes of the file, at least.
        clock: monotonic clock in seconds.

    Attributes:
        epoch: the last scored epoch, for people.
    """

    def __init__(self, unit: Path, every: float = WRITE_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._every, self._clock, self._next = unit / FILE_NAME, every, clock, 0.0
        self._worker = unit_log.this_worker() | {"started": time.time()}
        self._batches = 0
        self.epoch: int | None = None
        self._write()

    def tick(self) -> None:
        """Count a batch, trained on or evaluated."""
        self._batches += 1
        if self._clock() >= self._next:
            self._write()

    def stop(self) -> None:
        """Delete the file: the unit ends here, however it ends."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _write(self) -> None:
        body = self._worker | {"at": time.time(), "batches": self._batches, "epoch": self.epoch}
        with contextlib.suppress(OSError):  # the checkpoint matters, and its error says what is wrong with the disk
            records.write_whole(self._path, json.dumps(body).encode(), durable=False)
        self._next = self._clock() + self._every


def last_heartbeat(unit: Path) -> JsonObject | None:
    """The content of a unit's heartbeat file; None where there is none, or it is torn."""
    try:
        content = json.loads((unit / FILE_NAME).read_bytes())
    except (OSError, json.JSONDecodeError, UnicodeDecodeError):
        return None
    return content if isinstance(content, dict) else None


@dataclass
class _Attempt:
    """What the detector knows about one attempt at a unit.

    Attributes:
        leftover: the heartbeat that was there before the attempt began; any other is the attempt's own.
        latest: the heartbeat at the last check.
        silent_seconds: for which it has not changed.
        started: whether a worker is known to have taken the unit.
    """

    leftover: JsonObject | None
    latest: JsonObject | None
    silent_seconds: float = 0.0
    started: bool = False


class HangDetector:
    """Finds units whose heartbeat has not changed for too long.

    Args:
        seconds: the longest silence that is allowed; None: no unit ever hangs.
        clock: monotonic clock in seconds.

    Attributes:
        every: seconds between two checks; None where there is nothing to check.
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
        if self._limit is not None:  # else no check would ever forget the attempt
            self._attempts[key] = _Attempt(leftover, leftover)

    def hung(self, attempts: Mapping[Key, tuple[Path, bool]]) -> list[Key]:
        """Check all attempts in progress, and return the keys of those that hang.

        Time between two checks counts as at most two check intervals: if the driver was suspended along with its
        workers, they get another chance. Time in a queue does not count: an attempt is timed from the moment it is
        known to have started, or from its first heartbeat.

        Args:
            attempts: the unit's folder, and whether the attempt is known to have started, by key; all have begun.
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
