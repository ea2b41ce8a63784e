"""Learned distributions of the training classes beside the embeddings of their images.

Source of the figure: Lim, Yun, Park and Choi, "Hypergraph-Induced Semantic Tuplet Loss for Deep Metric Learning", CVPR
2022, supplement, figure 2: learned means against the means of the features, and learned covariances against the spread
of the features. The quantities are this project's reading of it, see `Compared`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import spearmanr

from benchmark.core import csv_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = ("model", "class", "images", "own_cosine", "nearest_other_cosine", "covariance_norm", "spread")
NUM_BINS = 40


@dataclass(frozen=True)
class Compared:
    """The C learned distributions of a model beside the embeddings of its training images.

    Attributes:
        images: (C,) number of images of each class.
        own: (C,) cosine of the learned mean and the mean of the class's unit embeddings.
        other: (C,) largest cosine of the learned mean and the mean of another class; NaN for a single class.
        norm: (C,) Frobenius norm of the learned covariance, the root of the sum of its squared variances.
        spread: (C,) trace of the covariance of the class's unit embeddings, their mean squared distance from the mean.
    """

    images: np.ndarray
    own: np.ndarray
    other: np.ndarray
    norm: np.ndarray
    spread: np.ndarray

    @property
    def share(self) -> float:
        """The fraction of the learned means that are nearer to the mean of their own class than to any other."""
        return float(np.mean(~(self.other >= self.own)))

    @property
    def correlation(self) -> float:
        """Spearman's rank correlation of norm and spread; NaN if one of them is constant or there are two classes."""
        if len(self.norm) < 3 or np.ptp(self.norm) == 0 or np.ptp(self.spread) == 0:
            return float("nan")
        return float(spearmanr(self.norm, self.spread).statistic)


def compare(embeddings: np.ndarray, labels: np.ndarray, means: np.ndarray, variances: np.ndarray) -> Compared:
    """Compare learned distributions with the embeddings of the images that they were learned from.

    Args:
        embeddings: (N, D), of any norm.
        labels: (N,) in 0..C-1; every class has an image.
        means: (C, D), of any norm.
        variances: (C, D), diagonals of the covariances.
    """
    units, learned = _unit(embeddings.astype(np.float64)), _unit(means.astype(np.float64))
    counts = np.bincount(labels, minlength=len(learned))
    sums = np.zeros_like(learned)
    np.add.at(sums, labels, units)
    measured = sums / counts[:, None]
    cosines = learned @ _unit(measured).T  # (C, C), learned x measured
    own = cosines.diagonal().copy()
    np.fill_diagonal(cosines, -np.inf)
    other = cosines.max(axis=1)
    distances = ((units - measured[labels]) ** 2).sum(axis=1)  # (N,)
    return Compared(
        counts, own, np.where(np.isfinite(other), other, np.nan),
        np.sqrt((variances.astype(np.float64) ** 2).sum(axis=1)),
        np.bincount(labels, distances, minlength=len(learned)) / counts,
    )  # fmt: skip


def _unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12))


def draw(models: Sequence[Compared]) -> "Figure":
    """One line of two panels for each model: the cosines of the means, and the norms of the covariances.

    Args:
        models: one entry for each model of a run.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4 * len(models)))
    grid = figure.subplots(len(models), 2, squeeze=False)
    for number, (facts, (left, right)) in enumerate(zip(models, grid, strict=True)):
        title = f"model {number}: " if len(models) > 1 else ""
        _draw_means(left, facts, title)
        right.scatter(facts.spread, facts.norm, s=8, alpha=0.6)
        right.set_xlabel("spread of the class's embeddings")
        right.set_ylabel("norm of the learned covariance")
        right.set_title(f"{title}rank correlation {facts.correlation:.2f}", fontsize=9)
    figure.tight_layout()
    return figure


def _draw_means(axes: "Axes", facts: Compared, title: str) -> None:
    bins = np.linspace(-1, 1, NUM_BINS + 1).tolist()
    axes.hist(facts.other[np.isfinite(facts.other)], bins, color="C1", alpha=0.6, label="nearest other class")
    axes.hist(facts.own, bins, color="C0", alpha=0.6, label="own class")
    axes.set_xlabel("cosine of learned mean and mean of embeddings")
    axes.set_xticks([-1, -0.5, 0, 0.5, 1])
    axes.set_ylabel("classes")
    axes.set_title(f"{title}{100 * facts.share:.0f} % of {len(facts.own)} means nearest to their class", fontsize=9)
    axes.legend(fontsize=7)


def write_csv(path: Path, models: Sequence[tuple[Sequence[str], Compared]]) -> Path:
    """Write a line for each model and class, and return the path.

    Args:
        path: the file.
        models: for each model, the names of its classes, and its comparison.
    """
    rows: list[Sequence[object]] = [COLUMNS]
    for number, (names, facts) in enumerate(models):
        numbers = zip(facts.images, facts.own, facts.other, facts.norm, facts.spread, strict=True)
        for name, (count, *values) in zip(names, numbers, strict=True):
            rows.append([number, name, int(count), *(f"{value:.6g}" for value in values)])
    return csv_file.write_csv(path, rows)
