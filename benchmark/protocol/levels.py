"""Metrics on the levels of a hierarchy, classes in super classes, from the whole ranking of each query.

Source of H-AP and of the choice of metrics: Ramzi, Audebert, Thome, Rambour and Bitot, "Hierarchical Average Precision
Training for Pertinent Image Retrieval", ECCV 2022 (arXiv 2207.04873). A reference with a query's class has level 2, one
with its super class alone level 1, any other level 0. With n_l references of level l, and r the rank of reference k:

    rel(k)  = (l / 2) / n_l                                             for k of level l
    H-AP    = sum over k of H-rank(k) / r(k), divided by the sum over k of rel(k)
    H-rank  = rel(k) + sum over references j ahead of k of min(rel(k), rel(j))
    NDCG    = sum over k of (2^l - 1) / log2(1 + r), divided by its largest possible value
    ASI     = 1/R * sum over d = 1..R of (size of the intersection of the first d levels with the best d levels) / d

Here R = n_1 + n_2, and the intersection is one of multisets: the average set intersection of Fagin, Kumar and Sivakumar
(SIAM Journal on Discrete Mathematics, 2003) of the ranking and an ideal one. `super_map_at_r` is MAP@R with every
reference of the super class relevant. `map_at_r` is that of `retrieval.py`.

Easily got wrong, and where the authors' code (elias-ramzi/HAPPIER, commit 4d7c054) differs:
- a query is not one of its references, so n_2 does not count it. The code ranks without it, but counts it in n_2;
- two levels may have equal rel, if n_2 = 2 n_1. The code finds the level by rel, and then counts it twice;
- ties are ranked as everywhere here, see `nearest.py`; the code leaves their order to a sort;
- a query without any reference of its super class has no score, and one without a reference of its class no MAP@R.

The cost is that of sorting all scores: no smaller part of a ranking contains all references of a super class. Memory
holds a few blocks of block x G scores.
"""

import torch
from torch import Tensor

from benchmark.protocol.modes import ModeScores, in_both_modes
from benchmark.protocol.nearest import Search, by_numpy
from benchmark.protocol.retrieval import query_scores

PER_QUERY = ("h_ap", "ndcg", "asi", "super_map_at_r", "map_at_r")
AVERAGES = ("h_ap", "ndcg", "asi", "super_map_at_r", "class_map_at_r")  # the last also exists without a hierarchy
_SCORES_AT_A_TIME = 2**22  # 16 MB
_RANKED_AT_A_TIME = 2**19  # on a CPU, whose cache then holds them
_CLASS, _SUPER_CLASS = 2, 1


def has_hierarchy(labels: Tensor, super_labels: Tensor) -> bool:
    """Whether super classes are neither all the same nor single classes.

    Args:
        labels: (N,) integer class ids.
        super_labels: (N,) integer super class ids.
    """
    num_super = len(super_labels.unique())
    return 1 < num_super < len(labels.unique())


def score_levels(
    embeddings: Tensor,
    labels: Tensor,
    super_labels: Tensor,
    *,
    metric: str,
    is_query: Tensor | None = None,
    curvature: float | None = None,
) -> ModeScores:
    """Compute `AVERAGES` for both modes and for each fold's model; without a hierarchy, `class_map_at_r` alone.

    All but `class_map_at_r` are means over queries. `class_map_at_r` is the mean over classes of the mean MAP@R of
    their queries, so that a class with many images counts no more than one with few.

    Args:
        embeddings: (F, N, D), one model per fold; normalised if the metric is "cosine".
        labels: (N,) integer class ids.
        super_labels: (N,) integer ids of the super classes, each of which holds whole classes.
        metric: distance of the search, as in `retrieval_metrics`.
        is_query: (N,) bool, true for queries that are searched among the others; None: each image is searched among all
            others.
        curvature: curvature of the ball; for "hyperbolic" only.

    Raises:
        ValueError: `retrieval_metrics` would refuse these embeddings, labels or options.
    """
    labels, super_labels = labels.to(embeddings.device), super_labels.to(embeddings.device)
    chosen = torch.ones_like(labels, dtype=torch.bool) if is_query is None else is_query.to(embeddings.device)
    is_nested = has_hierarchy(labels, super_labels)
    names = AVERAGES if is_nested else AVERAGES[-1:]

    def measure(vectors: Tensor, parts: int) -> dict[str, float]:
        queries = vectors, labels, super_labels
        mine = [part[chosen] for part in queries]
        others: list[Tensor] = [] if is_query is None else [part[~chosen] for part in queries]
        if is_nested:
            scores = level_scores(*mine, *others, metric=metric, curvature=curvature, parts=parts)
        else:
            scores = query_scores(*mine[:2], *others[:2], metric=metric, curvature=curvature, parts=parts)
        means = {name: scores[name].nanmean().item() for name in names[:-1]}
        return means | {"class_map_at_r": over_classes(scores["map_at_r"], mine[1])[1].mean().item()}

    return in_both_modes(embeddings, metric, measure, names)


