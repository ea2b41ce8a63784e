"""The Euclidean distance of pairs of a batch, for losses and miners of pytorch-metric-learning.

This is the only module here that imports that library; no loss of this project needs it. It relies on what versions 2
and 3 share: a distance is called with one or two matrices, and has a `power`.

Departures from the library's LpDistance, with no visible effect in float64:
- it subtracts coordinate by coordinate. Beyond 25 rows `torch.cdist` multiplies matrices instead, which in float32 is
  off by up to 1e-3 near 0: a pair at distance 1e-4 keeps at most half of its gradient, and equal rows have a distance
  above 0;
- at least float32 from the normalisation on, also under mixed precision.
"""

from pytorch_metric_learning.distances import LpDistance
from torch import Tensor

from benchmark.losses.pairs import unit_distances


class Euclidean(LpDistance):
    """Euclidean distance of unit vectors, in [0, 2], with gradient 0 between equal vectors.

    Args:
        power: exponent of the distance; 2 squares it.
    """

    def __init__(self, power: float = 1) -> None:
        super().__init__(normalize_embeddings=True, p=2, power=power)

    def forward(self, query_emb: Tensor, ref_emb: Tensor | None = None) -> Tensor:
        """Distances (Q, G) between queries (Q, D) and references (G, D), of any norm.

        Args:
            query_emb: (Q, D).
            ref_emb: (G, D); None for the queries themselves.
        """
        distance = unit_distances(query_emb, ref_emb)
        return distance if self.power == 1 else distance**self.power
