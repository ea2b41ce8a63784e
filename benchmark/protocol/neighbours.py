"""Exact nearest neighbours of test images, stored for figures; for the cosine by faiss, on the GPU of the embeddings.

faiss searches on the CPU if it was built without GPU support, or for more neighbours than its GPU index allows.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmark.protocol.modes import side_by_side
from benchmark.protocol.nearest import Search, nearest, nearest_others

MOST_ON_GPU = 2048  # neighbours that faiss's GPU index can return


def nearest_neighbours(
    embeddings: Tensor,
    is_query: Tensor | None,
    most: int,
    *,
    metric: str,
    threads: int,
    curvature: float | None = None,
) -> np.ndarray:
    """Return the positions (Q, K), among all N images, of those nearest to each query by the embeddings of all folds.

    Args:
        embeddings: (F, N, D), one model per fold; normalised if the metric is "cosine".
        is_query: (N,) bool, true for queries that are searched among the other images; None: each image is searched
            among all others.
        most: upper limit of K, which is smaller if there are fewer images to search among.
        metric: "cosine", "l2" or "hyperbolic".
        threads: number of threads that faiss uses.
        curvature: curvature of the ball; for "hyperbolic" only.
    """
    joined, parts = side_by_side(embeddings, metric)
    if is_query is None:
        count = min(most, len(joined) - 1)
        if metric == "cosine":
            return others_by_faiss(joined, count, threads)
        others = nearest_others(joined, count, metric=metric, curvature=curvature, parts=parts)
        return np.asarray(others.cpu().numpy())
    queries, gallery = joined[is_query], joined[~is_query]
    positions = np.asarray((~is_query).nonzero()[:, 0].cpu().numpy())
    count = min(most, len(gallery))
    if metric == "cosine":
        found = by_faiss(queries, gallery, count, threads)
    else:
        found = _by_search(Search(queries, gallery, metric, 256, curvature=curvature, parts=parts), queries, count)
    return np.asarray(positions[found])


def _by_search(search: Search, queries: Tensor, count: int) -> np.ndarray:
    """Return the gallery rows (Q, count) nearest to each of queries (Q, D)."""
    rows = torch.arange(len(queries), device=queries.device)
    found = [nearest(search.scores(b), torch.full_like(b, count))[:, :count] for b in rows.split(256)]
    return np.asarray(torch.cat(found).cpu().numpy())


def by_faiss(queries: Tensor, gallery: Tensor, count: int, threads: int) -> np.ndarray:
    """Return the gallery rows (Q, count) nearest to each query by inner product, from faiss's exact index.

    Args:
        queries: (Q, D) float32.
        gallery: (G, D) float32; on a GPU, faiss searches there.
        count: neighbours per query, at most G.
        threads: number of threads that faiss uses on the CPU.
    """
    import faiss

    faiss.omp_set_num_threads(threads)
    device = gallery.device
    if device.type == "cuda" and hasattr(faiss, "GpuIndexFlatIP") and count <= MOST_ON_GPU:
        options = faiss.GpuIndexFlatConfig()
        options.device = device.index or 0
        index: Any = faiss.GpuIndexFlatIP(faiss.StandardGpuResources(), gallery.shape[1], options)
    else:
        index = faiss.IndexFlatIP(gallery.shape[1])
    index.add(gallery.cpu().numpy())
    return np.asarray(index.search(queries.cpu().numpy(), count)[1])


def others_by_faiss(embeddings: Tensor, count: int, threads: int) -> np.ndarray:
    """Return the other rows (N, count) nearest to each row of embeddings by inner product.

    Args:
        embeddings: (N, D) float32.
        count: neighbours per row, at most N - 1.
        threads: number of threads that faiss uses.
    """
    found = by_faiss(embeddings, embeddings, count + 1, threads)
    own = found == np.arange(len(found))[:, None]
    own[~own.any(axis=1), -1] = True  # with exact duplicates, the row itself may be missing: drop the farthest instead
    return np.asarray(found[~own]).reshape(len(found), count)
