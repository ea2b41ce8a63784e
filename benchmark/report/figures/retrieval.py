"""Retrieved images: one row per query, with the images at some ranks.

A green frame is of the query's class, a red and dashed one of another. Source of the layout: Yang et al., WACV 2022,
figure 3, which shows ranks 1, 2, 31 and 32 of HPL beside those of its base.
"""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINE = 24  # characters of a class's name on a line
RIGHT, WRONG, QUERY = "#2a9d4a", "#d1342f", "#444444"
Pixels = Callable[[int], np.ndarray]  # uint8 (H, W) or (H, W, 3) of an image


def choose_queries(rows: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Positions of randomly chosen queries, ascending.

    Args:
        rows: (Q,) positions of all queries.
        count: how many to choose; all if there are fewer.
        seed: determines the choice.
    """
    return np.sort(np.random.default_rng(seed).choice(rows, min(count, len(rows)), replace=False))


def precision(
    labels: np.ndarray, queries: np.ndarray, found: np.ndarray, is_query: np.ndarray | None = None
) -> np.ndarray:
    """The share of each query's R nearest images that are of its class, (Q,), for the R images of its class.

    It is counted among the K given ones if R is larger, and is not a number for a query without a relative.

    Args:
        labels: (N,) class id of each image.
        queries: (Q,) positions of the queries.
        found: (Q, K) positions of the images nearest to each query, nearest first.
        is_query: (N,) bool, which images are queries, and so not in the gallery; None where every image is both.
    """
    gallery = labels if is_query is None else labels[~is_query]
    own = labels[queries]
    classes, counts = np.unique(gallery, return_counts=True)
    places = np.searchsorted(classes, own).clip(max=len(classes) - 1)
    relatives = np.where(classes[places] == own, counts[places], 0) - (is_query is None)  # less the query itself
    is_right = labels[found] == own[:, None]
    within = np.arange(found.shape[1]) < relatives[:, None]
    with np.errstate(invalid="ignore"):
        return np.asarray((is_right & within).sum(axis=1) / within.sum(axis=1))


def worst_to_best(scores: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Indices of queries at equal distances in the order of their scores: the worst first, the best last.

    Args:
        scores: (Q,) score of each query; those that are not a number are passed over.
        count: how many to choose; all if there are fewer.
        seed: determines the order of equal scores.
    """
    shuffled = np.random.default_rng(seed).permutation(np.flatnonzero(np.isfinite(scores)))
    order = shuffled[np.argsort(scores[shuffled], kind="stable")]
    return order[np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(np.int64)]


def sheet(
    pixels: Pixels, names: Callable[[int], str], labels: np.ndarray, queries: np.ndarray,
    found: Mapping[str, np.ndarray], ranks: Sequence[int], notes: Sequence[str] = (),
) -> "Figure":  # fmt: skip
    """A sheet of queries and the images retrieved for them, by one model or by several in a block each.

    Args:
        pixels: returns an image by its position.
        names: returns the name of a class by its id.
        labels: (N,) class id of each image.
        queries: (Q,) positions of the queries.
        found: for each model, by its name, the positions (Q, K) of the images nearest to each query, nearest first.
        ranks: the ranks to show, from 1.
        notes: a text below the name of each query's class; empty for none.
    """
    from matplotlib.figure import Figure

    depth = min(each.shape[1] for each in found.values())
    shown = [rank for rank in ranks if rank <= depth]
    widths = [1, *(len(shown) for _ in found)]
    figure = Figure(figsize=(1.3 * sum(widths), (1.9 if notes else 1.5) * len(queries)))
    subfigures = figure.subfigures(1, len(widths), width_ratios=widths, squeeze=False)[0]
    room = {"left": 0.04, "right": 0.96, "top": 0.93, "bottom": 0.01, "hspace": 0.4 if notes else 0.2}
    grids = [
        part.subplots(len(queries), columns, squeeze=False, gridspec_kw=room)
        for part, columns in zip(subfigures, widths, strict=True)
    ]
    for row, (axes, query) in enumerate(zip(grids[0][:, 0], queries, strict=True)):
        _picture(axes, pixels(int(query)), QUERY)
        name = textwrap.wrap(names(int(labels[query])), LINE, max_lines=2, placeholder=" …")
        axes.set_title("\n".join([*name, *notes[row : row + 1]]), fontsize=7, parse_math=False)
    for part, grid, (model, nearest) in zip(subfigures[1:], grids[1:], found.items(), strict=True):
        if len(found) > 1:
            part.suptitle(model, y=0.98, fontsize=11, weight="bold", parse_math=False)
        for axes, rank in zip(grid[0], shown, strict=True):
            axes.set_title(f"rank {rank}", fontsize=7)
        for line, query, others in zip(grid, queries, nearest, strict=True):
            for axes, rank in zip(line, shown, strict=True):
                other = int(others[rank - 1])
                _picture(axes, pixels(other), RIGHT if labels[other] == labels[query] else WRONG)
    return figure


def _picture(axes: "Axes", image: np.ndarray, frame: str) -> None:
    axes.imshow(image, cmap="gray" if image.ndim == 2 else None, vmin=0, vmax=255)
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_color(frame)
        side.set_linewidth(3)
        side.set_capstyle("butt")
        side.set_linestyle((0, (2, 1)) if frame == WRONG else "solid")
