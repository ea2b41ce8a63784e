"""The table that puts a paper's numbers beside ours."""

from benchmark.report.formats import RESOURCES, Block, Column, Head, Row, Section


def published_block(section: Section) -> list[Block]:
    """Return the table of published numbers with ours minus them, as a list; empty if no row has both a study and them.

    Rows that are only quoted stand in the main table.

    Args:
        section: its rows, some with published numbers.
    """
    rows = [row for row in section.rows if row.published and not row.is_quoted]
    columns = [*section.columns, *(Column((key,), title) for key, title in RESOURCES.items())]
    columns = [column for column in columns if any(column.key in row.published for row in rows)]
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
    text = f"{cell.value:.2f}" + ("" if cell.half_width is None else f" ± {cell.half_width:.2f}")
    mean = ours.mean if (ours := row.cells.get(column.key)) else None
    if row.effort and len(column.key) == 1:
        mean = row.effort.resources.get(column.key[0], mean)
    return text + ("" if mean is None else f" ({mean - cell.value:+.2f})")
