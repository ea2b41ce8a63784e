"""make final-eval: retrain the chosen setting (or a preset) in 10 runs x 4 folds and score the test classes.

Each of a run's four models is trained as in the search, including early stopping on its own validation classes; no
model is trained on all training classes. *Separated*: each model's embedding is scored alone and the four scores are
averaged. *Concatenated*: the four embeddings, each L2-normalised, are concatenated and scored once.

Apart from `traditional`, this is the only command that can read test classes, and every access is logged in the study's
`test_ledger.jsonl` before it happens.

Source: Musgrave, Belongie, Lim, "A Metric Learning Reality Check", ECCV 2020 (arXiv 2003.08505), section 3.
Departure: 10 fresh runs; the best trial of the search, which was selected for its score, is not one of them.
"""

import sys

if __name__ == "__main__":  # before the slow imports, so that a mistake on the command line is reported at once
    if "--serve" not in sys.argv:
        from benchmark.__main__ import main

        raise SystemExit(main("final-eval"))
    from benchmark.core.process import begin_worker

    begin_worker()

import contextlib
import dataclasses
import functools
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from benchmark.core import records
from benchmark.core.console import write
from benchmark.core.errors import UserError
from benchmark.core.invocation import command
from benchmark.core.provenance import commit, costs_of, device_facts, devices_of, provenance
from benchmark.core.records import JsonObject
from benchmark.core.threads import use_threads
from benchmark.core.wording import counted, human_size, plus_minus, ranges
from benchmark.datasets.listing import MissingDataError
from benchmark.jobs.executors import Report
from benchmark.jobs.placement import with_precision
from benchmark.jobs.queue import Jobs
from benchmark.jobs.session import Session, code_of_all, describe_warnings, run_each
from benchmark.jobs.train_unit import finished_record, holding, mismatch_of, remove_leftovers, running, train_unit
from benchmark.jobs.unit import FinishedUnit, Unit
from benchmark.protocol.nested import over_searches
from benchmark.protocol.statistics import t_interval
from benchmark.report.fold_rows import METRICS, MODES
from benchmark.report.forecast import forecast
from benchmark.report.runs import StudyRuns, read_runs
from benchmark.study import contents, kept_models, layout, model_files
from benchmark.study.base import PRESET, at_base
from benchmark.study.command import tables_command
from benchmark.study.layout import Chosen
from benchmark.study.preflight import check_parts
from benchmark.study.prepare import check_trainable
from benchmark.study.scoring import score_models
from benchmark.study.selected import OF_FINAL_RUNS, from_folder, names_a_study
from benchmark.study.stored import NoStudyError, StoredStudy, all_studies, read_study
from benchmark.study.study import Study
from benchmark.study.testset import Expected, open_test_set
from benchmark.training.precision import effective_precision, use_precision

Runs = dict[int, records.Record]  # records of scored runs, by number


def final_eval(study: Study, overrides: list[str]) -> None:
    """Evaluate the named study with the repetitions of its search, or every study whose search is finished.

    Args:
        study: the study to evaluate; if none is named, it only supplies the results folder and the executor.
        overrides: the overrides on the command line.

    Raises:
        UserError: there is nothing to evaluate, or the configuration or the data is invalid.
        IncompleteError: some runs are missing.
    """
    # A stored repetition is a study of its own, so that without a named study each is evaluated once.
    if names_a_study(overrides, besides=OF_FINAL_RUNS):
        searches = with_precision(study).repetitions()
        run_each(searches, functools.partial(evaluate, suggests=len(searches) == 1))
        if len(searches) > 1 and study.config.display != "quiet":
            for line in summary_over_searches(study, [read_runs(one.directory) for one in searches]):
                write(line)
        return
    chosen = list(finished_searches(study, overrides))
    if not chosen:
        raise UserError(
            f"No finished search below {study.config.results_dir} can be evaluated. Run {command('bo')} first."
        )
    run_each(chosen, functools.partial(evaluate, suggests=False))
    if study.config.display != "quiet":
        write(f"Next: {tables_command(Path(study.config.results_dir))}")


