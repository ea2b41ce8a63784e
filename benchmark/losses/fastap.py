"""FastAP: average precision of each sample's ranking of the batch, through a soft histogram of distances.

Source: Cakir, He, Xia, Kulis and Sclaroff, "Deep Metric Learning to Rank", CVPR 2019, and its published code, as in
pytorch-metric-learning's FastAPLoss and the Reality Check, arXiv 2003.08505.

Departures from the library, beside those of `pairs.py`: cumulative sums are products with a triangular matrix, since
the order of a cumulative sum is not fixed on a GPU.
"""

import torch
from torch import Tensor, nn

from benchmark.losses.checks import check_whole
from benchmark.losses.pairs import pairs_of, unit_distances

LARGEST = 4.0  # squared distance of two unit vectors


def fastap(embeddings: Tensor, labels: Tensor, *, num_bins: int) -> Tensor:
    """Mean over the samples with a positive of 1 - AP, a scalar; 0 if there are none.

    Squared distances are shared between the two nearest of Q + 1 edges from 0 to 4. With h+ and h the shares of a
    sample's positives and of all others at each edge, and H+ and H their sums up to that edge, AP is the sum over edges
    of h+ H+ / H, divided by the number of positives.

    Args:
        embeddings: (B, D), of any norm.
        labels: (B,).
        num_bins: Q, at least 1.
    """
    squared = unit_distances(embeddings).square()
    positive, negative = pairs_of(labels)
    width = LARGEST / num_bins
    edges = torch.linspace(0, LARGEST, num_bins + 1, dtype=squared.dtype, device=squared.device)
    shares = (1 - (squared[:, :, None] - edges).abs() / width).relu()  # (B, B, Q + 1)
    of_positives, of_negatives = ((shares * pairs[:, :, None]).sum(dim=1) for pairs in (positive, negative))
    up_to = torch.ones_like(edges).expand(num_bins + 1, -1).triu()  # (Q + 1, Q + 1): edge j up to edge k
    with torch.autocast(squared.device.type, enabled=False):
        positives_so_far, so_far = of_positives @ up_to, (of_positives + of_negatives) @ up_to
    products = of_positives * positives_so_far  # (B, Q + 1)
    counted = ~((products <= 0) | (so_far <= 0))  # true for NaN
    precisions = torch.where(counted, products, 0) / torch.where(counted, so_far, 1)
    num_positives = positive.sum(dim=1)
    ranked = num_positives > 0
    losses = (1 - precisions.sum(dim=1) / num_positives.clamp(min=1)) * ranked
    return losses.sum() / ranked.sum().clamp(min=1)


class FastAP(nn.Module):
    """`fastap` with its setting.

    Args:
        num_bins: Q, bins of the squared distance, at least 1.

    Raises:
        UserError: `num_bins` is not a whole number of at least 1.
    """

    def __init__(self, *, num_bins: int = 10) -> None:
        super().__init__()
        check_whole("FastAP", at_least=1, num_bins=num_bins)
        self.num_bins = int(num_bins)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar loss of embeddings (B, D) with labels (B,)."""
        return fastap(embeddings, labels, num_bins=self.num_bins)
