"""N-pairs: an anchor and a positive of each class, each anchor against the positives of all other classes.

Source: Sohn, "Improved Deep Metric Learning with Multi-class N-pair Loss Objective", NeurIPS 2016, the multi-class
N-pair loss (N-pair-mc) on its batches of N pairs. The paper compares by dot products and asks for small norms instead
of unit vectors; the form and the weight of that regulariser are those of `npairs_loss` in TensorFlow (contrib, commit
a11ea71).

Proxy-Anchor's authors call it the hardest loss to reproduce, and needed PyTorch's initial weights of the embedding
layer and a weight of 0.02 (sung-yeon-kim/Proxy-Anchor-CVPR2020, issue 19). No code of the author was found.

Departures:
- the roles of a class's samples are drawn in each step, with a generator seeded by (seed, step), so that the order of
  the batch does not matter; TensorFlow and pytorch-metric-learning take them in the order of the batch. The library has
  no regulariser by default;
- if a batch has more than two samples of a class, the others are unused, as in the library; a class with one sample is
  unused too.
"""

import torch
from torch import Tensor

from benchmark.losses.checks import check_non_negative
from benchmark.losses.counters import CountingLoss
from benchmark.losses.draws import in_own_order, places_in_class, random_ranks
from benchmark.losses.numerics import at_least_float32


def n_pairs(embeddings: Tensor, labels: Tensor, ranks: Tensor, *, regularizer_weight: float) -> Tensor:
    """Mean over N classes of log(1 + sum_{j != i} e^{a_i . p_j - a_i . p_i}) + weight/2 mean |e|^2, a scalar.

    a_i and p_i are the anchor and the positive of class i, and the last mean is over the 2 N embeddings in use. Without
    a class of two samples, the loss is 0.

    Args:
        embeddings: (B, D), of any norm.
        labels: (B,).
        ranks: (B,), all different: the lowest of a class is its anchor, the next its positive.
        regularizer_weight: at least 0.
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        vectors = at_least_float32(embeddings)
        same, place = labels[:, None] == labels, places_in_class(labels, ranks)
        anchor, positive = (place == 0) & (same.sum(dim=1) > 1), place == 1
        count = anchor.sum().clamp(min=1)
        products = vectors @ vectors.T  # (B, B)
        own = products.where(same & positive, 0).sum(dim=1)
        of_positives = products.masked_fill(~positive, -torch.inf).logsumexp(dim=1)
        loss = (of_positives - own).where(anchor, 0).sum() / count
        squared_norms = vectors.square().sum(dim=1).where(anchor | positive, 0).sum() / (2 * count)
        return loss + regularizer_weight / 2 * squared_norms


class NPairs(CountingLoss):
    """`n_pairs` with roles drawn in each step.

    Args:
        seed: seeds the draws; the global generator is not used.
        regularizer_weight: weight of the squared norms, at least 0.

    Raises:
        UserError: the weight is negative or not finite.
    """

    def __init__(self, *, seed: int, regularizer_weight: float) -> None:
        super().__init__(1)  # steps
        check_non_negative("N-pairs", regularizer_weight=regularizer_weight)
        self.seed, self.regularizer_weight = seed, regularizer_weight

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar loss of embeddings (B, D) with labels (B,)."""
        embeddings, labels = in_own_order(embeddings, labels)
        ranks = random_ranks(labels, self.seed, "n_pairs", self._counters[0])
        return n_pairs(embeddings, labels, ranks, regularizer_weight=self.regularizer_weight)

    def after_step(self) -> None:
        """Count an optimiser step; the count seeds the draw of the next step."""
        self.count([1])