def finished_searches(study: Study, overrides: list[str]) -> Iterator[Study]:
    """Yield each study in the results folder that has a setting to retrain, and print which ones are skipped.

    Args:
        study: the command line's study, which supplies the results folder and the options of stored studies.
        overrides: the overrides on the command line.
    """
    for directory in all_studies(Path(study.config.results_dir)):
        try:
            other = from_folder(directory, study, overrides)
            if other.config.protocol.story == "search":
                chosen_setting(other)
                yield other
        except UserError as error:
            write(f"Skipped: {directory}: {error}")


def chosen_setting(study: Study) -> Chosen:
    """The setting of a study's final runs: that of its preset, or the choice of its finished search.

    Raises:
        UserError: the search is unfinished or has another number of trials, or its choice contradicts its records.
    """
    if preset := study.config.preset:
        return Chosen(preset, None, study.config.loss.setting)
    stored, trials = stored_search(study), study.num_trials
    if trials != stored.trials:
        raise UserError(
            f"trials={trials}: the search of {study.title} was run with trials={stored.trials}. Omit this option, or "
            f"change the search first: {study.command('bo')}"
        )
    try:
        search, rule = study.command("bo"), stored.facts.select
        return Chosen.of(layout.read_choice(study.directory, stored.expected, rule, trials, search))
    except layout.NoChoiceError as error:
        raise UserError(f"{study.title}: {error}") from error


def stored_search(study: Study) -> StoredStudy:
    """The content of `study.yaml` of a study whose search was started.

    Raises:
        UserError: the search was not started, or `study.yaml` cannot be read.
    """
    search = study.command("bo")
    try:
        return read_study(study.directory)
    except NoStudyError:
        with contextlib.suppress(MissingDataError):
            check_trainable(study.make_dataset())  # otherwise, the search would say so
        raise UserError(f"There is no search of {study.title} in {study.directory}. Run {search} first.") from None
    except records.CorruptFileError as error:
        raise UserError(f"{error} Run {search}: it writes a new one and repeats nothing that belongs to it.") from error


def evaluate(study: Study, suggests: bool = True) -> None:
    """Train and score the missing runs of a study's chosen setting, and print the mean over all runs.

    Args:
        study: the study to evaluate.
        suggests: whether to print the next command at the end.

    Raises:
        UserError: there is no chosen setting, or the configuration or the data is invalid.
        IncompleteError: some runs are lost.
    """
    base = at_base(study) if study.config.preset == PRESET else None
    if base:
        study = base.study
    session = Session(study, "final-eval", halves=("trainval", "test"))
    if not study.config.preset:
        stored_search(study)  # fails before a folder is created for a study that does not exist
    with session:
        if base:
            base.check_data(session.fingerprint)
        if study.config.preset:
            check_parts(study)  # which a search has done
        # 1. read the chosen setting and the runs that are scored already
        chosen, num_runs = chosen_setting(study), study.config.protocol.num_runs
        searched = layout.chosen_record(study.directory, chosen)
        runs = session.open(
            num_runs, lambda own: layout.read_runs(study.directory, own, chosen, num_runs), earlier=searched
        )
        if base:
            session.display.say(f"the setting is that of trial_{base.trial:03d} of {base.folder}")
        for run in runs:
            settle_weights(session, chosen, run, runs[run])
            remove_leftovers(layout.run_dir(study.directory, chosen.name, run))
        again = without_weights(session, chosen, runs)
        missing = [run for run in range(num_runs) if run not in runs]
        for line in about_keeping(study, missing, again):
            session.display.say(line)

        # 2. train the folds of the other runs, and score each run once its folds are trained
        if missing or again:
            units = [unit for run in (*missing, *again) for unit in fold_units(session, chosen, run)]
            most_units = max(sum(not unit.has_record() for unit in units), len(missing), len(again))
            with session.jobs(run_unit, ["benchmark.final_eval", "--serve"], most_units) as jobs:
                left = sum(not unit.has_record() for unit in units)
                session.display.say(forecast(study, session.fingerprint, left, jobs.num_workers, session.device_kind))
                for unit in units:
                    jobs.add(unit)
                runs |= score_runs(session, jobs, chosen, {run: runs[run] for run in again})

        # 3. print the mean over the runs
        session.check_records(layout.run_path(study.directory, chosen.name, run) for run in sorted(runs))
        for line in summary(study, [runs[run] for run in sorted(runs)]):
            session.display.say(line)
        if suggests:
            session.display.say(f"Next: {study.command('tables')}")
        session.check_complete()


