"""The table that puts a paper's numbers beside ours."""

from benchmark.core.wording import plus_minus
from benchmark.report.table import COUNTS, FURTHER, Block, Column, Head, Row, Section


def published_block(section: Section) -> list[Block]:
    """Return the table of published numbers with ours minus them, as a list; empty if no row has numbers for it.

    Metrics of rows that are only quoted stand in the main table, which lacks the columns of `FURTHER`.

    Args:
        section: its rows, some with published numbers.
    """
    further = {column.key for column in FURTHER}
    rows = [row for row in section.rows if (row.published.keys() & further if row.is_quoted else row.published)]
    columns = [column for column in (*section.columns, *FURTHER) if any(column.key in row.published for row in rows)]
    if not columns:
        return []
    lines = [[row.label, *(_cell(row, column) for column in columns)] for row in rows]
    sources = dict.fromkeys(cell.source for row in section.rows for cell in row.published.values())
    title = "Published numbers and, in parentheses, ours minus published."
    heads = [Head("Loss"), *(Head(column.title, column.block) for column in columns)]
    return [Block("published", title, heads, 1, {"": lines}, [f"Sources: {', '.join(sources)}."])]


def _cell(row: Row, column: Column) -> str:
    """Return the published number with its half width, and ours minus it in parentheses; each empty if absent."""
    if (cell := row.published.get(column.key)) is None:
        return ""
    if column.key[0] in COUNTS:
        ours = row.effort.resources.get(column.key[0]) if row.effort else None
        return f"{cell.value:,.0f}" + ("" if ours is None else f" ({ours - cell.value:+,.0f})")
    text = plus_minus(cell.value, cell.half_width, "±")
    mean = interval.mean if (interval := row.cells.get(column.key)) else None
    if row.effort and len(column.key) == 1:
        mean = row.effort.resources.get(column.key[0], mean)
    return text + ("" if mean is None else f" ({mean - cell.value:+.2f})")
