"""Distances and cosines of the pairs of a batch, for losses and miners of pytorch-metric-learning: a part of them.

Each is a `distance:` of the library, and normalises its inputs.

Departures from the library's classes, none of which shows in float64:
- the Euclidean distance subtracts coordinate by coordinate. Beyond 25 rows `torch.cdist` multiplies matrices instead,
  which in float32 is up to 1e-3 off near 0: a pair at 1e-4 keeps half of its gradient at best, equal rows are apart;
- at least float32, also under mixed precision, from the normalisation on.
"""

import torch
from pytorch_metric_learning import distances
from torch import Tensor


class Euclidean(distances.LpDistance):
    """Distance of unit vectors, in [0, 2], with gradient 0 between equal ones; `power: 2` squares it."""

    def normalize(self, embeddings: Tensor, dim: int = 1, **kwargs: float) -> Tensor:
        """Unit vectors in at least float32."""
        return super().normalize(at_least_float32(embeddings), dim=dim, **kwargs)

    def compute_mat(self, query_emb: Tensor, ref_emb: Tensor) -> Tensor:
        """Distances (Q, G) of queries (Q, D) and references (G, D)."""
        with torch.autocast(query_emb.device.type, enabled=False):
            return euclidean(at_least_float32(query_emb), at_least_float32(ref_emb))


class Cosine(distances.CosineSimilarity):
    """Cosine, in [-1, 1] up to rounding; larger means closer."""

    def normalize(self, embeddings: Tensor, dim: int = 1, **kwargs: float) -> Tensor:
        """Unit vectors in at least float32."""
        return super().normalize(at_least_float32(embeddings), dim=dim, **kwargs)

    def compute_mat(self, query_emb: Tensor, ref_emb: Tensor) -> Tensor:
        """Cosines (Q, G) of queries (Q, D) and references (G, D)."""
        with torch.autocast(query_emb.device.type, enabled=False):
            return query_emb @ ref_emb.T


def euclidean(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances (A, B) of the rows of a (A, D) and b (B, D), without differences (A, B, D) in memory."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def at_least_float32(vectors: Tensor) -> Tensor:
    """Half-precision vectors in float32, others as they are."""
    return vectors.to(torch.promote_types(vectors.dtype, torch.float32))
