"""A table of means with intervals; `formats` writes it as CSV, LaTeX and Markdown.

The caller chooses rows and columns, and divides the rows into sections that are not comparable with one another. Rows
of a section may be of different kinds, which are not comparable either. In each column, the rows that cannot be told
from the best one are marked together, separately for each section and kind, see
`comparisons.cannot_be_told_from_best`. Below its main table, a section has further ones (`Block`): differences between
rows, published numbers, and how the numbers came about.
"""

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from benchmark.protocol.comparisons import Difference, Rank, Values, cannot_be_told_from_best
from benchmark.protocol.nested import Scores, search_means
from benchmark.protocol.statistics import Interval

Key = tuple[str, ...]
FEW = 5  # with fewer runs, tests find only large differences
NOT_RUN = "not run; "  # how the reason of a row without a study begins, before the command that runs it
MOST_COMMANDS = 3  # of rows that were not run, each with its own below a table
MARKS = {
    "b": "The chosen setting is on a bound of its search space",
    "m": "More than half of the folds were stopped by the limit of epochs, not by patience",
    "i": "The hierarchy is idle: its groups never changed",
    "o": "A part of the loss, such as a memory or coarse levels, was still off at the scored epoch",
    "s": "The search is shorter than its protocol's",
    "f": "Trials clearly behind the best one were stopped before their last folds (searcher.stop_behind)",
    "r": "The setting was chosen by another rule than the highest mean of a trial (protocol.select)",
    "c": "Computed with several versions of the code, accepted as equal",
    "p": "Pretrained on images that may show the test classes",
    "d": "Has the trunk's features as they are, which are longer than the heading says",
    "q": "Quoted from a paper, not run here",
}
OF_SEARCH = ("b", "s", "r")  # marks that only a searched row can have


@dataclass(frozen=True)
class Column:
    """A metric.

    Attributes:
        key: key of its cells in the rows; in CSV its parts are joined by underscores.
        title: printed above the column.
        block: heading that it shares with its neighbours; empty for none.
        is_main: whether the differences between rows are printed for it; CSV has them for every column.
    """

    key: Key
    title: str
    block: str = ""
    is_main: bool = False

    @property
    def heading(self) -> str:
        """The heading that it shares, and its title."""
        return f"{self.block} {self.title}".strip()


@dataclass(frozen=True)
class Published:
    """A number that a paper prints.

    Attributes:
        value: in percent.
        half_width: half the width of its interval; None if none is printed.
        source: where it stands, such as `HPL, Table 3`.
    """

    value: float
    half_width: float | None
    source: str


@dataclass(frozen=True)
class Compared:
    """The comparison of a row with another one.

    Attributes:
        name: name of the other row.
        label: its printed name.
        differences: this row minus the other one, by column.
        p: p-value by column, adjusted for the number of comparisons; a column without test is absent.
        runs: number of runs that find a difference of this size, by column; None for too many, absent without test.
    """

    name: str
    label: str
    differences: Mapping[Key, Difference]
    p: Mapping[Key, float]
    runs: Mapping[Key, int | None]


RESOURCES = {
    "seconds_per_iteration": "s / iteration",
    "hours_to_convergence": "h to convergence",
    "max_memory_gb": "Memory, GB",
}  # what a training costs, as table 1 of ProxyGML's supplement has it, and the headings
COUNTS = {"num_proxies": "Proxies"}  # whole numbers, as table 2 of HIER's supplement has them
FURTHER = [Column((key,), title) for key, title in (COUNTS | RESOURCES).items()]  # published, but no metrics


def resource_text(key: str, value: float) -> str:
    """Return a count without decimals, or a time or size.

    Args:
        key: a key of `COUNTS` or `RESOURCES`.
        value: its value.
    """
    return f"{value:,.0f}" if key in COUNTS else f"{value:.3g}"


