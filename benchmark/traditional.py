"""make traditional: train on all training classes as the papers do, and score the unseen ones at every epoch.

Source: the customary protocol of deep metric learning, as Yang et al. (WACV 2022, arXiv 2103.13538, section 4.2) and
Kim et al. (CVPR 2020, arXiv 2003.13911) ran it: no validation classes, Recall@K on the unseen half after each pass over
the data, and the best of these epochs is reported. How each paper trains is in `conf/recipe`.

That number is chosen by looking at the answer (Musgrave, Belongie, Lim, ECCV 2020, arXiv 2003.08505, section 2.3).
Departure: a record has beside it the last epoch's, which nothing chose, and with `protocol.held_out` above 0 that of
the epoch chosen on training classes that were kept out of training. Before a unit opens the unseen classes, the
study's `test_ledger.jsonl` gets a line which says that they are looked at after every epoch.
"""

import copy
import functools
import json
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmark.core import records
from benchmark.core.console import Display
from benchmark.core.provenance import check_software, commit, provenance
from benchmark.datasets import Split
from benchmark.jobs.placement import check_executor
from benchmark.jobs.queue import Jobs, incomplete
from benchmark.jobs.train_unit import LOCK_SECONDS, Report, at_work, train
from benchmark.protocol.seeds import stable_seed
from benchmark.report import traditional_rows as rows_of
from benchmark.study import layout
from benchmark.study.assemble import make_parts, make_schedule, same_dataset
from benchmark.study.cli import main
from benchmark.study.preflight import check_values
from benchmark.study.prepare import prepare
from benchmark.study.study import Study
from benchmark.study.unseen import open_test
from benchmark.training.components import EvaluationSet, Schedule, TrainingComponents
from benchmark.training.curves import write_curves
from benchmark.training.loop import write_state

SHUFFLED = {"_target_": "benchmark.samplers.random.Random"}


class Plan(NamedTuple):
    """What a run trains on: the study with its data's numbers filled in, and rows of the training half."""

    study: Study
    split: Split
    train: np.ndarray
    held_out: np.ndarray


def traditional(study: Study, overrides: list[str]) -> None:
    """Train and score the missing runs of a study, and say what they come to.

    Args:
        study: what to train.
        overrides: unused; the configuration is in the study.
    """
    check_values(study, "traditional")  # before names become folders
    check_executor(study.config)
    with records.only_one(study.directory / "lock", f"Study {study.title}"):
        # 1. prepare the data, and build once what every run is made of
        fingerprint = prepare(study, "trainval", "test")
        plan = make_plan(json.dumps(study.raw), fingerprint)
        trained_parts(plan, run=0)
        warnings = layout.open_study(study, fingerprint)

        # 2. the finished runs on disk are the truth
        num_runs, num_epochs = study.config.protocol.num_runs, plan.study.config.dataset.max_epochs
        done = {run for run in layout.traditional_runs(study, warnings.append) if run < num_runs}
        display = Display(study.config.display, study.title, "run", num_runs, len(done), num_epochs)
        for line in warnings:
            display.say(line)

        # 3. train and score the others
        lost: dict[str, list[dict[str, Any]]] = {}
        if len(done) < num_runs:
            with Jobs(study, run_unit, ["benchmark.traditional", "--serve"], display.report) as jobs, display:
                for run in (r for r in range(num_runs) if r not in done):
                    jobs.add(unit_of(study, fingerprint, run))
                for spec, answer in jobs.finished():
                    if "lost" in answer:
                        lost[f"run {spec['index'] + 1}"] = [answer["lost"]]
                        continue
                    for line in answer["notes"]:
                        display.say(line)
                    display.finished(spec["index"], run_line(answer["result"]))
        summary(study, display)
        if lost:
            raise incomplete(study, "traditional", lost)


def unit_of(study: Study, fingerprint: str, run: int) -> dict[str, Any]:
    """One training, as JSON."""
    return {
        "unit": "traditional", "study": study.raw, "fingerprint": fingerprint, "kind": "run", "index": run,
        "setting": study.config.loss.setting, "keep_weights": study.config.keep != "none",
        "directory": str(layout.traditional_path(study, run).with_suffix("")),
    }  # fmt: skip


