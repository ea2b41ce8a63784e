"""Embeddings in two dimensions, by t-SNE (scikit-learn) or UMAP (umap-learn), with the loss's own points.

Sources of the layouts: Yang et al., WACV 2022, figure 4 (t-SNE); Kim et al., CVPR 2023, supplement, figure 1 (UMAP,
with lines from the samples to the learned ancestors). A projection distorts distances; it shows neighbourhoods at best.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from benchmark.core.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METHODS = ("tsne", "umap")
MOST_POINTS = 3000
MOST_COLOURS = 20


def project(points: np.ndarray, method: str, seed: int) -> np.ndarray:
    """Points (N, D) in two dimensions, (N, 2).

    Args:
        points: at least 3 points.
        method: one of `METHODS`.
        seed: determines the result, on one kind of machine.

    Raises:
        UserError: there is no such method, or umap-learn is not installed.
    """
    if method == "tsne":
        from sklearn.manifold import TSNE

        perplexity = min(30.0, (len(points) - 1) / 3)
        return np.asarray(TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(points))
    if method != "umap":
        raise UserError(f"projection={method}: allowed are {', '.join(METHODS)}.")
    try:
        from umap import UMAP
    except ImportError:
        raise UserError(
            "projection=umap needs umap-learn: pip install 'umap-learn>=0.5.7', or this package's extra [umap]. "
            "projection=tsne does without."
        ) from None
    return np.asarray(UMAP(n_neighbors=min(15, len(points) - 1), random_state=seed, n_jobs=1).fit_transform(points))


def sample_classes(labels: np.ndarray, seed: int) -> np.ndarray:
    """Rows of randomly chosen classes, `MOST_POINTS` at most, ascending; whole classes as long as they fit.

    Args:
        labels: (N,) class ids.
        seed: determines the choice.
    """
    rows: list[int] = []
    for label in np.random.default_rng(seed).permutation(np.unique(labels)):
        own = np.flatnonzero(labels == label)
        if rows and len(rows) + len(own) > MOST_POINTS:
            break
        rows += own[:MOST_POINTS].tolist()
    return np.sort(np.array(rows))


def nearest_points(points: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """The anchor nearest to each point by angle, (N,).

    Args:
        points: (N, D).
        anchors: (A, D).
    """
    unit = anchors / np.linalg.norm(anchors, axis=1, keepdims=True).clip(1e-12)
    return np.asarray((points @ unit.T).argmax(axis=1))


def draw(
    panels: Mapping[str, tuple[np.ndarray, np.ndarray | None]], groups: np.ndarray, method: str, seed: int
) -> "Figure":
    """One panel per title, side by side: the samples, coloured by group, and lines from each to its nearest anchor.

    Args:
        panels: by title, the embeddings (N, D) and the anchors (A, D) that are projected with them, such as coarse
            proxies or ancestors; None for no anchors.
        groups: (N,) group of each sample; the colours repeat after `MOST_COLOURS`.
        method: one of `METHODS`.
        seed: determines the projection.

    Raises:
        UserError: there is no such method, or umap-learn is not installed.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * len(panels), 4.5))
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, (samples, anchors)) in zip(grid, panels.items(), strict=True):
        together = samples if anchors is None else np.concatenate([samples, anchors])
        places = project(together, method, seed)
        own, others = places[: len(samples)], places[len(samples) :]
        if anchors is not None:
            _lines(axes, own, others[nearest_points(samples, anchors)])
            axes.scatter(*others.T, s=18, c="black", marker="x", linewidths=0.8)
        axes.scatter(*own.T, s=3, c=np.unique(groups, return_inverse=True)[1] % MOST_COLOURS, cmap="tab20", vmin=0,
                     vmax=MOST_COLOURS - 1)  # fmt: skip
        axes.set_title(title, fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])
    return figure


def _lines(axes: "Axes", starts: np.ndarray, ends: np.ndarray) -> None:
    """Thin lines from (N, 2) to (N, 2)."""
    from matplotlib.collections import LineCollection

    axes.add_collection(LineCollection(list(np.stack([starts, ends], axis=1)), colors="#999999", linewidths=0.2))
