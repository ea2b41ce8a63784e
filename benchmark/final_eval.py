"""make final-eval: retrain the chosen setting (or a preset) in 10 runs x 4 folds and score the test classes.

Each of a run's four models is trained as in the search, including early stopping on its own validation classes; no
model is trained on all training classes. *Separated*: each model's embedding is scored alone and the four scores are
averaged.
*Concatenated*: the four embeddings, each L2-normalised, are concatenated and scored once.

Apart from `traditional`, this is the only command that can read test classes, and every access is logged in the study's
`test_ledger.jsonl` before it happens.

Source: Musgrave, Belongie, Lim, "A Metric Learning Reality Check", ECCV 2020 (arXiv 2003.08505), section 3.
Departure: 10 fresh runs; the best trial of the search, which was selected for its score, is not one of them.
"""

import sys

# Before the slow imports, so that a mistake on the command line is reported at once.
if __name__ == "__main__" and "--serve" not in sys.argv:
    from benchmark.__main__ import main

    raise SystemExit(main("final-eval"))

import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from benchmark.core import records
from benchmark.core.errors import IncompleteError, UserError
from benchmark.core.invocation import command
from benchmark.core.provenance import commit, provenance
from benchmark.core.records import JsonObject
from benchmark.core.threads import use_threads
from benchmark.images import Images
from benchmark.images.batches import embed
from benchmark.jobs.executors import Report
from benchmark.jobs.queue import Jobs
from benchmark.jobs.session import Say, Session, describe_warnings
from benchmark.jobs.train_unit import running, train_unit
from benchmark.jobs.unit import FinishedUnit, Unit
from benchmark.protocol.modes import score
from benchmark.protocol.neighbours import nearest_neighbours
from benchmark.protocol.statistics import t_interval
from benchmark.report.fold_rows import METRICS, MODES
from benchmark.study import layout
from benchmark.study.study import Study
from benchmark.study.testset import OpenedTestSet, open_test_set
from benchmark.training.loop import read_state

Runs = dict[int, records.Record]  # records of scored runs, by number
NUM_NEIGHBOURS = 10


def final_eval(study: Study, overrides: list[str]) -> None:
    """Evaluate the named study, or every study whose search is finished when none is named.

    Args:
        study: the study to evaluate; if none is named, it only supplies the results folder and the executor.
        overrides: the overrides on the command line.

    Raises:
        UserError: there is nothing to evaluate, or the configuration or the data is invalid.
        IncompleteError: some runs are missing.
    """
    if layout.names_a_study(overrides):
        evaluate(study)
        return
    chosen = list(finished_searches(study))
    if not chosen:
        raise UserError(f"There is no finished search below {study.config.results_dir}. Run {command('bo')} first.")
    missing = []
    for other in chosen:
        try:
            evaluate(other)
        except IncompleteError as error:  # the other studies can still be evaluated
            missing.append(str(error))
    if missing:
        raise IncompleteError("\n\n".join(missing))


def finished_searches(study: Study) -> Iterator[Study]:
    """Yield each study in the results folder that has a setting to retrain, and print which ones are skipped.

    Args:
        study: supplies the results folder, and the executor, display, device and `keep` of all studies.
    """
    for directory in layout.all_studies(Path(study.config.results_dir)):
        try:
            stored = layout.read_study(directory).config
        except records.CorruptFileError as error:
            print(f"Skipped: {error} Run {command('bo')} for this study: it rewrites the file and retrains nothing.")
            continue
        other = Study.of(stored | {key: study.raw[key] for key in layout.BOOKKEEPING})
        if other.config.preset or (directory / "bo" / "best.yaml").exists():
            yield other
        else:
            print(f"{other.title}: skipped, because its search is unfinished ({other.command('bo')})")


def evaluate(study: Study) -> None:
    """Train and score the missing runs of a study's chosen setting, and print the mean over all runs.

    Raises:
        UserError: there is no chosen setting, or the configuration or the data is invalid.
        IncompleteError: some runs are lost.
    """
    session = Session(study, "final-eval", halves=("trainval", "test"))
    layout.read_chosen(study)  # fails before a folder is created for a study that does not exist
    with session:
        # 1. read the chosen setting and the runs that are scored already
        choice, num_runs = layout.read_chosen(study), study.config.protocol.num_runs

        def scored(say: Say) -> Runs:
            runs = layout.finished_runs(study, choice.trial, say)
            return {run: record for run, record in runs.items() if run < num_runs}

        runs = session.open(num_runs, scored)
        for run in runs:
            drop_weights(study, layout.run_dir(study, choice.trial, run))

        # 2. train the folds of the other runs, and score each run once its folds are trained
        if len(runs) < num_runs:
            with session.jobs(run_unit, ["benchmark.final_eval", "--serve"]) as jobs:
                for run in (r for r in range(num_runs) if r not in runs):
                    for unit in fold_units(session, choice, run):
                        jobs.add(unit)
                runs |= score_runs(session, jobs, choice)

        # 3. print the mean over the runs
        for line in summary(study, [runs[run] for run in sorted(runs)]):
            session.display.say(line)
        session.check_complete()