def run_unit(spec: dict[str, Any], report: Report) -> dict[str, Any]:
    """Train a run, scored on the unseen classes at every epoch, or return its record if that is done already."""
    check_software(spec["software"])
    unit = Path(spec["directory"])
    path = unit.with_suffix(".json")
    with records.only_one(unit / "lock", f"Unit {unit}", wait_seconds=LOCK_SECONDS):
        record, note = records.read_or_set_aside(path)
        notes = [note] if note else []
        if record is None:
            plan = make_plan(json.dumps(spec["study"]), spec["fingerprint"])
            with at_work(spec) as heartbeat:
                outcome, more, parts = train(spec, report, heartbeat, functools.partial(build, plan, spec))
                write_curves(unit / "curves", outcome.result["history"])
                record = records.Record("traditional", result_of(plan, spec, outcome.result), provenance(
                    seconds=outcome.seconds, finished=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
                    fingerprint=spec["fingerprint"],
                    test_contents=getattr(plan.study.make_dataset(), "test_contents", None),
                ))  # fmt: skip
                if spec["keep_weights"]:  # of the held-out epoch, else of the last one
                    write_state(unit / "weights.pt", outcome.weights or parts.weights())
                records.write_record(path, record)
                (unit / "checkpoint.pt").unlink(missing_ok=True)
            notes += more
        return {"result": record.result, "provenance": record.provenance, "notes": notes}


# -- what a run is made of --------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=2)
def make_plan(study_json: str, fingerprint: str) -> Plan:
    """The training half, divided; kept between units, since a worker lives long.

    Raises:
        ValueError: the data on this machine is not the driver's, or too few classes are left on a side.
    """
    study = Study.of(json.loads(study_json))
    split = same_dataset(study, fingerprint).trainval()
    kept_out = np.isin(split.labels, held_out_classes(np.asarray(split.class_ids), study.config.protocol.held_out))
    train_rows = np.flatnonzero(~kept_out)
    return Plan(in_passes(study, len(train_rows)), split, train_rows, np.flatnonzero(kept_out))


def held_out_classes(class_ids: np.ndarray, share: float) -> np.ndarray:
    """The last classes, which choose an epoch and are not trained on; none for a share of 0.

    Raises:
        ValueError: fewer than two classes would be on a side.
    """
    count = round(share * len(class_ids))
    if share != 0 and not 2 <= count <= len(class_ids) - 2:
        raise ValueError(
            f"protocol.held_out={share:g}: {count} of {len(class_ids)} classes would choose the epoch, the rest train. "
            f"Give 0, or a share that leaves 2 on both sides: {2 / len(class_ids):.3g} to {1 - 2 / len(class_ids):.3g}."
        )
    return np.sort(class_ids)[len(class_ids) - count :]


def in_passes(study: Study, num_images: int) -> Study:
    """The study with the numbers that depend on how many images are trained on.

    Epochs are passes over the data, without the incomplete last batch; what HPL counts in epochs (those without a
    coarse level, those between two clusterings) follows them; each epoch is scored, and all are trained. Losses over
    proxies, whose batches the other protocols balance, get shuffled ones.

    Raises:
        ValueError: a batch has more images than there are.
    """
    raw, c = copy.deepcopy(study.raw), study.config
    batch_size, num_epochs = c.training.batch_size or c.protocol.batch_size, c.training.epochs or c.dataset.max_epochs
    if batch_size > num_images:
        raise ValueError(
            f"A batch of {batch_size} images is more than the {num_images} that {study.title} trains on: give "
            f"training.batch_size={max(2, num_images // 4)}, or a number up to that."
        )
    raw["protocol"]["batch_size"] = batch_size
    raw["dataset"] |= {"max_epochs": num_epochs, "patience": num_epochs, "evaluate_every": 1}
    if c.loss.sampler == {"m": 1}:
        raw["loss"]["sampler"] = SHUFFLED
    if c.training.epochs:
        in_pass, hpl = num_images // batch_size, c.dataset.hpl | c.dataset.hpl.get("customary", {})
        raw["protocol"]["iterations_per_epoch"] = in_pass
        for key in ("warmup_iterations", "update_every"):
            hpl[key] = max(1, round(hpl[key] * in_pass / c.protocol.iterations_per_epoch))
        raw["dataset"]["hpl"] = hpl
    return Study.of(raw)


