"""tables: write the tables of all studies as CSV, LaTeX and Markdown.

There is one table for each data set x trunk x protocol, with one row per loss (under the traditional protocol, one row
per loss and way to choose the epoch). A cell is the mean over runs with the half width of its t-interval, in percent.
Means and intervals are the only numbers computed here; everything else is read from records. A row with missing runs
stays empty, and the reason is given below the table: a mean over only the runs that happened to finish would be a
different quantity.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TypedDict

import yaml

from benchmark.core.console import write
from benchmark.core.errors import UserError
from benchmark.core.escape import visible
from benchmark.core.invocation import command
from benchmark.core.paths import conf_dir, experiments_dir
from benchmark.core.provenance import UNKNOWN, kinds_of
from benchmark.core.records import Record, WriteError
from benchmark.report import fold_rows, traditional_rows
from benchmark.report.comparison import Comparable, parts, printed_labels
from benchmark.report.formats import Row, Section, Table, markdown, write_table
from benchmark.study import layout
from benchmark.study.layout import Chosen
from benchmark.study.stored import StoredStudy, all_studies, read_study
from benchmark.study.study import Study


class Experiment(TypedDict, total=False):
    """A file of `experiments/`.

    Attributes:
        table: name of the group of studies, `dataset-trunk-protocol`.
        results: name of the only results folder to which the experiment applies, if it is limited to one.
        caption: sentence above the table.
        rows: names of losses, in the order of the rows.
    """

    table: str
    results: str
    caption: str
    rows: list[str]


def tables(study: Study, overrides: list[str]) -> None:
    """Write and print a table for every group of studies below `results_dir`, or print that of the named study alone.

    The table of a named study is not written, because it would replace that of its group. A study that cannot be read
    is reported and left out.

    Args:
        study: supplies `results_dir`, `accept_code` and, if given, the folder of one study; the rest is not used.
        overrides: unused.

    Raises:
        UserError: there are no studies that can be read.
        WriteError: the tables were printed, but cannot be written.
    """
    results_dir = Path(study.config.results_dir)
    folders = [study.directory] if study.config.study else all_studies(results_dir)
    groups: dict[str, list[Entry]] = {}
    for directory in folders:
        try:
            entry = read_entry(directory, folders)
        except (UserError, OSError) as error:
            write(f"{directory} is left out: {error}")
            continue
        facts = entry.stored.facts
        groups.setdefault("-".join((facts.dataset, facts.trunk, facts.protocol)), []).append(entry)
    if not groups:
        raise UserError(f"There are no studies to read in {results_dir}/studies. Run {command('bo final-eval')} first.")
    fault: WriteError | None = None  # raised at the end: the tables of a read-only folder are still printed
    texts: list[str] = []  # printed once all tables are written, since the reader of the output may end early
    for name, entries in groups.items():
        table = make_table(name, entries, read_experiment(name, results_dir), study.config.accept_code)
        try:
            paths = [] if study.config.study else write_table(table, results_dir / "tables")
            texts += [f"wrote {visible(str(path))}" for path in paths]
        except WriteError as error:
            fault = error
        texts.append("\n" + markdown(table))
    for text in texts:
        write(text)
    if fault is not None:
        raise fault


def read_experiment(name: str, results_dir: Path) -> Experiment:
    """Return the experiment that describes a table, or an empty one if there is none.

    An experiment that names its results folder takes precedence there and is ignored for any other folder.

    Args:
        name: name of the table and of its files.
        results_dir: the folder with the studies.
    """
    paths = sorted(experiments_dir().glob("*.yaml"))
    bodies: list[Experiment] = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in paths]
    asking = [body for body in bodies if body["table"] == name and body.get("results") in (None, results_dir.name)]
    return max(asking, key=lambda body: "results" in body, default=Experiment())


@dataclass(frozen=True)
class Entry:
    """A study in a table.

    Attributes:
        stored: its description.
        rows: its rows.
        depends: what its numbers depend on, for the comparison of rows.
    """

    stored: StoredStudy
    rows: list[Row]
    depends: Comparable


def read_entry(directory: Path, folders: Sequence[Path]) -> Entry:
    """Read a study for a table.

    Args:
        directory: its folder.
        folders: the folders of all studies; if several have this name, the entry's name includes the parent folder.

    Raises:
        UserError: the study cannot be read.
    """
    stored = read_study(directory)
    alone = [folder.name for folder in folders].count(directory.name) == 1
    name = directory.name if alone else f"{directory.parent.name}/{directory.name}"
    rows = shape_of(stored).rows(stored, directory)
    return Entry(stored, [replace(row, name=name) for row in rows], comparable(stored, directory, name))


def shape_of(stored: StoredStudy) -> ModuleType:
    """Return the module that makes rows and columns for a study: `fold_rows` or `traditional_rows`."""
    return traditional_rows if stored.facts.story == "traditional" else fold_rows


def make_table(name: str, entries: Sequence[Entry], experiment: Experiment, accept_code: bool = False) -> Table:
    """Return the table of a group of studies, with an empty row for each requested loss that has no results.

    Args:
        name: the group's name, `dataset-trunk-protocol`.
        entries: the group's studies, at least one.
        experiment: supplies the caption and the requested rows, if any.
        accept_code: whether studies that different code computed may share a section.
    """
    found = {entry.depends.name: entry for entry in entries}
    requested = experiment.get("rows", [])
    order = [*requested, *(key for key in found if key not in requested)]
    compared = [found[key].depends for key in order if key in found]
    labels, (main, *others) = printed_labels(compared), parts(compared, accept_code)
    first = found[main.rows[0]].stored
    caption = experiment.get("caption", f"{first.facts.dataset_label}, protocol {first.facts.protocol}.")
    shape = shape_of(first)
    sections = []
    for part in (main, *others):
        stored = found[part.rows[0]].stored
        section = Section(shape.columns(stored), [], stored.facts.confidence, shape.REMARK)
        section.differences, section.footnotes = part.differences, part.footnotes
        for key in order:
            if key in part.rows:
                texts = {title: column[key] for title, column in part.columns.items()}
                section.rows += [replace(row, label=labels[key], settings=texts) for row in found[key].rows]
            elif key not in found and part is main:
                section.rows += shape.absent(first, key, label_of(key))
        sections.append(section)
    return Table(name, caption, sections)


def comparable(stored: StoredStudy, directory: Path, name: str) -> Comparable:
    """Return what the numbers of a study depend on, from its `study.yaml` and its records.

    Args:
        stored: the study.
        directory: its folder.
        name: its name among the rows.
    """
    facts = stored.facts
    used = records_of(stored, directory)
    origins = [record.provenance for record in used]
    seen = [origin["versions"] for origin in origins if "versions" in origin] or [stored.versions]
    packages = dict.fromkeys(package for versions in seen for package in versions)
    # Version 1 did not record the precision; on a CPU, it was ieee.
    known = stored.version > 1 or not any(origin.get("hardware", {}).get("gpu") for origin in origins)
    latest = [*stored.search_code[-1:], *stored.code[-1:]]
    modules = {name: digest for code in latest for name, digest in code.modules.items()}
    return Comparable(
        name=name, label=stored.label, science=stored.science, fingerprint=stored.fingerprint,
        story=facts.story, num_runs=stored.num_runs, preset=facts.preset,
        trials=None if facts.preset or facts.story == "traditional" else stored.trials,
        confidence=facts.confidence, code=modules if stored.code else None,
        codes_accepted=max(len(stored.code), len(stored.search_code)), num_records=len(used),
        devices=frozenset(kinds_of(used) - {UNKNOWN}),
        versions={name: frozenset(each[name] for each in seen if name in each) for name in packages},
        precision=stored.expected.precision if known else "", plugins=tuple(stored.plugins),
    )  # fmt: skip


def records_of(stored: StoredStudy, directory: Path) -> list[Record]:
    """Return the records of a study that its row depends on: its trials and the runs of the chosen setting.

    Args:
        stored: the study.
        directory: its folder.
    """
    facts, expected, num_runs = stored.facts, stored.expected, stored.num_runs
    if facts.story == "traditional":
        found = layout.read_traditional(directory, expected, facts.preset, facts.setting, num_runs)
        return list(found.records.values())
    trials: dict[int, Record] = {}
    if facts.preset:
        chosen = Chosen(facts.preset, None, facts.setting)
    else:
        trials = layout.read_trials(directory, expected, stored.trials).records
        if (choice := layout.choice_on_disk(directory, expected)) is None:
            return list(trials.values())
        chosen = Chosen.of(choice)
    return [*trials.values(), *layout.read_runs(directory, expected, chosen, num_runs).records.values()]


def label_of(loss: str) -> str:
    """Return a loss's label from its YAML file, or its name if there is no such file."""
    path = conf_dir() / "loss" / f"{loss}.yaml"
    return str(yaml.safe_load(path.read_text(encoding="utf-8"))["label"]) if path.exists() else loss


if __name__ == "__main__":
    from benchmark.__main__ import main

    raise SystemExit(main("tables"))
