"""Rows and columns of the customary protocol: Recall@K, MAP@R and RP, a row for each way in which the epoch was chosen.

The papers report the epoch that is best on the test classes. That number is optimistic (Musgrave, Belongie, Lim, ECCV
2020, arXiv 2003.08505, section 2.3), so it stands under its name beside the last epoch's, which nothing has chosen, and
beside that of the epoch chosen on training classes which were held out, where some were.
"""

from typing import Any

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
    """Recall at each K of the data set, then what looks deeper."""
    recalls = [Column((f"recall_at_{k}",), f"R@{k}") for k in study.config.dataset.recall_at]
    return [*recalls, Column(("map_at_r",), "MAP@R"), Column(("r_precision",), "RP")]


def kinds(study: Study) -> list[str]:
    """Ways in which a study chooses an epoch."""
    return [kind for kind in KINDS if kind != "held_out" or study.config.protocol.held_out > 0]


def absent(study: Study, name: str, label: str) -> list[Row]:
    """The empty rows of a loss that was not run, with the command in the manner of another study's."""
    reason = f"not run; {study.command('traditional', loss=name)}"
    return [Row(name, label, reason=reason, kind=KINDS[kind]) for kind in kinds(study)]


def rows(study: Study) -> list[Row]:
    """A study's row for each way in which an epoch was chosen; one whose runs are not all there is empty."""
    wanted = study.config.protocol.num_runs
    runs = {run: record for run, record in layout.traditional_runs(study).items() if run < wanted}
    return [make_row(study, kind, runs, wanted) for kind in kinds(study)]


def make_row(study: Study, kind: str, runs: dict[int, records.Record], wanted: int) -> Row:
    """The row of one way to choose the epoch."""
    picked = {run: record.result["selected"].get(kind) for run, record in runs.items()}
    scored: list[dict[str, Any]] = [metrics for metrics in picked.values() if metrics is not None]
    row = Row(study.directory.name, layout.label(study), num_runs=len(scored), kind=KINDS[kind])
    row.seconds = sum(sum(record.provenance["seconds"].values()) for record in runs.values())
    if len(scored) == wanted:
        for column in columns(study):
            values = [100 * metrics[column.key[0]] for metrics in scored]
            row.cells[column.key] = t_interval(values, study.config.protocol.confidence)
    row.reason = "; ".join(remarks(study, runs, wanted))
    return row


def remarks(study: Study, runs: dict[int, records.Record], wanted: int) -> list[str]:
    """Which runs ended before their last epoch, and which are not there."""
    found = [
        f"run_{run:02d} ended early ({record.result['reason']})"
        for run, record in runs.items()
        if record.result["reason"]
    ]
    missing = [f"run_{run:02d}" for run in range(wanted) if run not in runs]
    if missing:
        found.append(f"of {wanted} runs, {', '.join(missing)} missing; {study.command('traditional')}")
    return found
