"""A results folder written by hand: studies, their choice and their scored runs, without any training."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmark.core import records
from benchmark.study import layout
from benchmark.study.study import Study

TRIAL = 3


def numbers(map_at_r: float) -> dict[str, float]:
    """The three metrics of one mode; P@1 lies 0.3 above MAP@R and RP 0.1."""
    return {"map_at_r": map_at_r, "precision_at_1": map_at_r + 0.3, "r_precision": map_at_r + 0.1}


def start(study: Study, trials: Iterable[int] = ()) -> None:
    """Write a study whose search has finished these trials and has not yet chosen one."""
    layout.open_study(study, "0123456789abcdef")
    for index in trials:
        folds = [{"fold": fold, "map_at_r": 0.4, "reason": None} for fold in range(4)]
        record = records.Record("trial", layout.trial_result(index, {"x": 1.0}, folds))
        records.write_record(layout.trial_path(study, index), record)


def finish(study: Study, runs: Sequence[float | str | None] | Mapping[int, float | str]) -> None:
    """Write a finished search and its scored runs.

    Args:
        study: the one that was searched.
        runs: for each run, its concatenated MAP@R (separated lies 0.05 below), or the reason why it has no score, or
            None where it is missing.
    """
    start(study, [TRIAL])
    layout.write_choice(study, layout.Choice(TRIAL, {"x": 1.0}, 0.4, 0.0, 1, "raw"))
    for run, value in dict(runs if isinstance(runs, Mapping) else enumerate(runs)).items():
        if value is None:
            continue
        scores = {"status": "failed", "reason": value, "separated": None, "concatenated": None}
        if not isinstance(value, str):
            scores = {
                "status": "completed",
                "reason": None,
                "separated": numbers(value - 0.05),
                "concatenated": numbers(value),
            }
        provenance = {"seconds": {"train": 40.0, "evaluate": 10.0, "score": 5.0}}
        record = records.Record("run", {"run": run, "trial": TRIAL, "setting": {"x": 1.0}} | scores, provenance)
        records.write_record(layout.run_path(study, TRIAL, run), record)


def finish_traditional(study: Study, runs: Sequence[dict[str, float | None] | None], reason: str | None = None) -> None:
    """Write finished runs of the traditional protocol.

    Args:
        study: the one that was trained.
        runs: for each run, MAP@R by the way in which the epoch was chosen, None where none was; None for a missing run.
            RP lies 0.1 above it, R@K K / 200.
        reason: why the runs ended early, if they did.
    """
    layout.open_study(study, "0123456789abcdef")
    for run, chosen in enumerate(runs):
        if chosen is None:
            continue
        selected: dict[str, Any] = {}
        for kind, value in chosen.items():
            recalls = {f"recall_at_{k}": value + k / 200 for k in study.config.dataset.recall_at} if value else {}
            selected[kind] = value and {"epoch": 3, "map_at_r": value, "r_precision": value + 0.1} | recalls
        status = "completed" if reason is None else "diverged"
        result = {"run": run, "setting": {}, "status": status, "reason": reason, "selected": selected, "history": []}
        record = records.Record("traditional", result, {"seconds": {"train": 40.0, "evaluate": 10.0}})
        records.write_record(layout.traditional_path(study, run), record)
