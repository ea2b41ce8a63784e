"""make traditional: train on all training classes as the papers do, and score the test classes after every epoch.

Source: the traditional protocol of deep metric learning, as Yang et al. (WACV 2022, arXiv 2103.13538, section 4.2) and
Kim et al. (CVPR 2020, arXiv 2003.13911) ran it: there are no validation classes, Recall@K on the test classes is
computed after each pass over the data, and the best epoch is reported. `conf/recipe` describes each paper's training.

That epoch is chosen on the test classes themselves (Musgrave, Belongie, Lim, ECCV 2020, arXiv 2003.08505, section 2.3).
Departure: a record also holds the last epoch, which involves no choice, and, with `protocol.held_out` above 0, the
    epoch chosen on held-out training classes. Before a unit opens the test classes, it logs in the study's
    `test_ledger.jsonl` that they are scored after every epoch.
"""

import sys

# Before the slow imports, so that a mistake on the command line is reported at once.
if __name__ == "__main__" and "--serve" not in sys.argv:
    from benchmark.__main__ import main

    raise SystemExit(main("traditional"))

import copy
import functools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from benchmark.core import records
from benchmark.core.errors import UserError
from benchmark.core.invocation import command
from benchmark.core.provenance import commit, provenance
from benchmark.core.records import JsonObject
from benchmark.datasets import Dataset, Split
from benchmark.jobs.executors import Report
from benchmark.jobs.session import Say, Session
from benchmark.jobs.train_unit import Trained, holding, remove_leftovers, running, train
from benchmark.jobs.unit import FinishedUnit, Unit
from benchmark.protocol.seeds import stable_seed
from benchmark.report import traditional_rows as rows_of
from benchmark.study import layout, schedules
from benchmark.study.assemble import SeedPrefix, make_parts, make_schedule, same_dataset
from benchmark.study.study import Study
from benchmark.study.testset import open_test_set
from benchmark.training.components import EvaluationSet, Schedule, TrainingComponents
from benchmark.training.curves import write_curves
from benchmark.training.loop import write_state

SHUFFLED = {"_target_": "benchmark.samplers.random.Random"}


def traditional(study: Study, overrides: list[str]) -> None:
    """Train and score the missing runs of a study, and print the mean over all runs.

    Args:
        study: the study to train.
        overrides: unused; the study holds the configuration.

    Raises:
        UserError: the configuration or the data is invalid.
        IncompleteError: some runs are lost.
    """
    # 1. prepare the data, and build a run's components once to check them
    with Session(study, "traditional", halves=("trainval", "test")) as session:
        plan = make_plan(study, session.fingerprint)
        trained_parts(plan, run=0)

        # 2. read the finished runs from disk
        num_runs = study.config.protocol.num_runs

        def finished(say: Say) -> dict[int, records.Record]:
            return {run: record for run, record in layout.traditional_runs(study, say).items() if run < num_runs}

        runs = session.open(num_runs, finished, plan.study.config.dataset.max_epochs)
        for run in runs:
            remove_leftovers(unit_of(study, session.fingerprint, run).directory)

        # 3. train and score the missing runs
        if len(runs) < num_runs:
            with session.jobs(run_unit, ["benchmark.traditional", "--serve"]) as jobs:
                for run in (r for r in range(num_runs) if r not in runs):
                    jobs.add(unit_of(study, session.fingerprint, run))
                for unit, answer in session.answers(jobs):
                    if isinstance(answer, FinishedUnit):
                        session.display.finished(unit.index, run_line(answer))

        # 4. print the mean over the runs
        for line in summary(study):
            session.display.say(line)
        session.check_complete()


@dataclass(frozen=True, kw_only=True)
class TraditionalUnit(Unit):
    """One training under the traditional protocol; its record is written next to its folder."""

    task: ClassVar[str] = "traditional"


def unit_of(study: Study, fingerprint: str, run: int) -> TraditionalUnit:
    """Return the unit that trains one run."""
    return TraditionalUnit(
        study=study, fingerprint=fingerprint, kind="run", index=run, fold=None, setting=study.config.loss.setting,
        directory=layout.traditional_path(study, run).with_suffix(""), keep_weights=study.config.keep != "none",
    )  # fmt: skip


