"""Separated and concatenated: the two ways to score the models of a run's folds.

Source: Musgrave, Belongie, Lim, "A Metric Learning Reality Check", ECCV 2020 (arXiv 2003.08505), section 3: *separated*
scores each model's embeddings alone and averages; *concatenated* L2-normalises them, concatenates them and scores once.

Departure for embeddings in a Poincare ball, which cannot be concatenated to points of one ball: there, *concatenated*
sums the folds' distances.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypedDict

import torch
from torch import Tensor

from benchmark.protocol.retrieval import retrieval_metrics


class ModeScores(TypedDict):
    """Metrics of both modes, by name.

    Attributes:
        separated: mean over the folds of each metric.
        separated_folds: metrics of each fold's model.
        concatenated: metrics of the concatenated embeddings.
    """

    separated: dict[str, float]
    separated_folds: list[dict[str, float]]
    concatenated: dict[str, float]


def side_by_side(embeddings: Tensor, metric: str) -> tuple[Tensor, int]:
    """Concatenate the folds' embeddings (F, N, D) to (N, F D).

    Args:
        embeddings: (F, N, D), one model per fold.
        metric: distance of the search.

    Returns:
        The concatenated embeddings (N, F D), and the number of `parts` that the search must split them into: F for
        "hyperbolic", where each part is a point, otherwise 1.
    """
    return torch.cat(list(embeddings), dim=1), len(embeddings) if metric == "hyperbolic" else 1


def metrics_of(
    embeddings: Tensor,
    labels: Tensor,
    is_query: Tensor | None,
    *,
    metric: str,
    recall_at: Sequence[int] = (),
    curvature: float | None = None,
    parts: int = 1,
) -> dict[str, float]:
    """Compute metrics of a search among all embeddings, or of queries among the other embeddings.

    Args:
        embeddings: (N, D).
        labels: (N,) integer class ids.
        is_query: (N,) bool; None: each embedding is searched among all others.
        metric: distance of the search, as in `retrieval_metrics`.
        recall_at: each K of Recall@K.
        curvature: curvature of the ball; for "hyperbolic" only.
        parts: number of points of the ball in one embedding.

    Raises:
        ValueError: `retrieval_metrics` refuses these embeddings, labels or options.
    """
    queries, query_labels, gallery, gallery_labels = embeddings, labels, None, None
    if is_query is not None:
        queries, query_labels = embeddings[is_query], labels[is_query]
        gallery, gallery_labels = embeddings[~is_query], labels[~is_query]
    return retrieval_metrics(
        queries, query_labels, gallery, gallery_labels,
        metric=metric, recall_at=recall_at, curvature=curvature, parts=parts,
    )  # fmt: skip


def score(
    embeddings: Tensor,
    labels: Tensor,
    names: Sequence[str],
    *,
    metric: str,
    is_query: Tensor | None = None,
    recall_at: Sequence[int] = (),
    curvature: float | None = None,
) -> ModeScores:
    """Compute the metrics of both modes, and of each fold's model alone.

    Args:
        embeddings: (F, N, D), one model per fold; normalised if the metric is "cosine".
        labels: (N,) integer class ids.
        names: metrics to keep.
        metric: distance of the search, as in `retrieval_metrics`.
        is_query: (N,) bool, true for queries that are searched among the others; None: each image is searched among all
            others.
        recall_at: each K of Recall@K.
        curvature: curvature of the ball; for "hyperbolic" only.

    Raises:
        ValueError: `retrieval_metrics` refuses these embeddings, labels or options.
    """

    def measure(vectors: Tensor, parts: int) -> dict[str, float]:
        return metrics_of(
            vectors, labels, is_query, metric=metric, recall_at=recall_at, curvature=curvature, parts=parts
        )

    return in_both_modes(embeddings, metric, measure, names)


def in_both_modes(
    embeddings: Tensor, metric: str, measure: Callable[[Tensor, int], Mapping[str, float]], names: Sequence[str]
) -> ModeScores:
    """Measure the concatenated embeddings, and those of each fold's model alone.

    Args:
        embeddings: (F, N, D), one model per fold; normalised if the metric is "cosine".
        metric: distance of the search, as in `retrieval_metrics`.
        measure: returns metrics by name for embeddings, (N, D) or (N, F D), and the number of their `parts`.
        names: metrics to keep.
    """
    whole = measure(*side_by_side(embeddings, metric))
    folds = [measure(vectors, 1) for vectors in embeddings]
    return {
        "separated": {name: sum(fold[name] for fold in folds) / len(folds) for name in names},
        "separated_folds": [{name: fold[name] for name in names} for fold in folds],
        "concatenated": {name: whole[name] for name in names},
    }
