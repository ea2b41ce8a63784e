"""The three formats of a table: CSV, LaTeX and Markdown.

CSV has all that is known about a row on one line. All text is escaped here, see `core.escape`.
"""

import csv
import functools
import io
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmark.core import escape, records
from benchmark.protocol.statistics import Interval
from benchmark.report.table import FURTHER, MARKS, Block, Column, Head, Key, Published, Row, Section, Table

MANY = 6  # a table with more columns is set in smaller type on a narrow page
MOST = 8  # a table with more columns goes on below itself in LaTeX


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


# -- CSV --------------------------------------------------------------------------------------------------------------


def as_csv(table: Table) -> str:
    """Return the table with full precision: everything that is known about a row, its notes included, on one line.

    If there are several sections, the column `part` numbers them. A text that a spreadsheet would evaluate as a formula
    has a leading apostrophe. P-values have three digits.

    Raises:
        ValueError: two columns have the same name.
    """
    with_kinds = any(row.kind for row in table.rows)
    lines = []
    for number, section in enumerate(table.sections, 1):
        notes = " ".join(filter(None, (table.warning, section.apart(), section.budget, *section.footnotes)))
        top = section.top()
        for row in section.rows:
            fields: list[Mapping[str, object]] = [
                {"part": number} if len(table.sections) > 1 else {},
                {"loss": row.name, "label": row.label},
                {"kind": row.kind} if with_kinds else {},
                {title.lower(): row.exact.get(title, row.settings.get(title, "")) for title in section.settings()},
                {"num_runs": row.num_runs},
                *(_csv_interval(column.key, row.cells.get(column.key)) for column in section.columns),
                *itertools.starmap(_csv_interval, row.levels.items()),
                *(_csv_comparisons(row, column.key, top.get((row.kind, column.key), set()))
                  for column in (*section.columns, *FURTHER)),
                {"compared_with": row.compared.name} if row.compared else {},
                _csv_effort(row),
                {"reason": row.reason},
                {"notes": notes} if notes else {},
            ]  # fmt: skip
            lines.append(_joined(fields))
    names = list(dict.fromkeys(name for line in lines for name in line))
    last = ("reason", "notes")
    names = [name for name in names if name not in last] + [name for name in last if name in names]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for line in lines:
        writer.writerow({k: escape.csv_text(v) if isinstance(v, str) else v for k, v in line.items()})
    return text.getvalue()


def _joined(fields: Iterable[Mapping[str, object]]) -> dict[str, object]:
    """Return the fields of a line, by name.

    Raises:
        ValueError: two fields have the same name.
    """
    pairs = [pair for part in fields for pair in part.items()]
    if twice := [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]:
        raise ValueError(f"a CSV line with two columns of the same name: {', '.join(twice)}")
    return dict(pairs)


def _csv_interval(key: Key, interval: Interval | None) -> dict[str, object]:
    """Return the mean and half width of a column, by name of the field."""
    name = "_".join(key)
    return {
        name: interval.mean if interval else None,
        f"{name}_half_width": interval.half_width if interval else None,
    }


def _csv_comparisons(row: Row, key: Key, top: set[str]) -> dict[str, object]:
    """Return a row's comparisons in one column, by name of the field; only the fields that apply."""
    name = "_".join(key)
    found: dict[str, object] = {f"{name}_in_best_group": int(row.name in top)} if top and key in row.values else {}
    if row.compared and key in row.compared.differences:
        difference = row.compared.differences[key]
        found |= {f"{name}_difference": difference.mean, f"{name}_difference_half_width": difference.half_width}
        if key in row.compared.p:
            found[f"{name}_p"] = float(f"{row.compared.p[key]:.3g}")
            found[f"{name}_runs_needed"] = row.compared.runs.get(key)
    if key in row.ranks:
        found |= {f"{name}_first": row.ranks[key].first, f"{name}_rank": row.ranks[key].mean}
    if rank := row.class_ranks.get(key):
        found |= {f"{name}_first_over_classes": rank.first, f"{name}_rank_over_classes": rank.mean}
    if interval := row.over_searches.get(key):
        found |= {f"{name}_over_searches": interval.mean, f"{name}_over_searches_half_width": interval.half_width}
    if cell := row.published.get(key):
        found |= {f"{name}_published": cell.value, f"{name}_published_half_width": cell.half_width}
        if key in row.cells:
            found[f"{name}_minus_published"] = row.cells[key].mean - cell.value
        found[f"{name}_source"] = cell.source
    return found


