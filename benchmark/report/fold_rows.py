"""Rows and columns of a protocol with folds: both modes, three metrics each, one row a loss.

A row whose runs are not all there stays empty, with the reason.
"""

import itertools

from benchmark.core import records
from benchmark.core.errors import UserError
from benchmark.protocol.statistics import t_interval
from benchmark.report.formats import Column, Row
from benchmark.study import layout
from benchmark.study.study import Study

MODES = {"concatenated": "Concatenated", "separated": "Separated"}
METRICS = {"map_at_r": "MAP@R", "precision_at_1": "P@1", "r_precision": "RP"}
REMARK = ""


def columns(study: Study) -> list[Column]:
    """The metrics of both modes, whose embeddings differ in length."""
    dim = study.config.protocol.embedding_dim
    dims = {"concatenated": study.config.protocol.num_folds * dim, "separated": dim}
    return [
        Column((mode, metric), title, f"{head} ({dims[mode]}-d)")
        for mode, head in MODES.items()
        for metric, title in METRICS.items()
    ]


def absent(study: Study, name: str, label: str) -> list[Row]:
    """The empty row of a loss that was not run, with the command in the manner of another study's."""
    return [Row(name, label, reason=f"not run; {study.command('bo final-eval', loss=name)}")]


def rows(study: Study) -> list[Row]:
    """A study's one row."""
    row = Row(study.directory.name, layout.label(study))
    if not study.config.preset and not (study.directory / "bo" / "best.yaml").exists():
        num_done = len(layout.finished_trials(study, lambda note: None))
        row.reason = f"its search is unfinished, with {num_done} trials done; {study.command('bo final-eval')}"
        return [row]
    try:
        chosen = layout.read_chosen(study)
    except (UserError, ValueError) as error:
        row.reason = str(error)
        return [row]
    runs = layout.finished_runs(study, chosen.trial)
    wanted = study.config.protocol.num_runs
    scored = {r: rec for r, rec in runs.items() if r < wanted and rec.result["concatenated"] is not None}
    row.num_runs = len(scored)
    row.seconds = sum(sum(record.provenance["seconds"].values()) for record in runs.values())
    if len(scored) < wanted:
        row.reason = missing(study, runs, wanted)
        return [row]
    results = [scored[r].result for r in sorted(scored)]
    for mode, metric in itertools.product(MODES, METRICS):
        row.cells[mode, metric] = t_interval([100 * r[mode][metric] for r in results], study.config.protocol.confidence)
    return [row]


def missing(study: Study, runs: dict[int, records.Record], wanted: int) -> str:
    """Which runs are not there, and why."""
    absent = [f"run_{r:02d}" for r in range(wanted) if r not in runs]
    reasons = [
        f"run_{r:02d} has no score ({rec.result['reason']})"
        for r, rec in runs.items()
        if not rec.result["concatenated"]
    ]
    if absent:
        reasons.append(f"of {wanted} runs, {', '.join(absent)} missing; {study.command('final-eval')}")
    return "; ".join(reasons)