@dataclass(frozen=True)
class Effort:
    """How the numbers of a row came about; None where its records do not tell.

    Attributes:
        trials: number of finished trials of the first search; None without a search.
        asked: number of trials that the protocol asks for; None without a search.
        searched: number of hyper-parameters that were searched.
        iterations: training iterations of all its trials and runs.
        epochs: training epochs of all its trials and runs.
        hours: compute hours of all its trials and runs.
        looks: number of times that the test classes were read.
        at_limit: share of the runs' folds that were stopped by the limit of epochs; None under the traditional
            protocol, which has no other end.
        validation_of_choice: validation MAP@R of the chosen trial, in percent.
        validation: mean validation MAP@R of the runs' folds, in percent.
        separated: separated MAP@R of the runs on the test classes, in percent.
        on_bounds: hyper-parameters whose chosen value is on a bound.
        idle: number of the runs' folds in which the groups of a learned hierarchy never changed.
        off: number of the runs' folds with a part of the loss that had not started at the scored epoch.
        num_folds: number of the runs' folds.
        codes: number of versions of the code that computed the study.
        searches: number of searches that the row joins.
        resources: means over the runs by the keys of `COUNTS` and `RESOURCES`, as far as their records hold them.
        seen: phrases about sets that the trunk was pretrained on and that may hold test classes or images.
        stopped: number of trials that were stopped after their first folds; None for a search that stops none.
        rule: how the trial was chosen, as in `protocol.select`.
        all_trials: number of finished trials of all its searches; None without a search.
        keeps_features: whether the embeddings are the trunk's features as they are, of the trunk's length.
    """

    trials: int | None
    asked: int | None
    searched: int
    iterations: int | None
    epochs: int
    hours: float
    looks: int | None
    at_limit: float | None
    validation_of_choice: float | None
    validation: float | None
    separated: float | None
    on_bounds: tuple[str, ...]
    codes: int
    searches: int = 1
    idle: int = 0
    off: int = 0
    num_folds: int = 0
    resources: Mapping[str, float] = field(default_factory=dict)
    seen: tuple[str, ...] = ()
    stopped: int | None = None
    rule: str = "raw"
    all_trials: int | None = None
    keeps_features: bool = False

    @property
    def marks(self) -> dict[str, str]:
        """The keys of `MARKS` that apply, each with details or an empty text."""
        short = self.trials is not None and self.asked is not None and self.trials < self.asked
        found = {
            "b": ", ".join(self.on_bounds) if self.on_bounds else None,
            "m": "" if (self.at_limit or 0) > 0.5 else None,
            "i": f"{self.idle} of {self.num_folds} folds" if self.idle else None,
            "o": f"{self.off} of {self.num_folds} folds" if self.off else None,
            "s": f"{self.trials} of {self.asked} trials" if short else None,
            "f": f"{self.stopped} of {self.all_trials} trials" if self.stopped is not None else None,
            "r": self.rule if self.rule != "raw" else None,
            "c": f"{self.codes} versions" if self.codes > 1 else None,
            "p": "; ".join(self.seen) or None,
            "d": "" if self.keeps_features else None,
        }
        return {mark: text for mark, text in found.items() if text is not None}


