"""Distances and cosines of pairs of a batch, for the losses and miners of pytorch-metric-learning.

Each can be passed to the library as `distance:`, and normalises its inputs.

Departures from the library's classes, with no visible effect in float64:
- the Euclidean distance subtracts coordinate by coordinate. Beyond 25 rows `torch.cdist` multiplies matrices instead,
  which in float32 is off by up to 1e-3 near 0: a pair at distance 1e-4 keeps at most half of its gradient, and equal
  rows have a distance above 0;
- at least float32 from the normalisation on, also under mixed precision.
"""

import torch
from pytorch_metric_learning import distances
from torch import Tensor

from benchmark.losses.numerics import at_least_float32, euclidean


class Euclidean(distances.LpDistance):
    """Euclidean distance of unit vectors, in [0, 2], with gradient 0 between equal vectors; `power: 2` squares it."""

    def normalize(self, embeddings: Tensor, dim: int = 1, **kwargs: float) -> Tensor:
        """Unit vectors (B, D) in at least float32 from embeddings (B, D)."""
        unit: Tensor = super().normalize(at_least_float32(embeddings), dim=dim, **kwargs)
        return unit

    def compute_mat(self, query_emb: Tensor, ref_emb: Tensor) -> Tensor:
        """Distances (Q, G) between queries (Q, D) and references (G, D)."""
        with torch.autocast(query_emb.device.type, enabled=False):
            return euclidean(at_least_float32(query_emb), at_least_float32(ref_emb))


class Cosine(distances.CosineSimilarity):
    """Cosine, in [-1, 1] up to rounding; larger means closer."""

    def normalize(self, embeddings: Tensor, dim: int = 1, **kwargs: float) -> Tensor:
        """Unit vectors (B, D) in at least float32 from embeddings (B, D)."""
        unit: Tensor = super().normalize(at_least_float32(embeddings), dim=dim, **kwargs)
        return unit

    def compute_mat(self, query_emb: Tensor, ref_emb: Tensor) -> Tensor:
        """Cosines (Q, G) of queries (Q, D) with references (G, D)."""
        with torch.autocast(query_emb.device.type, enabled=False):
            return query_emb @ ref_emb.T
