"""A table of means with intervals, and its three formats: CSV, LaTeX and Markdown.

The caller decides on rows and columns. Rows may be of different kinds, which must not be compared with one another: the
best mean of a column is then marked for each kind separately.
"""

import csv
import io
import itertools
from dataclasses import dataclass, field
from pathlib import Path

from benchmark.core import records
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
    """

    name: str
    label: str
    cells: dict[Key, Interval] = field(default_factory=dict)
    num_runs: int = 0
    reason: str = ""
    seconds: float = 0.0
    kind: str = ""


@dataclass
class Table:
    """A comparison of losses on one data set with one trunk and protocol.

    Attributes:
        name: base name of its files.
        caption: caption, a single sentence.
        columns: columns from left to right.
        rows: rows from top to bottom.
        confidence: confidence level of the intervals, such as 0.95.
        remark: a caveat about the numbers, printed with the statistic.
    """

    name: str
    caption: str
    columns: list[Column]
    rows: list[Row]
    confidence: float
    remark: str = ""

    def best(self) -> dict[tuple[str, Key], float]:
        """Return the highest mean, rounded as printed, by kind of row and column."""
        found: dict[tuple[str, Key], float] = {}
        for row in self.rows:
            for key, interval in row.cells.items():
                found[row.kind, key] = max(round(interval.mean, 2), found.get((row.kind, key), -1.0))
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

    def notes(self) -> list[str]:
        """Return a sentence about the statistic in the cells, then the reason of each row that has one."""
        reasons = list(dict.fromkeys(f"{row.label}: {row.reason}" for row in self.rows if row.reason))
        counts = sorted({row.num_runs for row in self.rows if row.cells})
        if not counts:
            return ["No row is complete yet.", *reasons]
        spread = f"+- {100 * self.confidence:.0f} % t-interval " if counts != [1] else ""
        runs = f"n = {', '.join(map(str, counts))} run" + "s" * (counts != [1])
        best = f"the best mean of a column is bold{', each kind of row by itself' * (len(self.kinds()) > 1)}."
        first = f"Mean {spread}over {runs}, in percent, on unseen classes; {best}"
        return [f"{first} {self.remark}".strip(), *reasons]


def write_table(table: Table, folder: Path) -> list[Path]:
    """Write the three files and return their paths.

    Raises:
        OSError: the folder cannot be written; the message says what to do.
    """
    texts = {"csv": as_csv(table), "tex": latex(table), "md": markdown(table)}
    paths = []
    for ending, text in texts.items():
        path = folder / f"{table.name}.{ending}"
        records.write_whole(path, text.encode())
        paths.append(path)
    return paths


def as_csv(table: Table) -> str:
    """Return the table with full precision: mean and half width of each metric, number of runs, and reasons."""
    with_kinds = any(row.kind for row in table.rows)
    lines = []
    for row in table.rows:
        line: dict[str, object] = {"loss": row.name, "label": row.label}
        if with_kinds:
            line["kind"] = row.kind
        line["num_runs"] = row.num_runs
        for column in table.columns:
            interval, name = row.cells.get(column.key), "_".join(column.key)
            line[name] = interval.mean if interval else None
            line[f"{name}_half_width"] = interval.half_width if interval else None
        lines.append(line | {"reason": row.reason})
    text = io.StringIO()
    writer = csv.DictWriter(text, lines[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def markdown(table: Table) -> str:
    """Return the table in GitHub's Markdown, with the best means in bold."""
    heads = [f"{column.block} {column.title}".strip() for column in table.columns]
    lines = ["| Loss | " + " | ".join(heads) + " |", "|---" * (1 + len(heads)) + "|"]
    best = table.best()
    for row in table.rows:
        cells = [" ± ".join(filter(None, _cell(row, column.key, best, "**{}**"))) for column in table.columns]
        lines.append(f"| {', '.join(filter(None, (row.label, row.kind)))} | " + " | ".join(cells) + " |")
    return f"{table.caption}\n\n" + "\n".join(lines) + "\n\n" + "\n\n".join(table.notes()) + "\n"


