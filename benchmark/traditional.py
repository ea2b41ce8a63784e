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

if __name__ == "__main__":  # before the slow imports, so that a mistake on the command line is reported at once
    if "--serve" not in sys.argv:
        from benchmark.__main__ import main

        raise SystemExit(main("traditional"))
    from benchmark.core.process import begin_worker

    begin_worker()

import functools
import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from benchmark.core import records
from benchmark.core.errors import UserError
from benchmark.core.provenance import commit, provenance
from benchmark.core.records import JsonObject
from benchmark.core.wording import plus_minus
from benchmark.jobs.executors import Report
from benchmark.jobs.placement import with_precision
from benchmark.jobs.session import Session
from benchmark.jobs.train_unit import Trained, finished_record, holding, remove_leftovers, running, train
from benchmark.jobs.unit import FinishedUnit, Unit
from benchmark.losses import HasRecordFields
from benchmark.report import traditional_rows as rows_of
from benchmark.study import contents, layout
from benchmark.study.identity import StudyIdentity
from benchmark.study.model_files import (
    HELD_OUT,
    WEIGHTS,
    WeightsFile,
    describe,
    frozen_weights,
    keeps,
    write_description,
    write_weights,
)
from benchmark.study.passes import Plan, build, make_plan, select, trained_parts
from benchmark.study.scoring import embed_test, for_figures, for_retrieval
from benchmark.study.stored import read_study
from benchmark.study.study import Study
from benchmark.study.testset import Expected, opened_test_set
from benchmark.study.unused import check_kept
from benchmark.training.components import Schedule, TrainingComponents
from benchmark.training.curves import write_curves

EMBEDDINGS_OF_EPOCH = "embeddings_epoch_{epoch}.npz"


def traditional(study: Study, overrides: list[str]) -> None:
    """Train and score the missing runs of a study, and print the mean over all runs.

    Args:
        study: the study to train.
        overrides: the overrides of the command line; a value among them must be trained with as it was given.

    Raises:
        UserError: the configuration or the data is invalid.
        IncompleteError: some runs are lost.
    """
    # 1. prepare the data, and build a run's components once to check them
    study = with_precision(study)
    with Session(study, "traditional", halves=("trainval", "test")) as session:
        plan = make_plan(study, session.fingerprint)
        check_kept(study, plan.study, overrides)
        check_keep_epochs(study.config.keep_epochs, plan.study.config.dataset.max_epochs)
        if session.device_kind:  # other machines may have other devices, and features of a frozen trunk
            trained_parts(plan, run=0)

        # 2. read the finished runs from disk
        num_runs = study.config.protocol.num_runs

        def finished(own: StudyIdentity) -> layout.Found:
            return layout.read_traditional(study.directory, own, study.config.preset, study.setting, num_runs)

        runs = session.open(num_runs, finished, plan.study.config.dataset.max_epochs)
        for run in runs:
            remove_leftovers(unit_of(session, run).directory)

        # 3. train and score the missing runs
        if len(runs) < num_runs:
            with session.jobs(run_unit, ["benchmark.traditional", "--serve"], num_runs - len(runs)) as jobs:
                for run in (r for r in range(num_runs) if r not in runs):
                    jobs.add(unit_of(session, run))
                for unit, answer in session.answers(jobs):
                    if isinstance(answer, FinishedUnit):
                        session.display.finished(unit.index, run_line(answer))

        # 4. print the mean over the runs
        for line in summary(study):
            session.display.say(line)
        session.check_complete()


def check_keep_epochs(epochs: Sequence[int], last: int) -> None:
    """Check that every epoch whose embeddings are to be kept is trained.

    Args:
        epochs: the epochs.
        last: the last epoch of the training.

    Raises:
        UserError: an epoch comes after the last one.
    """
    if late := sorted(epoch for epoch in epochs if epoch > last):
        raise UserError(
            f"keep_epochs={[*epochs]}: the training ends after {last} epochs, so there is no epoch {late[0]}. Leave it "
            "out, or train longer: training.epochs=N."
        )


@dataclass(frozen=True, kw_only=True)
class TraditionalUnit(Unit):
    """One training under the traditional protocol; its record is written next to its folder.

    Attributes:
        test_contents: SHA-256 of the driver's test images; None for a data set without image files.
    """

    task: ClassVar[str] = "traditional"
    test_contents: str | None

    @property
    def data(self) -> Expected:
        """The driver's data."""
        return Expected(self.fingerprint, self.test_contents)


def unit_of(session: Session, run: int) -> TraditionalUnit:
    """Return the unit that trains one run."""
    config = session.study.config
    path = layout.traditional_path(session.study.directory, config.preset, run)
    return TraditionalUnit(
        **session.unit_fields(), kind="run", index=run, fold=None, setting=session.study.setting,
        directory=path.with_suffix(""), keep_weights=keeps(config.keep, run), test_contents=session.test_contents,
    )  # fmt: skip


def run_unit(body: JsonObject, report: Report) -> JsonObject:
    """Train a run and score the test classes after every epoch, or return its record if it is finished already.

    Args:
        body: a `TraditionalUnit` as JSON.
        report: called after each epoch.

    Returns:
        A `FinishedUnit` as JSON.

    Raises:
        UserError: the data or the software on this machine differs from the driver's, its device cannot compute in the
            study's precision, or another process still holds the unit after `LOCK_SECONDS`.
    """
    unit = TraditionalUnit.from_json(body)
    folder, path = unit.directory, unit.directory.with_suffix(".json")
    with holding(unit):
        record, note = finished_record(unit, path, contents.Traditional)
        notes = [note] if note else []
        if record is None:
            with running(unit) as heartbeat:
                plan = make_plan(unit.study, unit.fingerprint)
                entry = {"commit": commit(), "identity": unit.identity("traditional").to_json()}
                trained = train(unit, report, heartbeat, functools.partial(components, plan, unit, entry))
                write_curves(folder / "curves", trained.outcome.result["history"])
                record = make_record(plan, unit, trained, keep_reported(plan, unit, trained))
                contents.write(path, record, contents.Traditional)
            notes += trained.notes
        remove_leftovers(folder)
        return FinishedUnit(record.result, record.provenance, record.identity, notes).to_json()


