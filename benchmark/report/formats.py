"""A table of means with intervals, and its three formats: CSV, LaTeX and Markdown.

The caller chooses rows and columns, and divides the rows into sections that are not comparable with one another. Rows
of a section may be of different kinds, which are not comparable either. The best mean of a column is marked separately
for each section and kind. All text is escaped here, see `core.escape`.
"""

import csv
import io
import itertools
import math
from dataclasses import dataclass, field
from pathlib import Path

from benchmark.core import escape, records
from benchmark.protocol.statistics import Interval

Key = tuple[str, ...]
MANY = 6  # a table with more columns is set in smaller type on a narrow page


@dataclass(frozen=True)
class Column:
    """A metric.

    Attributes:
        key: key of its cells in the rows; in CSV its parts are joined by underscores.
        title: printed above the column.
        block: heading that it shares with its neighbours; empty for none.
    """

    key: Key
    title: str
    block: str = ""


@dataclass
class Row:
    """The row of one loss.

    Attributes:
        name: name of the study's folder.
        label: printed name of the loss.
        cells: mean and interval by column, in percent; empty where runs are missing.
        num_runs: number of runs that have a score.
        reason: why cells are missing, or another remark about the runs.
        seconds: compute time of the runs.
        kind: how the epoch was chosen, in tables with several ways to choose it.
        settings: the row's text in each column of text, by the column's title.
    """

    name: str
    label: str
    cells: dict[Key, Interval] = field(default_factory=dict)
    num_runs: int = 0
    reason: str = ""
    seconds: float = 0.0
    kind: str = ""
    settings: dict[str, str] = field(default_factory=dict)


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
    """

    columns: list[Column]
    rows: list[Row]
    confidence: float
    remark: str = ""
    differences: list[str] = field(default_factory=list)
    footnotes: list[str] = field(default_factory=list)

    def best(self) -> dict[tuple[str, Key], float]:
        """Return the highest mean, rounded as printed, by kind of row and column."""
        found: dict[tuple[str, Key], float] = {}
        for row in self.rows:
            for key, interval in row.cells.items():
                found[row.kind, key] = max(round(interval.mean, 2), found.get((row.kind, key), -math.inf))
        return found

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

    def notes(self) -> list[str]:
        """Return a sentence about the statistic in the cells, the reason of each row, and the footnotes."""
        reasons = list(dict.fromkeys(f"{row.label}: {row.reason}" for row in self.rows if row.reason))
        counts = {row.num_runs for row in self.rows if row.cells}
        assert len(counts) < 2, f"rows with different numbers of runs in a section: {sorted(counts)}"
        if not counts:
            return ["No row is complete yet.", *reasons, *self.footnotes]
        (count,) = counts
        spread = f"+- {100 * self.confidence:.0f} % t-interval " if count > 1 else ""
        best = f"the best mean of a column is bold{', each kind of row by itself' * (len(self.kinds()) > 1)}."
        first = f"Mean {spread}over n = {count} run{'s' * (count > 1)}, in percent, on unseen classes; {best}"
        return [f"{first} {self.remark}".strip(), *reasons, *self.footnotes]


@dataclass
class Table:
    """A comparison of losses on one data set with one trunk and protocol.

    Attributes:
        name: base name of its files.
        caption: caption, a single sentence.
        sections: its rows, divided into those that may be compared; the main one first.
    """

    name: str
    caption: str
    sections: list[Section]

    @property
    def rows(self) -> list[Row]:
        """All rows."""
        return [row for section in self.sections for row in section.rows]


def write_table(table: Table, folder: Path) -> list[Path]:
    """Write the three files and return their paths.

    Raises:
        OSError: the folder cannot be written; the message says what to do.
    """
    texts = {"csv": as_csv(table), "tex": latex(table), "md": markdown(table)}
    paths = []
    records.remove_abandoned(folder)
    for ending, text in texts.items():
        path = folder / f"{table.name}.{ending}"
        records.write_whole(path, text.encode())
        paths.append(path)
    return paths


def as_csv(table: Table) -> str:
    """Return the table with full precision: mean and half width of each metric, number of runs, reasons and footnotes.

    If there are several sections, the column `part` numbers them. A text that a spreadsheet would evaluate as a formula
    has a leading apostrophe.
    """
    with_kinds = any(row.kind for row in table.rows)
    lines = []
    for number, section in enumerate(table.sections, 1):
        notes = " ".join(filter(None, (section.apart(), *section.footnotes)))
        for row in section.rows:
            line: dict[str, object] = {"part": number} if len(table.sections) > 1 else {}
            line |= {"loss": row.name, "label": row.label}
            if with_kinds:
                line["kind"] = row.kind
            line |= {title.lower(): row.settings.get(title, "") for title in section.settings()}
            line["num_runs"] = row.num_runs
            for column in section.columns:
                interval, name = row.cells.get(column.key), "_".join(column.key)
                line[name] = interval.mean if interval else None
                line[f"{name}_half_width"] = interval.half_width if interval else None
            line["reason"] = row.reason
            lines.append(line | ({"notes": notes} if notes else {}))
    names = list(dict.fromkeys(name for line in lines for name in line))
    last = ("reason", "notes")
    names = [name for name in names if name not in last] + [name for name in last if name in names]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for line in lines:
        writer.writerow({k: escape.csv_text(v) if isinstance(v, str) else v for k, v in line.items()})
    return text.getvalue()


def markdown(table: Table) -> str:
    """Return the table in GitHub's Markdown, with the best means in bold; sections follow one another."""
    caption = escape.markdown_paragraph(table.caption)
    return f"{caption}\n\n" + "\n".join(map(_markdown_section, table.sections))


