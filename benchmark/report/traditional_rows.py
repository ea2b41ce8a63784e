"""Rows and columns for the traditional protocol: Recall@K, MAP@R and RP, one row for each way to choose the epoch.

The papers report the epoch that is best on the test classes. That number is optimistic (Musgrave, Belongie, Lim, ECCV
2020, arXiv 2003.08505, section 2.3), and its row says so. The next rows hold the last epoch, which involves no choice,
and, if training classes were held out, the epoch that is best on them.
"""

from benchmark.core import records
from benchmark.protocol.statistics import t_interval
from benchmark.report.formats import Column, Row
from benchmark.study import layout
from benchmark.study.study import Study

KINDS = {
    "best_on_test": "best epoch on test (as papers report)",
    "last_epoch": "last epoch",
    "held_out": "epoch chosen on held-out classes",
}
REMARK = (
    "The best epoch on test has the highest R@1 on the very classes that are reported: it is chosen by looking at the "
    "answer, comparable to what papers report and to nothing else. The last epoch is chosen by nothing."
)


def columns(study: Study) -> list[Column]:
    """Return Recall@K for each K of the data set, then MAP@R and R-Precision."""
    recalls = [Column((f"recall_at_{k}",), f"R@{k}") for k in study.config.dataset.recall_at]
    return [*recalls, Column(("map_at_r",), "MAP@R"), Column(("r_precision",), "RP")]


def kinds(study: Study) -> list[str]:
    """Return the keys of `KINDS` that apply to a study: the ways in which it chooses an epoch."""
    return [kind for kind in KINDS if kind != "held_out" or study.config.protocol.held_out > 0]


def absent(study: Study, name: str, label: str) -> list[Row]:
    """Return the empty rows of a loss that was not run, with the command that runs it.

    Args:
        study: the study of another loss in the table, which supplies the command's data set, trunk and protocol.
        name: the loss's name.
        label: the loss's name as the table prints it.
    """
    reason = f"not run; {study.command('traditional', loss=name)}"
    return [Row(name, label, reason=reason, kind=KINDS[kind]) for kind in kinds(study)]


def rows(study: Study) -> list[Row]:
    """Return a study's rows, one for each way to choose the epoch; they are empty if runs are missing."""
    requested = study.config.protocol.num_runs
    runs = {run: record for run, record in layout.traditional_runs(study).items() if run < requested}
    return [make_row(study, kind, runs, requested) for kind in kinds(study)]


def make_row(study: Study, kind: str, runs: dict[int, records.Record], requested: int) -> Row:
    """Return the row for one way to choose the epoch.

    Args:
        study: the study of the runs.
        kind: a key of `KINDS`.
        runs: finished runs by number.
        requested: number of runs that the study needs.
    """
    picked = {run: record.result["selected"].get(kind) for run, record in runs.items()}
    scored: list[dict[str, float]] = [metrics for metrics in picked.values() if metrics is not None]
    row = Row(study.directory.name, layout.label(study), num_runs=len(scored), kind=KINDS[kind])
    row.seconds = sum(sum(record.provenance["seconds"].values()) for record in runs.values())
    if len(scored) == requested:
        for column in columns(study):
            values = [100 * metrics[column.key[0]] for metrics in scored]
            row.cells[column.key] = t_interval(values, study.config.protocol.confidence)
    row.reason = "; ".join(remarks(study, runs, requested))
    return row


def remarks(study: Study, runs: dict[int, records.Record], requested: int) -> list[str]:
    """Describe which runs ended before their last epoch and which are missing.

    Args:
        study: the study of the runs.
        runs: finished runs by number.
        requested: number of runs that the study needs.
    """
    found = [
        f"run_{run:02d} ended early ({record.result['reason']})"
        for run, record in runs.items()
        if record.result["reason"]
    ]
    missing = [f"run_{run:02d}" for run in range(requested) if run not in runs]
    if missing:
        found.append(f"of {requested} runs, {', '.join(missing)} missing; {study.command('traditional')}")
    return found
