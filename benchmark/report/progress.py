"""The progress of a study, read from its folder: what is done, running, waiting or lost.

This module writes nothing, so it can be used while a driver runs. A unit is done once it has a record. It is running
while its lock is held; its heartbeat shows how far it is. A unit that was started and is neither done nor running is
waiting, unless its latest entry in `trouble.jsonl` says that it exhausted its retries: then it is lost.
"""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from benchmark.core import records
from benchmark.jobs import unit_log
from benchmark.report.lines import Alive, Failure, SessionTimes, read_heartbeat, read_lines
from benchmark.study import contents, layout
from benchmark.study.layout import Chosen
from benchmark.study.stored import StoredStudy

RECORD = re.compile(r"(?:trial|run)_(\d+)")
FAILURES, SESSIONS = Path("trouble.jsonl"), Path("bo/sessions.jsonl")  # below a study's folder
Kind = type[contents.Content]


@dataclass(frozen=True)
class UnitState:
    """A training that was started.

    Attributes:
        path: folder of the unit.
        state: `done`, `running`, `waiting` or `lost`.
        seconds: compute time, if the unit is done.
        heartbeat: the last heartbeat, if the unit is running and has written a readable one.
    """

    path: Path
    state: str
    seconds: float = 0.0
    heartbeat: Alive | None = None

    @property
    def name(self) -> str:
        """The name that `unit=` of `logs` takes."""
        return "/".join(self.path.parts[-2:])


@dataclass(frozen=True)
class Stage:
    """A part of a study: its search, its final runs, or its runs under the traditional protocol.

    Attributes:
        name: as shown to the user.
        kind: `trial` or `run`.
        total: number of trials or runs that the study needs.
        finished: number of trials or runs that have a record.
        units_each: number of trainings per trial or run.
        skipped: number of trainings that were not needed, of trials that were stopped after their first folds.
        units: trainings that were started, of trials or runs without a record.
        spent: compute time of all finished trainings, in seconds.
        workers: number of trainings that run at a time; 1 if unknown.
        driver: whether a driver holds the study's lock.
        problems: a sentence about each record that cannot be used.
    """

    name: str
    kind: str
    total: int
    finished: int
    units_each: int
    skipped: int
    units: list[UnitState]
    spent: float
    workers: int
    driver: bool
    problems: list[str]

    def count(self, state: str) -> int:
        """Return the number of units in a state; units that were never started are waiting."""
        started = sum(unit.state == state for unit in self.units)
        if state == "done":
            return started + self.finished * self.units_each - self.skipped
        missing = max(0, self.total - self.finished) * self.units_each - len(self.units)
        return started + max(0, missing) if state == "waiting" else started

    @property
    def left(self) -> float | None:
        """Seconds until all units are done, estimated from the finished ones; None if there are none."""
        if not (done := self.count("done")):
            return None
        return self.spent / done * sum(map(self.count, ("running", "waiting", "lost"))) / max(1, self.workers)


def stages(stored: StoredStudy, directory: Path) -> list[Stage]:
    """Return the stages of a study that were started or come next.

    Args:
        stored: the study.
        directory: its folder.
    """
    facts, own = stored.facts, stored.expected
    if facts.story == "traditional":
        runs = layout.read_traditional(directory, own, facts.preset, facts.setting, stored.num_runs)
        folder = layout.traditional_path(directory, facts.preset, 0).parent
        return [_stage(Part("traditional protocol", "run", folder, runs, stored.num_runs, 1), directory)]
    found = []
    chosen = Chosen(facts.preset, None, facts.setting) if facts.preset else None
    if chosen is None:
        trials = layout.read_trials(directory, own, stored.trials)
        part = Part("search", "trial", directory / "bo", trials, stored.trials, facts.num_folds)
        found.append(_stage(part, directory))
        if choice := layout.choice_on_disk(directory, own):
            chosen = Chosen.of(choice)
    if chosen is not None:
        runs = layout.read_runs(directory, own, chosen, stored.num_runs)
        folder = layout.run_path(directory, chosen.name, 0).parent
        found.append(_stage(Part("final runs", "run", folder, runs, stored.num_runs, facts.num_folds), directory))
    return found