def _markdown_section(section: Section) -> str:
    heads = [*section.settings(), *(f"{column.block} {column.title}".strip() for column in section.columns)]
    lines = ["| Loss | " + " | ".join(map(escape.markdown, heads)) + " |", "|---" * (1 + len(heads)) + "|"]
    best = section.best()
    for row in section.rows:
        cells = [escape.markdown(row.settings.get(title, "")) for title in section.settings()]
        cells += [" ± ".join(filter(None, _cell(row, column.key, best, "**{}**"))) for column in section.columns]
        label = escape.markdown(", ".join(filter(None, (row.label, row.kind))))
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    above = [section.apart()] if section.differences else []
    paragraphs = [*map(escape.markdown_paragraph, above), "\n".join(lines)]
    return "\n\n".join([*paragraphs, *map(escape.markdown_paragraph, section.notes())]) + "\n"


def _cell(row: Row, key: Key, best: dict[tuple[str, Key], float], bold: str) -> tuple[str, str]:
    """Return the printed mean and half width, each empty if there is none."""
    interval = row.cells.get(key)
    if interval is None:
        return "", ""
    mean = f"{interval.mean:.2f}"
    mean = bold.format(mean) if round(interval.mean, 2) == best[row.kind, key] else mean
    return mean, "" if interval.half_width is None else f"{interval.half_width:.2f}"


def latex(table: Table) -> str:
    r"""Return booktabs tables that compile alone and, unchanged, by `\input` in a paper that loads booktabs.

    There is one for each section, labelled `tab:NAME`, `tab:NAME:2` and so on. It is as wide as the page, spans both
    columns of a two-column paper, and fits the 345 pt of LaTeX's `article`. To fit, a table with more than `MANY`
    metrics has no columns of text; its footnotes contain the same information.
    """
    lines = [
        r"% Compiles as it is; in a paper that loads booktabs, \input it.",
        r"\expandafter\ifx\csname @nodocument\endcsname\relax\def\endalone{}\else",
        r"\documentclass{article}\usepackage{booktabs}\usepackage[margin=2cm]{geometry}",
        r"\begin{document}\def\endalone{\end{document}}\fi",
    ]
    for number, section in enumerate(table.sections, 1):
        label = f"tab:{escape.latex_label(table.name)}" + f":{number}" * (number > 1)
        lines += _latex_section(section, table.caption, label)
    return "\n".join([*lines, r"\endalone"]) + "\n"