@dataclass
class Row:
    """The row of one loss.

    Attributes:
        name: name of the study's folder; empty for a quoted row.
        label: printed name of the loss.
        cells: mean and interval by column, in percent; empty where runs are missing.
        values: value of each run by column, in percent; runs with equal names share their seeds.
        num_runs: number of runs that have a score.
        reason: why cells are missing, or another remark about the runs.
        kind: how the epoch was chosen, in tables with several ways to choose it.
        settings: the row's text in each column of text, by the column's title.
        exact: the numbers that texts in `settings` round, by the column's title; CSV has these in their place.
        over_searches: mean and interval that cover the search too, by column; empty with a single search.
        by_search: value of each run of all searches by search and run, for the same columns.
        published: what a paper prints, by column.
        base: name of the row with which this one is compared; empty for the best one.
        effort: how its numbers came about; None for a row without a study.
        compared: its comparison with another row; None for the best row, and before `differences.compare`.
        ranks: how it ranks among the other rows, by column; filled by `differences.compare`.
        class_ranks: how it ranks if test classes are drawn again, by column; filled by `class_ranks.rank`.
        levels: mean and interval of each metric on the levels of the hierarchy, in percent.
        is_untrained: whether nothing was trained, so that every run would give the values of its single one.
    """

    name: str
    label: str
    cells: dict[Key, Interval] = field(default_factory=dict)
    num_runs: int = 0
    reason: str = ""
    kind: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    exact: dict[str, float] = field(default_factory=dict)
    values: dict[Key, Values] = field(default_factory=dict)
    over_searches: Mapping[Key, Interval] = field(default_factory=dict)
    by_search: dict[Key, Scores] = field(default_factory=dict)
    published: Mapping[Key, Published] = field(default_factory=dict)
    base: str = ""
    effort: Effort | None = None
    compared: Compared | None = None
    ranks: dict[Key, Rank] = field(default_factory=dict)
    class_ranks: dict[Key, Rank] = field(default_factory=dict)
    levels: Mapping[Key, Interval] = field(default_factory=dict)
    is_untrained: bool = False

    @property
    def is_quoted(self) -> bool:
        """Whether it has published numbers only."""
        return not self.name and bool(self.published)

    @property
    def marks(self) -> dict[str, str]:
        """The keys of `MARKS` that apply, each with details or an empty text."""
        return {"q": ""} if self.is_quoted else self.effort.marks if self.effort else {}

    @property
    def full_label(self) -> str:
        """Its label and kind."""
        return ", ".join(filter(None, (self.label, self.kind)))


class Head(NamedTuple):
    """The heading of a column of text.

    Attributes:
        title: printed above the column.
        block: heading that it shares with its neighbours; empty for none.
    """

    title: str
    block: str = ""


def values_of(rows: Sequence[Row], key: Key) -> dict[str, Values]:
    """Return what is compared in a column, by name of the row: values of runs, or means of searches.

    Means of searches are compared where all rows have the same searches and runs: differences between runs of one
    search say nothing about another search.

    Args:
        rows: rows that have values in the column.
        key: key of the column.
    """
    if scores := scores_of_searches(rows, key):
        return {name: search_means(of) for name, of in scores.items()}
    return {row.name: row.values[key] for row in rows}


def scores_of_searches(rows: Sequence[Row], key: Key) -> dict[str, Scores]:
    """Return the values by search and run, by name of the row; empty unless all rows have the same searches and runs.

    The value of an untrained row stands for each of them.

    Args:
        rows: rows that have values in the column.
        key: key of the column.
    """
    trained = [row.by_search.get(key, {}) for row in rows if not row.is_untrained]
    pairs = trained[0] if trained and all(of.keys() == trained[0].keys() for of in trained) else {}
    if not pairs:
        return {}
    return {
        row.name: dict.fromkeys(pairs, next(iter(row.values[key].values()))) if row.is_untrained else row.by_search[key]
        for row in rows
    }


def _pair(rows: Mapping[str, Row], key: Key, first: str, second: str) -> tuple[Values, Values]:
    """Return what is compared of two rows in a column."""
    values = values_of([rows[first], rows[second]], key)
    return values[first], values[second]


@dataclass(frozen=True)
class Block:
    """A further table of text below a section's main one.

    Attributes:
        name: short name, part of the table's label in LaTeX.
        title: sentence above it.
        heads: headings from left to right.
        num_texts: number of columns on the left that are set flush left.
        groups: lines by heading; an empty heading is not printed.
        notes: sentences below it.
    """

    name: str
    title: str
    heads: Sequence[Head]
    num_texts: int
    groups: Mapping[str, Sequence[Sequence[str]]]
    notes: Sequence[str] = ()

    def without_empty_columns(self) -> "Block":
        """Return the table without columns that are empty in every line."""
        lines = [line for group in self.groups.values() for line in group]
        kept = [i for i in range(len(self.heads)) if i < self.num_texts or any(line[i] for line in lines)]
        groups = {kind: [[line[i] for i in kept] for line in group] for kind, group in self.groups.items()}
        return Block(self.name, self.title, [self.heads[i] for i in kept], self.num_texts, groups, self.notes)


