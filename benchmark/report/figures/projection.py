"""Embeddings in two dimensions, by t-SNE (scikit-learn) or UMAP (umap-learn), with the loss's own points.

Sources of the layouts: Yang et al., WACV 2022, figure 4 (t-SNE, with proxies and coarse proxies); Kim et al., CVPR
2023, supplement, figure 1 (UMAP, with lines from the samples to the learned ancestors). A projection distorts
distances; it shows neighbourhoods at best.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from benchmark.core.errors import UserError
from benchmark.core.invocation import install

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METHODS = ("tsne", "umap")
MOST_POINTS = 3000
MOST_PROXIES = 500
MOST_COLOURS = 20


def _none() -> np.ndarray:
    return np.zeros((0, 2), dtype=np.float32)


@dataclass(frozen=True)
class Points:
    """Samples, and what a loss learned in the same space.

    Attributes:
        samples: (N, D).
        proxies: (P, D) proxies of training classes; none if P is 0.
        above: (A, D) points above the classes, such as coarse proxies; none if A is 0.
        nearest: (N,) index of the one of `above` to which a line leads from each sample; empty for no lines.
        kind: what those above are.
    """

    samples: np.ndarray
    proxies: np.ndarray = field(default_factory=_none)
    above: np.ndarray = field(default_factory=_none)
    nearest: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    kind: str = ""

    def projected(self, method: str, seed: int) -> "Points":
        """The points in two dimensions, projected together.

        Args:
            method: one of `METHODS`.
            seed: determines the result, on one kind of machine.

        Raises:
            UserError: there is no such method, or umap-learn is not installed.
        """
        parts = [part for part in (self.samples, self.proxies, self.above) if len(part)]
        places = project(np.concatenate(parts), method, seed)
        first, second = len(self.samples), len(self.samples) + len(self.proxies)
        return replace(self, samples=places[:first], proxies=places[first:second], above=places[second:])


@dataclass(frozen=True)
class Panel:
    """A panel of a figure.

    Attributes:
        title: its title.
        points: what it shows, in two dimensions.
        groups: (N,) group of each sample, by which it is coloured; the colours repeat after `MOST_COLOURS`.
        names: name of each group; empty for no legend of the groups.
    """

    title: str
    points: Points
    groups: np.ndarray
    names: dict[int, str] = field(default_factory=dict)


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
            f"projection=umap needs umap-learn: {install('umap-learn>=0.5.7')}\nprojection=tsne does without."
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


def sample_proxies(proxies: np.ndarray, seed: int) -> np.ndarray:
    """Randomly chosen proxies, `MOST_PROXIES` at most, in their order.

    Args:
        proxies: (P, D).
        seed: determines the choice.
    """
    chosen = np.random.default_rng(seed).permutation(len(proxies))[:MOST_PROXIES]
    return proxies[np.sort(chosen)]


def draw(panels: Sequence[Panel]) -> "Figure":
    """The panels side by side: samples coloured by group, proxies, points above, and lines to each sample's nearest.

    Args:
        panels: the panels, at least one.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(panels), 5))
    for number, (axes, panel) in enumerate(zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True)):
        points = panel.points
        if len(points.nearest):
            _lines(axes, points.samples, points.above[points.nearest])
        _samples(axes, panel)
        _marks(axes, points.proxies, "^", 22, ("white", "black"), "" if number else "proxy of a training class")
        size = 110 if len(points.above) <= MOST_COLOURS else 20
        _marks(axes, points.above, "X", size, ("black", "white"), "" if number else points.kind)
        axes.set_title(panel.title, fontsize=10)
        axes.set_xticks([])
        axes.set_yticks([])
        if axes.get_legend_handles_labels()[1]:
            legend = axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0), ncols=2, fontsize=7, frameon=False)
            for text in legend.get_texts():  # names of the user's folders, which may hold a $
                text.set_parse_math(False)
    return figure


def _samples(axes: "Axes", panel: Panel) -> None:
    """The samples, one colour for each group, with a legend if the groups have names and a colour each."""
    from matplotlib import colormaps

    colours = colormaps["tab20"].colors  # type: ignore[attr-defined]
    found, groups = np.unique(panel.groups, return_inverse=True)
    places, is_named = panel.points.samples, panel.names and len(found) <= MOST_COLOURS
    axes.scatter(places[:, 0], places[:, 1], s=4, c=[colours[group % MOST_COLOURS] for group in groups])
    for number, group in enumerate(found if is_named else ()):
        name = panel.names[int(group)]
        label = f" {name}" if name.startswith("_") else name  # a legend leaves out what begins with an underscore
        axes.scatter([], [], s=20, color=colours[number], label=label)


def _marks(axes: "Axes", places: np.ndarray, marker: str, size: int, colours: tuple[str, str], label: str) -> None:
    """Points (P, 2) in a colour with an edge in another one; none, and no entry in the legend, if P is 0."""
    if len(places):
        fill, edge = colours
        axes.scatter(places[:, 0], places[:, 1], s=size, color=fill, edgecolor=edge, marker=marker, linewidth=0.7,
                     label=label)  # fmt: skip


def _lines(axes: "Axes", starts: np.ndarray, ends: np.ndarray) -> None:
    """Thin lines from (N, 2) to (N, 2)."""
    from matplotlib.collections import LineCollection

    ends_of_lines = list(np.stack([starts, ends], axis=1))
    axes.add_collection(LineCollection(ends_of_lines, colors="#999999", linewidths=0.2, zorder=0))