def _csv_effort(row: Row) -> dict[str, object]:
    """Return how a row's numbers came about, by name of the field; only the fields that apply."""
    if (effort := row.effort) is None:
        return {"marks": _in_words(row)} if row.marks else {}
    fields = {
        "trials": effort.all_trials,
        "trials_of_protocol": None if effort.asked is None else effort.asked * effort.searches,
        "hyper_parameters_searched": effort.searched,
        "iterations": effort.iterations, "total_epochs": effort.epochs, "compute_hours": effort.hours,
        "looks_at_test_classes": effort.looks, "stopped_at_max_epochs": effort.at_limit,
        "validation_map_at_r_of_choice": effort.validation_of_choice, "validation_map_at_r": effort.validation,
        **effort.resources, "marks": _in_words(row),
    }  # fmt: skip
    return {name: value for name, value in fields.items() if value is not None and value != ""}


def _in_words(row: Row) -> str:
    return "; ".join(MARKS[mark] + f" ({detail})" * bool(detail) for mark, detail in row.marks.items())


# -- cells ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Cells:
    """The printed cells of a section.

    Attributes:
        section: the section.
        bold: format of a bold text.
    """

    section: Section
    bold: str

    @functools.cached_property
    def top(self) -> dict[tuple[str, Key], set[str]]:
        """What `Section.top` returns, which compares every row with the best one."""
        return self.section.top()

    def of(self, row: Row) -> list[tuple[str, str]]:
        """Return the printed mean and half width for each column, and then for each column over searches."""
        found = []
        for column in self.section.columns:
            mean, half = _numbers(row.published.get(column.key) if row.is_quoted else row.cells.get(column.key))
            is_bold = row.name in self.top.get((row.kind, column.key), ())
            found.append((self.bold.format(mean) if is_bold else mean, half))
        return found + [_numbers(row.over_searches.get(column.key)) for column in self.section.columns_over_searches()]


def _numbers(value: Interval | Published | None) -> tuple[str, str]:
    """Return the printed mean and half width, each empty if there is none."""
    if value is None:
        return "", ""
    mean = value.mean if isinstance(value, Interval) else value.value
    return f"{mean:.2f}", "" if value.half_width is None else f"{value.half_width:.2f}"


# -- Markdown ---------------------------------------------------------------------------------------------------------


def markdown(table: Table) -> str:
    """Return the table in GitHub's Markdown; sections follow one another, each with its further tables."""
    caption = escape.markdown_paragraph(table.caption)
    warning = f"**{escape.markdown(table.warning)}**\n\n" if table.warning else ""
    return f"{warning}{caption}\n\n" + "\n".join(map(_markdown_section, table.sections))


def _markdown_section(section: Section) -> str:
    heads = [*section.settings(), *(column.heading for column in section.columns)]
    heads += [f"{column.heading} over searches" for column in section.columns_over_searches()]
    lines = ["| Loss | " + " | ".join(map(escape.markdown, heads)) + " |", "|---" * (1 + len(heads)) + "|"]
    cells_of = _Cells(section, "**{}**").of
    for row in section.rows:
        cells = [escape.markdown(row.settings.get(title, "")) for title in section.settings()]
        cells += [" ± ".join(filter(None, cell)) for cell in cells_of(row)]
        label = escape.markdown(row.full_label)
        label = f"*{label}*" if row.is_quoted else label
        label += f" <sup>{marks}</sup>" if (marks := section.marks_at(row)) else ""
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    above = list(filter(None, (section.apart(), section.budget)))
    paragraphs = [*map(escape.markdown_paragraph, above), "\n".join(lines)]
    paragraphs += map(escape.markdown_paragraph, section.notes())
    return "\n\n".join([*paragraphs, *map(_markdown_block, section.blocks)]) + "\n"