def _cell(row: Row, key: Key, best: dict[tuple[str, Key], float], bold: str) -> tuple[str, str]:
    """Return the printed mean and half width, each empty if there is none."""
    interval = row.cells.get(key)
    if interval is None:
        return "", ""
    mean = f"{interval.mean:.2f}"
    mean = bold.format(mean) if round(interval.mean, 2) == best[row.kind, key] else mean
    return mean, "" if interval.half_width is None else f"{interval.half_width:.2f}"


def latex(table: Table) -> str:
    r"""Return a booktabs table that compiles alone and, unchanged, by `\input` in a paper that loads booktabs.

    It is as wide as the page, spans both columns of a two-column paper, and fits the 345 pt of LaTeX's `article`.
    """
    statistic, *reasons = table.notes()
    small, gap = (r"\tiny", "1pt") if len(table.columns) > MANY else (r"\scriptsize", "3pt")
    metrics = [rf"\multicolumn{{2}}{{@{{}}c@{{}}}}{{{escape(column.title)}}}" for column in table.columns]
    pair = rf"@{{\extracolsep{{\fill}}\hspace{{{gap}}}}}r@{{\extracolsep{{0pt}}}}l"
    lines = [
        r"% Compiles as it is; in a paper that loads booktabs, \input it.",
        r"\expandafter\ifx\csname @nodocument\endcsname\relax\def\endalone{}\else",
        r"\documentclass{article}\usepackage{booktabs}\usepackage[margin=2cm]{geometry}",
        r"\begin{document}\def\endalone{\end{document}}\fi",
        rf"\begin{{table*}}[!t]\centering\ifdim\textwidth<400pt{small}\else\small\fi",
        rf"\caption{{{escape(f'{table.caption} {statistic}')}}}\label{{tab:{table.name}}}\smallskip",
        r"\begin{tabular*}{\textwidth}{@{}l" + pair * len(table.columns) + "@{}}", r"\toprule",
        *_headings(table.heads()), "Loss & " + " & ".join(metrics) + r" \\", r"\midrule",
        *_body(table, small), r"\bottomrule", r"\end{tabular*}",
    ]  # fmt: skip
    if reasons:
        lines += [
            r"\par\smallskip\parbox{\textwidth}{\footnotesize\raggedright",
            "\\par\n".join(map(escape, reasons)) + "}",
        ]
    return "\n".join([*lines, r"\end{table*}", r"\endalone"]) + "\n"


def _headings(heads: dict[str, int]) -> list[str]:
    """Return the line of headings above the columns and the line of rules below them; nothing without headings."""
    if not any(heads):
        return []
    names = [rf"\multicolumn{{{2 * width}}}{{@{{}}c@{{}}}}{{{escape(head)}}}" for head, width in heads.items()]
    ends = [1 + 2 * width for width in itertools.accumulate(heads.values())]
    starts = [2, *(end + 1 for end in ends)]
    trims = ["lr"] * (len(ends) - 1) + ["l"]
    rules = [rf"\cmidrule({t}){{{start}-{end}}}" for t, start, end in zip(trims, starts, ends, strict=False)]
    return [" & " + " & ".join(names) + r" \\", "".join(rules)]


def _body(table: Table, small: str) -> list[str]:
    """Return a line for each row, below the name of its kind in tables with several kinds."""
    lines: list[str] = []
    best = table.best()
    for kind, rows in table.kinds().items():
        if kind:
            space = r"\addlinespace " * bool(lines)
            width = 1 + 2 * len(table.columns)
            lines.append(rf"{space}\multicolumn{{{width}}}{{@{{}}l@{{}}}}{{\emph{{{escape(kind.capitalize())}}}}} \\")
        for row in rows:
            cells = [_cell(row, column.key, best, r"\textbf{{{}}}") for column in table.columns]
            pairs = [mean + " & " + (rf"{small}\,$\pm${half}" if half else "") for mean, half in cells]
            lines.append(" & ".join([escape(row.label), *pairs]) + r" \\")
    return lines


SPECIAL = str.maketrans({
    "\\": r"\textbackslash{}", "^": r"\^{}", "~": r"\~{}", "<": "$<$", ">": "$>$", "|": "$|$", '"': "''",
    **{sign: "\\" + sign for sign in "_%&#${}"},
})  # fmt: skip


def escape(text: str) -> str:
    """Return the LaTeX source that prints a text."""
    return text.translate(SPECIAL).replace("+-", r"$\pm$")
