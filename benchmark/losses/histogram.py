"""Histogram loss: the probability that a positive pair has a lower cosine than a negative one.

Source: Ustinova and Lempitsky, "Learning Deep Embeddings with Histogram Loss", NeurIPS 2016, arXiv 1611.00822, Eqs. 1
to 4, and the authors' Caffe code (madkn/HistogramLoss, commit 76eb6ec). A cosine is shared between the two nearest
nodes of a grid from -1 to 1.

Departures:
- a batch without positives or without negatives has a loss of 0;
- shares come from the distance to each node, not from a search of the bin. The PyTorch code that the authors link to
  (valerystrizh/pytorch-histogram-loss) compares bins for equality and stops with an error where rounding makes them
  differ (issue 14 of its tracker), and pytorch-metric-learning 2.9 does where rounding puts a cosine above 1.

The library counts only the negatives of samples that have a positive.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmark.losses.checks import check_whole
from benchmark.losses.numerics import cosine_similarity
from benchmark.losses.pairs import pairs_of


def histogram(embeddings: Tensor, labels: Tensor, *, num_bins: int) -> Tensor:
    """Sum over the nodes r of h-_r (h+_1 + ... + h+_r), a scalar in [0, 1].

    h+ and h- are the shares of the positive and of the negative pairs at each of R + 1 nodes from -1 to 1. Easily got
    wrong: the cumulative sum includes r, so pairs in the same place count as wrongly ordered.

    Args:
        embeddings: (B, D), of any norm.
        labels: (B,).
        num_bins: R, at least 1.
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        place = (cosine_similarity(embeddings, embeddings).flatten() + 1) * (num_bins / 2)  # (B B,) in units of a bin
        nodes = torch.arange(num_bins + 1, dtype=place.dtype, device=place.device)
        shares = functional.hardtanh(nodes + 1 - place[:, None], 0.0, 1.0)  # (B B, R + 1), of all nodes up to each
        pairs = torch.stack(pairs_of(labels)).flatten(1).to(place.dtype)  # (2, B B)
        cumulative = pairs @ shares / pairs.sum(dim=1, keepdim=True).clamp(min=1)  # (2, R + 1)
    of_negatives = cumulative[1].diff(prepend=cumulative.new_zeros(1))
    return (of_negatives * cumulative[0]).sum()


class Histogram(nn.Module):
    """`histogram` with its setting.

    Args:
        num_bins: R, bins of the cosine, at least 1.

    Raises:
        UserError: `num_bins` is not a whole number of at least 1.
    """

    def __init__(self, *, num_bins: int = 200) -> None:
        super().__init__()
        check_whole("the histogram loss", at_least=1, num_bins=num_bins)
        self.num_bins = int(num_bins)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar loss of embeddings (B, D) with labels (B,)."""
        return histogram(embeddings, labels, num_bins=self.num_bins)
