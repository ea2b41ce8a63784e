"""Precision@1, R-Precision, MAP@R and Recall@K by exact search.

Source: Musgrave, Belongie, Lim, "A Metric Learning Reality Check", ECCV 2020 (arXiv 2003.08505), section 3 on accuracy
metrics. For a query with R relevant references (same class), and all references ranked by similarity:

    P@1    = [the first is relevant]
    RP     = (relevant among the first R) / R
    MAP@R  = 1/R * sum over i = 1..R of [the i-th is relevant] * (relevant among the first i) / i
    R@K    = [at least one of the first K is relevant]

averaged over queries. Easily got wrong:

- A query is never its own reference; it is excluded by its index. The authors' code of 2020 dropped the reference that
  ranked first, which differs if an image has an exact duplicate.
- Among equal scores, the lower reference index ranks first (`nearest.py`).
- A query without a relevant reference ("lone") has no R-Precision; it is excluded from the averages, and counted.

Queries are processed in the order of their R, in blocks of similar R, so that none is searched much too deep. R@K needs
no deep search: for queries without a relevant reference among their R nearest, the references before the first relevant
one are counted. Memory holds a few blocks of block x G scores, never Q x G.

Numpy counts the hits (`counting.py`) where it is the faster, on a CPU; elsewhere the R nearest references are selected
(`nearest.py`), as they are for queries with ties. Both give the same hits for the same scores. To count, the references
are searched in the order of their classes; a product may then round the scores of vectors that are equally far, but not
equal, in another way.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from benchmark.protocol.counting import count_hits
from benchmark.protocol.nearest import Search, by_numpy, nearest

_SCORES_AT_A_TIME = 2**22  # 16 MB
_FEWEST_ROWS, _MOST_ROWS = 512, 768  # of a block: fewer make the product slower, more take long for new pages of memory


@torch.no_grad()
def retrieval_metrics(
    queries: Tensor,
    query_labels: Tensor,
    gallery: Tensor | None = None,
    gallery_labels: Tensor | None = None,
    *,
    metric: str = "cosine",
    recall_at: Sequence[int] = (),
    block: int | None = None,
    curvature: float | None = None,
    parts: int = 1,
) -> dict[str, float]:
    """Compute metrics as fractions in [0, 1]: `precision_at_1`, `r_precision`, `map_at_r` and each `recall_at_<k>`.

    In addition, `num_queries` counts all queries, and `num_lone_queries` those excluded from the averages.

    >>> points = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9], [1.0, 0.1]])
    >>> retrieval_metrics(points, torch.tensor([0, 0, 1, 1, 7]))["num_lone_queries"]
    1

    Args:
        queries: (Q, D) embeddings as the model outputs them, of any floating type; searched in float32.
        query_labels: (Q,) integer class ids.
        gallery: (G, D) references; None: each query is searched among the other queries.
        gallery_labels: (G,) integer class ids of the gallery.
        metric: "cosine" (vectors are L2-normalised first; ranks like the Euclidean distance of unit vectors),
            "l2" (Euclidean distance, without normalisation) or "hyperbolic" (distance in a Poincare ball).
        recall_at: each K of Recall@K, 1 or more.
        block: largest number of queries scored at a time; None: 512, or up to 768 if there are few references.
        curvature: c of the ball, of radius 1 / sqrt(c); for "hyperbolic" only.
        parts: number of points of the ball in one vector, for "hyperbolic"; their distances are summed.

    Raises:
        ValueError: shapes, types or options do not fit, vectors are not finite or outside the ball, or no query has a
            relevant reference.
    """
    _, (r_precision, map_at_r, first_rank) = _scored(
        queries, query_labels, gallery, gallery_labels,
        metric=metric, recall_at=recall_at, block=block, curvature=curvature, parts=parts,
    )  # fmt: skip
    wanted = {"precision_at_1": 1} | {f"recall_at_{k}": k for k in recall_at}
    metrics = {name: (first_rank <= k).double().mean().item() for name, k in wanted.items()}
    metrics |= {"r_precision": r_precision.mean().item(), "map_at_r": map_at_r.mean().item()}
    return metrics | {"num_queries": len(queries), "num_lone_queries": len(queries) - len(first_rank)}


@torch.no_grad()
def query_scores(
    queries: Tensor,
    query_labels: Tensor,
    gallery: Tensor | None = None,
    gallery_labels: Tensor | None = None,
    *,
    metric: str = "cosine",
    recall_at: Sequence[int] = (),
    block: int | None = None,
    curvature: float | None = None,
    parts: int = 1,
) -> dict[str, Tensor]:
    """Compute the score of each query, float64 (Q,), by the names of `retrieval_metrics`; NaN for a lone query.

    The mean over the queries that have a score is the metric.

    Args:
        queries: (Q, D), as in `retrieval_metrics`.
        query_labels: (Q,) integer class ids.
        gallery: (G, D) references; None: each query is searched among the other queries.
        gallery_labels: (G,) integer class ids of the gallery.
        metric: distance of the search, as in `retrieval_metrics`.
        recall_at: each K of Recall@K, 1 or more.
        block: largest number of queries scored at a time; None: 512, or up to 768 if there are few references.
        curvature: curvature of the ball; for "hyperbolic" only.
        parts: number of points of the ball in one vector, for "hyperbolic".

    Raises:
        ValueError: as in `retrieval_metrics`.
    """
    order, (r_precision, map_at_r, first_rank) = _scored(
        queries, query_labels, gallery, gallery_labels,
        metric=metric, recall_at=recall_at, block=block, curvature=curvature, parts=parts,
    )  # fmt: skip
    found = {"r_precision": r_precision, "map_at_r": map_at_r, "precision_at_1": (first_rank <= 1).double()}
    found |= {f"recall_at_{k}": (first_rank <= k).double() for k in recall_at}
    lone = queries.new_full((len(queries),), torch.nan, dtype=torch.float64)
    return {name: lone.index_copy(0, order, scores) for name, scores in found.items()}


def _scored(
    queries: Tensor,
    query_labels: Tensor,
    gallery: Tensor | None,
    gallery_labels: Tensor | None,
    *,
    metric: str,
    recall_at: Sequence[int],
    block: int | None,
    curvature: float | None,
    parts: int,
) -> tuple[Tensor, Tensor]:
    """Return the rows (S,) of the queries that have a relevant reference, and their values of `_by_rank` (3, S)."""
    if (block is not None and block < 1) or any(k < 1 for k in recall_at):
        raise ValueError(f"block is {block} and recall_at {tuple(recall_at)}; all of them must be 1 or more.")
    query_labels = _checked_labels(queries, query_labels, "queries")
    labels = _reference_labels(queries, query_labels, gallery, gallery_labels)
    relevant = _Relevant(query_labels, labels, with_itself=gallery is None)
    order = torch.argsort(relevant.num, stable=True)
    order = order[relevant.num[order] > 0]
    if len(order) == 0:
        raise ValueError(
            f"None of the {len(queries)} queries has a relevant reference, so there is nothing to average. Check that "
            "queries and references have labels of the same classes, with more than one image per class."
        )
    block = block or min(max(_FEWEST_ROWS, _SCORES_AT_A_TIME // len(labels)), _MOST_ROWS)
    columns = relevant.by_class if by_numpy(queries) else None
    references = torch.arange(len(labels), device=labels.device) if columns is None else columns
    search = Search(queries, gallery, metric, block, columns=columns, curvature=curvature, parts=parts)
    blocks = []
    for rows in _blocks(order, relevant.num[order], block):
        scores, depth, own = search.scores(rows), relevant.num[rows], query_labels[rows, None]
        if columns is None:
            hits = labels[nearest(scores, depth)] == own
        else:
            hits = _counted_hits(search, scores, relevant.first[rows], depth, labels, own)
        part = _by_rank(hits, depth)
        if recall_at:
            late = part[2].isinf().nonzero()[:, 0]
            part[2, late] = _first_rank(scores, late, references, labels[references], own)
        blocks.append(part)
    return order, torch.cat(blocks, dim=1)


def _blocks(order: Tensor, depth: Tensor, block: int) -> Iterator[Tensor]:
    """Yield the rows (S,) in blocks; within one, R differs by less than a factor of 4, since its largest R is searched.

    Args:
        order: (S,), in ascending order of R.
        depth: (S,), R of each.
        block: largest number of rows in a block.
    """
    steps = torch.bucketize(depth, 4 ** torch.arange(1, 32, device=depth.device), right=True)
    for rows in order.split(steps.unique_consecutive(return_counts=True)[1].tolist()):
        yield from rows.tensor_split(-(-len(rows) // block))  # of equal size: a product with few rows is slow


class _Relevant:
    """The relevant references of each query.

    Attributes:
        by_class: (G,), the references in the order of their labels; those of a query are consecutive.
        first: (Q,), place in `by_class` of the first reference with the query's label.
        num: (Q,), number of references with the query's label, without the query itself.
    """

    def __init__(self, query_labels: Tensor, labels: Tensor, *, with_itself: bool) -> None:
        self.by_class = torch.argsort(labels, stable=True)
        ordered = labels[self.by_class]
        self.first = torch.searchsorted(ordered, query_labels)
        self.num = torch.searchsorted(ordered, query_labels, right=True) - self.first - int(with_itself)


def _counted_hits(search: Search, scores: Tensor, first: Tensor, depth: Tensor, labels: Tensor, own: Tensor) -> Tensor:
    """Return hits (B, K) for `_by_rank` by counting, and from the nearest references in order where there are ties.

    Args:
        search: the search that `scores` come from, with the columns in the order of their labels.
        scores: (B, G).
        first: (B,), first column with the query's label.
        depth: (B,), R of each query.
        labels: (G,), in the order of the references.
        own: (B, 1), label of each query.
    """
    counted, undecided = count_hits(scores.numpy(), first.numpy(), depth.numpy(), with_itself=search.excludes_itself)
    hits = torch.from_numpy(counted)
    if len(undecided):
        at_a_time = max(32, _SCORES_AT_A_TIME // (4 * scores.shape[1]))  # since their scores are copied
        for rows in torch.from_numpy(undecided).split(at_a_time):
            ordered = labels[nearest(search.in_order(scores[rows]), depth[rows])] == own[rows]
            hits[rows, : ordered.shape[1]] = ordered
    return hits


def _by_rank(hits: Tensor, depth: Tensor) -> Tensor:
    """Return R-Precision, MAP@R and first hit's rank of each query, stacked (3, B); the rank is inf without a hit.

    Args:
        hits: (B, K) bool, whether the i-th nearest reference is relevant; only the first R count.
        depth: (B,), R of each query.
    """
    rank = torch.arange(1, hits.shape[1] + 1, device=hits.device)
    hits = hits & (rank <= depth[:, None])
    num_hits = hits.sum(dim=1).double()
    first_rank = torch.where(num_hits > 0, _first_column(hits) + 1.0, torch.inf)
    precisions = hits.cumsum(dim=1, dtype=torch.float64).mul_(hits).div_(rank)  # at each hit
    return torch.stack([num_hits / depth, precisions.sum(dim=1) / depth, first_rank])


def _first_column(hits: Tensor) -> Tensor:
    """Return the first column (B,) of hits (B, K) that is true; any column if none is."""
    if by_numpy(hits):  # whose argmax of booleans takes a twentieth of torch's
        return torch.from_numpy(hits.numpy().argmax(axis=1))
    return hits.to(torch.uint8).argmax(dim=1)


def _first_rank(scores: Tensor, rows: Tensor, references: Tensor, labels: Tensor, own: Tensor) -> Tensor:
    """Return the rank (b,), from 1, of the first relevant reference for the queries at `rows` of a block.

    Args:
        scores: (B, G).
        rows: (b,).
        references: (G,), the reference of each column.
        labels: (G,), label of each column.
        own: (B, 1), label of each query.
    """
    ranks = [scores.new_empty(0, dtype=torch.float64)]
    for part in rows.split(32):  # a few rows at a time, since each needs several masks of G entries
        row = scores[part]
        candidates = torch.where(labels == own[part], row, -torch.inf)  # a query's own score is already -inf
        best = candidates.amax(dim=1, keepdim=True)
        index = torch.where(candidates == best, references, len(labels)).amin(dim=1, keepdim=True)
        ahead = (row > best) | ((row == best) & (references < index))
        ranks.append(1.0 + ahead.sum(dim=1).double())
    return torch.cat(ranks)


def _checked_labels(vectors: Tensor, labels: Tensor, name: str) -> Tensor:
    if vectors.ndim != 2 or not vectors.is_floating_point() or 0 in vectors.shape:
        raise ValueError(f"{name} must be (N, D) floating point, not {vectors.dtype} of shape {tuple(vectors.shape)}.")
    if labels.shape != vectors.shape[:1] or labels.is_floating_point():
        raise ValueError(
            f"The labels of {name} must be {len(vectors)} integers, not {labels.dtype} of shape {tuple(labels.shape)}."
        )
    return labels.to(vectors.device)


def _reference_labels(
    queries: Tensor, query_labels: Tensor, gallery: Tensor | None, gallery_labels: Tensor | None
) -> Tensor:
    """Labels (G,) of the gallery, on the queries' device; without a gallery those of the queries (Q,)."""
    if gallery is None and gallery_labels is None:
        return query_labels
    if gallery is None or gallery_labels is None:
        raise ValueError("gallery and gallery_labels belong together: give both, or neither to search the queries.")
    labels = _checked_labels(gallery, gallery_labels, "gallery").to(queries.device)
    if gallery.shape[1] != queries.shape[1]:
        raise ValueError(f"queries have {queries.shape[1]} dimensions and the gallery has {gallery.shape[1]}.")
    return labels
