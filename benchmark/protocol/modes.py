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


def score(embeddings: Tensor, labels: Tensor, names: Sequence[str], *, metric: str, **options: Any) -> dict[str, Any]:
    """Metrics of both modes, and of each fold's model alone.

    Args:
        embeddings: (folds, N, D), of unit length where the metric is cosine.
        labels: (N,).
        names: of the metrics to keep.
        metric: the distance of the search.
        options: further arguments of `retrieval_metrics`.
    """
    joined, parts = side_by_side(embeddings, metric)
    whole = retrieval_metrics(joined, labels, metric=metric, **options, **parts)  # type: ignore[arg-type]
    alone = [retrieval_metrics(e, labels, metric=metric, **options) for e in embeddings]  # type: ignore[arg-type]
    return {
        "separated": {name: sum(m[name] for m in alone) / len(alone) for name in names},
        "separated_folds": [{name: m[name] for name in names} for m in alone],
        "concatenated": {name: whole[name] for name in names},
    }
