"""Threshold-consistent margin (TCM) on any loss: a threshold of the cosine for positive and one for negative pairs.

Source: Zhang, Xu, Tang, Fang, Wu, Tighe and Xing, "Threshold-Consistent Margin Loss for Open-World Deep Metric
Learning", ICLR 2024, arXiv 2307.04047, Section 4. The authors have published no code. pytorch-metric-learning has the
term as ThresholdConsistentMarginLoss, by a contributor who took the defaults from Section 5.2; in its pull request 720,
the maintainer had the base loss taken out of it, since users can add losses themselves. A test compares both.

Departures: a NaN is not filtered out of an average (`pairs.py`); float32 under mixed precision.
"""

from collections.abc import Callable

from torch import Tensor, nn

from benchmark.losses.checks import check_non_negative
from benchmark.losses.numerics import cosine_similarity
from benchmark.losses.pairs import pairs_of
from benchmark.losses.regularized import Regularized


def threshold_margin(
    embeddings: Tensor, labels: Tensor, *, pos_margin: float, neg_margin: float, pos_weight: float, neg_weight: float
) -> Tensor:
    """Mean violation of either threshold over the pairs that are beyond it, a scalar.

    pos_weight mean_{cos_ij <= pos_margin} (pos_margin - cos_ij) over pairs of one class
    + neg_weight mean_{cos_ij >= neg_margin} (cos_ij - neg_margin) over pairs of two classes.

    Easily got wrong: each mean is over the violating pairs alone, so the term does not fade as they become fewer; one
    without any is 0.

    Args:
        embeddings: (B, D), of any norm.
        labels: (B,).
        pos_margin: least cosine that a positive pair should have.
        neg_margin: largest cosine that a negative pair should have.
        pos_weight: factor of the positive pairs, at least 0.
        neg_weight: factor of the negative pairs, at least 0.

    Raises:
        UserError: a weight is negative or not finite.
    """
    check_non_negative("threshold_margin", pos_weight=pos_weight, neg_weight=neg_weight)
    cosine = cosine_similarity(embeddings, embeddings)  # (B, B)
    positive, negative = pairs_of(labels)
    pull, push = _mean_violation(pos_margin - cosine, positive), _mean_violation(cosine - neg_margin, negative)
    return pos_weight * pull + neg_weight * push


def _mean_violation(gap: Tensor, pairs: Tensor) -> Tensor:
    """Mean of the gaps (B, B) that are at least 0, over a mask of pairs (B, B), a scalar."""
    hard = pairs & ~(gap < 0)  # true for NaN
    return gap.where(hard, 0).sum() / hard.sum().clamp(min=1)


class ThresholdMargin(Regularized):
    """Any loss plus `threshold_margin`.

    Args:
        base: creates the base.
        pos_margin: least cosine that a positive pair should have; 0.9 in the paper.
        neg_margin: largest cosine that a negative pair should have; 0.5 in the paper.
        pos_weight: factor of the positive pairs, at least 0.
        neg_weight: factor of the negative pairs, at least 0.
        arguments: passed to `base`, such as the number of classes.

    Raises:
        UserError: a weight is negative or not finite, or the base refuses its settings.
    """

    NAME = "threshold_margin"

    def __init__(
        self,
        base: Callable[..., nn.Module],
        *,
        pos_margin: float = 0.9,
        neg_margin: float = 0.5,
        pos_weight: float = 1.0,
        neg_weight: float = 1.0,
        **arguments: object,
    ) -> None:
        super().__init__(base, 1.0, **arguments)
        self.margins = {"pos_margin": pos_margin, "neg_margin": neg_margin}
        self.weights = {"pos_weight": pos_weight, "neg_weight": neg_weight}
        check_non_negative("ThresholdMargin", **self.weights)

    def term(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the added term, a scalar, of embeddings (B, D) with labels (B,)."""
        return threshold_margin(embeddings, labels, **self.margins, **self.weights)
