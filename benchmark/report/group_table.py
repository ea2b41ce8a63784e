"""The table of a group of studies, from their records.

There is one table for each data set x trunk x protocol, with one row per loss (under the traditional protocol, one row
per loss and way to choose the epoch). A cell is the mean over runs with the half width of its t-interval, in percent.
Below, further tables have the differences between rows with their tests, published numbers beside ours, and how the
numbers came about. A row with missing runs stays empty, and the reason is given below the table: a mean over only the
runs that happened to finish would be a different quantity.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from benchmark.core.conf_files import content
from benchmark.core.records import Record
from benchmark.report import class_ranks, fold_rows, traditional_rows
from benchmark.report.comparison import ABSENT, Comparable, Part, at, comparable, parts, printed_labels, text_of
from benchmark.report.differences import compare
from benchmark.report.effort import budget, effort_block, read_effort
from benchmark.report.joined_searches import joined, joined_dependence, unlike
from benchmark.report.level_rows import levels_block
from benchmark.report.published import published_block
from benchmark.report.table import FURTHER, NOT_RUN, Key, Published, Row, Section, Table, resource_text
from benchmark.report.table_layout import Layout, Line
from benchmark.report.untrained import beside_untrained
from benchmark.study import layout
from benchmark.study.command import results_dir_of
from benchmark.study.layout import Chosen
from benchmark.study.stored import StoredStudy, read_study


@dataclass(frozen=True)
class Entry:
    """A study in a table.

    Attributes:
        stored: its description.
        rows: its rows.
        depends: what its numbers depend on, for the comparison of rows.
        directory: its folder.
    """

    stored: StoredStudy
    rows: list[Row]
    depends: Comparable
    directory: Path


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
    used = records_of(stored, directory)
    effort = read_effort(stored, directory, used)
    rows = [replace(row, name=name, effort=effort) for row in shape_of(stored).rows(stored, directory)]
    return Entry(stored, rows, comparable(stored, used, name), directory)


def base_loss(stored: StoredStudy) -> str:
    """Return the name of the loss that a study's own extends, as its YAML file says; empty for none."""
    of_file = content("loss", stored.facts.loss)
    return str(at(stored.config, "loss", "base", "loss") or at(of_file, "base", "loss") or "")


def shape_of(stored: StoredStudy) -> ModuleType:
    """Return the module that makes rows and columns for a study: `fold_rows` or `traditional_rows`."""
    return traditional_rows if stored.facts.story == "traditional" else fold_rows


def corruption_table(name: str, entries: Sequence[Entry], layout: Layout, accept_code: bool) -> Table:
    """Return the table of several losses on corrupted test images.

    Args:
        name: base name of its files.
        entries: the group's studies, at least one.
        layout: that of the table without corruption.
        accept_code: whether studies that different code computed may share a section.
    """
    from benchmark.report import corruption_rows  # which imports PyTorch

    scored = []
    for entry in entries:
        rows = corruption_rows.rows(entry.stored, entry.directory)
        scored.append(replace(entry, rows=[replace(row, effort=entry.rows[0].effort) for row in rows]))
    lines = [replace(line, published={}) for line in layout.lines if line.study]
    caption = f"{layout.caption.removesuffix('.')}: corrupted test images."
    own = replace(layout, caption=caption, lines=lines, columns=())
    return make_table(name, scored, own, accept_code, shape_for=lambda _: corruption_rows)


