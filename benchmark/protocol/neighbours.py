"""Nearest neighbours of test images, kept for panels and plots: exact, by faiss where the distance is cosine."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmark.protocol.modes import side_by_side
from benchmark.protocol.nearest import Search, nearest, nearest_others


def nearest_neighbours(
    embeddings: Tensor, is_query: Tensor | None, most: int, *, metric: str, threads: int, **options: Any
) -> np.ndarray:
    """(Q, K) images nearest to each query by the folds' embeddings together, as positions among all N.

    Args:
        embeddings: (folds, N, D), of unit length where the metric is cosine.
        is_query: (N,) bool; None makes every image a query, searched for among all others.
        most: K, or as many images as there are to be searched.
        metric: "cosine", "l2" or "hyperbolic".
        threads: of faiss.
        options: further arguments of `Search`.
    """
    joined, parts = side_by_side(embeddings, metric)
    if is_query is None:
        count = min(most, len(joined) - 1)
        if metric == "cosine":
            return others_by_faiss(joined.cpu().numpy(), count, threads)
        return nearest_others(joined, count, metric=metric, **options, **parts).cpu().numpy()  # type: ignore[arg-type]
    queries, gallery, places = joined[is_query], joined[~is_query], (~is_query).nonzero()[:, 0].cpu().numpy()
    count = min(most, len(gallery))
    if metric == "cosine":
        return places[by_faiss(queries.cpu().numpy(), gallery.cpu().numpy(), count, threads)]
    search = Search(queries, gallery, metric, 256, **options, **parts)  # type: ignore[arg-type]
    rows = torch.arange(len(queries), device=queries.device)
    found = [nearest(search.scores(b), torch.full_like(b, count))[:, :count] for b in rows.split(256)]
    return places[torch.cat(found).cpu().numpy()]


def by_faiss(queries: np.ndarray, gallery: np.ndarray, count: int, threads: int) -> np.ndarray:
    """(Q, count) rows of the gallery (G, D) nearest to each of (Q, D) by inner product, by faiss's exact index."""
    import faiss

    faiss.omp_set_num_threads(threads)
    index = faiss.IndexFlatIP(gallery.shape[1])
    index.add(gallery)
    return np.asarray(index.search(queries, count)[1])


def others_by_faiss(embeddings: np.ndarray, count: int, threads: int) -> np.ndarray:
    """(N, count) nearest other rows of each row of (N, D) by inner product."""
    found = by_faiss(embeddings, embeddings, count + 1, threads)
    own = found == np.arange(len(found))[:, None]
    own[~own.any(axis=1), -1] = True  # among exact copies the row itself may be missing: drop the farthest instead
    return found[~own].reshape(len(found), count)