@dataclass(frozen=True, kw_only=True)
class ScoreUnit(Unit):
    """The evaluation of one run on the test classes, once all its folds are trained.

    Attributes:
        trial: index of the trial that the setting comes from; None for a preset.
        folds: result of each fold, in order.
        seconds: for each fold, the seconds of `train` and of `evaluate`.
        warnings: the loss's warnings in each fold.
        fold_code: digests of the code that trained the folds.
        devices: the device that trained each fold, see `devices_of`.
        costs: what the folds cost, see `costs_of`.
        test_contents: SHA-256 of the driver's test images; None for a data set without image files.
    """

    task: ClassVar[str] = "score"
    trial: int | None
    folds: Sequence[JsonObject]
    seconds: Sequence[Mapping[str, float]]
    warnings: Sequence[Sequence[str]]
    fold_code: Sequence[str]
    devices: Sequence[JsonObject | None]
    costs: JsonObject
    test_contents: str | None

    def folds_units(self) -> list[Unit]:
        """The units that trained the run's folds."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(Unit)}
        return [
            Unit(**fields | {"fold": fold, "directory": self.directory / f"fold_{fold}"})
            for fold in range(len(self.folds))
        ]


def fold_units(session: Session, chosen: Chosen, run: int) -> list[Unit]:
    """The units that train one run, one per fold."""
    directory = layout.run_dir(session.study.directory, chosen.name, run)
    return [
        Unit(
            **session.unit_fields(), kind="run", index=run, fold=fold, setting=chosen.setting,
            directory=directory / f"fold_{fold}", keep_weights=True,
        )
        for fold in range(session.study.config.protocol.num_folds)
    ]  # fmt: skip


def without_weights(session: Session, chosen: Chosen, runs: Runs) -> list[int]:
    """The finished runs that `keep=best` asks to train once more, because their weights were not kept."""
    if session.study.config.keep != "best":
        return []
    folder, scored = session.study.directory, [run for run in runs if runs[run].result["status"] == "completed"]
    return [run for run in scored if not kept_models.has_weights(layout.run_dir(folder, chosen.name, run), runs[run])]


def about_keeping(study: Study, missing: Sequence[int], again: Sequence[int]) -> Iterator[str]:
    """Yield what is kept of the runs about to be trained, and the disk space that it takes.

    Args:
        study: the study.
        missing: numbers of the runs that have no record yet.
        again: numbers of the finished runs that are trained once more.
    """
    kept = [*again, *(run for run in missing if model_files.keeps(study.config.keep, run))]
    if not kept:
        return
    size = max(1e5, model_files.expected_bytes(study))
    free = shutil.disk_usage(study.directory).free
    which = "the first run" if study.config.keep == "first" else counted(len(kept), "run")
    rest = f"; keep=best: of all, {human_size(size * len(missing))}" if study.config.keep == "first" else ""
    yield (
        f"The weights of {which} are kept: about {human_size(size * len(kept))}, of {human_size(free)} free "
        f"(keep=none: no weights{rest})"
    )
    if again:
        yield (
            f"{counted(len(again), 'finished run has', 'finished runs have')} no weights and "
            f"{'is' if len(again) == 1 else 'are'} trained once more for them (run {ranges(again)}); "
            "the records stay as they are"
        )


def settle_weights(session: Session, chosen: Chosen, run: int, record: records.Record) -> None:
    """Keep or delete the weights of a finished run that its trainings left, if a kill came before that was done."""
    folder, units = layout.run_dir(session.study.directory, chosen.name, run), fold_units(session, chosen, run)
    wanted = record.result["status"] == "completed" and model_files.keeps(session.study.config.keep, run)
    if not wanted or kept_models.has_weights(folder, record):
        drop_weights(folder)
    elif all((unit.directory / "best.pt").exists() for unit in units):
        try:
            folds = [contents.read(unit.directory / "record.json", contents.Fold).result for unit in units]
            keep_again(session, chosen, run, record, folds)
        except (FileNotFoundError, records.CorruptFileError) as error:
            session.display.say(f"run {run}: its weights cannot be kept: {error}")


def keep_again(
    session: Session, chosen: Chosen, run: int, record: records.Record, results: Sequence[JsonObject]
) -> None:
    """Keep the weights that trainings of a finished run left, and say whether they give the scores of its record.

    Args:
        session: the session.
        chosen: the setting.
        run: number of the run.
        record: its record.
        results: for each fold, the result of the training that left the weights.
    """
    facts = ("map_at_r", "best_epoch")
    found = [[result[key] for key in facts] for result in results]
    reproduces = found == [[fold[key] for key in facts] for fold in record.result["folds"]]
    if lost := [fold for fold, result in enumerate(results) if result["map_at_r"] is None]:
        session.display.say(f"run {run}: fold {ranges(lost)} has diverged this time, so no weights are kept")
        return
    keep_models(fold_units(session, chosen, run), reproduces=reproduces)
    note = (
        "with the validation scores of its record"
        if reproduces
        else (
            "but their validation scores differ from the record's, as between kinds of device or on a GPU; "
            "model.yaml says so (reproduces: false)"
        )
    )
    session.display.say(f"run {run}: weights kept, {note}")


def keep_models(units: Sequence[Unit], *, reproduces: bool = True) -> None:
    """Keep the weights of a run's folds, see `model_files.keep`.

    Args:
        units: the unit of each fold, or those that scored the run.
        reproduces: whether the scores in the run's record are those of these weights.
    """
    unit, folder = units[0], units[0].directory.parent
    split = (dataset := unit.study.make_dataset()).trainval()
    ids = np.asarray(split.class_ids)
    folds = unit.study.make_folds(ids, dataset.total_classes)
    model_files.keep(
        unit.study.with_setting(unit.setting), folder,
        {f"fold_{one.fold}/{model_files.WEIGHTS}": (one.directory / "best.pt", mismatch_of(one)) for one in units},
        [np.searchsorted(ids, np.sort(fold.validation_classes)).tolist() for fold in folds],
        run=unit.index, identity=unit.study_identity, fingerprint=unit.fingerprint, code=[unit.code],
        reproduces=reproduces,
    )  # fmt: skip


def score_runs(session: Session, jobs: Jobs, chosen: Chosen, again: Runs) -> Runs:
    """Queue each run for scoring once its folds are trained, and return the records of the scored runs.

    Args:
        session: the session.
        jobs: where the folds are queued.
        chosen: the setting.
        again: records of the runs that are only trained once more for their weights, by number.
    """
    study = session.study
    trained: dict[int, dict[int | None, FinishedUnit]] = {}
    runs: Runs = {}
    for unit, answer in session.answers(jobs):
        run = unit.index
        if not isinstance(answer, FinishedUnit):
            continue
        if isinstance(unit, ScoreUnit):
            runs[run] = records.read_record(layout.run_path(study.directory, chosen.name, run))
            session.display.finished(run, run_line(runs[run]))
            continue
        folds = trained.setdefault(run, {})
        folds[unit.fold] = answer
        if len(folds) == study.config.protocol.num_folds:
            answers = [folds[fold] for fold in range(len(folds))]
            if run in again:
                keep_again(session, chosen, run, again[run], [a.result for a in answers])
                continue
            jobs.add(ScoreUnit(
                **session.unit_fields(), kind="run", index=run, fold=None, setting=chosen.setting,
                directory=layout.run_dir(study.directory, chosen.name, run), trial=chosen.trial,
                folds=[a.result for a in answers], seconds=[a.provenance["seconds"] for a in answers],
                warnings=[a.provenance.get("warnings", []) for a in answers], fold_code=code_of_all(answers),
                devices=devices_of(a.provenance for a in answers), costs=costs_of(a.provenance for a in answers),
                test_contents=session.test_contents,
            ), first=True)  # fmt: skip
    return runs


def run_unit(body: JsonObject, report: Report) -> JsonObject:
    """Train a fold or score a run; workers of `bo` can only train.

    Args:
        body: a `Unit` or a `ScoreUnit` as JSON.
        report: called with the progress of a training.

    Returns:
        A `FinishedUnit` as JSON.

    Raises:
        UserError: the data or the software on this machine differs from the driver's, or its device cannot compute in
            the study's precision.
    """
    return train_unit(body, report) if body.get("task") == Unit.task else score_unit(body)


def score_unit(body: JsonObject) -> JsonObject:
    """Score a run's models on the test classes, and keep or delete their weights, as far as this is not done already.

    Args:
        body: a `ScoreUnit` as JSON.

    Returns:
        A `FinishedUnit` as JSON that holds only the run's number; the result is in the run's record.

    Raises:
        UserError: the software on this machine differs from the driver's, its device cannot compute in the study's
            precision, or another process still holds the unit after `LOCK_SECONDS`.
    """
    unit = ScoreUnit.from_json(body)
    folder, path = unit.directory, unit.directory.with_suffix(".json")
    with holding(unit):
        record, note = finished_record(unit, path, contents.Run)
        if record is None:
            with running(unit):
                record = scored_record(unit)
                contents.write(path, record, contents.Run)
        wanted = record.result["status"] == "completed" and model_files.keeps(unit.study.config.keep, unit.index)
        if wanted and not kept_models.has_weights(folder, record):
            keep_models(unit.folds_units())
        drop_weights(folder)  # last: a run killed before its record is written needs them again
        remove_leftovers(folder)
        return FinishedUnit({"run": unit.index}, notes=[note] if note else []).to_json()


def scored_record(unit: ScoreUnit) -> records.Record:
    """Score a run, save the data for figures, and return the run's record."""
    config, device = unit.study.config, unit.study.make_device()
    started = time.perf_counter()
    use_precision(config.precision, device, config.deterministic)
    result, facts = score_run(unit)
    totals = {key: sum(fold[key] for fold in unit.seconds) for key in ("train", "evaluate")}
    seconds = totals | {"score": time.perf_counter() - started}
    origin = provenance(
        seconds=seconds, warnings=list(unit.warnings), devices=list(unit.devices),
        device=device_facts(device, effective_precision(config.precision, device)), **unit.costs, **facts,
    )  # fmt: skip
    return records.Record("run", result, origin, unit.identity("run").with_code(unit.fold_code).to_json())