@dataclass
class Section:
    """Rows that may be compared with one another.

    Attributes:
        columns: columns from left to right.
        rows: rows from top to bottom; those with cells have the same number of runs.
        confidence: confidence level of the intervals, such as 0.95.
        remark: a caveat about the numbers, printed with the statistic.
        differences: how these rows differ from those of the table's first section.
        footnotes: sentences about rows, printed below the reasons.
        budget: a sentence about how long was searched and trained, part of the caption.
        blocks: further tables.
    """

    columns: list[Column]
    rows: list[Row]
    confidence: float
    remark: str = ""
    differences: list[str] = field(default_factory=list)
    footnotes: list[str] = field(default_factory=list)
    budget: str = ""
    blocks: list[Block] = field(default_factory=list)

    def top(self) -> dict[tuple[str, Key], set[str]]:
        """Return the names of the rows that cannot be told from the best one, by kind of row and column.

        Two rows with the same searches are compared by the means of these, so that the luck of a search counts.
        """
        found = {}
        for kind, rows in self.kinds().items():
            for column in self.columns:
                complete = [row for row in rows if column.key in row.values]
                if values := values_of(complete, column.key):
                    pair = functools.partial(_pair, {row.name: row for row in complete}, column.key)
                    found[kind, column.key] = cannot_be_told_from_best(values, self.confidence, pair)
        return found

    def columns_over_searches(self) -> list[Column]:
        """Return the columns for which a row has an interval that covers the search."""
        return [column for column in self.columns if any(column.key in row.over_searches for row in self.rows)]

    def main_columns(self) -> list[Column]:
        """Return the main columns, or the first column if none is a main one."""
        return [column for column in self.columns if column.is_main] or self.columns[:1]

    def heads(self) -> dict[str, int]:
        """Return the number of columns below each heading, in order; columns without one have an empty heading."""
        return {block: len(list(group)) for block, group in itertools.groupby(c.block for c in self.columns)}

    def kinds(self) -> dict[str, list[Row]]:
        """Return the rows by kind."""
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            found.setdefault(row.kind, []).append(row)
        return found

    def settings(self) -> list[str]:
        """Return the titles of the columns of text."""
        return list(dict.fromkeys(title for row in self.rows for title in row.settings))

    def apart(self) -> str:
        """Return a sentence about how these rows differ from the first section; empty for the first section."""
        return f"Not comparable with the first table: {'; '.join(self.differences)}." if self.differences else ""

    def common_marks(self) -> set[str]:
        """Return the marks that all complete rows have which can have them; these are stated once, not at each row."""
        return {mark for mark in MARKS if (rows := self._may_have(mark)) and all(mark in row.marks for row in rows)}

    def _may_have(self, mark: str) -> list[Row]:
        """Return the complete rows that can have a mark; without a complete row, the others."""
        rows = [row for row in self.rows if row.effort and (row.effort.searched or mark not in OF_SEARCH)]
        return [row for row in rows if row.cells] or rows

    def _whole(self, mark: str) -> str:
        """Name the rows that share a mark of `common_marks`, of those that were run here."""
        rows, own = self._may_have(mark), [row for row in self.rows if row.name]
        if mark not in OF_SEARCH or len(rows) == len(own):
            return "all rows"
        unsearched = any(row.effort and not row.effort.searched for row in own)
        return f"all {'searched ' * unsearched}rows" + " with results" * any(row.cells for row in rows)

    def marks_at(self, row: Row) -> str:
        """Return the marks that are printed at a row."""
        return ",".join(mark for mark in MARKS if mark in row.marks and mark not in self.common_marks())

    def notes(self) -> list[str]:
        """Return a sentence about the statistic in the cells, the reason of each row, the marks, and the footnotes."""
        reasons = self._reasons()
        counts = {row.num_runs for row in self.rows if row.cells and not row.is_untrained} or {
            row.num_runs for row in self.rows if row.cells
        }
        assert len(counts) < 2, f"rows with different numbers of runs in a section: {sorted(counts)}"
        if not counts:
            return ["No row is complete yet.", *reasons, *self._explained_marks(), *self.footnotes]
        (count,) = counts
        spread = f"+- {100 * self.confidence:.0f} % t-interval " if count > 1 else ""
        first = f"Mean {spread}over n = {count} run{'s' * (count > 1)}, in percent, on unseen classes."
        scope = self._scope(count)
        texts = (first, scope, self._about_bold(count), self.remark)
        return [" ".join(filter(None, texts)), *reasons, *self._explained_marks(), *self.footnotes]

    def _reasons(self) -> list[str]:
        """A sentence for each reason that a row has; one for all rows that were not run, if they are several."""
        texts = {f"{row.label}: {row.reason}": row for row in self.rows if row.reason}
        absent = [row for row in texts.values() if row.reason.startswith(NOT_RUN)]
        if len(absent) <= MOST_COMMANDS:
            return list(texts)
        labels = ", ".join(dict.fromkeys(row.label for row in absent))
        first = f"The first: {absent[0].reason.removeprefix(NOT_RUN)}"
        return [text for text, row in texts.items() if row not in absent] + [f"Not run: {labels}. {first}"]

    def _scope(self, count: int) -> str:
        """Return a sentence about what the intervals of rows with `count` runs leave out; empty without an interval."""
        searched = [row for row in self.rows if row.cells and row.effort and row.effort.trials is not None]
        if counts := sorted({value.n for row in self.rows for value in row.over_searches.values()}):
            listed = " or ".join(map(str, counts))
            level = f"{100 * self.confidence:.0f} %"
            return (
                f"Over searches: mean over {listed} searches and their runs +- {level} t-interval over the means of "
                "the searches, which covers the luck of the search"
                + ("; the other intervals cover training noise only, of the first search." if count > 1 else ".")
            )
        if count == 1:
            return ""
        return f"The intervals cover training noise only{', one search for each row' * bool(searched)}."

    def _about_bold(self, count: int) -> str:
        """Return sentences about bold means over `count` runs; empty if there are none."""
        if not any(self.top().values()):
            return ""
        each = ", each kind of row by itself" * (len(self.kinds()) > 1)
        level = f"{100 * (1 - self.confidence):.0f} %"
        joined = any(row.over_searches for row in self.rows)
        searches = ", or over the means of searches where two rows have the same repeated searches" * joined
        fewest = min((value.n for row in self.rows for value in row.over_searches.values()), default=FEW)
        scarce = f"{count} runs" if count < FEW else f"{fewest} searches" if fewest < FEW else ""
        few = f" Bold rows need not be equal: n = {scarce} tell only large differences apart." * bool(scarce)
        return (
            f"Bold: the rows that cannot be told from the best one of a column{each} (paired t-tests over runs with "
            f"equal seeds{searches}, adjusted by Holm's method, level {level}).{few}"
        )

    def _explained_marks(self) -> list[str]:
        """Return a sentence about each mark, with the rows that have it."""
        found = []
        for mark, meaning in MARKS.items():
            is_common = mark in self.common_marks()
            known = self._may_have(mark) if is_common else self.rows
            rows = {row.label: row.marks[mark] for row in known if mark in row.marks}
            details = set(rows.values())
            if is_common:
                where = self._whole(mark)
                if len(details) > 1:
                    where = ", ".join(f"{label} ({detail})" if detail else label for label, detail in rows.items())
                detail = f" ({details.pop()})" if len(details) == 1 and "" not in details else ""
                found.append(f"{meaning}{detail}: {where}.")
            elif rows:
                named = ", ".join(f"{label} ({detail})" if detail else label for label, detail in rows.items())
                found.append(f"{mark}: {meaning[0].lower()}{meaning[1:]}" + (f": {named}." if mark != "q" else "."))
        return found


@dataclass
class Table:
    """A comparison of losses on one data set with one trunk and protocol.

    Attributes:
        name: base name of its files.
        caption: caption, a single sentence.
        sections: its rows, divided into those that may be compared; the main one first.
        warning: a sentence that all formats show, such as that it is not for reporting; empty for none.
    """

    name: str
    caption: str
    sections: list[Section]
    warning: str = ""

    @property
    def rows(self) -> list[Row]:
        """All rows."""
        return [row for section in self.sections for row in section.rows]
