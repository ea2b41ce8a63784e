"""One unit of work, run anywhere: train one model on one fold.

A unit comes as JSON (study configuration, trial or run, fold, setting), rebuilds what it needs, and leaves a record.
It is idempotent: a finished unit returns its record, an unfinished one goes on from its checkpoint. It can read
training classes only.

Run as `python -m benchmark.jobs.train_unit`, it serves units to a driver, see `executors/serve.py`.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmark.core import records
from benchmark.core.provenance import check_software, provenance
from benchmark.core.threads import use_threads
from benchmark.jobs import unit_log
from benchmark.jobs.heartbeat import BEAT_SECONDS, FILE_NAME, Heartbeat
from benchmark.study.assemble import build
from benchmark.study.study import Study
from benchmark.training.components import Schedule, TrainingComponents
from benchmark.training.curves import write_curves
from benchmark.training.loop import Outcome, train_fold, write_state

CURVES_SECONDS = 30.0  # training curves on disk are at most this old; they cost a few disk flushes each time
LOCK_SECONDS = 180.0  # a network file system frees the lock of a lost machine after its lease, mostly 90 s
Report = Callable[[dict[str, Any]], None]


def train_unit(spec: dict[str, Any], report: Report) -> dict[str, Any]:
    """Train one fold, or return its record if that is done already.

    Args:
        spec: `study` (raw configuration), `fingerprint` of the data, `kind` (`trial` or `run`), `index`, `fold`,
            `setting` (hyper-parameters), `directory` of the unit, `keep_weights`, and `software` of the driver.
        report: called with small dictionaries for a display.

    Returns:
        `result`, `provenance` and `notes` (sentences about damaged files that were done again).

    Raises:
        ValueError: the data or the software on this machine is not the driver's, or another process holds the unit for
            too long.
    """
    check_software(spec["software"])
    unit = Path(spec["directory"])
    with records.only_one(unit / "lock", f"Unit {unit}", wait_seconds=LOCK_SECONDS):
        record, note = records.read_or_set_aside(unit / "record.json")
        if record is not None and _weights_are_there(spec, record, unit):
            for left in ("checkpoint.pt", FILE_NAME):  # by a worker that was killed at the very end
                (unit / left).unlink(missing_ok=True)
            return {"result": record.result, "provenance": record.provenance, "notes": []}
        with at_work(spec) as heartbeat:
            outcome, notes, _ = train(spec, report, heartbeat, lambda: build(spec))
            write_curves(unit / "curves", outcome.result["history"])
            record = records.Record("fold", _result(spec, outcome), _provenance(spec, outcome))
            if spec["keep_weights"] and outcome.weights is not None:
                write_state(unit / "best.pt", outcome.weights)
            records.write_record(unit / "record.json", record)
            (unit / "checkpoint.pt").unlink(missing_ok=True)
        return {"result": record.result, "provenance": record.provenance, "notes": [n for n in (note, *notes) if n]}


@contextlib.contextmanager
def at_work(spec: dict[str, Any]) -> Iterator[Heartbeat]:
    """Keep a unit's log and its beat for the time of the block."""
    unit, minutes = Path(spec["directory"]), Study.of(spec["study"]).config.executor.timeout_minutes
    with unit_log.kept(unit, capture="BENCHMARK_WORKER" in os.environ):
        every = BEAT_SECONDS if minutes is None else min(BEAT_SECONDS, 60 * minutes / 4)
        heartbeat = Heartbeat(unit, every)
        try:
            yield heartbeat
        finally:
            heartbeat.stop()


def _weights_are_there(spec: dict[str, Any], record: records.Record, unit: Path) -> bool:
    """A unit whose weights are still needed is done only while they can be read."""
    if not spec["keep_weights"] or record.result["map_at_r"] is None:
        return True
    try:
        records.read_checked(unit / "best.pt")
    except (FileNotFoundError, records.CorruptFileError):
        return False
    return True


def train(
    spec: dict[str, Any],
    report: Report,
    heartbeat: Heartbeat,
    make: Callable[[], tuple[TrainingComponents, Schedule]],
) -> tuple[Outcome, list[str], TrainingComponents]:
    """Train from the checkpoint; from the start where that is damaged.

    Args:
        spec: of the unit.
        report: is told of each evaluation.
        heartbeat: beats at each batch.
        make: fresh parts and their schedule.

    Returns:
        What was found, sentences about damaged files, and the parts as the last epoch left them.
    """
    use_threads(Study.of(spec["study"]).config.threads)
    unit = Path(spec["directory"])
    written = time.monotonic()

    def on_epoch(history: list[dict[str, Any]]) -> None:
        nonlocal written
        if not history:
            return
        heartbeat.epoch = history[-1]["epoch"]
        unit_log.note(unit, epoch_line(history[-1]))
        if time.monotonic() - written >= CURVES_SECONDS:
            write_curves(unit / "curves", history)
            written = time.monotonic()
        report({"kind": spec["kind"], "index": spec["index"], "fold": spec.get("fold"), "row": history[-1]})

    def attempt() -> tuple[Outcome, TrainingComponents]:
        parts, schedule = make()
        parts.beat = heartbeat.tick
        if (unit / "checkpoint.pt").exists():
            unit_log.note(unit, "resume: the checkpoint is of")
        return train_fold(parts, schedule, unit / "checkpoint.pt", on_epoch), parts

    try:
        outcome, parts = attempt()
        return outcome, [], parts
    except records.CorruptFileError as error:
        kept = records.set_aside(unit / "checkpoint.pt")
        note = f"{error} It is kept as {kept.name}; this fold starts again."
        unit_log.note(unit, note)
        outcome, parts = attempt()
        return outcome, [note], parts


def epoch_line(row: dict[str, Any]) -> str:
    """A line of a unit's log about an epoch that was scored."""
    cells = [f"epoch {row['epoch']}", *([] if row["loss"] is None else [f"loss {row['loss']:.4g}"])]
    cells += [f"validation MAP@R {100 * row['map_at_r']:.2f}"] if "map_at_r" in row else []
    return "   ".join(cells)


def _result(spec: dict[str, Any], outcome: Outcome) -> dict[str, Any]:
    """What the fold found, with what a reader of HPL's records asks first."""
    best = next((r for r in outcome.result["history"] if r["epoch"] == outcome.result["best_epoch"]), None)
    diagnostics = outcome.result["history"][-1]["diagnostics"] if outcome.result["history"] else {}
    return outcome.result | {
        "fold": spec["fold"],
        "setting": spec["setting"],
        "best_epoch_in_warmup": best["diagnostics"].get("kmeans_done") == 0 if best else None,
        "coarse_updates": diagnostics.get("coarse_updates"),
    }


def _provenance(spec: dict[str, Any], outcome: Outcome) -> dict[str, Any]:
    return provenance(seconds=outcome.seconds, finished=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
                      fingerprint=spec["fingerprint"])  # fmt: skip


if __name__ == "__main__":
    from benchmark.jobs.executors.serve import serve

    serve(train_unit)
