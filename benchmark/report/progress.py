"""The progress of a study, read from its folder: what is done, running, waiting or lost.

This module writes nothing, so it can be used while a driver runs. A unit is done once it has a record. It is running
while its lock is held; its heartbeat shows how far it is. A unit that was started and is neither done nor running is
waiting, unless its latest entry in `trouble.jsonl` says that it exhausted its retries: then it is lost.
"""

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from benchmark.core import records
from benchmark.core.records import JsonObject
from benchmark.jobs import unit_log
from benchmark.jobs.heartbeat import last_heartbeat
from benchmark.study.workload import Workload

RECORD = re.compile(r"(trial|run)_\d+")


@dataclass(frozen=True)
class UnitState:
    """A training that was started.

    Attributes:
        path: folder of the unit.
        state: `done`, `running`, `waiting` or `lost`.
        seconds: compute time, if the unit is done.
        heartbeat: the last heartbeat, if the unit is running and has written one.
    """

    path: Path
    state: str
    seconds: float = 0.0
    heartbeat: JsonObject | None = None

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
        units: trainings that were started, of trials or runs without a record.
        spent: compute time of all finished trainings, in seconds.
        workers: number of trainings that run at a time; 1 if unknown.
        driver: whether a driver holds the study's lock.
    """

    name: str
    kind: str
    total: int
    finished: int
    units_each: int
    units: list[UnitState]
    spent: float
    workers: int
    driver: bool

    def count(self, state: str) -> int:
        """Return the number of units in a state; units that were never started are waiting."""
        started = sum(unit.state == state for unit in self.units)
        if state == "done":
            return started + self.finished * self.units_each
        missing = max(0, self.total - self.finished) * self.units_each - len(self.units)
        return started + max(0, missing) if state == "waiting" else started

    @property
    def left(self) -> float | None:
        """Seconds until all units are done, estimated from the finished ones; None if there are none."""
        if not (done := self.count("done")):
            return None
        return self.spent / done * sum(map(self.count, ("running", "waiting", "lost"))) / max(1, self.workers)


def stages(work: Workload, directory: Path) -> list[Stage]:
    """Return the stages of a study that were started or come next.

    Args:
        work: the study's numbers of trials, runs and folds.
        directory: folder of the study.
    """
    driver = records.is_held(directory / "lock")
    if work.story == "traditional":
        folder = directory / "traditional" / (work.preset or "setting")
        return [_stage("traditional protocol", "run", work.num_runs, 1, folder, directory, driver)]
    chosen, found = chosen_trial(directory), []
    if not work.preset:
        found.append(_stage("search", "trial", work.trials, work.num_folds, directory / "bo", directory, driver))
    if work.preset or chosen is not None:
        folder = directory / "final_eval" / (work.preset or f"trial_{chosen:03d}")
        found.append(_stage("final runs", "run", work.num_runs, work.num_folds, folder, directory, driver))
    return found


def chosen_trial(directory: Path) -> int | None:
    """Return the index of the trial that a finished search chose; None while there is no (readable) choice."""
    try:
        body = yaml.safe_load((directory / "bo" / "best.yaml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None
    trial = body.get("trial") if isinstance(body, dict) else None
    return trial if isinstance(trial, int) else None


def _stage(name: str, kind: str, total: int, units_each: int, folder: Path, directory: Path, driver: bool) -> Stage:
    """Read a stage of a study from its folder."""
    lost = {Path(entry["log"]).parent.parts[-3:] for entry in latest_failures(directory) if entry["lost"]}
    finished = {path.stem: seconds_of(path) for path in record_paths(folder, ".json")}
    units = []
    for path in record_paths(folder):
        if path.name in finished:
            continue
        if units_each == 1:
            units.append(unit_state(path, path.with_suffix(".json"), lost))
        else:
            units += [unit_state(fold, fold / "record.json", lost) for fold in sorted(path.glob("fold_*"))]
    spent = sum(finished.values()) + sum(unit.seconds for unit in units)
    workers = sum(unit.state == "running" for unit in units) or last_workers(directory)
    return Stage(name, kind, max(total, len(finished)), len(finished), units_each, units, spent, workers, driver)


def record_paths(folder: Path, suffix: str = "") -> list[Path]:
    """Return the folders of trials or runs, or with a suffix their records, in order; quarantined ones are skipped."""
    return [path for path in sorted(folder.glob(f"*{suffix}")) if RECORD.fullmatch(path.name.removesuffix(suffix))]


def seconds_of(path: Path) -> float:
    """Return the compute seconds of a record; 0 for a damaged one, which the next session quarantines."""
    try:
        return float(sum(records.read_record(path).provenance["seconds"].values()))
    except (OSError, records.CorruptFileError, KeyError):
        return 0.0


def unit_state(path: Path, record: Path, lost: set[tuple[str, ...]]) -> UnitState:
    """Return the current state of a unit.

    Args:
        path: folder of the unit.
        record: the file that exists once the unit is done.
        lost: the last three parts of the folders of units that exhausted their retries.
    """
    if record.exists():
        return UnitState(path, "done", seconds_of(record))
    if records.is_held(path / "lock"):
        return UnitState(path, "running", heartbeat=last_heartbeat(path))
    return UnitState(path, "lost" if path.parts[-3:] in lost else "waiting")


def failures(directory: Path) -> list[JsonObject]:
    """Return the entries of the study's `trouble.jsonl`, the oldest first."""
    found = []
    for line in _lines(directory / "trouble.jsonl"):
        try:
            found.append(dict(json.loads(line)))
        except json.JSONDecodeError:
            continue  # the last line of a driver that was killed while writing it
    return found


def latest_failures(directory: Path) -> list[JsonObject]:
    """Return the latest failure of each unit."""
    return list({entry["log"]: entry for entry in failures(directory)}.values())


def last_workers(directory: Path) -> int:
    """Return the number of workers in the last session of the search; 1 where it is unknown."""
    try:
        return int(json.loads(_lines(directory / "bo" / "sessions.jsonl")[-1])["workers"])
    except (IndexError, json.JSONDecodeError, KeyError):
        return 1


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def age(heartbeat: JsonObject) -> float:
    """Return the seconds since a heartbeat, by the clocks of the two machines."""
    return max(0.0, time.time() - float(heartbeat.get("at", 0.0)))


def logs(directories: Sequence[Path]) -> list[Path]:
    """Return the logs of all units of some studies, the most recently written last."""
    found = []
    for path in (path for directory in directories for path in directory.glob(f"*/**/{unit_log.NAME}")):
        try:
            found.append((path.stat().st_mtime, path))
        except OSError:
            continue
    return [path for _, path in sorted(found)]
