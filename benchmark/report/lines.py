"""Readers of the files that drivers and workers write for `status`: failures, sessions and heartbeats.

No result depends on these files. An unreadable line is therefore skipped and reported, and the rest of the study is
shown.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from benchmark.core.records import MOST_BYTES, CorruptFileError, read_file
from benchmark.core.typed import AtLeastOne, Count, Seconds, Text, convert
from benchmark.jobs.heartbeat import last_heartbeat

Line = TypeVar("Line")


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A line of `trouble.jsonl`.

    Attributes:
        at: when the unit failed.
        unit: its name in messages.
        reason: the failure, in one line.
        tries: number of failures so far.
        lost: whether it exhausted its retries.
        log: path of its log.
    """

    at: Text
    unit: Text
    reason: str
    tries: AtLeastOne
    lost: bool
    log: Text


@dataclass(frozen=True, kw_only=True)
class SessionTimes:
    """A line of `sessions.jsonl`.

    Attributes:
        wall_seconds: duration of the session.
        compute_seconds: time that its workers spent on training and evaluation, summed over workers.
        workers: number of workers.
    """

    wall_seconds: Seconds
    compute_seconds: Seconds
    workers: AtLeastOne


@dataclass(frozen=True, kw_only=True)
class Alive:
    """A heartbeat, `alive.json`.

    Attributes:
        host: the worker's machine.
        pid: its process.
        worker: its name.
        started: when the unit started, in seconds since 1970.
        at: when the heartbeat was written, in seconds since 1970.
        beats: how often its work has advanced so far.
        epoch: the last scored epoch; None before the first.
    """

    host: Text
    pid: Count
    worker: Text
    started: Seconds
    at: Seconds
    beats: Count
    epoch: Count | None


def read_lines(path: Path, kind: type[Line]) -> tuple[list[Line], list[str]]:
    """The lines of a file, the oldest first, and a sentence about each unreadable line.

    A last line without a newline is skipped: its writer was killed, or is still writing it.

    Args:
        path: the file, which need not exist.
        kind: the dataclass of a line.
    """
    found: list[Line] = []
    faults: list[str] = []
    try:
        *lines, _ = read_file(path, MOST_BYTES).decode(errors="replace").split("\n")
    except CorruptFileError as error:
        return [], [str(error)]
    except OSError:
        return [], []
    for number, line in enumerate(lines, 1):
        try:
            found.append(convert(json.loads(line), kind, Path(f"{path}, line {number}")))
        except CorruptFileError as error:
            faults.append(str(error))
        except (ValueError, RecursionError) as error:
            faults.append(f"{path}, line {number}: it is not valid JSON ({error}).")
    return found, faults


def read_heartbeat(unit: Path) -> Alive | None:
    """The last heartbeat of a unit; None if there is none, or it is unreadable."""
    try:
        return convert(last_heartbeat(unit), Alive, unit)
    except CorruptFileError:
        return None