def _latex_section(section: Section, caption: str, label: str) -> list[str]:
    statistic, *notes = section.notes()
    small, gap = (r"\tiny", "1pt") if len(section.columns) > MANY else (r"\scriptsize", "3pt")
    settings = _latex_settings(section)
    metrics = [rf"\multicolumn{{2}}{{@{{}}c@{{}}}}{{{escape.latex(column.title)}}}" for column in section.columns]
    fill = rf"@{{\extracolsep{{\fill}}\hspace{{{gap}}}}}r"
    pair = rf"{fill}@{{\extracolsep{{0pt}}}}l"
    words = " ".join(filter(None, (escape.latex(caption), escape.latex(section.apart()), _plus_minus(statistic))))
    lines = [
        rf"\begin{{table*}}[!t]\centering\ifdim\textwidth<400pt{small}\else\small\fi",
        rf"\caption{{{words}}}\label{{{label}}}\smallskip",
        r"\begin{tabular*}{\textwidth}{@{}l" + fill * len(settings) + pair * len(metrics) + "@{}}", r"\toprule",
        *_headings(section.heads(), len(settings)),
        " & ".join(["Loss", *map(escape.latex, settings), *metrics]) + r" \\", r"\midrule",
        *_body(section, small), r"\bottomrule", r"\end{tabular*}",
    ]  # fmt: skip
    if notes:
        lines += [
            r"\par\smallskip\parbox{\textwidth}{\footnotesize\raggedright",
            "\\par\n".join(map(escape.latex, notes)) + "}",
        ]
    return [*lines, r"\end{table*}"]


def _latex_settings(section: Section) -> list[str]:
    return section.settings() if len(section.columns) <= MANY else []


def _plus_minus(statistic: str) -> str:
    return escape.latex(statistic).replace("+-", r"$\pm$")


def _headings(heads: dict[str, int], num_settings: int) -> list[str]:
    """Return the line of headings above the columns and the line of rules below them; nothing without headings."""
    if not any(heads):
        return []
    names = [rf"\multicolumn{{{2 * width}}}{{@{{}}c@{{}}}}{{{escape.latex(head)}}}" for head, width in heads.items()]
    ends = [1 + num_settings + 2 * width for width in itertools.accumulate(heads.values())]
    starts = [2 + num_settings, *(end + 1 for end in ends)]
    trims = ["lr"] * (len(ends) - 1) + ["l"]
    rules = [rf"\cmidrule({t}){{{start}-{end}}}" for t, start, end in zip(trims, starts, ends, strict=False)]
    return [" & " * (1 + num_settings) + " & ".join(names) + r" \\", "".join(rules)]


def _body(section: Section, small: str) -> list[str]:
    """Return a line for each row, below the name of its kind in tables with several kinds."""
    lines: list[str] = []
    best, settings = section.best(), _latex_settings(section)
    for kind, rows in section.kinds().items():
        if kind:
            space = r"\addlinespace " * bool(lines)
            width = 1 + len(settings) + 2 * len(section.columns)
            title = escape.latex(kind.capitalize())
            lines.append(rf"{space}\multicolumn{{{width}}}{{@{{}}l@{{}}}}{{\emph{{{title}}}}} \\")
        for row in rows:
            texts = [escape.latex(text) for text in (row.label, *(row.settings.get(title, "") for title in settings))]
            cells = [_cell(row, column.key, best, r"\textbf{{{}}}") for column in section.columns]
            pairs = [mean + " & " + (rf"{small}\,$\pm${half}" if half else "") for mean, half in cells]
            lines.append(" & ".join([*texts, *pairs]) + r" \\")
    return lines