def run_unit(body: JsonObject, report: Report) -> JsonObject:
    """Train a run and score the test classes after every epoch, or return its record if it is finished already.

    Args:
        body: a `TraditionalUnit` as JSON.
        report: called after each epoch.

    Returns:
        A `FinishedUnit` as JSON.

    Raises:
        UserError: the data or the software on this machine differs from the driver's, or another process still holds
            the unit after `LOCK_SECONDS`.
    """
    unit = TraditionalUnit.from_json(body)
    folder, path = unit.directory, unit.directory.with_suffix(".json")
    with holding(unit):
        record, note = records.read_or_quarantine(path)
        notes = [note] if note else []
        if record is None:
            plan = make_plan(unit.study, unit.fingerprint)
            with running(unit) as heartbeat:
                trained = train(unit, report, heartbeat, functools.partial(build, plan, unit))
                write_curves(folder / "curves", trained.outcome.result["history"])
                record = make_record(plan, unit, trained)
                if unit.keep_weights:  # those of the held-out epoch, else of the last one
                    write_state(folder / "weights.pt", trained.outcome.weights or trained.parts.weights())
                records.write_record(path, record)
            notes += trained.notes
        remove_leftovers(folder)
        return FinishedUnit(record.result, record.provenance, notes).to_json()


# -- the components of a run ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """What every run of a study trains on.

    Attributes:
        study: the study, including the numbers that depend on the number of training images.
        split: the training half of the data, N images.
        train: rows of the images to train on, ascending.
        held_out: rows of the held-out images, on which the epoch is chosen, ascending.
    """

    study: Study
    split: Split
    train: np.ndarray
    held_out: np.ndarray


@functools.lru_cache(maxsize=2)
def make_plan(study: Study, fingerprint: str) -> Plan:
    """Divide the training half into training and held-out images; cached for the units of a long-lived worker.

    Args:
        study: the study as configured.
        fingerprint: identifies the driver's data.

    Raises:
        OtherDataError: this machine's data differ from the driver's.
        UserError: `protocol.held_out` or the batch size does not fit the data.
    """
    split = same_dataset(study, fingerprint).trainval()
    kept_out = np.isin(split.labels, held_out_classes(np.asarray(split.class_ids), study.config.protocol.held_out))
    train_rows = np.flatnonzero(~kept_out)
    return Plan(in_passes(study, len(train_rows)), split, train_rows, np.flatnonzero(kept_out))


def held_out_classes(class_ids: np.ndarray, share: float) -> np.ndarray:
    """The last classes (H,) in ascending order, held out to choose the epoch; none for a share of 0.

    Args:
        class_ids: (C,) int64, ids of the training classes.
        share: fraction of the classes, in [0, 1).

    Raises:
        UserError: fewer than two classes would be held out, or remain for training.
    """
    count = round(share * len(class_ids))
    if share != 0 and not 2 <= count <= len(class_ids) - 2:
        raise UserError(
            f"protocol.held_out={share:g}: {count} of {len(class_ids)} classes would be held out to choose the epoch. "
            "Give 0, or a share that leaves 2 or more on each side: "
            f"{2 / len(class_ids):.3g} to {1 - 2 / len(class_ids):.3g}."
        )
    return np.sort(class_ids)[len(class_ids) - count :]


def in_passes(study: Study, num_images: int) -> Study:
    """The study with the numbers that depend on the number of training images.

    An epoch is a pass over the data without the incomplete last batch. The loss's schedule is converted to these
    epochs, every epoch is scored, and there is no early stopping. Proxy losses, which get class-balanced batches under
    the other protocols, get shuffled batches.

    Raises:
        UserError: the batch size exceeds the number of training images.
    """
    raw, c = copy.deepcopy(study.raw), study.config
    batch_size, num_epochs = c.training.batch_size or c.protocol.batch_size, c.training.epochs or c.dataset.max_epochs
    if batch_size > num_images:
        raise UserError(
            f"A batch of {batch_size} images exceeds the {num_images} training images of {study.title}. Set "
            f"training.batch_size={max(2, num_images // 4)} or less."
        )
    raw["protocol"]["batch_size"] = batch_size
    raw["dataset"] |= {"max_epochs": num_epochs, "patience": num_epochs, "evaluate_every": 1}
    if c.loss.sampler == {"m": 1}:
        raw["loss"]["sampler"] = SHUFFLED
    if c.training.epochs:
        batches = num_images // batch_size
        raw["protocol"]["iterations_per_epoch"] = batches
        raw["loss"]["schedule"] = schedules.in_passes(c.loss.schedule, batches, c.protocol.iterations_per_epoch)
    return Study.of(raw)


def trained_parts(plan: Plan, run: int) -> TrainingComponents:
    """The components of a run on all classes that are not held out, without evaluation sets."""
    images = plan.study.make_images(plan.split.images).part(plan.train)
    return make_parts(plan.study, plan.split, images, plan.split.labels[plan.train], seed_prefix(plan, run))


def seed_prefix(plan: Plan, run: int) -> SeedPrefix:
    """The common prefix of a run's seeds; it does not include the loss, so that losses are compared on paired runs."""
    return plan.study.config.seed, plan.study.config.dataset.name, "traditional", run