def over_classes(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the classes (C,) that have a score, in ascending order, and the mean score (C,) of each one's queries.

    >>> over_classes(torch.tensor([0.5, 1.0, torch.nan, 0.0]), torch.tensor([7, 7, 7, 2]))
    (tensor([2, 7]), tensor([0.0000, 0.7500]))

    Args:
        scores: (Q,), NaN for a query without a score.
        labels: (Q,) integer class ids.
    """
    scored = ~scores.isnan()
    classes, place, counts = labels[scored].unique(return_inverse=True, return_counts=True)
    return classes, scores.new_zeros(len(classes)).index_add_(0, place, scores[scored]) / counts


@torch.no_grad()
def level_scores(
    queries: Tensor,
    query_labels: Tensor,
    query_super: Tensor,
    gallery: Tensor | None = None,
    gallery_labels: Tensor | None = None,
    gallery_super: Tensor | None = None,
    *,
    metric: str = "cosine",
    block: int | None = None,
    curvature: float | None = None,
    parts: int = 1,
) -> dict[str, Tensor]:
    """Compute the scores of each query, float64 (Q,), by the names in `PER_QUERY`; NaN for a query without a score.

    Args:
        queries: (Q, D) embeddings of any floating type; searched in float32.
        query_labels: (Q,) integer class ids.
        query_super: (Q,) integer ids of the super classes.
        gallery: (G, D) references; None: each query is searched among the other queries.
        gallery_labels: (G,) integer class ids of the gallery.
        gallery_super: (G,) integer ids of the gallery's super classes.
        metric: distance of the search, as in `retrieval_metrics`.
        block: largest number of queries scored at a time; None: chosen by the number of references.
        curvature: curvature of the ball; for "hyperbolic" only.
        parts: number of points of the ball in one vector, for "hyperbolic".

    Raises:
        ValueError: the search refuses these vectors or options, or a gallery lacks labels.
    """
    labels, super_labels = (query_labels, query_super) if gallery is None else (gallery_labels, gallery_super)
    if labels is None or super_labels is None:
        raise ValueError("gallery, gallery_labels and gallery_super belong together: give all of them, or none.")
    alone = int(gallery is None)
    num_class, num_super = _num_equal(query_labels, labels) - alone, _num_equal(query_super, super_labels) - alone
    block = block or max(64, _SCORES_AT_A_TIME // len(labels))
    few = max(1, _RANKED_AT_A_TIME // len(labels)) if by_numpy(queries) else block
    search = Search(queries, gallery, metric, block, curvature=curvature, parts=parts)
    found = queries.new_full((len(PER_QUERY), len(queries)), torch.nan, dtype=torch.float64)
    order = torch.argsort(num_super, stable=True)
    for rows in order[num_super[order] > 0].split(block):
        scores = search.scores(rows)
        for part in torch.arange(len(rows), device=rows.device).split(few):
            some = rows[part]
            levels = (super_labels == query_super[some, None]).to(torch.uint8)
            levels += labels == query_labels[some, None]
            if gallery is None:
                levels.scatter_(1, some[:, None], 0)  # its own score is -inf, so it ranks last
            found[:, some] = _scores(_ranked(scores[part], levels), num_class[some], num_super[some])
    return dict(zip(PER_QUERY, found, strict=True))


def _num_equal(values: Tensor, among: Tensor) -> Tensor:
    """Return how often each value (Q,) occurs among others (G,)."""
    ordered = among.sort().values
    return torch.searchsorted(ordered, values, right=True) - torch.searchsorted(ordered, values)


def _ranked(scores: Tensor, levels: Tensor) -> Tensor:
    """Return the levels (B, G), uint8, of the references from the nearest to the farthest.

    One integer holds a score, the index that decides ties, and the level, so a single sort of values does it all.

    Args:
        scores: (B, G) float32, larger is nearer.
        levels: (B, G) uint8, 0 to 3.
    """
    bits = (scores + 0.0).view(torch.int32)  # 0.0, not -0.0
    halves = torch.empty(*scores.shape, 2, dtype=torch.int32, device=scores.device)  # the low one first
    halves[..., 1] = (bits >> 31).bitwise_and_(0x7FFFFFFF).bitwise_xor_(bits).bitwise_not_()  # ascending by -score
    halves[..., 0] = (torch.arange(scores.shape[1], dtype=torch.int32, device=scores.device) << 2) + levels
    keys = halves.view(torch.int64)[..., 0]
    if by_numpy(keys):
        keys.numpy().sort(axis=1)
    else:
        keys = keys.sort(dim=1).values
    lowest: Tensor = keys.view(torch.uint8).unflatten(1, (-1, 8))[..., 0]
    return lowest & 3


def _scores(ranked: Tensor, num_class: Tensor, num_super: Tensor) -> Tensor:
    """Return the values of `PER_QUERY`, stacked (5, B).

    Args:
        ranked: (B, G), level of each reference from the nearest to the farthest.
        num_class: (B,), references of the query's class.
        num_super: (B,), R: references of its super class, at least 1.
    """
    n2, n1, total = num_class[:, None], (num_super - num_class)[:, None], num_super[:, None]
    depth = torch.arange(1, int(num_super.max()) + 1, device=ranked.device)  # (K,)
    listed = depth <= total  # (B, K): as many entries as a query has relevant references
    place = ranked.view(-1).nonzero()[:, 0]
    level = torch.zeros_like(listed, dtype=torch.uint8).masked_scatter_(listed, ranked.view(-1)[place])
    rank = torch.ones_like(listed, dtype=torch.float64)
    rank.masked_scatter_(listed, (place % ranked.shape[1] + 1).double())
    is_class, is_super = level == _CLASS, level == _SUPER_CLASS
    of_class, of_super = is_class.cumsum(1), is_super.cumsum(1)  # so far, this one included

    rel2, rel1 = 1 / n2.clamp(min=1).double(), 0.5 / n1.clamp(min=1).double()
    lower = torch.minimum(rel1, rel2)
    h_rank = torch.where(is_class, rel2 * of_class + lower * of_super, rel1 * of_super + lower * of_class)
    h_ap = (h_rank * listed / rank).sum(1) / ((n2 > 0) * 1.0 + (n1 > 0) * 0.5)[:, 0]

    discounts = 1 / torch.log2(1 + depth.double())
    up_to = torch.cat([discounts.new_zeros(1), discounts.cumsum(0)])  # sum of the first n discounts
    best = 3 * up_to[num_class] + up_to[num_super] - up_to[num_class]
    ndcg = ((3.0 * is_class + is_super) / torch.log2(1 + rank)).sum(1) / best

    near = ranked[:, : len(depth)]
    shared = torch.minimum((near == _CLASS).cumsum(1), torch.minimum(depth, n2))
    shared += torch.minimum((near == _SUPER_CLASS).cumsum(1), (depth - n2).clamp(min=0))
    asi = (shared * listed / depth.double()).sum(1) / num_super

    super_map = (depth * (listed & (rank <= total)) / rank).sum(1) / num_super
    class_map = (of_class * (is_class & (rank <= n2)) / rank).sum(1) / num_class  # NaN if there are none
    return torch.stack([h_ap, ndcg, asi, super_map, class_map]).clamp_(max=1)  # which rounding may exceed
