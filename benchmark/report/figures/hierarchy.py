"""A learned hierarchy as a tree with an image of each class, beside a given one, and how well the two agree."""

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from benchmark.core import csv_file
from benchmark.core.wording import counted
from benchmark.report.figures.retrieval import Pixels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_GROUPS, MOST_CLASSES = 12, 8  # of each tree, and of each group in the figure; the CSV file has all
COLUMNS, MOST_LINES, WIDTH = 4, 3, 16  # classes in a row; lines of a class's name, and characters in each
CELL, SIDE, LINE = 1.05, 0.7, 0.12  # width of a class's cell, longer side of its image, height of a line; in inches
INDENT, MARGIN = 0.3, 0.3  # of the classes below their group, and beside a tree; in inches
PIXELS = 96  # of an image's longer side
HEAD, ROW = 2.5 * LINE, SIDE + (MOST_LINES + 1) * LINE  # height of a group's name, and of a row of classes
GREY = "#888888"
Colour = str | tuple[float, float, float]


@dataclass(frozen=True)
class Group:
    """A group of a tree.

    Attributes:
        name: what is printed above its classes.
        classes: indices of its classes.
    """

    name: str
    classes: Sequence[int]


def purity(owners: np.ndarray, given: np.ndarray) -> float:
    """The share of classes whose given group is the most frequent one in their learned group.

    Args:
        owners: (C,) learned group of each class.
        given: (C,) given group of each class.
    """
    groups = [given[owners == owner] for owner in np.unique(owners)]
    return float(sum(np.unique(group, return_counts=True)[1].max() for group in groups) / len(given))


def adjusted_mutual_information(owners: np.ndarray, given: np.ndarray) -> float:
    """How much the learned groups say about the given ones: 1 if they are equal, 0 for groups drawn at random.

    Unlike purity, it does not rise with the number of groups (Vinh, Epps and Bailey, JMLR 11, 2010).

    Args:
        owners: (C,) learned group of each class.
        given: (C,) given group of each class.
    """
    from sklearn.metrics import adjusted_mutual_info_score

    return float(adjusted_mutual_info_score(given, owners))


def write_csv(path: Path, names: Sequence[str], owners: np.ndarray, given: Sequence[str]) -> None:
    """Write one line per class: its name, its learned group and its given group, sorted by learned group.

    Args:
        path: the file.
        names: names of the C classes.
        owners: (C,) learned group of each class.
        given: name of the given group of each class.

    Raises:
        WriteError: the file cannot be written.
    """
    rows = ((int(owners[c]), names[c], given[c]) for c in np.argsort(owners, kind="stable"))
    csv_file.write_csv(path, [("group", "class", "given_group"), *rows])


def groups(of_class: np.ndarray, name: Callable[[int], str]) -> list[Group]:
    """The groups, the largest first.

    Args:
        of_class: (C,) group of each class.
        name: returns the name of a group.
    """
    labels, counts = np.unique(of_class, return_counts=True)
    order = labels[np.argsort(-counts, kind="stable")]
    return [Group(name(int(label)), np.flatnonzero(of_class == label).tolist()) for label in order]


def draw(
    title: str, names: Sequence[str], pixels: Pixels, learned: Sequence[Group], given: Sequence[Group] = ()
) -> "Figure":
    """The learned tree, and the given one to its right: groups with their first classes, each with an example image.

    The frame of an image has the colour of its class's given group in both trees.

    Args:
        title: printed above.
        names: names of the C classes.
        pixels: returns an example image of a class.
        learned: the learned groups.
        given: the given groups; empty for none.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    table = colormaps["tab20"].colors  # type: ignore[attr-defined]
    colours = {c: table[number % len(table)] for number, group in enumerate(given) for c in group.classes}
    trees = [tree for tree in (learned, given) if tree]
    width = MARGIN + (INDENT + COLUMNS * CELL + MARGIN) * len(trees)
    height = max(sum(map(_height, tree[:MOST_GROUPS])) for tree in trees) + 5 * LINE
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_title(title, fontsize=10)
    for number, tree in enumerate(trees):
        left = MARGIN + number * (INDENT + COLUMNS * CELL + MARGIN)
        if given:
            axes.text(left - 0.15, LINE, ("learned", "given")[number], fontsize=9, weight="bold")
        _draw_tree(axes, left, tree, names, pixels, colours)
    axes.set_xlim(0, width)  # after the images, each of which sets the limits
    axes.set_ylim(height, 0)
    return figure


def _height(group: Group) -> float:
    return HEAD + ROW * math.ceil(min(len(group.classes), MOST_CLASSES) / COLUMNS)


def _draw_tree(
    axes: "Axes",
    left: float,
    tree: Sequence[Group],
    names: Sequence[str],
    pixels: Pixels,
    colours: Mapping[int, Colour],
) -> None:
    """Draw a tree from the top of the axes, whose unit is an inch, downwards."""
    top = root = 2 * LINE
    for group in tree[:MOST_GROUPS]:
        branch, shown = top + LINE, group.classes[:MOST_CLASSES]
        _line(axes, [left - 0.15, left - 0.15, left], [root, branch, branch])
        text = f"{group.name}: {counted(len(group.classes), 'class', 'classes')}"
        axes.text(left + 0.04, branch, text, fontsize=8, va="center", parse_math=False)
        for place, index in enumerate(shown):
            x, y = left + INDENT + place % COLUMNS * CELL, top + HEAD + place // COLUMNS * ROW
            corner, middle = left + 0.1, x + SIDE / 2
            _line(axes, [corner, corner, middle, middle], [branch + LINE, y - 0.05, y - 0.05, y])
            _draw_class(axes, x, y, names[index], pixels(index), colours.get(index, GREY))
        top += _height(group)
        if more := len(group.classes) - len(shown):
            axes.text(left + 0.04, top, f"and {more} more", fontsize=7, va="bottom")
    if rest := tree[MOST_GROUPS:]:
        number = counted(sum(len(group.classes) for group in rest), "class", "classes")
        axes.text(left + 0.04, top + LINE, f"and {counted(len(rest), 'more group')} with {number}", fontsize=8)


def _line(axes: "Axes", x: list[float], y: list[float]) -> None:
    axes.plot(x, y, color=GREY, linewidth=0.7, zorder=0)


def _draw_class(axes: "Axes", x: float, y: float, name: str, image: np.ndarray, colour: Colour) -> None:
    """A class at a place in inches: its image in a frame, and its name below."""
    from matplotlib.patches import Rectangle

    small = Image.fromarray(image)
    small.thumbnail((PIXELS, PIXELS))
    high, wide = SIDE * small.height / max(small.size), SIDE * small.width / max(small.size)
    axes.imshow(np.asarray(small), cmap="gray" if image.ndim == 2 else None, vmin=0, vmax=255, aspect="auto",
                extent=(x, x + wide, y + high, y))  # fmt: skip
    axes.add_patch(Rectangle((x, y), wide, high, fill=False, edgecolor=colour, linewidth=2))
    lines = textwrap.wrap(name, WIDTH, max_lines=MOST_LINES, placeholder=" …")
    axes.text(x, y + SIDE + 0.05, "\n".join(lines), fontsize=6.5, va="top", linespacing=1.05, parse_math=False)
