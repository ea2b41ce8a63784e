"""The runs of a study behind the numbers of its row in a table, one column at a time."""

import difflib
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmark.core.errors import UserError
from benchmark.core.records import JsonObject, Record
from benchmark.report import fold_rows, level_rows, traditional_rows
from benchmark.report.comparison import comparable
from benchmark.report.joined_searches import unlike
from benchmark.study import layout
from benchmark.study.command import command_for_folder
from benchmark.study.contents import Choice
from benchmark.study.layout import Chosen, Problem
from benchmark.study.stored import StoredStudy, read_study, repetitions


@dataclass(frozen=True)
class StudyRuns:
    """A study with its runs on the test classes.

    Attributes:
        directory: its folder.
        stored: the content of its `study.yaml`.
        chosen: name, trial and values of the setting that the runs were trained with.
        choice: the outcome of its search; None without one.
        paths: the record's file of each run.
        records: the record of each run that can be read and belongs to the study, by number.
        problems: records that cannot be used.
    """

    directory: Path
    stored: StoredStudy
    chosen: Chosen
    choice: Choice | None
    paths: Callable[[int], Path]
    records: Mapping[int, Record]
    problems: list[Problem]

    @functools.cached_property
    def not_shown(self) -> str:
        """Why tables show none of these numbers although runs are finished, such as a search that goes on; or empty."""
        stored = self.stored
        if self.choice is None:
            return ""
        finishes = command_for_folder(self.directory, "bo final-eval", plugins=stored.plugins)
        try:
            layout.read_choice(self.directory, stored.expected, stored.facts.select, stored.trials, finishes)
        except layout.NoChoiceError as error:
            return str(error)
        return ""

    @property
    def columns(self) -> list[str]:
        """Names of the columns: `concatenated.map_at_r`, or under the traditional protocol `last_epoch.map_at_r`.

        Scores on the levels of the hierarchy are among them if all runs with a score have them.
        """
        if self.stored.facts.story == "traditional":
            kinds, columns = traditional_rows.kinds(self.stored), traditional_rows.columns(self.stored)
            return [f"{kind}.{column.key[0]}" for kind in kinds for column in columns]
        usual = [column.key for column in fold_rows.columns(self.stored)]
        scored = [record.result for record in self.records.values() if record.result["concatenated"] is not None]
        return [".".join(key) for key in (*usual, *level_rows.level_columns(scored))]

    def values(self, column: str) -> dict[int, float]:
        """The value of each run that has one, in percent, by the run's number.

        Args:
            column: one of `columns`.
        """
        group, _, metric = column.partition(".")
        found = {}
        for run, record in self.records.items():
            scores = record.result.get("selected", record.result).get(group)
            if scores is not None and metric not in scores:
                scores = record.result.get(level_rows.FIELD, {}).get(group)
            if scores is not None and metric in scores:
                found[run] = 100 * float(scores[metric])
        return found


def read_runs(directory: Path, *, may_have_none: bool = False) -> StudyRuns:
    """Read a study and its runs on the test classes.

    Args:
        directory: its folder.
        may_have_none: whether a study without finished runs is read too.

    Raises:
        UserError: the study cannot be read, or has no finished run.
    """
    stored = read_study(directory)
    facts, choice, expected = stored.facts, None, stored.expected
    if facts.story == "traditional":
        chosen = Chosen(facts.preset or "setting", None, facts.setting)
        found = layout.read_traditional(directory, expected, facts.preset, facts.setting, stored.num_runs)
        make = "traditional"
    else:
        chosen, make = Chosen(facts.preset, None, facts.setting), "final-eval"
        if not facts.preset:
            make = "bo final-eval"
            if (choice := layout.choice_on_disk(directory, expected)) is None:
                again = command_for_folder(directory, make, plugins=stored.plugins)
                raise UserError(f"{directory} has no finished search, and so no runs. Run {again}.")
            chosen = Chosen.of(choice)
        found = layout.read_runs(directory, expected, chosen, stored.num_runs)

    def path(run: int) -> Path:
        if facts.story == "traditional":
            return layout.traditional_path(directory, facts.preset, run)
        return layout.run_path(directory, chosen.name, run)

    if not found.records and not may_have_none:
        problems = "".join(f" {problem.text}" for problem in found.problems)
        again = command_for_folder(directory, make, plugins=stored.plugins)
        raise UserError(f"{directory} has no finished run.{problems} Run {again}.")
    return StudyRuns(directory, stored, chosen, choice, path, found.records, found.problems)


def read_repetitions(runs: StudyRuns) -> tuple[dict[int, StudyRuns], list[str]]:
    """Read the repetitions of a study's search that tables join with it.

    Args:
        runs: the study.

    Returns:
        The repetitions by their number, and a sentence about each that is left out.
    """
    found, left_out = {}, []
    for folder in repetitions(runs.directory):
        try:
            other = read_runs(folder)
        except UserError as error:
            left_out.append(f"{folder.name} is left out: {error}")
            continue
        first, second = (comparable(one.stored, [], one.directory.name) for one in (runs, other))
        if fault := unlike(first, second) or other.not_shown:
            left_out.append(f"{folder.name} is left out: {fault}")
        else:
            found[int(folder.name.rpartition("-search")[2])] = other
    return found, left_out


def resolve_column(runs: StudyRuns, name: str) -> str:
    """The column that a user named, as `concatenated.map_at_r` or as in the table's CSV, `concatenated_map_at_r`.

    Args:
        runs: the study.
        name: the user's text.

    Raises:
        UserError: there is no such column; the message names the nearest one.
    """
    known = {column.replace(".", "_"): column for column in runs.columns}
    if (key := name.replace(".", "_")) in known:
        return known[key]
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.3)
    meant = f" Did you mean {known[near[0]]}?" if near else ""
    raise UserError(f"The study in {runs.directory} has no column {name!r}.{meant} It has {', '.join(runs.columns)}.")


def code_of(record: Record) -> list[str]:
    """Digests of the code that computed a record; empty if they were not recorded."""
    return list((record.identity or {}).get("code", []))


def device_of(record: Record) -> str:
    """The devices that trained and scored a record, in words; the processor where no device was recorded."""
    origin: JsonObject = record.provenance
    facts = [one for one in [*origin.get("devices", []), origin.get("device")] if one]
    names = dict.fromkeys(f"{one['kind']} ({one['name']})" for one in facts)
    return ", ".join(names) or str(origin.get("hardware", {}).get("cpu", "not recorded"))