def score_run(unit: ScoreUnit) -> tuple[JsonObject, JsonObject]:
    """Return a run's result, and for its provenance the SHA-256 of the test images and of the saved embeddings.

    If a fold has no score, the run has none either, and the test classes are not opened.

    Raises:
        CorruptFileError: the weights of a fold are damaged or belong to another training.
        OtherDataError: this machine has other test images than the driver.
    """
    result: JsonObject = {"run": unit.index, "trial": unit.trial, "setting": dict(unit.setting)}
    missing = [f"fold {f['fold']}: {f['reason']}" for f in unit.folds if f["map_at_r"] is None]
    if missing:
        result |= {"status": "failed", "reason": "; ".join(missing), "separated": None, "concatenated": None}
        return result | {"folds": unit.folds}, {"test_contents": None}
    use_threads(unit.study.config.threads)
    entry = {"run": unit.index, "trial": unit.trial, "commit": commit(), "identity": unit.identity("run").to_json()}
    test = open_test_set(unit.study, entry, Expected(unit.fingerprint, unit.test_contents))
    mismatches = [mismatch_of(unit, fold) for fold in range(len(unit.folds))]
    scores, sha256 = score_models(unit.study.with_setting(unit.setting), unit.directory, test, mismatches)
    result |= {"status": "completed", "reason": None} | scores
    return result | {"folds": unit.folds}, {"test_contents": test.contents, "embeddings_sha256": sha256}


