"""A results folder written by hand: studies, their choice and their scored runs, without any training.

Every record is complete and carries the identity that `bo`, `final_eval` or `traditional` would give it.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmark.core import records
from benchmark.core.provenance import provenance
from benchmark.study import contents, layout
from benchmark.study.opening import Command, Opened, open_study
from benchmark.study.study import Study
from benchmark.study.trial_score import trial_result
from tests.study import examples

TRIAL, SETTING, SECONDS = 3, {"x": 1.0}, {"train": 40.0, "evaluate": 10.0}
CHOSEN = layout.Chosen(f"trial_{TRIAL:03d}", TRIAL, SETTING)
DEVICE: dict[str, Any] = {"kind": "cpu", "name": "a processor", "earlier": []}
DEVICE_FACTS = examples.DEVICE_FACTS | DEVICE | {"cuda": None, "cudnn": None}


def opened(study: Study, command: Command = "bo") -> Opened:
    """Open a study's folder as a command does."""
    return open_study(study, command, examples.FINGERPRINT)


def write(path: Path, study: Opened, kind: str, index: int, result: dict[str, Any], **more: object) -> None:
    """Write a record of a trial or run.

    Args:
        path: the file to write.
        study: the opened study.
        kind: kind of the record.
        index: number of the trial or run.
        result: its result.
        more: its provenance, in addition to versions and hardware.
    """
    identity = study.identity.of(kind, index, result["setting"], code=[study.code])
    records.write_record(path, records.Record(kind, result, provenance(**more), identity.to_json()))


def start(study: Study, trials: Iterable[int] = (), seconds: Mapping[str, float] = SECONDS) -> None:
    """Write a study whose search has finished these trials and has not yet chosen one; `TRIAL` is the best."""
    search, config = opened(study), study.config
    for index in trials:
        score = 0.4 if index == TRIAL else 0.3
        folds = [examples.fold_result(fold, score, SETTING) for fold in range(config.protocol.num_folds)]
        origin = {"name": config.searcher.name, "seed": config.seed, "identity": search.identity.study, "told": index}
        write(
            layout.trial_path(study.directory, index), search, "trial", index,
            trial_result(index, SETTING, folds), seconds=dict(seconds), searcher=origin,
            warnings=[[] for _ in folds], devices=[DEVICE for _ in folds],
        )  # fmt: skip


def choose(study: Study) -> None:
    """Write the choice of a search that has finished the trials up to `TRIAL`."""
    layout.write_choice(study.directory, contents.Choice(
        trial=TRIAL, setting=SETTING, validation_map_at_r=0.4, standard_error=0.0, num_trials=TRIAL + 1, rule="raw",
        identity=opened(study).identity.study,
    ))  # fmt: skip


def finish(study: Study, runs: Sequence[float | str | None] | Mapping[int, float | str]) -> None:
    """Write a finished search of `TRIAL + 1` trials, whatever the study's own number, and its scored runs.

    Args:
        study: the one that was searched.
        runs: for each run, its concatenated MAP@R (separated lies 0.05 below), or the reason why it has no score, or
            None where it is missing.
    """
    study = Study.of(study.raw | {"trials": TRIAL + 1})
    start(study, range(TRIAL + 1))
    choose(study)
    _write_runs(study, runs, CHOSEN, SETTING)


def finish_preset(study: Study, runs: Sequence[float | str | None] | Mapping[int, float | str]) -> None:
    """Write the scored runs of a study with a preset, which needs no search.

    Args:
        study: the study.
        runs: as in `finish`.
    """
    setting = study.setting
    _write_runs(study, runs, layout.Chosen(study.config.preset, None, setting), setting)


def _write_runs(study: Study, runs: Any, chosen: layout.Chosen, setting: dict[str, Any]) -> None:
    evaluation = opened(study, "final-eval")
    for run, value in dict(runs if isinstance(runs, Mapping) else enumerate(runs)).items():
        if value is None:
            continue
        scored = not isinstance(value, str)
        scores = [0.4 if scored else None] * study.config.protocol.num_folds
        folds = [examples.fold_result(fold, score, setting) for fold, score in enumerate(scores)]
        result = examples.run_result(run, chosen.trial, folds, value if scored else None) | {"setting": setting}
        write(
            layout.run_path(study.directory, chosen.name, run), evaluation, "run", run,
            result if scored else result | {"reason": value}, seconds=SECONDS | {"score": 5.0}, test_contents=None,
            warnings=[[] for _ in folds], devices=[DEVICE for _ in folds], device=DEVICE_FACTS,
        )  # fmt: skip


def finish_traditional(study: Study, runs: Sequence[dict[str, float | None] | None], reason: str | None = None) -> None:
    """Write finished runs of the traditional protocol.

    Args:
        study: the one that was trained.
        runs: for each run, MAP@R by the way in which the epoch was chosen, None where none was; None for a missing run.
            RP lies 0.1 above it, R@K K / 200. The best epoch on test is 1, the held-out one 2, and the last one 3.
        reason: why the runs ended early, if they did.
    """
    training, config = opened(study, "traditional"), study.config
    for run, chosen in enumerate(runs):
        if chosen is None:
            continue
        history: list[dict[str, Any]] = [{"epoch": 0, "loss": None, "watched": watched(study, 0.0)}]
        selected: dict[str, Any] = {}
        for epoch, kind in enumerate(("best_on_test", "held_out", "last_epoch"), 1):
            value = chosen.get(kind)
            selected[kind] = value and {"epoch": epoch} | watched(study, value)
            if value:
                history.append({"epoch": epoch, "loss": 1.0, "watched": watched(study, value)})
        for row in history:
            held_out = examples.scores(0.3 if row["epoch"] == 2 else 0.2) if selected["held_out"] else {}
            row |= held_out | {"diagnostics": {}}
        status = "completed" if reason is None else "diverged"
        scope = {"run": run, "setting": study.setting, "status": status, "reason": reason}
        write(
            layout.traditional_path(study.directory, config.preset, run), training, "traditional", run,
            scope | {"selected": selected, "history": history}, seconds=SECONDS, fingerprint=examples.FINGERPRINT,
            test_contents=None, warnings=[], device=DEVICE_FACTS,
        )  # fmt: skip


def watched(study: Study, map_at_r: float) -> dict[str, float]:
    """Scores of one epoch under the traditional protocol."""
    recalls = {f"recall_at_{k}": map_at_r + k / 200 for k in study.config.dataset.recall_at}
    return {"map_at_r": map_at_r, "r_precision": map_at_r + 0.1, "precision_at_1": map_at_r + 1 / 200} | recalls
