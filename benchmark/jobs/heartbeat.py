"""That a unit moves: its loop leaves a beat in the unit's folder, and the driver's judge watches the beats.

`alive.json` is written by the loop itself, batch after batch, so it says that training moves and not that a thread
lives. It holds a count beside the writer's wall clock, which is for people. The judge compares counts between two looks
and measures by its own monotonic clock, so a clock that jumps, on either machine, neither kills nor saves a unit.
"""

import contextlib
import json
import time
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any

from benchmark.core import records
from benchmark.jobs import unit_log

FILE_NAME = "alive.json"
BEAT_SECONDS = 10.0
LOOK_SECONDS = 5.0
START_SECONDS = 300.0  # a unit may take at least so long before its first beat: imports from a cold, slow disk


class Heartbeat:
    """Beats once a batch; the file is written at most every `every` seconds, and is gone once the unit is done.

    Args:
        unit: folder of the unit.
        every: seconds.
        clock: monotonic.

    Attributes:
        epoch: the last one that was scored, for people.
    """

    def __init__(self, unit: Path, every: float = BEAT_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._every, self._clock, self._next = unit / FILE_NAME, every, clock, 0.0
        self._who = unit_log.me() | {"started": time.time()}
        self._batches = 0
        self.epoch: int | None = None
        self._write()

    def tick(self) -> None:
        """A batch is on its way: trained on, or evaluated."""
        self._batches += 1
        if self._clock() >= self._next:
            self._write()

    def stop(self) -> None:
        """The unit ends here, however it ends."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _write(self) -> None:
        body = self._who | {"at": time.time(), "batches": self._batches, "epoch": self.epoch}
        with contextlib.suppress(OSError):  # the checkpoint, which matters, says what is wrong with the disk
            records.write_whole(self._path, json.dumps(body).encode(), durable=False)
        self._next = self._clock() + self._every


def last_beat(unit: Path) -> dict[str, Any] | None:
    """What a unit's last beat said; None where it left none."""
    try:
        return dict(json.loads((unit / FILE_NAME).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


class HangDetector:
    """Says which units hang: their beat stayed the same for too long.

    Args:
        seconds: without a beat that are too long; None: no unit ever hangs.
        clock: monotonic.

    Attributes:
        every: seconds between two looks.
    """

    def __init__(self, seconds: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._clock, self._last = seconds, clock, clock()
        self.every = None if seconds is None else min(LOOK_SECONDS, seconds / 4)
        self._seen: dict[Hashable, tuple[Any, Any, float, bool]] = {}

    def begin(self, key: Any, left: dict[str, Any] | None) -> None:
        """An attempt is about to start.

        Args:
            key: of the attempt.
            left: the beat that an earlier one has left; any other will be this one's.
        """
        if self._seconds is not None:  # else nobody looks, and nobody would forget it again
            self._seen[key] = (left, left, 0.0, False)

    def hung(self, units: Mapping[Any, tuple[Path, bool]]) -> list[Any]:
        """Keys of the units that hang.

        Time in which nobody looked counts as two looks at most: where the driver was stopped with all the others, they
        are owed another chance. Time in a queue does not count: a unit is watched from the moment in which it is known
        to have started, or leaves its first beat.

        Args:
            units: folder, and whether it is known to have started, by the key of an attempt that has begun.
        """
        if self._seconds is None or self.every is None:
            return []
        now = self._clock()
        step, self._last = min(now - self._last, 2 * self.every), now
        seen = {}
        for key, (unit, started) in units.items():
            mark = last_beat(unit)
            first, before, quiet, watched = self._seen[key]
            watched = watched or started or mark != before
            seen[key] = (first, mark, quiet + step if watched and mark == before else 0.0, watched)
        self._seen = seen
        starting = max(self._seconds, START_SECONDS)
        return [key for key, (first, mark, quiet, _) in seen.items()
                if quiet >= (starting if mark == first else self._seconds)]  # fmt: skip