def drop_weights(directory: Path) -> None:
    """Delete the weights of a scored run that its trainings left for scoring."""
    for path in directory.glob("fold_*/best.pt"):
        path.unlink()


def run_line(record: records.Record) -> str:
    """Describe a scored run in one line."""
    result = record.result
    if result["concatenated"] is None:
        return f"no score ({result['reason']})"
    scores = (
        f"{mode} MAP@R {100 * result[mode]['map_at_r']:.2f} P@1 {100 * result[mode]['precision_at_1']:.2f}"
        for mode in MODES
    )
    return "   ".join(scores) + describe_warnings(record.provenance.get("warnings", []))


def summary(study: Study, runs: Sequence[records.Record]) -> Iterator[str]:
    """Yield the summary of all runs: mean and interval of each metric over the runs that have a score."""
    scored = [run.result for run in runs if run.result["concatenated"] is not None]
    confidence = study.config.protocol.confidence
    interval = f" +- {100 * confidence:.0f} % t-interval" if len(scored) > 1 else ""
    yield f"\n{study.title}, test classes: mean{interval} over n = {counted(len(scored), 'run')}, %"
    for mode in MODES if scored else ():
        cells = []
        for key, name in METRICS.items():
            found = t_interval([100 * result[mode][key] for result in scored], confidence)
            cells.append(f"{name} {plus_minus(found.mean, found.half_width)}")
        yield f"  {mode:13s} " + "   ".join(cells)
    if failed := [run.result["run"] for run in runs if run.result["concatenated"] is None]:
        which = f"{len(failed)} of {counted(len(runs), 'run')} {'have' if len(failed) > 1 else 'has'} no score"
        yield f"  {which} and will have none: {ranges(failed)}; see {study.directory}/final_eval"


