"""Rows and columns for the traditional protocol: Recall@K, MAP@R and RP, one row for each way to choose the epoch.

The papers report the epoch that is best on the test classes. That number is optimistic (Musgrave, Belongie, Lim, ECCV
2020, arXiv 2003.08505, section 2.3), as the label of its row says. The next rows are the last epoch, which involves no
choice, and, if training classes were held out, the epoch that is best on them.
"""

from pathlib import Path

from benchmark.protocol.statistics import t_interval
from benchmark.report.fold_rows import alike
from benchmark.report.table import NOT_RUN, Column, Row
from benchmark.study import layout
from benchmark.study.command import command_for_folder
from benchmark.study.layout import Found
from benchmark.study.stored import StoredStudy

KINDS = {
    "best_on_test": "best epoch on test (as papers report)",
    "last_epoch": "last epoch",
    "held_out": "epoch chosen on held-out classes",
}
KIND_OF_PAPERS = KINDS["best_on_test"]  # kind of the rows that a paper's numbers stand beside
REMARK = (
    "The best epoch on test has the highest R@1 on the very classes that are reported: it is chosen by looking at the "
    "answer, comparable to what papers report and to nothing else. The last epoch is chosen by nothing."
)


def columns(stored: StoredStudy) -> list[Column]:
    """Return Recall@K for each K of the data set, then MAP@R and R-Precision."""
    recalls = [Column((f"recall_at_{k}",), f"R@{k}", is_main=k == 1) for k in stored.facts.recall_at]
    return [*recalls, Column(("map_at_r",), "MAP@R", is_main=True), Column(("r_precision",), "RP")]


def kinds(stored: StoredStudy) -> list[str]:
    """Return the keys of `KINDS` that apply to a study: the ways in which it chooses an epoch."""
    return [kind for kind in KINDS if kind != "held_out" or stored.facts.held_out > 0]


def absent(stored: StoredStudy, results_dir: Path, name: str, label: str) -> list[Row]:
    """Return the empty rows of a loss that was not run, with the command that runs it.

    Args:
        stored: the study of another loss in the table, which supplies the command's other options.
        results_dir: the results folder of that study.
        name: the loss's name.
        label: the loss's name as the table prints it.
    """
    reason = f"{NOT_RUN}{stored.command_for_loss('traditional', name, results_dir)}"
    return [Row(name, label, reason=reason, kind=KINDS[kind]) for kind in kinds(stored)]


def rows(stored: StoredStudy, directory: Path) -> list[Row]:
    """Return a study's rows, one for each way to choose the epoch; they are empty if runs are missing.

    Args:
        stored: the study.
        directory: its folder.
    """
    facts = stored.facts
    found = layout.read_traditional(directory, stored.expected, facts.preset, facts.setting, stored.num_runs)
    return [make_row(stored, directory, kind, found) for kind in kinds(stored)]


def make_row(stored: StoredStudy, directory: Path, kind: str, found: Found) -> Row:
    """Return the row for one way to choose the epoch.

    Args:
        stored: the study.
        directory: its folder.
        kind: a key of `KINDS`.
        found: its runs on disk.
    """
    picked = {run: record.result["selected"].get(kind) for run, record in found.records.items()}
    wanted = {column.key[0] for column in columns(stored)}
    scored: dict[int, dict[str, float]] = {
        run: metrics for run, metrics in picked.items() if metrics is not None and metrics.keys() >= wanted
    }
    row = Row(directory.name, stored.label, num_runs=len(scored), kind=KINDS[kind])
    if len(scored) == stored.num_runs:
        for column in columns(stored):
            values = {run: 100 * scored[run][column.key[0]] for run in sorted(scored)}
            row.values[column.key] = values
            row.cells[column.key] = t_interval(list(values.values()), stored.facts.confidence)
    row.reason = "; ".join(remarks(stored, directory, found))
    return row


def remarks(stored: StoredStudy, directory: Path, found: Found) -> list[str]:
    """Describe which runs ended before their last epoch, lack a metric of the table, cannot be used, or are missing.

    Args:
        stored: the study.
        directory: its folder.
        found: its runs on disk.
    """
    early = {run: record.result["reason"] for run, record in found.records.items() if record.result["reason"]}
    texts = [f"{which} ended early ({reason})" for which, _, reason in alike(early)]
    wanted, lacking = {column.key[0] for column in columns(stored)}, dict[int, str]()
    for run, record in found.records.items():
        picked = [metrics for metrics in record.result["selected"].values() if metrics is not None]
        if keys := sorted({key for metrics in picked for key in wanted - metrics.keys()}):
            lacking[run] = ", ".join(keys)
    texts += [f"{which} {'have' if many else 'has'} no {keys}" for which, many, keys in alike(lacking)]
    texts += [problem.text.removesuffix(".") for problem in found.problems]
    if missing := found.missing(stored.num_runs):
        again = command_for_folder(directory, "traditional", plugins=stored.plugins)
        texts.append(f"{missing}; {again}")
    return texts
