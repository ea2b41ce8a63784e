"""Exact nearest neighbours of test images, stored for figures: by the search of the metrics, on the embeddings' device.

So they have the metrics' order of ties on every device. On one CPU thread, faiss's exact index takes about a fifth less
time for the 60,502 test images of SOP; but it is slow to import, and leaves a GPU idle unless it is built for one.
"""

import numpy as np
import torch
from torch import Tensor

from benchmark.protocol.modes import side_by_side
from benchmark.protocol.nearest import Search, nearest

_BLOCK = 256


def nearest_neighbours(
    embeddings: Tensor,
    is_query: Tensor | None,
    most: int,
    *,
    metric: str,
    curvature: float | None = None,
) -> np.ndarray:
    """Return the positions (Q, K), among all N images, of those nearest to each query by the embeddings of all folds.

    Args:
        embeddings: (F, N, D), one model per fold; normalised if the metric is "cosine".
        is_query: (N,) bool, true for queries that are searched among the other images; None: each image is searched
            among all others.
        most: upper limit of K, which is smaller if there are fewer images to search among.
        metric: "cosine", "l2" or "hyperbolic".
        curvature: curvature of the ball; for "hyperbolic" only.
    """
    joined, parts = side_by_side(embeddings, metric)
    places = torch.arange(len(joined), device=joined.device)
    if is_query is None:
        queries, gallery, count = joined, None, min(most, len(joined) - 1)
    else:
        is_query = is_query.to(joined.device)
        queries, gallery, places = joined[is_query], joined[~is_query], places[~is_query]
        count = min(most, len(gallery))
    search = Search(queries, gallery, metric, _BLOCK, curvature=curvature, parts=parts)
    rows = torch.arange(len(queries), device=joined.device)
    found = [nearest(search.scores(b), torch.full_like(b, count))[:, :count] for b in rows.split(_BLOCK)]
    return np.asarray(places[torch.cat(found)].cpu().numpy())
