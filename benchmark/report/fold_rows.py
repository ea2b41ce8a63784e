"""Rows and columns for a protocol with folds: both modes, three metrics each, one row per loss.

A row with missing runs stays empty and gives the reason.
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
    """Return one column per mode and metric; the headings give the length of the embeddings."""
    dim = study.config.protocol.embedding_dim
    dims = {"concatenated": study.config.protocol.num_folds * dim, "separated": dim}
    return [
        Column((mode, metric), title, f"{head} ({dims[mode]}-d)")
        for mode, head in MODES.items()
        for metric, title in METRICS.items()
    ]


def absent(study: Study, name: str, label: str) -> list[Row]:
    """Return the empty row of a loss that was not run, with the command that runs it.

    Args:
        study: the study of another loss in the table, which supplies the command's data set, trunk and protocol.
        name: the loss's name.
        label: the loss's name as the table prints it.
    """
    return [Row(name, label, reason=f"not run; {study.command('bo final-eval', loss=name)}")]


def rows(study: Study) -> list[Row]:
    """Return the single row of a study, as a list."""
    row = Row(study.directory.name, layout.label(study))
    if not study.config.preset and not (study.directory / "bo" / "best.yaml").exists():
        num_done = len(layout.finished_trials(study, lambda note: None))
        row.reason = f"its search is unfinished, with {num_done} trials done; {study.command('bo final-eval')}"
        return [row]
    try:
        chosen = layout.read_chosen(study)
    except UserError as error:
        row.reason = str(error)
        return [row]
    runs = layout.finished_runs(study, chosen.trial)
    requested = study.config.protocol.num_runs
    scored = {r: rec for r, rec in runs.items() if r < requested and rec.result["concatenated"] is not None}
    row.num_runs = len(scored)
    row.seconds = sum(sum(record.provenance["seconds"].values()) for record in runs.values())
    if len(scored) < requested:
        row.reason = missing(study, runs, requested)
        return [row]
    results = [scored[r].result for r in sorted(scored)]
    for mode, metric in itertools.product(MODES, METRICS):
        row.cells[mode, metric] = t_interval([100 * r[mode][metric] for r in results], study.config.protocol.confidence)
    return [row]


def missing(study: Study, runs: dict[int, records.Record], requested: int) -> str:
    """Describe which runs are missing or have no score, and why.

    Args:
        study: the study of the runs.
        runs: finished runs by number.
        requested: number of runs that the study needs.
    """
    absent = [f"run_{r:02d}" for r in range(requested) if r not in runs]
    reasons = [
        f"run_{r:02d} has no score ({rec.result['reason']})"
        for r, rec in runs.items()
        if not rec.result["concatenated"]
    ]
    if absent:
        reasons.append(f"of {requested} runs, {', '.join(absent)} missing; {study.command('final-eval')}")
    return "; ".join(reasons)
