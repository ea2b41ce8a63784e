"""What a page shows, as plain data: tables with their cells, figures, and the records behind each row."""

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.core.invocation import command
from benchmark.core.wording import counted, human_time
from benchmark.report.figures import save
from benchmark.report.group_table import Entry, records_of
from benchmark.report.page import charts
from benchmark.report.page.pictures import Picture
from benchmark.report.page.svg import to_svg
from benchmark.report.runs import device_of
from benchmark.report.search_curves import Curve, drawn, pooled, read_search
from benchmark.report.table import MARKS, Block, Column, Published, Section, Table
from benchmark.study import layout
from benchmark.study.layout import Chosen

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCORES = "Scores on the test classes"
NUMBER = re.compile(r"[+-]?\d[\d,]*\.?\d*")


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: what is printed.
        spread: half width of its interval, printed after it; empty for none.
        value: what it is sorted by; None sorts last.
        is_together: whether it cannot be told from the best one of its column.
        is_number: whether it is set flush right.
    """

    text: str
    spread: str = ""
    value: float | str | None = None
    is_together: bool = False
    is_number: bool = True


@dataclass(frozen=True)
class Line:
    """A row of a table.

    Attributes:
        label: what stands in its first column.
        marks: marks behind it.
        trace: id of the entry that names its records; empty for none.
        is_quoted: whether it is a paper's.
        cells: the cells of the other columns.
    """

    label: str
    marks: str
    trace: str
    is_quoted: bool
    cells: Sequence[Cell]


@dataclass(frozen=True)
class Grid:
    """A table.

    Attributes:
        id: its id in the page.
        caption: a sentence above it.
        first: heading of the first column.
        spans: for each heading that columns share, its text and their number; empty without any.
        heads: for each column, its heading and the full one that a screen reader reads.
        groups: rows by their kind.
        notes: sentences below it.
    """

    id: str
    caption: str
    first: str
    spans: Sequence[tuple[str, int]]
    heads: Sequence[tuple[str, str]]
    groups: Mapping[str, Sequence[Line]]
    notes: Sequence[str]


@dataclass(frozen=True)
class Drawing:
    """A figure.

    Attributes:
        id: its id in the page, and the name of its files.
        title: its heading.
        text: what it shows.
        svg: the figure itself.
        files: paths of its files, relative to the page.
    """

    id: str
    title: str
    text: str
    svg: str
    files: Sequence[str]


@dataclass(frozen=True)
class Trace:
    """The records behind a row.

    Attributes:
        id: its id in the page.
        label: the row's name.
        command: the command that prints them.
        folder: the study's folder.
        records: the files, relative to the folder.
    """

    id: str
    label: str
    command: str
    folder: str
    records: str


@dataclass(frozen=True)
class Part:
    """Rows that may be compared, with their figures.

    Attributes:
        apart: how they differ from those of the first part; empty for the first one.
        budget: how long was searched and trained.
        main: their table.
        more: further tables.
        drawings: figures.
        traces: the records behind each row.
    """

    apart: str
    budget: str
    main: Grid
    more: Sequence[Grid]
    drawings: Sequence[Drawing]
    traces: Sequence[Trace]


@dataclass(frozen=True)
class Group:
    """All about one table.

    Attributes:
        id: its id in the page.
        name: name of the table.
        caption: its caption.
        warning: a sentence about why it is not for reporting; empty for none.
        facts: what was run, in pairs of a term and a text.
        marks: the marks in it, each with its meaning.
        parts: its parts; the main one first.
        pictures: what `make figures` drew.
        draw: commands that draw more.
    """

    id: str
    name: str
    caption: str
    warning: str
    facts: Sequence[tuple[str, str]]
    marks: Sequence[tuple[str, str]]
    parts: Sequence[Part]
    pictures: Sequence[Picture] = ()
    draw: Sequence[str] = ()


@dataclass(frozen=True)
class Place:
    """Where the page and its figures go.

    Attributes:
        results_dir: the results folder.
        formats: formats of the files of a figure.
    """

    results_dir: Path
    formats: Sequence[str] = ("pdf", "png")

    def drawing(self, name: str, title: str, text: str, figure: "Figure") -> Drawing:
        """Write the files of a figure, and return it for the page.

        Args:
            name: its id and the name of its files.
            title: its heading.
            text: what it shows.
            figure: the figure.

        Raises:
            WriteError: a file cannot be written.
        """
        paths = save(figure, self.results_dir / "figures" / name, self.formats)
        files = [path.relative_to(self.results_dir).as_posix() for path in paths]
        return Drawing(name, title, text, to_svg(figure, name, f"{title}. {text}"), files)


@dataclass
class Runs:
    """What the page needs of a study's records.

    Attributes:
        histories: scores of each training of its runs by epoch, in percent.
        metric: what these scores are.
        commits: commits of the code that trained them.
        devices: devices that trained them.
        seconds: compute time of all its records.
        num: number of its runs.
    """

    histories: list[dict[int, float]] = field(default_factory=list)
    metric: str = ""
    commits: set[str] = field(default_factory=set)
    devices: set[str] = field(default_factory=set)
    seconds: float = 0.0
    num: int = 0


def read_runs(entry: Entry) -> Runs:
    """Read the records of a study once, and keep what the page shows of them.

    Args:
        entry: the study.
    """
    found = Runs()
    traditional = entry.stored.facts.story == "traditional"
    found.metric = "R@1 on test classes, %" if traditional else "MAP@R on validation classes, %"
    for record in records_of(entry.stored, entry.directory):
        found.seconds += sum(record.provenance["seconds"].values())
        if commit := record.provenance.get("commit"):
            found.commits.add(str(commit))
        found.devices.add(device_of(record))
        if record.kind == "trial":
            continue
        found.num += 1
        for trained in record.result.get("folds", [record.result]):
            found.histories.append(dict(_scores(trained.get("history") or [], traditional)))
    return found


def _scores(history: Sequence[Mapping[str, object]], traditional: bool) -> Iterator[tuple[int, float]]:
    for row in history:
        scores = row.get("watched") if traditional else row
        value = scores.get("recall_at_1" if traditional else "map_at_r") if isinstance(scores, Mapping) else None
        if isinstance(value, int | float) and isinstance(epoch := row["epoch"], int):
            yield epoch, 100 * value


def group_of(
    table: Table, entries: Sequence[Entry], place: Place, more: Callable[[str], Sequence[Drawing]] | None = None
) -> Group:
    """Return what the page shows of a table, and write the files of its figures.

    Args:
        table: the table.
        entries: the studies in it.
        place: where the files go.
        more: returns further figures of the first part.

    Raises:
        WriteError: a file cannot be written.
    """
    named = {entry.depends.name: entry for entry in entries}
    runs = {name: read_runs(entry) for name, entry in named.items()}
    parts = []
    for number, section in enumerate(table.sections, 1):
        name = _slug(table.name + f"-{number}" * (number > 1))
        drawings = [*_drawings(section, name, named, runs, place), *(more(name) if more and number == 1 else ())]
        apart = f", part {number}" * (number > 1)  # so that no two tables have the same caption
        grids = [_block(block, f"{name}-{block.name}", apart) for block in section.blocks]
        traces = list(_traces(section, name, named, place.results_dir))
        main = main_grid(section, name, SCORES + apart)
        parts.append(Part(section.apart(), section.budget, main, grids, drawings, traces))
    present = {mark for row in table.rows for mark in row.marks}
    marks = [(mark, meaning) for mark, meaning in MARKS.items() if mark in present]
    facts = list(_facts(table, named, runs))
    return Group(_slug(table.name), table.name, table.caption, table.warning, facts, marks, parts)


def _slug(name: str) -> str:
    """A name as an id and the name of a file."""
    return re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII).strip("-.") or "table"


def _facts(table: Table, named: Mapping[str, Entry], runs: Mapping[str, Runs]) -> Iterator[tuple[str, str]]:
    """Yield pairs of a term and a text: what was run, how long, by which code and on which machines."""
    complete = {row.name for row in table.rows if row.cells}
    labels = {row.name: row.label for row in table.rows if row.name and row.name not in complete}
    texts = [counted(len(complete), "complete row")]
    texts += [f"incomplete: {', '.join(label for name, label in labels.items() if name in named)}"]
    texts += [f"{len(labels.keys() - named.keys())} not run"]
    wanted = (True, bool(labels.keys() & named.keys()), bool(labels.keys() - named.keys()))
    yield "Losses", "; ".join(itertools.compress(texts, wanted))
    trials = sorted({entry.depends.trials for entry in named.values() if entry.depends.trials})
    if trials:
        yield "Search", f"{_range(trials)} trials for each loss"
    counts = sorted({found.num for found in runs.values() if found.num})
    if counts:
        yield "Runs", f"{_range(counts)} for each loss"
    yield "Compute time", human_time(sum(found.seconds for found in runs.values()))
    looks = [row.effort.looks for row in table.rows if row.effort and row.effort.looks is not None]
    if looks:
        yield "Looks at the test classes", f"{_range(sorted(set(looks)))} for each loss, each in its test_ledger.jsonl"
    commits = sorted({commit[:12] for found in runs.values() for commit in found.commits})
    yield "Commit", ", ".join(commits) or "not recorded"
    yield "Machine", ", ".join(sorted({device for found in runs.values() for device in found.devices}))
    versions: dict[str, set[str]] = {}
    for entry in named.values():
        for package in ("python", "torch"):
            versions.setdefault(package, set()).update(entry.depends.versions.get(package, ()))
    yield "Versions", ", ".join(f"{name} {' and '.join(sorted(found))}" for name, found in versions.items() if found)


def _range(numbers: Sequence[int]) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"


# -- tables -----------------------------------------------------------------------------------------------------------


def main_grid(section: Section, name: str, caption: str) -> Grid:
    """Return the table of means, with published numbers beside ours.

    Args:
        section: its rows.
        name: id of the table.
        caption: a sentence above it.
    """
    quoted = {column.key for column in section.columns for row in section.rows
              if column.key in row.published and not row.is_quoted}  # fmt: skip
    heads: list[tuple[str, str, str]] = [("", title, title) for title in section.settings()]
    for column in section.columns:
        heads.append((column.block, column.title, column.heading))
        if column.key in quoted:
            heads.append((column.block, "published", f"{column.heading}, published"))
    extra = section.columns_over_searches()
    heads += [("Over searches", column.title, f"{column.heading} over searches") for column in extra]
    top = section.top()
    groups: dict[str, list[Line]] = {}
    for row in section.rows:
        cells = [_text_cell(row.settings.get(title, "")) for title in section.settings()]
        for column in section.columns:
            mine = row.published.get(column.key) if row.is_quoted else row.cells.get(column.key)
            cells.append(_number_cell(mine, row.name in top.get((row.kind, column.key), ())))
            if column.key in quoted:
                cells.append(_number_cell(None if row.is_quoted else row.published.get(column.key)))
        cells += [_number_cell(row.over_searches.get(column.key)) for column in extra]
        trace = f"{name}-from-{_slug(row.name)}" if row.name and row.effort else ""
        marks = section.marks_at(row)
        groups.setdefault(row.kind, []).append(Line(row.label, marks, trace, row.is_quoted, cells))
    return Grid(f"{name}-table", caption, "Loss", _spans(head for head, _, _ in heads),
                [(title, full) for _, title, full in heads], groups, _plus_minus(section.notes()))  # fmt: skip


def _plus_minus(notes: Sequence[str]) -> list[str]:
    return [note.replace("+-", "±") for note in notes]


def _number_cell(found: object, is_together: bool = False) -> Cell:
    """A cell with the mean and half width of an interval or of a published number; an empty one for None."""
    if found is None:
        return Cell("")
    mean = getattr(found, "value", None) if isinstance(found, Published) else getattr(found, "mean", None)
    half_width = getattr(found, "half_width", None)
    assert isinstance(mean, float | int)
    return Cell(f"{mean:.2f}", "" if half_width is None else f"± {half_width:.2f}", float(mean), is_together)


def _text_cell(text: str) -> Cell:
    """A cell with a text, sorted by the number that it begins with, if any."""
    found = NUMBER.match(text.lstrip("<> ")) if text else None
    value = float(found[0].replace(",", "")) if found else text or None
    return Cell(text, "", value, is_number=found is not None)


def _spans(blocks: Iterator[str]) -> list[tuple[str, int]]:
    spans = [(block, len(list(group))) for block, group in itertools.groupby(blocks)]
    return spans if any(block for block, _ in spans) else []


def _block(block: Block, name: str, apart: str) -> Grid:
    groups = {
        kind: [Line(line[0], "", "", False, [_text_cell(text) for text in line[1:]]) for line in lines]
        for kind, lines in block.groups.items()
    }
    titles = [(head.block, head.title or "difference") for head in block.heads[1:]]
    heads = [(title, f"{shared} {title}".strip()) for shared, title in titles]
    spans = _spans(head.block for head in block.heads[1:])
    caption, first = block.title + apart, block.heads[0].title
    return Grid(f"{name}-table", caption, first, spans, heads, groups, _plus_minus(block.notes))


# -- records ----------------------------------------------------------------------------------------------------------


def _traces(section: Section, name: str, named: Mapping[str, Entry], results_dir: Path) -> Iterator[Trace]:
    for key, rows in itertools.groupby(section.rows, lambda row: row.name):
        row = next(rows)
        if (entry := named.get(key)) is None:
            continue
        folder = entry.directory
        where = {} if results_dir == Path("results") else {"results_dir": results_dir}
        cell = f"{folder.parent.name}/{folder.name}"
        yield Trace(
            f"{name}-from-{_slug(key)}", row.label, command("trace", {"cell": cell, **where}), str(folder),
            _record_files(entry),
        )  # fmt: skip


def _record_files(entry: Entry) -> str:
    """The records of a study, relative to its folder."""
    facts, folder = entry.stored.facts, entry.directory
    if facts.story == "traditional":
        runs = layout.traditional_path(folder, facts.preset, 0)
    else:
        chosen, search = Chosen(facts.preset, None, facts.setting), ""
        if not facts.preset:
            if (choice := layout.choice_on_disk(folder, entry.stored.expected)) is None:
                return "bo/trial_*.json"
            chosen, search = Chosen.of(choice), "bo/trial_*.json, bo/best.yaml, "
        runs = layout.run_path(folder, chosen.name, 0)
        return f"{search}{runs.parent.relative_to(folder).as_posix()}/run_*.json"
    return f"{runs.parent.relative_to(folder).as_posix()}/run_*.json"


# -- figures ----------------------------------------------------------------------------------------------------------


def _drawings(
    section: Section, name: str, named: Mapping[str, Entry], runs: Mapping[str, Runs], place: Place
) -> Iterator[Drawing]:
    level = f"{100 * section.confidence:.0f} %"
    for column in section.main_columns():
        key = _slug("_".join(column.key))
        if figure := charts.forest(section, column):
            text = (
                f"Mean and {level} interval of each loss. Filled: cannot be told from the best one"
                f"{'; diamonds: published numbers' * _has_published(section, column)}."
            )
            yield place.drawing(f"{name}-forest-{key}", f"{column.heading} with intervals", text, figure)
    for column in section.main_columns():
        key = _slug("_".join(column.key))
        if figure := charts.differences(section, column):
            text = (
                f"Each loss minus its base, or minus the best one, with {level} interval over pairs of runs"
                f"{', or of searches where both have the same ones' * bool(section.columns_over_searches())}. Filled: "
                f"the adjusted p-value is below {1 - section.confidence:.2g}."
            )
            yield place.drawing(f"{name}-differences-{key}", f"Differences in {column.heading}", text, figure)
    first = section.main_columns()[0]
    if figure := charts.cost(section, first):
        text = "The mean of each loss against the compute hours of all its trials and runs."
        yield place.drawing(f"{name}-cost", "Score against compute hours", text, figure)
    if figure := charts.validation(section):
        text = (
            "Mean over runs and folds on the validation classes and on the test classes. One point for each loss, at "
            "the setting that its search chose: the test classes were read for no other one."
        )
        yield place.drawing(f"{name}-validation", "Validation against test", text, figure)
    here = list(dict.fromkeys(row.name for row in section.rows if row.name in named))
    if curves := pooled([curve for key in here if (curve := _curve(named[key])) is not None]):
        text = (
            "The best validation score against the number of trials: mean and 95 % band over all subsets of the "
            "trials, and the search in its own order. A curve that still rises at its end asks for more trials."
        )
        figure = drawn(curves, per_row=charts.PER_ROW, size=(charts.WIDTH / charts.PER_ROW, 1.8))
        yield place.drawing(f"{name}-search", "Best so far", text, figure)
    labels = {row.name: row.label for row in section.rows}
    histories = [charts.History(labels[key], found.histories, found.metric)
                 for key in here if any((found := runs[key]).histories)]  # fmt: skip
    if histories:
        text = (
            "Mean and range over the trainings of all runs by epoch. A training that was stopped counts up to its last "
            "epoch, so the mean of later epochs is of those that went on."
        )
        yield place.drawing(f"{name}-training", "Training curves", text, charts.training(histories))


def _has_published(section: Section, column: Column) -> bool:
    return any(column.key in row.published for row in section.rows)


def _curve(entry: Entry) -> Curve | None:
    return None if entry.stored.facts.preset or entry.stored.facts.story != "search" else read_search(entry.directory)
