"""The metrics of any embeddings: over all queries, for each class and for each super class.

They are those of `retrieval.py` and, where super classes are given, `levels.py`; both name their sources. A group's
score is the mean over its queries that have one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmark.protocol.levels import has_hierarchy, level_scores, over_classes
from benchmark.protocol.modes import side_by_side
from benchmark.protocol.nearest import METRICS
from benchmark.protocol.retrieval import query_scores

RECALL_AT = (1, 2, 4, 8)
LEVELS = ("h_ap", "ndcg", "asi", "super_map_at_r")
MODES = ("concatenated", "separated")


@dataclass(frozen=True)
class Groups:
    """Mean scores of groups of queries, such as classes.

    Attributes:
        ids: (C,) int64, ids of the groups, ascending; only those with a query that has a score.
        num_queries: (C,) int64, queries of each group that have a score.
        scores: for each metric the mean (C,) over these queries.
    """

    ids: Tensor
    num_queries: Tensor
    scores: dict[str, Tensor]


@dataclass(frozen=True)
class Evaluation:
    """The metrics of embeddings, as fractions.

    Attributes:
        scores: mean over queries by metric: `map_at_r`, `precision_at_1`, `r_precision`, `recall_at_<k>`, with a
            hierarchy also `LEVELS`; and `class_map_at_r`, the mean over classes.
        num_queries: number of all queries.
        num_lone_queries: queries without another image of their class, which have no score.
        classes: means of each class.
        super_classes: means of each super class; None without super classes.
    """

    scores: dict[str, float]
    num_queries: int
    num_lone_queries: int
    classes: Groups
    super_classes: Groups | None


@torch.no_grad()
def evaluation(
    embeddings: Tensor,
    labels: Tensor,
    *,
    super_labels: Tensor | None = None,
    is_query: Tensor | None = None,
    metric: str = "cosine",
    recall_at: Sequence[int] = RECALL_AT,
    mode: str = "concatenated",
    curvature: float | None = None,
) -> Evaluation:
    """Compute the metrics of embeddings.

    >>> points = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.5, 0.5]])
    >>> found = evaluation(points, torch.tensor([4, 4, 7, 7]), recall_at=[1])
    >>> found.scores["precision_at_1"], found.classes.scores["precision_at_1"].tolist()
    (0.75, [1.0, 0.5])

    Args:
        embeddings: (N, D), or (F, N, D) for F models.
        labels: (N,) integer class ids.
        super_labels: (N,) integer ids of the super classes, each of which holds whole classes; None without any.
        is_query: (N,) bool, true for queries that are searched among the others; None: each embedding is searched
            among all others.
        metric: distance of the search, as in `retrieval_metrics`.
        recall_at: each K of Recall@K, 1 or more.
        mode: for several models: `concatenated` searches their joined embeddings, `separated` averages each query's
            scores over them.
        curvature: curvature of the ball; for "hyperbolic" only.

    Raises:
        ValueError: shapes, types or options do not fit, vectors are not finite, or no query has a relevant reference.
    """
    if mode not in MODES or metric not in METRICS:
        raise ValueError(f"mode={mode!r}, metric={metric!r}: allowed are {', '.join(MODES)}; {', '.join(METRICS)}.")
    if embeddings.ndim not in (2, 3) or labels.shape != embeddings.shape[-2:-1]:
        raise ValueError(
            f"embeddings must be (N, D) or (F, N, D) with N labels, not {tuple(embeddings.shape)} with labels of shape "
            f"{tuple(labels.shape)}."
        )
    for name, given in (("super_labels", super_labels), ("is_query", is_query)):
        if given is not None and given.shape != labels.shape:
            raise ValueError(f"{name} has the shape {tuple(given.shape)}; {tuple(labels.shape)} is needed.")
    models = embeddings if embeddings.ndim == 3 else embeddings[None]
    if metric == "cosine" and len(models) > 1:
        models = torch.nn.functional.normalize(models.float(), dim=2)
    chosen = torch.ones_like(labels, dtype=torch.bool) if is_query is None else is_query.bool()
    nested = super_labels is not None and has_hierarchy(labels, super_labels)
    extra = [labels, super_labels] if nested and super_labels is not None else [labels]

    def of(vectors: Tensor, parts: int) -> dict[str, Tensor]:
        mine = [part[chosen] for part in (vectors, *extra)]
        others = [] if is_query is None else [part[~chosen] for part in (vectors, *extra)]
        found = query_scores(
            *mine[:2], *others[:2], metric=metric, recall_at=recall_at, curvature=curvature, parts=parts
        )
        if nested:
            levels = level_scores(*mine, *others, metric=metric, curvature=curvature, parts=parts)
            found |= {name: levels[name] for name in LEVELS}
        return found

    each = [of(*side_by_side(models, metric))] if mode == "concatenated" else [of(one, 1) for one in models]
    scores = {name: torch.stack([one[name] for one in each]).mean(dim=0) for name in each[0]}
    own = labels[chosen]
    means = {name: values.nanmean().item() for name, values in scores.items()}
    means["class_map_at_r"] = over_classes(scores["map_at_r"], own)[1].mean().item()
    return Evaluation(
        scores=means,
        num_queries=len(own),
        num_lone_queries=int(scores["map_at_r"].isnan().sum()),
        classes=_grouped(scores, own),
        super_classes=None if super_labels is None else _grouped(scores, super_labels[chosen]),
    )


def _grouped(scores: dict[str, Tensor], groups: Tensor) -> Groups:
    """The mean of each score (Q,) over the queries of each group (Q,)."""
    scored = ~scores["map_at_r"].isnan()
    ids, counts = groups[scored].unique(return_counts=True)
    kept = {name: torch.where(scored, values, torch.nan) for name, values in scores.items()}
    return Groups(ids, counts, {name: over_classes(values, groups)[1] for name, values in kept.items()})