def _markdown_block(block: Block) -> str:
    """Return a further table; a heading that several columns share stands above the first of them."""
    seen: set[str] = set()
    heads = []
    for head in block.heads:
        heads.append(head.title if head.block in seen else f"{head.block} {head.title}".strip())
        seen.add(head.block)
    lines = ["| " + " | ".join(map(escape.markdown, heads)) + " |", "|---" * len(block.heads) + "|"]
    for kind, group in block.groups.items():
        for first, *rest in group:
            label = ", ".join(filter(None, (first, kind)))
            lines.append("| " + " | ".join(map(escape.markdown, (label, *rest))) + " |")
    paragraphs = [f"**{escape.markdown(block.title)}**", "\n".join(lines)]
    return "\n\n".join([*paragraphs, *map(escape.markdown_paragraph, block.notes)])


# -- LaTeX ------------------------------------------------------------------------------------------------------------


def latex(table: Table) -> str:
    r"""Return booktabs tables that compile alone and, unchanged, by `\input` in a paper that loads booktabs.

    There is one for each section, labelled `tab:NAME`, `tab:NAME:2` and so on, followed by its further tables,
    `tab:NAME:differences` and so on. Each is as wide as the page, spans both columns of a two-column paper, and fits
    the 345 pt of LaTeX's `article`. To fit, a table with more than `MANY` metrics has no columns of text; its footnotes
    contain the same information. One with more than `MOST` goes on below itself.
    """
    lines = [
        r"% Compiles as it is; in a paper that loads booktabs, \input it.",
        r"\expandafter\ifx\csname @nodocument\endcsname\relax\def\endalone{}\else",
        r"\documentclass{article}\usepackage{booktabs}\usepackage[margin=2cm]{geometry}",
        r"\begin{document}\def\endalone{\end{document}}\fi",
    ]
    warning = rf"\textbf{{{escape.latex(table.warning)}}} " if table.warning else ""
    for number, section in enumerate(table.sections, 1):
        label = f"tab:{escape.latex_label(table.name)}" + f":{number}" * (number > 1)
        lines += _latex_section(section, warning + escape.latex(table.caption), label)
        for block in section.blocks:
            lines += _latex_block(block, warning, label)
    return "\n".join([*lines, r"\endalone"]) + "\n"


def _latex_section(section: Section, caption: str, label: str) -> list[str]:
    statistic, *notes = section.notes()
    rows = section.rows if len(section.columns) <= MOST else [replace(row, settings={}) for row in section.rows]
    parts = [replace(section, columns=list(columns), rows=rows) for columns in _in_parts(section.columns)]
    above = (escape.latex(section.apart()), escape.latex(section.budget), _plus_minus(statistic))
    words = " ".join(filter(None, (caption, *above)))
    lines = _latex_start(words, label, _sizes(parts[0])[0])
    for number, part in enumerate(parts):
        lines += [r"\par\medskip"] * (number > 0) + _latex_part(part)
    return [*lines, *_latex_end(notes)]


def _in_parts(columns: Sequence[Column]) -> list[Sequence[Column]]:
    """Return columns in parts of equal length that fit a page, the longest first; one part if all fit."""
    size = math.ceil(len(columns) / math.ceil(len(columns) / MOST)) if columns else 1
    return [columns[first : first + size] for first in range(0, len(columns), size)] or [columns]


def _sizes(section: Section) -> tuple[str, str]:
    """Return the size of the small type, and the gap between columns."""
    many = len(section.columns) + len(section.columns_over_searches()) > MANY
    return (r"\tiny", "1pt") if many else (r"\scriptsize", "3pt")


