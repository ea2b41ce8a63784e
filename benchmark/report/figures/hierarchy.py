"""A learned hierarchy as a list of groups with the names of their classes, and how well it agrees with a given one."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmark.core import records

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_NAMES = 12  # per group in the figure; the CSV file has all


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
    buffer = io.StringIO()
    lines = csv.writer(buffer, lineterminator="\n")
    lines.writerow(["group", "class", "given_group"])
    lines.writerows([int(owners[c]), names[c], given[c]] for c in np.argsort(owners, kind="stable"))
    records.write_whole(path, buffer.getvalue().encode())


def draw(names: Sequence[str], owners: np.ndarray, title: str) -> "Figure":
    """A tree of two levels: each group, the largest first, with the names of its first classes.

    Args:
        names: names of the C classes.
        owners: (C,) group of each class.
        title: printed above.
    """
    from matplotlib.figure import Figure

    labels, counts = np.unique(owners, return_counts=True)
    order = labels[np.argsort(-counts, kind="stable")]
    figure = Figure(figsize=(11, 0.3 * len(order) + 1))
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_title(title, fontsize=10)
    axes.set_xlim(0, 1)
    axes.set_ylim(-len(order) / 2, len(order) / 2)
    for row, label in enumerate(order):
        height = len(order) / 2 - row - 0.5
        members = [names[int(c)] for c in np.flatnonzero(owners == label)]
        more = f" and {len(members) - MOST_NAMES} more" * (len(members) > MOST_NAMES)
        text = ", ".join(members[:MOST_NAMES]) + more
        axes.plot([0, 0.06, 0.08], [0, height, height], color="#888888", linewidth=0.8)
        axes.text(0.09, height, f"{label} ({len(members)}): {text}", fontsize=7, va="center")
    return figure
