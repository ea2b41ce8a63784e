"""The short form of a table for a terminal: a line for each row, the loss first, with its main columns."""

import textwrap
from collections.abc import Iterator, Sequence

from benchmark.core import console
from benchmark.core.escape import visible
from benchmark.core.wording import plus_minus
from benchmark.report.table import MARKS, NOT_RUN, Column, Key, Row, Section, Table

GAP = "  "
TOGETHER = "*"  # after a mean that cannot be told from the best one
LEAST = 12  # characters for the names of losses; with less room, columns go on below


def short_table(table: Table, width: int = 0) -> str:
    """Return the main columns of a table in lines that fit a terminal; everything else stands in its files.

    Args:
        table: the table.
        width: number of characters on a line; 0 for those of the terminal.
    """
    most = width or console.width()
    paragraphs = [text for text in (table.warning, table.caption) if text]
    lines = [line for text in paragraphs for line in _wrapped(text, most)]
    for section in table.sections:
        lines += ["", *_section(section, most)]
    return "\n".join(lines)


def _section(section: Section, most: int) -> Iterator[str]:
    if apart := section.apart():
        yield from _wrapped(apart, most)
    labels = [_label(section, row) for row in section.rows]
    top, columns = section.top(), section.main_columns()
    cells = {column.heading: [_cell(row, column, top) for row in section.rows] for column in columns}
    for column in section.columns_over_searches():
        found = [row.over_searches.get(column.key) for row in section.rows]
        cells[f"{column.heading} over searches"] = [_number(one.mean, one.half_width) if one else "" for one in found]
    yield from lines_of("Loss", labels, cells, most)
    yield ""
    first = section.notes()[0].replace("+-", "±").partition(" The intervals cover")[0].partition(" Bold:")[0]
    yield from _wrapped(first, most)
    if any("*" in cell for column in cells.values() for cell in column):
        yield from _wrapped(f"{TOGETHER} cannot be told from the best one of its column.", most)
    present = {mark for row in section.rows for mark in row.marks if mark not in section.common_marks()}
    for mark, meaning in MARKS.items():
        if mark in present:
            yield from _wrapped(f"{mark}: {meaning[0].lower()}{meaning[1:]}.", most)


def _label(section: Section, row: Row) -> str:
    marks = section.marks_at(row)
    return visible(row.full_label) + f" ({marks})" * bool(marks)


def _cell(row: Row, column: Column, top: dict[tuple[str, Key], set[str]]) -> str:
    """A cell of a row; `top` is that of its section."""
    if row.is_quoted:
        quoted = row.published.get(column.key)
        return _number(quoted.value, quoted.half_width) if quoted else ""
    if (interval := row.cells.get(column.key)) is None:
        return "not run" if row.reason.startswith(NOT_RUN) else "-"
    together = row.name in top.get((row.kind, column.key), ())
    return _number(interval.mean, interval.half_width) + f" {TOGETHER if together else ' '}"


def _number(mean: float, half_width: float | None) -> str:
    return plus_minus(mean, half_width, "±")


def lines_of(title: str, labels: Sequence[str], cells: dict[str, list[str]], most: int) -> Iterator[str]:
    """Yield the lines of a table that is at most so many characters wide; nothing in it is cut.

    Headings and labels are wrapped. If a row has more columns than fit, they go on in a table below.

    Args:
        title: heading of the labels.
        labels: label of each row.
        cells: the cells of each further column, by its heading.
        most: number of characters on a line.
    """
    widths = {
        head: max([len(cell) for cell in column] + [len(word) for word in head.split()])
        for head, column in cells.items()
    }
    shown, room = list[str](), most - min(LEAST, max(map(len, [title, *labels])))
    for head, width in widths.items():
        if shown and room < len(GAP) + width:
            break
        shown.append(head)
        room -= len(GAP) + width
    own = max(1, most - sum(len(GAP) + widths[head] for head in shown))
    own = min(own, max(map(len, [title, *labels])))
    heads = [textwrap.wrap(title, own), *(textwrap.wrap(head, widths[head]) for head in shown)]
    height = max(map(len, heads))
    padded = [[""] * (height - len(head)) + head for head in heads]
    for number in range(height):
        yield _line([head[number] for head in padded], [own, *(widths[head] for head in shown)])
    for row, label in enumerate(labels):
        parts = textwrap.wrap(label, own) or [""]
        yield _line([parts[0], *(cells[head][row] for head in shown)], [own, *(widths[head] for head in shown)])
        yield from (f" {part}" if len(part) < own else part for part in parts[1:])
    if rest := {head: column for head, column in cells.items() if head not in shown}:
        yield ""
        yield from lines_of(title, labels, rest, most)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = (
        f"{cell:<{width}}" if number == 0 else f"{cell:>{width}}"
        for number, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return GAP.join([first, *others]).rstrip()


def _wrapped(text: str, most: int) -> list[str]:
    return textwrap.wrap(visible(text), most)