def summary_over_searches(study: Study, searches: Sequence[StudyRuns]) -> Iterator[str]:
    """Yield the summary of a repeated search: mean and interval of each metric over the means of the searches.

    Args:
        study: the study of the first search.
        searches: the runs of each search.
    """
    confidence, scored = study.config.protocol.confidence, {}
    for mode in MODES:
        for key in METRICS:
            values = [one.values(f"{mode}.{key}") for one in searches]
            if all(found.keys() == values[0].keys() for found in values):
                scored[mode, key] = {(s, run): value for s, found in enumerate(values) for run, value in found.items()}
    title = f"\n{study.title}, test classes, {len(searches)} searches"
    if not all(scored.get((mode, key)) for mode in MODES for key in METRICS):
        yield f"{title}: they have different runs with a score, so there is no mean over searches"
    else:
        level = f"{100 * confidence:.0f} %"
        yield f"{title}: mean over searches and their runs +- {level} t-interval over the means of the searches, %"
        for mode in MODES:
            found = {name: over_searches(scored[mode, key], confidence) for key, name in METRICS.items()}
            cells = [f"{name} {plus_minus(one.mean, one.half_width)}" for name, one in found.items()]
            yield f"  {mode:13s} " + "   ".join(cells)
    yield f"Next: {study.command('tables')}"


if __name__ == "__main__":
    from benchmark.jobs.executors.serve import serve

    serve(run_unit)
