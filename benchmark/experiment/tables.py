"""The tables of a results folder, or of an experiment; a study that cannot be read is reported and left out."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmark.core.console import write
from benchmark.core.errors import UserError
from benchmark.core.invocation import command
from benchmark.experiment.layouts import describing, layout_of
from benchmark.experiment.selected import Selected, StudyOf
from benchmark.experiment.state import other_study
from benchmark.report.group_table import Entry, corruption_table, make_table, read_entry
from benchmark.report.table import Table
from benchmark.study.cli import study_of
from benchmark.study.stored import NoStudyError
from benchmark.study.study import Study


@dataclass(frozen=True)
class Made:
    """A table, and what it was made of.

    Attributes:
        table: the table.
        entries: the studies in it.
        studies: the studies that an experiment asks for; empty without an experiment.
        corrupted: the table on corrupted test images; None if there is none.
    """

    table: Table
    entries: list[Entry]
    studies: list[StudyOf] = field(default_factory=list)
    corrupted: Table | None = None

    @property
    def all(self) -> list[Table]:
        """The table, and that on corrupted images if there is one."""
        return [self.table, *filter(None, [self.corrupted])]


@dataclass(frozen=True)
class Tables:
    """All tables of a results folder or of an experiment.

    Attributes:
        made: the tables.
        left_out: a sentence about each study that cannot be read.
    """

    made: list[Made] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def leave_out(self, why: str) -> None:
        """Print a sentence about a study that is left out, and remember it."""
        write(why)
        self.left_out.append(why)


def of_folder(results_dir: Path, folders: Sequence[Path], accept_code: bool = False, bootstrap: int = 0) -> Tables:
    """The tables of some studies of a results folder, one for each data set, trunk and protocol.

    Args:
        results_dir: the results folder.
        folders: the studies' folders.
        accept_code: whether studies that different code computed may share a section.
        bootstrap: number of resamples of the test classes over which rows are ranked; 0 for none.

    Raises:
        UserError: none of the studies can be read.
    """
    found, groups = Tables(), dict[str, list[Entry]]()
    for directory in folders:
        try:
            entry = read_entry(directory, folders)
        except (UserError, OSError) as error:
            found.leave_out(f"{directory} is left out: {error}")
            continue
        facts = entry.stored.facts
        groups.setdefault("-".join((facts.dataset, facts.trunk, facts.protocol)), []).append(entry)
    if not groups:
        raise UserError(f"There are no studies to read in {results_dir}/studies. Run {command('bo final-eval')} first.")
    for name, entries in groups.items():
        layout = describing(name, results_dir, [entry.depends.name for entry in entries])
        found.made.append(Made(make_table(name, entries, layout, accept_code, bootstrap), entries))
    return found


def of_experiment(chosen: Selected, accept_code: bool = False, bootstrap: int = 0) -> Tables:
    """The tables of an experiment, one for each data set of which a study was started.

    Args:
        chosen: the experiment.
        accept_code: whether studies that different code computed may share a section.
        bootstrap: number of resamples of the test classes over which rows are ranked; 0 for none.

    Raises:
        UserError: none of its studies can be read.
    """
    found = Tables()
    for dataset, studies in chosen.studies.items():
        entries = [entry for one in studies for entry in _entries(one, found)]
        if not entries:
            continue
        name, commands = chosen.name_on(dataset), {one.name: one.command for one in studies}
        layout = layout_of(chosen.experiment, dataset, chosen.remark, commands, chosen.caption(dataset))
        corrupted = None
        if "robustness" in chosen.experiment.figures:
            corrupted = corruption_table(f"{name}-corrupted", entries, layout, accept_code)
        table = make_table(name, entries, layout, accept_code, bootstrap)
        found.made.append(Made(table, entries, list(studies), corrupted))
    if not found.made:
        raise UserError(
            f"No study of {chosen.experiment.name} has been started in {chosen.results_dir}. Run "
            f"{command('experiment', overrides=chosen.overrides)}"
        )
    return found


def _entries(one: StudyOf, found: Tables) -> list[Entry]:
    """A study of an experiment and its repeated searches for a table, without those that cannot be read."""
    try:
        searches = study_of(one.overrides).repetitions()
    except UserError as error:
        found.leave_out(f"{one.directory} is left out: {error}")
        return []
    return [entry for search in searches if (entry := _entry(search, found)) is not None]


def _entry(search: Study, found: Tables) -> Entry | None:
    """A search of an experiment for its table; None if it was not started, or its folder holds another study."""
    try:
        if other := other_study(search):
            found.leave_out(f"{search.directory} is left out: {other}")
            return None
        return read_entry(search.directory, [search.directory])
    except NoStudyError:
        return None
    except (UserError, OSError) as error:
        found.leave_out(f"{search.directory} is left out: {error}")
        return None