def components(plan: Plan, unit: TraditionalUnit, entry: JsonObject) -> tuple[TrainingComponents, Schedule]:
    """Fresh components and the schedule of a run, which keep what the study asks for.

    Args:
        plan: what all runs train on.
        unit: the run.
        entry: further fields of the entry in the test ledger.
    """
    test, parts, schedule = build(plan, unit.study, unit.index, entry, unit.data)
    parts.keep_monitored = unit.keep_weights

    def keep(epoch: int, embeddings: Tensor) -> None:
        if epoch in unit.study.config.keep_epochs:
            found = for_retrieval(plan.study, embeddings)[None]  # (1, N, D)
            content = for_figures(plan.study, found, test, [parts.loss.state_dict()])
            records.write_whole(unit.directory / EMBEDDINGS_OF_EPOCH.format(epoch=epoch), content)

    parts.on_monitored = keep
    return parts, schedule


def keep_reported(plan: Plan, unit: TraditionalUnit, trained: Trained) -> str | None:
    """Write the weights and test embeddings of the reported epochs, if the study keeps them.

    `weights.safetensors` and `embeddings.npz` are of the epoch that is best on the test classes,
    `weights_held_out.safetensors` of the one that is best on held-out classes; `model.yaml` describes the former.

    Args:
        plan: what all runs train on.
        unit: the run.
        trained: its training.

    Returns:
        The SHA-256 of `embeddings.npz`; None if none is kept.

    Raises:
        WriteError: a file cannot be written.
    """
    best, held_out = trained.outcome.monitored_weights, trained.outcome.weights
    if best is None:
        return None
    identity = unit.identity("traditional")
    path = unit.directory / WEIGHTS
    sha256 = write_weights(path, best, identity.to_json())
    if held_out is not None:
        write_weights(unit.directory / HELD_OUT, held_out, identity.to_json())
    left_out = np.searchsorted(np.asarray(plan.split.class_ids), np.unique(plan.split.labels[plan.held_out])).tolist()
    weights = [WeightsFile(file=WEIGHTS, sha256=sha256, not_trained_on=left_out)]
    described = describe(
        plan.study, run=unit.index, identity=unit.study_identity, fingerprint=unit.fingerprint, code=[unit.code],
        weights=weights, frozen=frozen_weights(plan.study, unit.directory),
    )  # fmt: skip
    write_description(unit.directory, described)
    test = opened_test_set(unit.study, unit.data)
    embeddings = embed_test(plan.study, path, identity.mismatch, test.images)[None]  # (1, N, D)
    content = for_figures(plan.study, embeddings, test, [best["loss"]])
    records.write_whole(unit.directory / "embeddings.npz", content)
    return hashlib.sha256(content).hexdigest()


# -- results ----------------------------------------------------------------------------------------------------------


def make_record(
    plan: Plan, unit: TraditionalUnit, trained: Trained, embeddings_sha256: str | None = None
) -> records.Record:
    """The record of a run: its history, and the reported epochs by selection rule.

    Args:
        plan: what all runs train on.
        unit: the run.
        trained: its training.
        embeddings_sha256: digest of the test embeddings that are kept; None if none are.
    """
    found, loss = trained.outcome.result, trained.parts.loss
    completed = found["reason"] is None
    held_out_epoch = found["best_epoch"] if len(plan.held_out) else None
    result = {
        "run": unit.index,
        "setting": plan.study.setting,
        "status": "completed" if completed else "diverged",
        "reason": found["reason"],
        "selected": select(found["history"], held_out_epoch, completed),
        "history": found["history"],
    }
    if isinstance(loss, HasRecordFields):
        best = result["selected"]["best_on_test"]
        result |= loss.record_fields(found["history"], best and best["epoch"])
    return records.Record("traditional", result, provenance(
        seconds=trained.outcome.seconds, finished=time.strftime("%Y-%m-%dT%H:%M:%S%z"), fingerprint=unit.fingerprint,
        test_contents=unit.test_contents, warnings=trained.warnings(), device=trained.device(), **trained.costs(),
        embeddings_sha256=embeddings_sha256,
    ), unit.identity("traditional").to_json())  # fmt: skip


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
    stored = read_study(study.directory)
    runs = f"n = {stored.num_runs} run" + "s" * (stored.num_runs > 1)
    yield f"\n{study.title}, test classes: mean over {runs}, %"
    for row in rows_of.rows(stored, study.directory):
        cells = []
        for column in rows_of.columns(stored):
            if interval := row.cells.get(column.key):
                cells.append(f"{column.title} {plus_minus(interval.mean, interval.half_width)}")
        yield f"  {row.kind}\n    {'   '.join(cells) or row.reason}"
    folder = layout.traditional_path(study.directory, study.config.preset, 0).parent
    yield f"{rows_of.REMARK}\n  records: {folder}\nNext: {study.command('tables')}"


if __name__ == "__main__":
    from benchmark.jobs.executors.serve import serve

    serve(run_unit)
