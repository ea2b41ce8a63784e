"""Multi-Similarity loss, with and without its mining of pairs.

Source: Wang, Han, Huang, Dong and Scott, "Multi-Similarity Loss with General Pair Weighting for Deep Metric Learning",
CVPR 2019, arXiv 1904.06627, Section 4. As searched by the Reality Check, arXiv 2003.08505, alpha, beta, base and the
miner's epsilon are all free, and "without miner" means all pairs.

Departures from the authors' code:
- exact duplicates are positives. The authors leave out every positive with a cosine above 1 - 1e-5, to be rid of the
  anchor itself; `drop_duplicates` does so;
- an anchor without positives or without negatives adds nothing with the miner, where their code fails.
From pytorch-metric-learning: a batch with one mined pair of each kind counts, where the library returns 0.
"""

import math

import torch
from torch import Tensor, nn

from benchmark.losses.cosine import cosine_similarity
from benchmark.losses.log_sum_exp import log_one_plus_sum_exp


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
        drop_duplicates: leave out positives with a cosine above 1 - 1e-5.

    Raises:
        ValueError: alpha or beta is not allowed.
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
        for name, scale in {"alpha": alpha, "beta": beta}.items():
            if not (scale > 0 and math.isfinite(scale)):
                raise ValueError(f"{name}={scale} of Multi-Similarity must be finite and above 0. Set a larger one.")
        self.alpha = alpha
        self.beta = beta
        self.base = base
        self.miner_epsilon = miner_epsilon
        self.drop_duplicates = drop_duplicates

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The loss of embeddings (B, D) with labels (B,), a scalar."""
        cosine = cosine_similarity(embeddings, embeddings)  # (B, B)
        negative = labels[:, None] != labels
        positive = (~negative).fill_diagonal_(False)
        if self.drop_duplicates:
            positive &= cosine < 1 - 1e-5
        if self.miner_epsilon is not None:
            positive, negative = mine(cosine, positive, negative, self.miner_epsilon)
        pull = log_one_plus_sum_exp(self.alpha * (self.base - cosine), positive, dim=1) / self.alpha  # (B,)
        push = log_one_plus_sum_exp(self.beta * (cosine - self.base), negative, dim=1) / self.beta  # (B,)
        return (pull + push).mean()


def mine(cosine: Tensor, positive: Tensor, negative: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """The hard pairs of each anchor, as masks (B, B); no gradient flows through the choice.

    Of its positives those with s_ap - epsilon < max_n s_an, of its negatives those with s_an + epsilon > min_p s_ap.

    Args:
        cosine: s (B, B), anchors down.
        positive: (B, B), the pairs to choose from.
        negative: likewise.
        epsilon: a larger one keeps more.
    """
    cosine = cosine.detach()
    hardest_positive = cosine.masked_fill(~positive, torch.inf).amin(dim=1, keepdim=True)  # (B, 1)
    hardest_negative = cosine.masked_fill(~negative, -torch.inf).amax(dim=1, keepdim=True)  # (B, 1)
    return positive & (cosine - epsilon < hardest_negative), negative & (cosine + epsilon > hardest_positive)
