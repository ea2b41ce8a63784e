"""Separated and concatenated: the two ways to score the models of a run's folds.

Source: Musgrave, Belongie, Lim, "A Metric Learning Reality Check", ECCV 2020 (arXiv 2003.08505), section 3: *separated*
scores each model's embedding alone and averages; *concatenated* L2-normalises each, joins them and scores once.

Departure, for embeddings in a Poincare ball, which cannot be joined to points of one ball: there, concatenated sums the
folds' distances.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from benchmark.protocol.retrieval import retrieval_metrics


def side_by_side(embeddings: Tensor, metric: str) -> tuple[Tensor, dict[str, int]]:
    """The folds' embeddings (folds, N, D) as (N, folds x D), and how a search by `metric` must take them."""
    return torch.cat(list(embeddings), dim=1), {"parts": len(embeddings)} if metric == "hyperbolic" else {}


def metrics_of(embeddings: Tensor, labels: Tensor, is_query: Tensor | None, **options: Any) -> dict[str, Any]:
    """Metrics of a search among all embeddings (N, D), or of the queries (N,) among the others.

    Args:
        embeddings: (N, D).
        labels: (N,).
        is_query: (N,) bool; None searches every one among all others.
        options: further arguments of `retrieval_metrics`.
    """
    if is_query is None:
        return retrieval_metrics(embeddings, labels, **options)
    others = embeddings[~is_query], labels[~is_query]
    return retrieval_metrics(embeddings[is_query], labels[is_query], *others, **options)


def score(
    embeddings: Tensor,
    labels: Tensor,
    names: Sequence[str],
    *,
    is_query: Tensor | None = None,
    metric: str,
    **options: Any,
) -> dict[str, Any]:
    """Metrics of both modes, and of each fold's model alone.

    Args:
        embeddings: (folds, N, D), of unit length where the metric is cosine.
        labels: (N,).
        names: of the metrics to keep.
        is_query: (N,) bool where queries are searched among the others; None where all are searched among all.
        metric: the distance of the search.
        options: further arguments of `retrieval_metrics`.
    """
    joined, parts = side_by_side(embeddings, metric)
    whole = metrics_of(joined, labels, is_query, metric=metric, **options, **parts)
    alone = [metrics_of(e, labels, is_query, metric=metric, **options) for e in embeddings]
    return {
        "separated": {name: sum(m[name] for m in alone) / len(alone) for name in names},
        "separated_folds": [{name: m[name] for name in names} for m in alone],
        "concatenated": {name: whole[name] for name in names},
    }
