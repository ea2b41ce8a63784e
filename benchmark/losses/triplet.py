"""Triplet loss over all triplets of a batch, or over the semi-hard ones.

Source: Weinberger and Saul, "Distance Metric Learning for Large Margin Nearest Neighbor Classification", JMLR 2009, on
distances of unit vectors; Schroff, Kalenichenko and Philbin, "FaceNet", CVPR 2015, arXiv 1503.03832, for semi-hard
triplets. Averages as in the Reality Check, arXiv 2003.08505, and in pytorch-metric-learning's TripletMarginLoss.

Departures from the library, beside those of `pairs.py`:
- triplets are counted, not listed. The sum of [d_ap - d_an + m]+ over triplets is that of c (d_ap + m) over positive
  pairs minus that of c d_an over negative pairs, where c is the number of triplets of a pair that contribute, a
  constant for the gradient. Sorting the distances of an anchor gives all c: B^2 log B steps and B^2 numbers, whereas
  the library has B^3. The sums are in float64, since their difference is small.
"""

import torch
from torch import Tensor, nn

from benchmark.losses.checks import check_choice
from benchmark.losses.pairs import pairs_of, unit_distances

TRIPLETS = ("all", "semihard")


def triplet(embeddings: Tensor, labels: Tensor, *, margin: float, triplets: str = "all") -> Tensor:
    """Mean of d_ap - d_an + margin, a scalar, over the triplets for which it is above 0; 0 if there are none.

    Args:
        embeddings: (B, D), of any norm.
        labels: (B,).
        margin: how much farther a negative should be than a positive; below 0, it may be nearer.
        triplets: "all", or "semihard" for those with d_an > d_ap only.

    Raises:
        UserError: `triplets` is unknown.
    """
    check_choice("the triplet loss", TRIPLETS, triplets=triplets)
    distance = unit_distances(embeddings)
    exact = distance.double()
    positive, negative = pairs_of(labels)
    of_positive, of_negative = contributing(exact.detach(), positive, negative, margin, triplets)
    total = (of_positive * (exact + margin) - of_negative * exact).sum()
    return (total / of_positive.sum().clamp(min=1)).to(distance.dtype)


def contributing(
    distance: Tensor, positive: Tensor, negative: Tensor, margin: float, triplets: str
) -> tuple[Tensor, Tensor]:
    """Numbers (B, B) of the triplets that contribute, by their positive pair and by their negative pair.

    Args:
        distance: (B, B), one row per anchor.
        positive: (B, B) bool, the positive pairs.
        negative: (B, B) bool, the negative pairs.
        margin: as in `triplet`.
        triplets: one of `TRIPLETS`.
    """
    positives = distance.masked_fill(~positive, torch.inf).sort(dim=1).values
    negatives = distance.masked_fill(~negative, torch.inf).sort(dim=1).values
    # Both counts compare d_an with the same rounded sum, so that they add up to the same number of triplets.
    of_positive = torch.searchsorted(negatives, distance + margin)  # d_an < d_ap + margin
    satisfied = torch.searchsorted(positives + margin, distance, right=True)  # d_ap + margin <= d_an
    if triplets == "all":
        of_negative = positive.sum(dim=1, keepdim=True) - satisfied
    else:
        of_positive = of_positive - torch.searchsorted(negatives, distance, right=True)  # without d_an <= d_ap
        of_negative = torch.searchsorted(positives, distance) - satisfied
    return of_positive.clamp(min=0) * positive, of_negative.clamp(min=0) * negative


class Triplet(nn.Module):
    """`triplet` with its settings.

    Args:
        margin: how much farther a negative should be than a positive.
        triplets: "all", or "semihard" for those whose negative is farther than the positive.

    Raises:
        UserError: `triplets` is unknown.
    """

    def __init__(self, *, margin: float = 0.05, triplets: str = "all") -> None:
        super().__init__()
        check_choice("the triplet loss", TRIPLETS, triplets=triplets)
        self.margin, self.triplets = margin, triplets

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar loss of embeddings (B, D) with labels (B,)."""
        return triplet(embeddings, labels, margin=self.margin, triplets=self.triplets)
