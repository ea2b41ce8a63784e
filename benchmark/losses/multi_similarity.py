"""Multi-Similarity loss, with and without its mining of pairs.

Source: Wang, Han, Huang, Dong and Scott, "Multi-Similarity Loss with General Pair Weighting for Deep Metric Learning",
CVPR 2019, arXiv 1904.06627, Section 4. As searched by the Reality Check, arXiv 2003.08505, alpha, beta, base and the
miner's epsilon are all searched, and "without miner" means all pairs.

Departures from the authors' code:
- exact duplicates are positives. The authors drop every positive with a cosine above 1 - 1e-5, to exclude the anchor
  itself; `drop_duplicates` does so;
- with the miner, an anchor without positives or without negatives adds nothing, whereas their code fails.
Departure from pytorch-metric-learning: a batch with one mined pair of each kind counts, whereas the library returns 0.
"""

import torch
from torch import Tensor, nn

from benchmark.losses.checks import check_positive
from benchmark.losses.numerics import cosine_similarity, log_one_plus_sum_exp
from benchmark.losses.pairs import pairs_of


class MultiSimilarity(nn.Module):
    """Mean over ALL anchors i of a soft pull towards its hard positives and a soft push from its hard negatives.

    With LSE1(z) = log(1 + sum exp z), s the cosine, P_i the positives of i and N_i its negatives:
    LSE1_{j in P_i}(alpha (base - s_ij)) / alpha + LSE1_{j in N_i}(beta (s_ij - base)) / beta.

    Easily got wrong: an anchor without pairs counts in the mean, with a loss of 0.

    Args:
        alpha: scale of positives, above 0.
        beta: scale of negatives, above 0.
        base: lambda, a cosine.
        miner_epsilon: slack of `mine`; None for all pairs.
        drop_duplicates: whether to drop positives with a cosine above 1 - 1e-5.

    Raises:
        UserError: alpha or beta is not a finite number above 0.
    """

    def __init__(
        self,
        *,
        alpha: float,
        beta: float,
        base: float,
        miner_epsilon: float | None = None,
        drop_duplicates: bool = False,
    ) -> None:
        super().__init__()
        check_positive("Multi-Similarity", alpha=alpha, beta=beta)
        self.alpha = alpha
        self.beta = beta
        self.base = base
        self.miner_epsilon = miner_epsilon
        self.drop_duplicates = drop_duplicates

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar loss of embeddings (B, D) with labels (B,)."""
        cosine = cosine_similarity(embeddings, embeddings)  # (B, B)
        positive, negative = pairs_of(labels)
        if self.drop_duplicates:
            positive &= cosine < 1 - 1e-5
        if self.miner_epsilon is not None:
            positive, negative = mine(cosine, positive, negative, self.miner_epsilon)
        pull = log_one_plus_sum_exp(self.alpha * (self.base - cosine), positive, dim=1) / self.alpha  # (B,)
        push = log_one_plus_sum_exp(self.beta * (cosine - self.base), negative, dim=1) / self.beta  # (B,)
        return (pull + push).mean()


def mine(cosine: Tensor, positive: Tensor, negative: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Masks (B, B) of the hard positive and the hard negative pairs; no gradient flows through the choice.

    A positive p of anchor a is hard if s_ap - epsilon < max_n s_an, a negative n if s_an + epsilon > min_p s_ap.

    Args:
        cosine: s (B, B), one row per anchor.
        positive: (B, B) bool, the positive pairs to choose from.
        negative: (B, B) bool, the negative pairs to choose from.
        epsilon: slack on the cosine; a larger one keeps more pairs.
    """
    cosine = cosine.detach()
    hardest_positive = cosine.masked_fill(~positive, torch.inf).amin(dim=1, keepdim=True)  # (B, 1)
    hardest_negative = cosine.masked_fill(~negative, -torch.inf).amax(dim=1, keepdim=True)  # (B, 1)
    return positive & (cosine - epsilon < hardest_negative), negative & (cosine + epsilon > hardest_positive)