@dataclass(frozen=True, kw_only=True)
class ScoreUnit(Unit):
    """The evaluation of one run on the test classes, once all its folds are trained.

    Attributes:
        trial: the trial that the setting comes from; None for a preset.
        folds: result of each fold, in order.
        seconds: for each fold, the seconds of `train` and of `evaluate`.
        warnings: what the loss warned about in each fold.
    """

    task: ClassVar[str] = "score"
    trial: int | None
    folds: Sequence[JsonObject]
    seconds: Sequence[Mapping[str, float]]
    warnings: Sequence[Sequence[str]]


def fold_units(session: Session, choice: layout.Chosen, run: int) -> list[Unit]:
    """The units that train one run, one per fold."""
    directory = layout.run_dir(session.study, choice.trial, run)
    return [
        Unit(
            study=session.study, fingerprint=session.fingerprint, kind="run", index=run, fold=fold,
            setting=choice.setting, directory=directory / f"fold_{fold}", keep_weights=True,
        )
        for fold in range(session.study.config.protocol.num_folds)
    ]  # fmt: skip


def score_runs(session: Session, jobs: Jobs, choice: layout.Chosen) -> Runs:
    """Queue each run for scoring once its folds are trained, and return the records of the scored runs."""
    study = session.study
    trained: dict[int, dict[int | None, FinishedUnit]] = {}
    runs: Runs = {}
    for unit, answer in session.answers(jobs):
        run = unit.index
        if not isinstance(answer, FinishedUnit):
            continue
        if isinstance(unit, ScoreUnit):
            runs[run] = records.read_record(layout.run_path(study, choice.trial, run))
            session.display.finished(run, run_line(runs[run]))
            continue
        folds = trained.setdefault(run, {})
        folds[unit.fold] = answer
        if len(folds) == study.config.protocol.num_folds:
            answers = [folds[fold] for fold in range(len(folds))]
            jobs.add(ScoreUnit(
                study=study, fingerprint=session.fingerprint, kind="run", index=run, fold=None,
                setting=choice.setting, directory=layout.run_dir(study, choice.trial, run), trial=choice.trial,
                folds=[a.result for a in answers], seconds=[a.provenance["seconds"] for a in answers],
                warnings=[a.provenance.get("warnings", []) for a in answers],
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
        UserError: the data or the software on this machine differs from the driver's.
    """
    return train_unit(body, report) if body.get("task") == Unit.task else score_unit(body)


def score_unit(body: JsonObject) -> JsonObject:
    """Score a run's models on the test classes, save the data for figures, and write the run's record.

    Args:
        body: a `ScoreUnit` as JSON.

    Returns:
        A `FinishedUnit` as JSON that holds only the run's number; the result is in the run's record.

    Raises:
        UserError: the software on this machine differs from the driver's.
    """
    unit = ScoreUnit.from_json(body)
    with running(unit) as heartbeat:
        started = time.perf_counter()
        result, contents = score_run(unit, heartbeat.tick)
        totals = {key: sum(fold[key] for fold in unit.seconds) for key in ("train", "evaluate")}
        seconds = totals | {"score": time.perf_counter() - started}
        origin = provenance(seconds=seconds, test_contents=contents, warnings=list(unit.warnings))
        records.write_record(unit.directory.with_suffix(".json"), records.Record("run", result, origin))
        drop_weights(unit.study, unit.directory)  # last: a run killed before its record is written needs them again
        return FinishedUnit({"run": unit.index}).to_json()


def score_run(unit: ScoreUnit, tick: Callable[[], None]) -> tuple[JsonObject, str | None]:
    """Return a run's result and the SHA-256 of the test image files; None if there are no files.

    If a fold has no score, the run has none either, and the test classes stay closed.

    Args:
        unit: the run.
        tick: called for each batch.
    """
    result: JsonObject = {"run": unit.index, "trial": unit.trial, "setting": dict(unit.setting)}
    missing = [f"fold {f['fold']}: {f['reason']}" for f in unit.folds if f["map_at_r"] is None]
    if missing:
        result |= {"status": "failed", "reason": "; ".join(missing), "separated": None, "concatenated": None}
        return result | {"folds": unit.folds}, None
    study, directory = unit.study.with_setting(unit.setting), unit.directory
    use_threads(study.config.threads)
    entry = {"run": unit.index, "trial": unit.trial, "commit": commit(), "identity": study.identity(unit.fingerprint)}
    test = open_test_set(unit.study, entry)
    embeddings = torch.stack(
        [embed_fold(study, directory / f"fold_{fold}", test.images, tick) for fold in range(len(unit.folds))]
    )  # (folds, N, D)
    loss = study.config.loss
    scores = score(
        embeddings, test.labels, tuple(METRICS), metric=loss.retrieval, is_query=test.is_query, **loss.retrieval_options
    )
    result |= {"status": "completed", "reason": None} | scores
    keep_for_figures(study, directory, embeddings, test)
    return result | {"folds": unit.folds}, test.contents


def embed_fold(study: Study, unit: Path, images: Images, tick: Callable[[], None]) -> Tensor:
    """Embeddings (N, D) from a fold's best-epoch model, L2-normalised if retrieval is by cosine.

    Args:
        study: with the setting that was trained.
        unit: folder of the fold.
        images: N images.
        tick: called for each batch.
    """
    state = read_state(unit / "best.pt", images.device)
    trunk = study.make_trunk(images.channels, seed=0).to(images.device)
    head = study.make_head(trunk.out_features, seed=0).to(images.device)
    trunk.load_state_dict(state["trunk"])
    head.load_state_dict(state["head"])

    def embedder(batch: Tensor) -> Tensor:
        tick()
        embeddings: Tensor = head(trunk(batch))
        return embeddings

    embeddings = embed(embedder, images, trunk, head)
    return torch.nn.functional.normalize(embeddings, dim=1) if study.config.loss.retrieval == "cosine" else embeddings


def keep_for_figures(study: Study, directory: Path, embeddings: Tensor, test: OpenedTestSet) -> None:
    """Save test embeddings and the loss's parameters (both in half precision), and nearest neighbours.

    Args:
        study: with the setting that was trained.
        directory: folder of the run, where `embeddings.npz` is written.
        embeddings: (folds, N, D) float32.
        test: the N test images and their labels.
    """
    loss = study.config.loss
    neighbours = nearest_neighbours(
        embeddings, test.is_query, NUM_NEIGHBOURS, metric=loss.retrieval, threads=study.config.threads,
        **loss.retrieval_options,
    )  # fmt: skip
    kept = {
        "embeddings": embeddings.cpu().numpy().astype(np.float16),
        "labels": test.labels.cpu().numpy(),
        "neighbours": neighbours.astype(np.int32),
    }
    if test.is_query is not None:
        kept["is_query"] = test.is_query.cpu().numpy()
    for fold in range(len(embeddings)):
        state = read_state(directory / f"fold_{fold}" / "best.pt", torch.device("cpu"))
        kept |= {f"fold_{fold}.{name}": value.numpy().astype(np.float16) for name, value in state["loss"].items()}
    buffer = io.BytesIO()
    np.savez(buffer, **kept)  # type: ignore[arg-type]
    records.write_whole(directory / "embeddings.npz", buffer.getvalue())


def drop_weights(study: Study, directory: Path) -> None:
    """Delete a scored run's weights unless `keep` retains them."""
    if study.config.keep == "none":
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
    yield f"\n{study.title}, test classes: mean +- {100 * confidence:.0f} % t-interval over n = {len(scored)} runs, %"
    for mode in MODES:
        cells = []
        for key, name in METRICS.items():
            if scored:
                interval = t_interval([100 * result[mode][key] for result in scored], confidence)
                half = "" if interval.half_width is None else f" +- {interval.half_width:.2f}"
                cells.append(f"{name} {interval.mean:.2f}{half}")
        yield f"  {mode:13s} " + "   ".join(cells)
    if len(scored) < len(runs):
        yield f"  {len(runs) - len(scored)} run(s) have no score and stay missing; see {study.directory}/final_eval"
    yield f"Next: {command('tables')}"


if __name__ == "__main__":
    from benchmark.jobs.executors.serve import serve

    serve(run_unit)