def make_table(
    name: str, entries: Sequence[Entry], layout: Layout, accept_code: bool = False, bootstrap: int = 0,
    shape_for: Callable[[StoredStudy], ModuleType] | None = None,
) -> Table:  # fmt: skip
    """Return the table of a group of studies, with an empty row for each requested loss that has no results.

    Args:
        name: the group's name, `dataset-trunk-protocol`.
        entries: the group's studies, at least one.
        layout: supplies the caption, and the requested rows and columns, if any.
        accept_code: whether studies that different code computed may share a section.
        bootstrap: number of resamples of the test classes over which rows are ranked; 0 for none.
        shape_for: returns the module that makes the columns of a study; `shape_of` by default.

    Raises:
        UserError: with `bootstrap`, the ledger of a study cannot be written, or its embeddings are damaged.
    """
    named = {line.study: line for line in layout.lines if line.study}
    found = {entry.depends.name: entry for entry in join_searches(entries, accept_code)}
    lines = [*layout.lines, *(Line(key) for key in found if key not in named)]
    compared = [_labelled(found[line.study].depends, line) for line in lines if line.study in found]
    labels, (main, *others) = printed_labels(compared), parts(compared, accept_code)
    facts = found[main.rows[0]].stored.facts
    caption = layout.caption or f"{facts.dataset_label}, protocol {facts.protocol}."
    sections = []
    for part in (main, *others):
        stored = found[part.rows[0]].stored
        shape = (shape_for or shape_of)(stored)
        columns = [column for column in shape.columns(stored) if not layout.columns or column.key in layout.columns]
        section = Section(columns or shape.columns(stored), [], stored.facts.confidence, shape.REMARK)
        section.differences, section.footnotes = part.differences, part.footnotes
        for line in lines:
            if line.study in part.rows:
                texts = {title: column[line.study] for title, column in part.columns.items()}
                base = base_of(found, part, line, layout)
                section.rows += [
                    replace(
                        row,
                        label=labels[line.study],
                        settings=texts,
                        base=base,
                        published=_beside(line, row.kind, shape),
                    )
                    for row in found[line.study].rows
                ]
            elif part is main and line.study not in found:
                section.rows += absent(found[part.rows[0]], line, shape)
        section.rows = [with_resources(row, layout) for row in section.rows]
        beside_untrained(section)
        section.budget = budget(section)
        compare(section)
        section.footnotes += other_batches(section, found)
        if bootstrap:
            class_ranks.rank(section, {line: found[line].directory for line in part.rows}, bootstrap)
        section.blocks += [*published_block(section), *levels_block(section), *effort_block(section)]
        sections.append(section)
    return Table(name, caption, sections, layout.warning)


def join_searches(entries: Sequence[Entry], accept_code: bool = False) -> list[Entry]:
    """Return the studies with one entry for a search and its repetitions, in the order of the first searches.

    A repetition whose first search is absent, and a copy of a study, stay entries of their own. One with another number
    of trials or runs, or of other code, is left out with a reason.

    Args:
        entries: studies of one group.
        accept_code: whether searches that different code computed may be joined.
    """
    searches: dict[str, dict[int, Entry]] = {}
    for entry in entries:
        if entry.stored.facts.story == "search":
            searches.setdefault(entry.stored.row, {}).setdefault(entry.stored.facts.search, entry)
    repeated = {id(entry): group for group in searches.values() if 0 in group for entry in group.values()}
    found = []
    for entry in entries:
        group = repeated.get(id(entry), {})
        if len(group) < 2:
            found.append(entry)
        elif entry is group[0]:
            found.append(_joined(group, accept_code))
    return found


def _joined(group: Mapping[int, Entry], accept_code: bool) -> Entry:
    """Return the entry of a search with those of its repetitions, by their numbers."""
    first = group[0]
    known = replace(first.depends, code=None) if accept_code else first.depends
    faults = {number: unlike(known, entry.depends) for number, entry in group.items()}
    rows = {number: entry.rows[0] for number, entry in group.items() if not faults[number]}
    stored = first.stored
    columns = shape_of(stored).columns(stored)
    keys, main = [column.key for column in columns], [column.key for column in columns if column.is_main]
    row = joined(rows, keys, main, stored.facts.confidence) if len(rows) > 1 else first.rows[0]
    depends = joined_dependence([group[number].depends for number in sorted(rows)])
    left_out = [f"search{number} is left out: {fault}" for number, fault in sorted(faults.items()) if fault]
    reason = "; ".join(filter(None, (row.reason, *left_out)))
    return replace(first, rows=[replace(row, reason=reason)], depends=depends)


def _labelled(row: Comparable, line: Line) -> Comparable:
    return replace(row, label=line.label or row.label)


def with_resources(row: Row, layout: Layout) -> Row:
    """Return a row with each count, time or size that the layout asks for: ours, or the paper's if it is quoted.

    Args:
        row: the row.
        layout: its columns say what to show.
    """
    texts, numbers = dict(row.settings), dict(row.exact)
    for column in FURTHER:
        if column.key in layout.columns:
            quoted, own = row.published.get(column.key), row.effort.resources if row.effort else {}
            value = quoted.value if row.is_quoted and quoted else own.get(column.key[0])
            texts[column.title] = "" if value is None else resource_text(column.key[0], value)
            if value is not None:
                numbers[column.title] = value
    return replace(row, settings=texts, exact=numbers)


