"""Curves of a sweep: a metric against the swept value, beside what the paper prints."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.core.conf_files import content
from benchmark.core.csv_file import write_csv
from benchmark.experiment.spec import Member
from benchmark.report.figures import save
from benchmark.report.table import Column, Row, Table

if TYPE_CHECKING:  # matplotlib takes half a second to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = ("series", "value", "mean", "half_width", "published")


@dataclass(frozen=True)
class Point:
    """A study in a curve.

    Attributes:
        series: what distinguishes its curve: the values of all sweeps but the last; the label for one that is not
            swept.
        value: the value of the last sweep; None for a study that is not swept, which is a horizontal line.
        mean: mean over runs, in percent; None if runs are missing.
        half_width: half the width of its interval; None for a single run.
        published: what the paper prints, in percent; None if it prints nothing.
    """

    series: str
    value: Any
    mean: float | None
    half_width: float | None
    published: float | None


def points(members: Sequence[Member], rows: Sequence[Row], column: Column) -> list[Point]:
    """The studies of an experiment as points, in its order.

    Args:
        members: its studies on a data set.
        rows: the rows of its table. Of several for a study, the first one counts, as for the paper's choice of epoch.
        column: the metric.
    """
    first = {row.name: row for row in reversed(rows)}
    found = []
    for member in members:
        row = first.get(member.folder_name)
        *others, value = [*member.swept.items()] or [("", None)]
        swept = ", ".join(f"{title} = {text}" for title, text in others)
        of_loss = str(member.label or content("loss", member.loss).get("label", member.loss))
        label = row.label if row else of_loss
        interval = row.cells.get(column.key) if row else None
        cell = member.published.get(column.key)
        found.append(Point(
            label if value[1] is None else swept or of_loss, value[1], interval.mean if interval else None,
            interval.half_width if interval else None, cell.value if cell else None,
        ))  # fmt: skip
    return found


def draw(found: Sequence[Point], title: str, column: Column, axis: str, log: bool) -> "Figure":
    """The curves, with intervals; a study that is not swept is a horizontal line, published numbers are hollow.

    Args:
        found: the points, in order.
        title: printed above the figure.
        column: the metric.
        axis: name of the swept value.
        log: whether the horizontal axis is logarithmic.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4))
    axes = figure.subplots()
    for number, series in enumerate(dict.fromkeys(point.series for point in found)):
        _draw_series(axes, series, [point for point in found if point.series == series], f"C{number % 10}")
    places = {_number(point.value): str(point.value) for point in found if point.value is not None}
    if log and min(places) > 0:
        axes.set_xscale("log")
    axes.set_xticks(list(places), list(places.values()))
    axes.minorticks_off()
    axes.set_xlabel(axis)
    axes.set_ylabel(f"{column.block} {column.title} (%)".strip())
    axes.set_title(title, fontsize=7, wrap=True)
    axes.legend(fontsize=7)
    return figure


def _draw_series(axes: "Axes", series: str, own: Sequence[Point], colour: str) -> None:
    swept = [point for point in own if point.value is not None]
    scored = [point for point in swept if point.mean is not None]
    if scored:
        means = [point.mean or 0.0 for point in scored]
        errors = [point.half_width or 0.0 for point in scored]
        places = [_number(point.value) for point in scored]
        axes.errorbar(places, means, yerr=errors, marker="o", capsize=3, color=colour, label=series)
    if printed := [(_number(point.value), point.published) for point in swept if point.published is not None]:
        places, values = map(list, zip(*printed, strict=True))
        label = f"{series}, published"
        axes.plot(places, values, linestyle=":", marker="o", fillstyle="none", color=colour, label=label)
    for point in (point for point in own if point.value is None):
        for value, style, label in ((point.mean, "--", series), (point.published, ":", f"{series}, published")):
            if value is not None:
                axes.axhline(value, linestyle=style, color=colour, label=label)


def _number(value: object) -> float:
    """The place of a swept value on the axis; of a list, such as the weights of the levels, its last element."""
    last = value[-1] if isinstance(value, list) else value
    return float(last) if isinstance(last, int | float) else 0.0


def write_curves(name: str, table: Table, members: Sequence[Member], folder: Path, log: bool = False) -> list[Path]:
    """Draw the sweep of an experiment for the first metric of its table, and write it as PNG, PDF and CSV.

    Args:
        name: name of the files.
        table: the experiment's table.
        members: its studies on the table's data set.
        folder: where the files go.
        log: whether the horizontal axis is logarithmic.

    Returns:
        The paths of the files; none if no study is swept.

    Raises:
        WriteError: a file cannot be written.
    """
    column = table.sections[0].columns[0]
    found = points(members, table.rows, column)
    axis = next((list(member.swept)[-1] for member in members if member.swept), "")
    if not axis:
        return []
    path = write_csv(folder / f"{name}.csv", [COLUMNS, *map(astuple, found)])
    title = "\n".join(filter(None, (table.warning, table.caption)))
    return [path, *save(draw(found, title, column, axis, log), folder / name)]