def _latex_part(section: Section) -> list[str]:
    (small, gap), extra, settings = _sizes(section), section.columns_over_searches(), _latex_settings(section)
    titles = [column.title for column in (*section.columns, *extra)]
    heads = section.heads() | ({"Over searches": len(extra)} if extra else {})
    metrics = [rf"\multicolumn{{2}}{{@{{}}c@{{}}}}{{{escape.latex(title)}}}" for title in titles]
    fill = rf"@{{\extracolsep{{\fill}}\hspace{{{gap}}}}}r"
    pair = rf"{fill}@{{\extracolsep{{0pt}}}}l"
    return [
        r"\begin{tabular*}{\textwidth}{@{}l" + fill * len(settings) + pair * len(metrics) + "@{}}", r"\toprule",
        *_headings(heads, len(settings)),
        " & ".join(["Loss", *map(escape.latex, settings), *metrics]) + r" \\", r"\midrule",
        *_body(section, small), r"\bottomrule", r"\end{tabular*}",
    ]  # fmt: skip


def _latex_start(caption: str, label: str, small: str) -> list[str]:
    return [
        rf"\begin{{table*}}[!t]\centering\ifdim\textwidth<400pt{small}\else\small\fi",
        rf"\caption{{{caption}}}\label{{{label}}}\smallskip",
    ]


def _latex_end(notes: Sequence[str]) -> list[str]:
    below = [
        r"\par\smallskip\parbox{\textwidth}{\footnotesize\raggedright",
        "\\par\n".join(map(_plus_minus, notes)) + "}",
    ]
    return [*(below if notes else []), r"\end{table*}"]


def _latex_block(block: Block, warning: str, label: str) -> list[str]:
    fill = r"@{\extracolsep{\fill}\hspace{2pt}}"
    texts = "@{}l" + (fill + "l") * (block.num_texts - 1)
    width = len(block.heads)
    lines = [
        *_latex_start(warning + escape.latex(block.title), f"{label}:{block.name}", r"\tiny"),
        r"\begin{tabular*}{\textwidth}{" + texts + (fill + "r") * (width - block.num_texts) + "@{}}", r"\toprule",
        *_block_headings(block.heads),
        " & ".join(escape.latex(head.title) for head in block.heads) + r" \\", r"\midrule",
    ]  # fmt: skip
    for kind, group in block.groups.items():
        lines += _latex_kind(kind, width, first=kind == next(iter(block.groups)))
        lines += [" & ".join(map(escape.latex, line)) + r" \\" for line in group]
    return [*lines, r"\bottomrule", r"\end{tabular*}", *_latex_end(block.notes)]


def _block_headings(heads: Sequence[Head]) -> list[str]:
    """Return the line of shared headings and the line of rules below them; nothing without shared headings."""
    names, rules, start = [], [], 1
    for block, group in itertools.groupby(head.block for head in heads):
        width = len(list(group))
        if block:
            names.append(rf"\multicolumn{{{width}}}{{@{{}}c@{{}}}}{{{escape.latex(block)}}}")
            rules.append(rf"\cmidrule(lr){{{start}-{start + width - 1}}}")
        else:
            names += [""] * width
        start += width
    return [" & ".join(names) + r" \\", "".join(rules)] if rules else []


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


def _latex_kind(kind: str, width: int, first: bool) -> list[str]:
    """Return the line with the name of a kind of row; nothing for an empty name."""
    space = "" if first else r"\addlinespace "
    title = escape.latex(kind.capitalize())
    return [rf"{space}\multicolumn{{{width}}}{{@{{}}l@{{}}}}{{\emph{{{title}}}}} \\"] if kind else []


def _body(section: Section, small: str) -> list[str]:
    """Return a line for each row, below the name of its kind in tables with several kinds."""
    lines: list[str] = []
    cells_of, settings = _Cells(section, r"\textbf{{{}}}").of, _latex_settings(section)
    for kind, rows in section.kinds().items():
        lines += _latex_kind(kind, 1 + len(settings) + 2 * len(section.columns), first=not lines)
        for row in rows:
            label = rf"\emph{{{escape.latex(row.label)}}}" if row.is_quoted else escape.latex(row.label)
            label += rf"\textsuperscript{{{marks}}}" if (marks := section.marks_at(row)) else ""
            texts = [escape.latex(row.settings.get(title, "")) for title in settings]
            pairs = [mean + " & " + (rf"{small}\,$\pm${half}" if half else "") for mean, half in cells_of(row)]
            lines.append(" & ".join([label, *texts, *pairs]) + r" \\")
    return lines
