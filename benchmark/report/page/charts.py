"""The figures of a page about the rows of a section, drawn to be read on a phone: 4.5 inches wide, 9 pt text."""

import contextlib
import math
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmark.core.escape import visible
from benchmark.report.figures.palette import ACCENT, BAND, GRID, INK, MUTED, PAPER, WARM
from benchmark.report.table import Column, Row, Section

if TYPE_CHECKING:  # matplotlib takes half a second to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 4.5  # inches
ROW = 0.27  # inches for the row of a loss
LONG = 26  # characters of a label after which it is wrapped
PER_ROW = 2  # panels side by side
STYLE: dict[Any, Any] = {
    "font.size": 9, "axes.titlesize": 9, "axes.labelsize": 9, "xtick.labelsize": 8, "ytick.labelsize": 9,
    "legend.fontsize": 8, "text.color": INK, "axes.labelcolor": INK, "axes.titlecolor": INK, "xtick.color": INK,
    "ytick.color": INK, "axes.edgecolor": MUTED, "grid.color": GRID, "axes.grid": True, "axes.axisbelow": True,
    "axes.spines.top": False, "axes.spines.right": False, "text.parse_math": False, "axes.facecolor": PAPER,
    "legend.frameon": False, "savefig.facecolor": PAPER,
}  # fmt: skip
OFFSETS = [(6, 0), (-6, 0), (0, 8), (0, -8), (6, 8), (6, -8), (-6, 8), (-6, -8), (8, 16), (8, -16), (-8, 16), (-8, -16)]


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Draw and save figures in the page's style within the block.

    Letters that matplotlib's font lacks are boxes in the files; a browser has them.
    """
    import matplotlib

    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def forest(section: Section, column: Column) -> "Figure | None":
    """Draw each row's mean with its interval, the best at the top; None with fewer than two complete rows.

    Filled are the rows that cannot be told from the best one; a diamond is a published number.

    Args:
        section: the rows.
        column: the metric.
    """
    kinds = {
        kind: sorted((row for row in rows if _mean(row, column) is not None), key=lambda row: _mean(row, column) or 0)
        for kind, rows in section.kinds().items()
    }
    if sum(map(len, kinds.values())) < 2:
        return None
    top = section.top()
    figure, panels = _stacked({kind: len(rows) for kind, rows in kinds.items() if rows})
    for kind, axes in panels.items():
        for place, row in enumerate(kinds[kind]):
            interval, quoted = row.cells.get(column.key), row.published.get(column.key)
            if interval is not None:
                together = row.name in top.get((kind, column.key), ())
                _bar(axes, place, interval.mean, interval.half_width, ACCENT if together else MUTED, filled=together)
            if quoted is not None:
                axes.plot(quoted.value, place, marker="D", color=WARM, fillstyle="none", markersize=5, linestyle="")
        _named(axes, [row.label for row in kinds[kind]])
        axes.set_title(visible(kind), loc="left")
    list(panels.values())[-1].set_xlabel(f"{column.heading}, %")
    return figure


def differences(section: Section, column: Column) -> "Figure | None":
    """Draw each row's difference from its base, or from the best row; None without one.

    Filled are the differences whose adjusted p-value is below the level of the test.

    Args:
        section: the rows, compared.
        column: the metric.
    """
    kinds = {
        kind: [row for row in reversed(rows) if row.compared and column.key in row.compared.differences]
        for kind, rows in section.kinds().items()
    }
    if not any(kinds.values()):
        return None
    figure, panels = _stacked({kind: len(rows) for kind, rows in kinds.items() if rows}, height=1.5 * ROW)
    for kind, axes in panels.items():
        axes.axvline(0, color=INK, linewidth=0.8)
        names = []
        for place, row in enumerate(kinds[kind]):
            assert row.compared is not None
            found, p = row.compared.differences[column.key], row.compared.p.get(column.key)
            is_told = p is not None and p < 1 - section.confidence
            colour = MUTED if not is_told else ACCENT if found.mean > 0 else WARM
            _bar(axes, place, found.mean, found.half_width, colour, filled=is_told)
            names.append(f"{row.label}\n− {row.compared.label}")
        _named(axes, names)
        axes.set_title(visible(kind), loc="left")
    list(panels.values())[-1].set_xlabel(f"difference in {column.heading}, points")
    return figure


def cost(section: Section, column: Column) -> "Figure | None":
    """Draw each row's mean against the compute hours of its search and runs; None with fewer than two rows.

    Args:
        section: the rows; of several kinds, the first one is drawn.
        column: the metric.
    """
    rows = [row for row in next(iter(section.kinds().values()), []) if row.effort and column.key in row.cells]
    points = {row.label: (row.effort.hours, row.cells[column.key].mean) for row in rows if row.effort}
    return _scatter(points, "compute hours of all trials and runs", f"{column.heading}, %", log=True)


def validation(section: Section) -> "Figure | None":
    """Draw the score on test classes against that on validation classes; None with fewer than two rows.

    Each point is a chosen setting: the test classes are never read for another one.

    Args:
        section: the rows.
    """
    points = {
        row.label: (row.effort.validation, row.effort.separated)
        for row in section.rows
        if row.effort and row.effort.validation is not None and row.effort.separated is not None and row.cells
    }
    return _scatter(points, "MAP@R on validation classes, %", "MAP@R on test classes, separated, %", log=False)


@dataclass(frozen=True)
class History:
    """The scores of some trainings by epoch.

    Attributes:
        label: printed name of the loss.
        trainings: for each training, its scores in percent by epoch.
        metric: what the scores are.
    """

    label: str
    trainings: Sequence[Mapping[int, float]]
    metric: str


def training(histories: Sequence[History]) -> "Figure":
    """Draw the mean and the range of the trainings of each row by epoch, one panel a row.

    Args:
        histories: at least one.
    """
    from matplotlib.figure import Figure

    lines = math.ceil(len(histories) / PER_ROW)
    figure = Figure(figsize=(WIDTH, 1.55 * lines + 0.4), layout="constrained")
    panels = figure.subplots(lines, PER_ROW, squeeze=False, sharex=True, sharey=True).ravel()
    for axes, history in zip(panels, histories, strict=False):
        epochs = sorted({epoch for training in history.trainings for epoch in training})
        found = [[training[epoch] for training in history.trainings if epoch in training] for epoch in epochs]
        axes.fill_between(epochs, list(map(min, found)), list(map(max, found)), color=BAND, linewidth=0)
        axes.plot(epochs, [sum(values) / len(values) for values in found], color=ACCENT, linewidth=1.3)
        axes.set_title("\n".join(textwrap.wrap(visible(history.label), LONG)), loc="left")
    for axes in panels[len(histories) :]:
        axes.set_axis_off()
    figure.supxlabel("epoch", fontsize=9)
    figure.supylabel(histories[0].metric, fontsize=9)
    return figure


def _mean(row: Row, column: Column) -> float | None:
    """The mean of a row in a column, or its published number."""
    if interval := row.cells.get(column.key):
        return interval.mean
    return row.published[column.key].value if column.key in row.published else None


def _stacked(counts: Mapping[str, int], height: float = ROW) -> tuple["Figure", dict[str, "Axes"]]:
    """A figure with a panel for each kind of row, as high as its rows need, by the kind."""
    from matplotlib.figure import Figure

    sizes = [count * height + 0.1 for count in counts.values()]
    figure = Figure(figsize=(WIDTH, sum(sizes) + 0.6 + 0.25 * len(sizes)), layout="constrained")
    panels = figure.subplots(len(sizes), 1, squeeze=False, sharex=True, height_ratios=sizes)[:, 0]
    return figure, dict(zip(counts, panels, strict=True))


def _bar(axes: "Axes", place: int, mean: float, half_width: float | None, colour: str, filled: bool) -> None:
    axes.errorbar(
        mean, place, xerr=half_width, marker="o", markersize=5.5, color=colour, capsize=2.5, linewidth=1.2,
        markerfacecolor=colour if filled else PAPER,
    )  # fmt: skip


def _named(axes: "Axes", names: Sequence[str]) -> None:
    lines = [[part for line in name.split("\n") for part in textwrap.wrap(visible(line), LONG)] for name in names]
    axes.set_yticks(range(len(names)), ["\n".join(each) for each in lines])
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")


def _scatter(points: Mapping[str, tuple[float, float]], x_label: str, y_label: str, log: bool) -> "Figure | None":
    from matplotlib.figure import Figure

    if len(points) < 2:
        return None
    figure = Figure(figsize=(WIDTH, 3.4))
    axes = figure.subplots()
    places = list(points.values())
    low, high = min(x for x, _ in places), max(x for x, _ in places)
    if log and 0 < 3 * low < high:
        axes.set_xscale("log")
        powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
        steps = (1, 2, 5) if high < 100 * low else (1,)
        ticks = [
            step * 10.0**power for power in powers for step in steps if low < 1.5 * step * 10.0**power < 2.25 * high
        ]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
    axes.plot(*zip(*places, strict=True), marker="o", linestyle="", color=ACCENT, markersize=5)
    axes.margins(0.18, 0.1)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    figure.tight_layout()
    _label(axes, points)
    return figure


def _label(axes: "Axes", points: Mapping[str, tuple[float, float]]) -> None:
    """Write a name beside each point where it covers neither points nor other names, as far as there is room."""
    scale = 72 / axes.get_figure(root=True).dpi  # type: ignore[union-attr]
    spots = [axes.transData.transform(place) * scale for place in points.values()]
    taken = [(x - 3, y - 3, x + 3, y + 3) for x, y in spots]
    frame = axes.get_window_extent()
    right, left = frame.x1 * scale + 8, frame.x0 * scale
    for (name, place), (x, y) in zip(points.items(), spots, strict=True):
        text = visible(name)
        width, best = 4.3 * len(text), (math.inf, OFFSETS[0], (0.0, 0.0, 0.0, 0.0))
        for dx, dy in OFFSETS:
            start = x + dx - width * (0 if dx > 0 else 1 if dx < 0 else 0.5)
            box = (start, y + dy - 4, start + width, y + dy + 4)
            covered = sum(_overlap(box, other) for other in taken)
            covered += 50 * (max(0.0, box[2] - right) + max(0.0, left - box[0]))
            if covered < best[0]:
                best = (covered, (dx, dy), box)
        _, (dx, dy), box = best
        taken.append(box)
        axes.annotate(text, place, (dx, dy), textcoords="offset points", fontsize=7.5, va="center",
                      ha="left" if dx > 0 else "right" if dx < 0 else "center")  # fmt: skip


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> float:
    """Area that two boxes (left, bottom, right, top) share."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, width) * max(0.0, height)