def _beside(line: Line, kind: str, shape: ModuleType) -> Mapping[Key, Published]:
    """Return the published numbers that stand beside a row of some kind."""
    return line.published if kind == shape.KIND_OF_PAPERS else {}


def absent(other: Entry, line: Line, shape: ModuleType) -> list[Row]:
    """Return the rows of a line without a study: its published numbers, or empty ones with the command that runs it.

    Args:
        other: the study of another loss in the table, which supplies the command's other options.
        line: the line.
        shape: see `shape_of`.
    """
    if not line.study:
        return [Row("", line.label, published=line.published, kind=shape.KIND_OF_PAPERS)]
    label = line.label or label_of(line.study)
    rows = shape.absent(other.stored, results_dir_of(other.directory), line.study, label)
    reason = {"reason": f"{NOT_RUN}{line.command}"} if line.command else {}
    return [replace(row, published=_beside(line, row.kind, shape), **reason) for row in rows]


def base_of(found: Mapping[str, Entry], part: Part, line: Line, layout: Layout) -> str:
    """Return the name of the row with which a row is compared; empty for the best one.

    A line or the layout may name it. Otherwise, it is a study of the base of the row's loss, preferably one with the
    same preset and variant.

    Args:
        found: the studies by name.
        part: the rows that may be compared.
        line: the row's line.
        layout: the table's layout.
    """
    if (given := line.base or layout.base) in part.rows:
        return given
    others = {name: found[name].stored for name in part.rows if name != line.study}
    return next(iter(studies_of_base(found[line.study].stored, others)), "")


def studies_of_base(stored: StoredStudy, others: Mapping[str, StoredStudy]) -> list[str]:
    """Return the names of the studies of the base of a study's loss: first those with its preset, sampler and variant.

    Args:
        stored: the study.
        others: other studies by name.
    """
    base, ours = base_loss(stored), stored.facts

    def unlike(name: str) -> tuple[bool, ...]:
        facts, in_other_batches = others[name].facts, sampler_of(others[name]) != sampler_of(stored)
        return facts.preset != ours.preset, in_other_batches, facts.variant != ours.variant, bool(facts.variant)

    return sorted((name for name, other in others.items() if base and other.facts.loss == base), key=unlike)


def sampler_of(stored: StoredStudy) -> dict[str, str]:
    """Return the options of a loss's sampler, such as the number of images of a class in a batch, as text."""
    found = at(stored.science, "loss", "sampler")
    return {key: text_of(value) for key, value in found.items()} if isinstance(found, dict) else {}


def other_batches(section: Section, found: Mapping[str, Entry]) -> list[str]:
    """Return a footnote about rows that are compared with their base in other batches; an empty list without any.

    Args:
        section: its rows have been compared.
        found: the studies by name.
    """
    texts, stored = list[str](), {name: entry.stored for name, entry in found.items()}
    for row in section.rows:
        if row.compared and row.compared.name in studies_of_base(stored[row.name], stored):
            ours, others = sampler_of(stored[row.name]), sampler_of(stored[row.compared.name])
            keys = [key for key in ours | others if ours.get(key) != others.get(key)]
            each = [f"{key}={ours.get(key, ABSENT)}, {row.compared.label} {others.get(key, ABSENT)}" for key in keys]
            texts += [f"{row.label} ({'; '.join(each)})"] if keys else []
    what = "The difference from the base is also that of their batches (loss.sampler)"
    better = "A study of the base with the same sampler and a variant=NAME is compared instead, if there is one."
    return [f"{what}: {', '.join(texts)}. {better}"] if texts else []


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


def label_of(study: str) -> str:
    """Return the label that a study without results will have, by the name of its folder, `loss[-preset][-variant]`.

    >>> label_of("hier-default"), label_of("my_loss")
    ('HIER (default)', 'my_loss')
    """
    loss, *suffixes = study.split("-")
    return str(content("loss", loss).get("label", loss)) + f" ({', '.join(suffixes)})" * bool(suffixes)