class Part(NamedTuple):
    """A stage before its units are read.

    Attributes:
        name: see `Stage`.
        kind: see `Stage`.
        folder: folder of the stage's records.
        found: the trials or runs on disk.
        total: see `Stage`.
        units_each: see `Stage`.
    """

    name: str
    kind: str
    folder: Path
    found: layout.Found
    total: int
    units_each: int


def _stage(part: Part, directory: Path) -> Stage:
    """Read a stage of a study from its folder."""
    lost = {Path(entry.log).parent.parts[-3:] for entry in latest_failures(directory) if entry.lost}
    finished = part.found.records
    units = []
    for path in part.folder.glob("*"):
        number = RECORD.fullmatch(path.name)
        if number is None or not int(number[1]) < part.total or int(number[1]) in finished:
            continue
        if part.units_each == 1:
            units.append(unit_state(path, path.with_suffix(".json"), contents.Traditional, lost))
        else:
            units += [unit_state(fold, fold / "record.json", contents.Fold, lost) for fold in path.glob("fold_*")]
    spent = sum(sum(record.provenance["seconds"].values()) for record in finished.values())
    stopped = [record.result["folds"] for record in finished.values() if record.result["status"] == "stopped"]
    return Stage(
        part.name, part.kind, part.total, len(finished), part.units_each,
        sum(part.units_each - len(folds) for folds in stopped), sorted(units, key=lambda unit: unit.path),
        spent + sum(unit.seconds for unit in units),
        sum(unit.state == "running" for unit in units) or last_workers(directory),
        records.is_held(directory / "lock"), [problem.text for problem in part.found.problems],
    )  # fmt: skip


def seconds_of(path: Path, kind: Kind) -> float:
    """Return the compute seconds of a record; 0 for one that cannot be read, which the next session quarantines.

    Args:
        path: the record's file.
        kind: the content that it must have.
    """
    try:
        return float(sum(contents.read(path, kind).provenance["seconds"].values()))
    except (OSError, records.CorruptFileError, records.NewerFileError):
        return 0.0


def unit_state(path: Path, record: Path, kind: Kind, lost: set[tuple[str, ...]]) -> UnitState:
    """Return the current state of a unit.

    Args:
        path: folder of the unit.
        record: the file that exists once the unit is done.
        kind: the content of that file.
        lost: the last three parts of the folders of units that exhausted their retries.
    """
    if record.exists():
        return UnitState(path, "done", seconds_of(record, kind))
    if records.is_held(path / "lock"):
        return UnitState(path, "running", heartbeat=read_heartbeat(path))
    return UnitState(path, "lost" if path.parts[-3:] in lost else "waiting")


def failures(directory: Path) -> list[Failure]:
    """Return the failures of a study's units, the oldest first."""
    return read_lines(directory / FAILURES, Failure)[0]


def unreadable_lines(directory: Path) -> list[str]:
    """Return a sentence about each line of a study's files that was skipped because it is unreadable."""
    return read_lines(directory / FAILURES, Failure)[1] + read_lines(directory / SESSIONS, SessionTimes)[1]


def latest_failures(directory: Path) -> list[Failure]:
    """Return the latest failure of each unit."""
    return list({entry.log: entry for entry in failures(directory)}.values())


def last_workers(directory: Path) -> int:
    """Return the number of workers in the last session of the search; 1 if unknown."""
    sessions, _ = read_lines(directory / SESSIONS, SessionTimes)
    return sessions[-1].workers if sessions else 1


def age(heartbeat: Alive) -> float:
    """Return the seconds since a heartbeat, by the clocks of the two machines."""
    return max(0.0, time.time() - heartbeat.at)


def logs(directories: Sequence[Path]) -> list[Path]:
    """Return the logs of all units of some studies, the most recently written last."""
    found = []
    for path in (path for directory in directories for path in directory.glob(f"*/**/{unit_log.NAME}")):
        try:
            found.append((path.stat().st_mtime, path))
        except OSError:
            continue
    return [path for _, path in sorted(found)]
