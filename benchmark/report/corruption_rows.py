"""Rows and columns of R@1 on corrupted test images, from the records of `robustness`: one row per loss.

Source: Lim, Yun, Park and Choi, "Hypergraph-Induced Semantic Tuplet Loss for Deep Metric Learning", CVPR 2022,
supplement, A.3, which compares losses on the nine corruptions. A row without the scores of all runs stays empty.
"""

from pathlib import Path

from benchmark.core.errors import UserError
from benchmark.core.records import Record
from benchmark.images.corruptions import PAPER
from benchmark.protocol.statistics import t_interval
from benchmark.report import fold_rows, traditional_rows
from benchmark.report.robustness import NONE, title
from benchmark.report.runs import StudyRuns, read_runs
from benchmark.report.table import Column, Key, Row
from benchmark.study import contents
from benchmark.study.command import command_for_folder
from benchmark.study.kept_models import robustness_identity
from benchmark.study.layout import robustness_path
from benchmark.study.stored import StoredStudy

METRIC = "recall_at_1"
REMARK = (
    "R@1; Mean is that over the nine corruptions. Under the traditional protocol, the models are those of the epoch "
    "that is best on the test classes without corruption."
)
KIND_OF_PAPERS = ""  # kind of the rows that a paper's numbers stand beside; there is one kind only
MEAN: Key = (METRIC, "mean")


def columns(stored: StoredStudy) -> list[Column]:
    """Return one column without corruption, one for each of the nine, and one for their mean."""
    return [*(Column((METRIC, name), title(name)) for name in (NONE, *PAPER)), Column(MEAN, "Mean", is_main=True)]


def absent(stored: StoredStudy, results_dir: Path, name: str, label: str) -> list[Row]:
    """Return the empty row of a loss that was not run, with the command that runs it.

    Args:
        stored: the study of another loss in the table, which supplies the command's other options.
        results_dir: the results folder of that study.
        name: the loss's name.
        label: the loss's name as the table prints it.
    """
    shape = traditional_rows if stored.facts.story == "traditional" else fold_rows
    return [Row(name, label, reason=shape.absent(stored, results_dir, name, label)[0].reason)]


def rows(stored: StoredStudy, directory: Path) -> list[Row]:
    """Return the single row of a study, as a list.

    Args:
        stored: the study.
        directory: its folder.
    """
    row = Row(directory.name, stored.label)
    try:
        runs = read_runs(directory)
    except UserError as error:
        row.reason = str(error).removesuffix(".")
        return [row]
    found = {name: _scores(stored, directory, runs, name) for name in (NONE, *PAPER)}
    complete = {run for run in range(stored.num_runs) if all(run in scores for scores in found.values())}
    if len(complete) < stored.num_runs:
        again = command_for_folder(directory, "robustness", plugins=stored.plugins)
        row.reason = f"of {stored.num_runs} runs, {len(complete)} are scored under all corruptions; {again}"
        return [row]
    row.num_runs = len(complete)
    for name, scores in found.items():
        row.values[METRIC, name] = {run: scores[run] for run in sorted(complete)}
    means = {run: sum(found[name][run] for name in PAPER) / len(PAPER) for run in sorted(complete)}
    row.values[MEAN] = means
    row.cells = {key: t_interval([*values.values()], stored.facts.confidence) for key, values in row.values.items()}
    return [row]


def _scores(stored: StoredStudy, directory: Path, runs: StudyRuns, name: str) -> dict[int, float]:
    """R@1 in percent under a corruption, by run; a record of other models, code or seed is passed over."""
    found = {}
    for run, trained in runs.records.items():
        try:
            path = robustness_path(directory, runs.chosen.name, run, name)
            record = contents.read(path, contents.Robustness)
        except (OSError, UserError):  # `robustness` reports it, and scores it again
            continue
        if _belongs(stored, trained, record):
            found[run] = 100 * float(record.result["concatenated"]["precision_at_1"])
    return found


def _belongs(stored: StoredStudy, trained: Record, record: Record) -> bool:
    expected = robustness_identity(stored, trained)
    return not expected.mismatch(record.identity) and record.result["seed"] == stored.config["seed"]
