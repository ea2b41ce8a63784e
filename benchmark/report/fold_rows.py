"""Rows and columns for a protocol with folds: both modes, three metrics each, one row per loss.

A row with missing runs stays empty and gives the reason.
"""

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmark.core.wording import ranges
from benchmark.protocol.statistics import t_interval
from benchmark.report.level_rows import MODES, level_intervals
from benchmark.report.table import NOT_RUN, Column, Row
from benchmark.study import layout
from benchmark.study.command import command_for_folder
from benchmark.study.layout import Chosen, Found, NoChoiceError
from benchmark.study.stored import StoredStudy

METRICS = {"map_at_r": "MAP@R", "precision_at_1": "P@1", "r_precision": "RP"}
MAIN = "map_at_r"  # the metric for which differences between rows are printed
REMARK = ""
KIND_OF_PAPERS = ""  # kind of the rows that a paper's numbers stand beside; there is one kind only


def columns(stored: StoredStudy) -> list[Column]:
    """Return one column per mode and metric; the headings give the length of the embeddings."""
    facts = stored.facts
    dims = {"concatenated": facts.num_folds * facts.embedding_dim, "separated": facts.embedding_dim}
    return [
        Column((mode, metric), title, f"{head} ({dims[mode]}-d)", is_main=metric == MAIN)
        for mode, head in MODES.items()
        for metric, title in METRICS.items()
    ]


def absent(stored: StoredStudy, results_dir: Path, name: str, label: str) -> list[Row]:
    """Return the empty row of a loss that was not run, with the command that runs it.

    Args:
        stored: the study of another loss in the table, which supplies the command's other options.
        results_dir: the results folder of that study.
        name: the loss's name.
        label: the loss's name as the table prints it.
    """
    return [Row(name, label, reason=f"{NOT_RUN}{stored.command_for_loss('bo final-eval', name, results_dir)}")]


def rows(stored: StoredStudy, directory: Path) -> list[Row]:
    """Return the single row of a study, as a list.

    Args:
        stored: the study.
        directory: its folder.
    """
    facts, requested = stored.facts, stored.num_runs
    row = Row(directory.name, stored.label, is_untrained=facts.untrained)
    if facts.preset:
        chosen = Chosen(facts.preset, None, facts.setting)
    else:
        search = command_for_folder(directory, "bo final-eval", plugins=stored.plugins)
        try:
            choice = layout.read_choice(directory, stored.expected, facts.select, stored.trials, search)
        except NoChoiceError as error:
            row.reason = str(error)
            return [row]
        chosen = Chosen.of(choice)
        if choice.num_lost:
            row.reason = f"chosen without {choice.num_lost} of {stored.trials} trials, which are lost; {search}"
    runs = layout.read_runs(directory, stored.expected, chosen, requested)
    scored = {r: rec for r, rec in runs.records.items() if rec.result["concatenated"] is not None}
    row.num_runs = len(scored)
    if len(scored) < requested:
        row.reason = "; ".join(filter(None, (row.reason, missing(stored, directory, runs))))
        return [row]
    for mode, metric in itertools.product(MODES, METRICS):
        values = {run: 100 * scored[run].result[mode][metric] for run in sorted(scored)}
        row.values[mode, metric] = values
        row.cells[mode, metric] = t_interval(list(values.values()), facts.confidence)
    row.levels = level_intervals([scored[run].result for run in sorted(scored)], facts.confidence)
    return [row]


def missing(stored: StoredStudy, directory: Path, runs: Found) -> str:
    """Describe which runs are missing, cannot be used or have no score, and why.

    Args:
        stored: the study.
        directory: its folder.
        runs: what was found on disk.
    """
    failed = {r: rec.result["reason"] for r, rec in runs.records.items() if not rec.result["concatenated"]}
    reasons = [f"{which} {'have' if many else 'has'} no score ({reason})" for which, many, reason in alike(failed)]
    reasons += [problem.text.removesuffix(".") for problem in runs.problems]
    if absent := runs.missing(stored.num_runs):
        again = command_for_folder(directory, "final-eval", plugins=stored.plugins)
        reasons.append(f"{absent}; {again}")
    return "; ".join(reasons)


def alike(reasons: Mapping[int, str]) -> Iterator[tuple[str, bool, str]]:
    """Yield runs with the same reason together: their names, whether they are several, and the reason.

    >>> list(alike({0: "diverged", 1: "killed", 2: "diverged"}))
    [('runs 0, 2', True, 'diverged'), ('run_01', False, 'killed')]

    Args:
        reasons: the reason of each run, by its number.
    """
    groups: dict[str, list[int]] = {}
    for run, reason in reasons.items():
        groups.setdefault(reason, []).append(run)
    for reason, found in groups.items():
        yield (f"runs {ranges(found)}", True, reason) if len(found) > 1 else (f"run_{found[0]:02d}", False, reason)
