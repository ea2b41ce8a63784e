"""Contrastive loss on distances of unit vectors, positive and negative pairs averaged separately.

Source: Hadsell, Chopra and LeCun, "Dimensionality Reduction by Learning an Invariant Mapping", CVPR 2006, Eq. 4, with
distances in place of their squares, a margin for positive pairs too, and averages over the pairs that contribute, as in
the Reality Check, arXiv 2003.08505, and pytorch-metric-learning's ContrastiveLoss. Departures: see `pairs.py`.
"""

from torch import Tensor, nn

from benchmark.losses.pairs import mean_above_zero, pairs_of, unit_distances


def contrastive(embeddings: Tensor, labels: Tensor, *, pos_margin: float, neg_margin: float) -> Tensor:
    """Mean of [d - pos_margin]+ over positive pairs, plus mean of [neg_margin - d]+ over negative pairs, a scalar.

    Each mean is over the pairs whose term is above 0, or 0 if there are none.

    Args:
        embeddings: (B, D), of any norm.
        labels: (B,).
        pos_margin: distance below which a positive pair adds nothing; below 0, it adds a constant.
        neg_margin: distance above which a negative pair adds nothing.
    """
    distance = unit_distances(embeddings)  # (B, B)
    positive, negative = pairs_of(labels)
    return mean_above_zero(distance - pos_margin, positive) + mean_above_zero(neg_margin - distance, negative)


class Contrastive(nn.Module):
    """`contrastive` with its settings.

    Args:
        pos_margin: distance of unit vectors below which a positive pair adds nothing.
        neg_margin: distance of unit vectors above which a negative pair adds nothing.
    """

    def __init__(self, *, pos_margin: float = 0.0, neg_margin: float = 1.0) -> None:
        super().__init__()
        self.margins = {"pos_margin": pos_margin, "neg_margin": neg_margin}

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar loss of embeddings (B, D) with labels (B,)."""
        return contrastive(embeddings, labels, **self.margins)