def build(plan: Plan, unit: TraditionalUnit) -> tuple[TrainingComponents, Schedule]:
    """Fresh components of a run, with the test classes to monitor, and its schedule; the access is logged first."""
    study = plan.study
    parts, device = trained_parts(plan, unit.index), study.make_device()
    if len(plan.held_out):
        images = study.make_images(plan.split.images).part(plan.held_out)
        parts.validation = EvaluationSet(images, torch.from_numpy(plan.split.labels[plan.held_out]).to(device))
    test = open_test_set(unit.study, {
        "run": unit.index, "story": "traditional", "looks": "after every epoch, the best of which is reported",
        "commit": commit(), "identity": unit.study.identity(unit.fingerprint),
    })  # fmt: skip
    parts.monitored = EvaluationSet(test.images, test.labels, test.is_query, tuple(study.config.dataset.recall_at))
    return parts, make_schedule(study, stable_seed(*seed_prefix(plan, unit.index), "train"))


# -- results ----------------------------------------------------------------------------------------------------------


def make_record(plan: Plan, unit: TraditionalUnit, trained: Trained) -> records.Record:
    """The record of a run: its history, and the reported epochs by selection rule."""
    found = trained.outcome.result
    completed = found["reason"] is None
    held_out_epoch = found["best_epoch"] if len(plan.held_out) else None
    result = {
        "run": unit.index,
        "setting": plan.study.config.loss.setting,
        "status": "completed" if completed else "diverged",
        "reason": found["reason"],
        "selected": select(found["history"], held_out_epoch, completed),
        "history": found["history"],
    }
    dataset: Dataset = plan.study.make_dataset()
    return records.Record("traditional", result, provenance(
        seconds=trained.outcome.seconds, finished=time.strftime("%Y-%m-%dT%H:%M:%S%z"), fingerprint=unit.fingerprint,
        test_contents=dataset.test_contents, warnings=trained.warnings(),
    ))  # fmt: skip


def select(history: Sequence[JsonObject], held_out_epoch: int | None, completed: bool) -> dict[str, JsonObject | None]:
    """Test metrics at each reported epoch, by the keys of `traditional_rows.KINDS`; None without such an epoch.

    Args:
        history: one row per epoch, the untrained one first.
        held_out_epoch: the epoch chosen on the held-out classes; None if there are none.
        completed: whether the training reached its last epoch.
    """
    trained = [row for row in history if row["epoch"] > 0]
    best = max(trained, key=lambda row: float(row["watched"]["precision_at_1"]), default=None)  # ties: the earliest
    chosen = {
        "best_on_test": best,
        "last_epoch": trained[-1] if completed else None,
        "held_out": next((row for row in trained if row["epoch"] == held_out_epoch), None),
    }
    return {kind: row and {"epoch": row["epoch"]} | row["watched"] for kind, row in chosen.items()}


def run_line(answer: FinishedUnit) -> str:
    """Describe a finished run in one line."""
    result = answer.result
    cells = [
        f"{name}: epoch {chosen['epoch']}, R@1 {100 * chosen['precision_at_1']:.2f}"
        for kind, name in rows_of.KINDS.items()
        if (chosen := result["selected"][kind]) is not None
    ]
    cells += [f"diverged: {result['reason']}"] * (result["reason"] is not None)
    cells += [f"WARNING: {text}" for text in answer.provenance.get("warnings", [])]
    return "   ".join(cells)


def summary(study: Study) -> Iterator[str]:
    """Yield the summary of all runs: mean and interval of each metric, for each way to choose the epoch."""
    protocol, columns = study.config.protocol, rows_of.columns(study)
    runs = f"n = {protocol.num_runs} run" + "s" * (protocol.num_runs > 1)
    yield f"\n{study.title}, test classes: mean over {runs}, %"
    for row in rows_of.rows(study):
        cells = []
        for column in columns:
            if interval := row.cells.get(column.key):
                half = "" if interval.half_width is None else f" +- {interval.half_width:.2f}"
                cells.append(f"{column.title} {interval.mean:.2f}{half}")
        yield f"  {row.kind}\n    {'   '.join(cells) or row.reason}"
    yield f"{rows_of.REMARK}\n  records: {layout.traditional_path(study, 0).parent}\nNext: {command('tables')}"


if __name__ == "__main__":
    from benchmark.jobs.executors.serve import serve

    serve(run_unit)