def trained_parts(plan: Plan, run: int) -> TrainingComponents:
    """What trains, on all classes that are not held out, with nothing yet to be scored on."""
    images = plan.study.make_images(plan.split.images)
    return make_parts(plan.study, plan.split, images.part(plan.train), plan.split.labels[plan.train], key(plan, run))


def key(plan: Plan, run: int) -> tuple[Any, ...]:
    """Of every seed of a run but that of the loss's own state; losses are compared on paired runs."""
    return plan.study.config.seed, plan.study.config.dataset.name, "traditional", run


def build(plan: Plan, spec: dict[str, Any]) -> tuple[TrainingComponents, Schedule]:
    """The parts of a run, fresh, with the unseen classes to watch, and its schedule."""
    study = plan.study
    parts, device = trained_parts(plan, spec["index"]), study.make_device()
    if len(plan.held_out):
        images = study.make_images(plan.split.images).part(plan.held_out)
        parts.validation = EvaluationSet(images, torch.from_numpy(plan.split.labels[plan.held_out]).to(device))
    asked = Study.of(spec["study"])
    look = {
        "run": spec["index"], "story": "traditional", "looks": "after every epoch, the best of which is reported",
        "commit": commit(), "identity": asked.identity(spec["fingerprint"]),
    }  # fmt: skip
    unseen = open_test(json.dumps(spec["study"]), asked.directory, look)
    parts.monitored = EvaluationSet(
        unseen.images, unseen.labels, unseen.is_query, tuple(study.config.dataset.recall_at)
    )
    return parts, make_schedule(study, stable_seed(*key(plan, spec["index"]), "train"))


# -- what it comes to -------------------------------------------------------------------------------------------------


def result_of(plan: Plan, spec: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """A run's result: its history, and the epochs that are reported by the way in which they were chosen."""
    completed = found["reason"] is None
    return {
        "run": spec["index"],
        "setting": plan.study.config.loss.setting,
        "status": "completed" if completed else "diverged",
        "reason": found["reason"],
        "selected": select(found["history"], found["best_epoch"] if len(plan.held_out) else None, completed),
        "history": found["history"],
    }


def select(history: list[dict[str, Any]], held_out_epoch: int | None, completed: bool) -> dict[str, Any]:
    """Metrics on the unseen classes at each epoch that is reported, by `traditional_tables.KINDS`; None where none is.

    Args:
        history: a row for each epoch, the untrained one first.
        held_out_epoch: that the held-out classes chose.
        completed: whether the training reached its last epoch.
    """
    trained = [row for row in history if row["epoch"] > 0]
    best = max(trained, key=lambda row: row["watched"]["precision_at_1"], default=None)  # the earliest of equals
    chosen = {
        "best_on_test": best,
        "last_epoch": trained[-1] if completed else None,
        "held_out": next((row for row in trained if row["epoch"] == held_out_epoch), None),
    }
    return {kind: row and {"epoch": row["epoch"]} | row["watched"] for kind, row in chosen.items()}


def run_line(result: dict[str, Any]) -> str:
    """One line about a finished run."""
    said = [
        f"{name}: epoch {chosen['epoch']}, R@1 {100 * chosen['precision_at_1']:.2f}"
        for kind, name in rows_of.KINDS.items()
        if (chosen := result["selected"][kind]) is not None
    ]
    return "   ".join(said + [f"diverged: {result['reason']}"] * (result["reason"] is not None))


def summary(study: Study, display: Display) -> None:
    """Mean and interval of each number over the runs, for each way to choose the epoch."""
    protocol, columns = study.config.protocol, rows_of.columns(study)
    runs = f"n = {protocol.num_runs} run" + "s" * (protocol.num_runs > 1)
    display.say(f"\n{study.title}, unseen classes: mean over {runs}, %")
    for row in rows_of.rows(study):
        cells = []
        for column in columns:
            if interval := row.cells.get(column.key):
                half = "" if interval.half_width is None else f" +- {interval.half_width:.2f}"
                cells.append(f"{column.title} {interval.mean:.2f}{half}")
        display.say(f"  {row.kind}\n    {'   '.join(cells) or row.reason}")
    display.say(f"{rows_of.REMARK}\n  records: {layout.traditional_path(study, 0).parent}\nNext: make tables")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        from benchmark.jobs.executors.serve import serve

        serve(run_unit)
    else:
        main(traditional, protocol="traditional")
