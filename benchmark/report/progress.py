"""What a study's folder says about its work: what is done, runs, waits and is lost. Reads only, beside a driver too.

A unit runs while its lock is held, and what it does is in its beat; it is done once it has a record. One that was begun
and neither runs nor is done waits, unless the last word about it in `trouble.jsonl` is that it was given up.
"""

import json
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from benchmark.core import records
from benchmark.jobs import heartbeat, unit_log
from benchmark.study.study import Study

PIECE = re.compile(r"(trial|run)_\d+")


@dataclass(frozen=True)
class Unit:
    """A training that was begun.

    Attributes:
        path: its folder.
        state: `done`, `running`, `waiting` or `lost`.
        seconds: that it took, if it is done.
        beat: the last one, if it runs.
    """

    path: Path
    state: str
    seconds: float = 0.0
    beat: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As `unit=` of `make logs`."""
        return "/".join(self.path.parts[-2:])


@dataclass(frozen=True)
class Stage:
    """A part of a study: its search, its final runs, or its runs under the customary protocol.

    Attributes:
        name: for people.
        piece: `trial` or `run`.
        total: pieces that are wanted.
        finished: pieces that have a record.
        per_piece: trainings that a piece takes.
        units: trainings that were begun, of pieces without a record.
        spent: seconds of compute in all that is done.
        workers: trainings at a time, as far as that is known.
        driver: whether somebody works on the study.
    """

    name: str
    piece: str
    total: int
    finished: int
    per_piece: int
    units: list[Unit]
    spent: float
    workers: int
    driver: bool

    def count(self, state: str) -> int:
        """Units in a state; those that nobody has begun wait as well."""
        begun = sum(unit.state == state for unit in self.units)
        if state == "done":
            return begun + self.finished * self.per_piece
        missing = max(0, self.total - self.finished) * self.per_piece - len(self.units)
        return begun + max(0, missing) if state == "waiting" else begun

    @property
    def left(self) -> float | None:
        """Seconds until all units are done, from how long the finished ones took; None if none is."""
        if not (done := self.count("done")):
            return None
        return self.spent / done * sum(map(self.count, ("running", "waiting", "lost"))) / max(1, self.workers)


def stages(study: Study, directory: Path) -> list[Stage]:
    """The parts of a study that were begun, or come next.

    Args:
        study: for its numbers.
        directory: its folder.
    """
    c, p = study.config, study.config.protocol
    driver = records.is_held(directory / "lock")
    if p.story == "traditional":
        folder = directory / "traditional" / (c.preset or "setting")
        return [stage("customary protocol", "run", p.num_runs, 1, folder, directory, driver)]
    chosen, found = chosen_trial(directory), []
    if not c.preset:
        found.append(stage("search", "trial", c.trials, p.num_folds, directory / "bo", directory, driver))
    if c.preset or chosen is not None:
        folder = directory / "final_eval" / (c.preset or f"trial_{chosen:03d}")
        found.append(stage("final runs", "run", p.num_runs, p.num_folds, folder, directory, driver))
    return found


def chosen_trial(directory: Path) -> int | None:
    """The trial that the search has chosen, if it is finished."""
    try:
        return int(yaml.safe_load((directory / "bo" / "best.yaml").read_text(encoding="utf-8"))["trial"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError):
        return None


def stage(name: str, piece: str, total: int, per_piece: int, folder: Path, directory: Path, driver: bool) -> Stage:
    """A part of a study, from what lies in its folder."""
    lost = {Path(line["log"]).parent.parts[-3:] for line in last_words(directory) if line["lost"]}
    finished = {path.stem: seconds_of(path) for path in pieces(folder, ".json")}
    units = []
    for path in pieces(folder):
        if path.name not in finished and per_piece == 1:
            units.append(look(path, path.with_suffix(".json"), lost))
        elif path.name not in finished:
            units += [look(fold, fold / "record.json", lost) for fold in sorted(path.glob("fold_*"))]
    spent = sum(finished.values()) + sum(unit.seconds for unit in units)
    workers = sum(unit.state == "running" for unit in units) or last_workers(directory)
    return Stage(name, piece, max(total, len(finished)), len(finished), per_piece, units, spent, workers, driver)


def pieces(folder: Path, suffix: str = "") -> list[Path]:
    """Folders, or with a suffix records, of trials or runs; what was set aside is none."""
    return [path for path in sorted(folder.glob(f"*{suffix}")) if PIECE.fullmatch(path.name.removesuffix(suffix))]


def seconds_of(path: Path) -> float:
    """Seconds of compute that a record tells of; 0 for a damaged one, which the next sitting sets aside."""
    try:
        return float(sum(records.read_record(path).provenance["seconds"].values()))
    except (OSError, records.CorruptFileError, KeyError):
        return 0.0


def look(path: Path, record: Path, lost: set[tuple[str, ...]]) -> Unit:
    """A unit as it is at this moment."""
    if record.exists():
        return Unit(path, "done", seconds_of(record))
    if records.is_held(path / "lock"):
        return Unit(path, "running", beat=heartbeat.last_heartbeat(path) or {})
    return Unit(path, "lost" if path.parts[-3:] in lost else "waiting")


def trouble(directory: Path) -> list[dict[str, Any]]:
    """Lines of the study's `trouble.jsonl`, the oldest first."""
    found = []
    try:
        lines = (directory / "trouble.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    for line in lines:
        try:
            found.append(dict(json.loads(line)))
        except (ValueError, TypeError):
            continue  # the last line of a driver that was killed while it wrote
    return found


def last_words(directory: Path) -> list[dict[str, Any]]:
    """The last trouble of each unit."""
    return list({line["log"]: line for line in trouble(directory)}.values())


def last_workers(directory: Path) -> int:
    """How many workers the last sitting of a search had; 1 where nobody knows."""
    try:
        lines = (directory / "bo" / "sessions.jsonl").read_text(encoding="utf-8").splitlines()
        return int(json.loads(lines[-1])["workers"])
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return 1


def age(beat: dict[str, Any]) -> float:
    """Seconds since a beat, by the two machines' clocks."""
    return max(0.0, time.time() - beat.get("at", 0.0))


def logs(directory: Path) -> list[Path]:
    """Logs of all units, the one that was written last at the end."""
    found = []
    for path in directory.glob(f"*/**/{unit_log.NAME}"):
        try:
            found.append((path.stat().st_mtime, path))
        except OSError:
            continue
    return [path for _, path in sorted(found)]
