"""Contrastive loss on the signal-to-noise ratio of a pair.

Source: Yuan, Deng, Tang, Tang and Chen, "Signal-to-Noise Ratio: A Robust Distance Metric for Deep Metric Learning",
CVPR 2019, arXiv 1904.02616, Section 3: the distance is the variance of the noise, the difference of two embeddings,
over that of the signal, the anchor. Averages and margins as in the Reality Check, arXiv 2003.08505.

Departures:
- embeddings are normalised, as in the Reality Check; those of the paper are not;
- the regulariser uses unit embeddings too, as at the time of the Reality Check, which tuned its weight for them.
  pytorch-metric-learning 2 uses the raw ones, as `reg_on: raw` does here;
- Var(e_i - e_j) is the squared distance of the centred embeddings over D - 1, and D - 1 cancels: (B, B) in memory
  whereas the library stores all differences (B, B, D), and equally exact near 0;
- an embedding whose coordinates are all equal has no variance, which makes every distance from it infinite. Here the
  centred embedding's squared length is at least the floating type's epsilon, so the loss stays finite.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmark.core.errors import UserError
from benchmark.losses.checks import check_choice
from benchmark.losses.numerics import at_least_float32, euclidean
from benchmark.losses.pairs import mean_above_zero, pairs_of

REGULARISED = ("unit", "raw")


class SNRContrastive(nn.Module):
    """Mean pull of positive pairs + mean push of negative pairs + weight * mean_i |sum_d e_id|.

    With R_ij = Var(e_i - e_j) / Var(e_i) of unit embeddings: the pull is [R_ij - pos_margin]+, the push
    [neg_margin - R_ij]+, and each mean is over the pairs for which the term is above 0, or 0 if there are none. Easily
    got wrong: R is not symmetric, since the anchor is in the denominator.

    Args:
        pos_margin: ratio below which a positive pair adds nothing.
        neg_margin: ratio above which a negative pair adds nothing.
        regularizer_weight: weight of the last term, at least 0.
        reg_on: "unit" or "raw", the embeddings e of the last term.

    Raises:
        UserError: the weight is negative or `reg_on` is unknown.
    """

    def __init__(
        self, *, pos_margin: float, neg_margin: float, regularizer_weight: float, reg_on: str = "unit"
    ) -> None:
        super().__init__()
        if not regularizer_weight >= 0:
            raise UserError(f"regularizer_weight={regularizer_weight} of the SNR loss must be at least 0.")
        check_choice("the SNR loss", REGULARISED, reg_on=reg_on)
        self.pos_margin = pos_margin
        self.neg_margin = neg_margin
        self.regularizer_weight = regularizer_weight
        self.reg_on = reg_on

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar loss of embeddings (B, D) with labels (B,)."""
        with torch.autocast(embeddings.device.type, enabled=False):
            raw = at_least_float32(embeddings)
            unit = functional.normalize(raw, dim=1)
            ratio = noise_to_signal(unit)  # (B, B)
            positive, negative = pairs_of(labels)
            pull = mean_above_zero(ratio - self.pos_margin, positive)
            push = mean_above_zero(self.neg_margin - ratio, negative)
            mean = (unit if self.reg_on == "unit" else raw).sum(dim=1).abs().mean()
            return pull + push + self.regularizer_weight * mean


def noise_to_signal(vectors: Tensor) -> Tensor:
    """Ratios Var(e_i - e_j) / Var(e_i) (B, B) of vectors (B, D), one row per anchor i."""
    centred = vectors - vectors.mean(dim=1, keepdim=True)
    signal = centred.square().sum(dim=1, keepdim=True).clamp(min=torch.finfo(vectors.dtype).eps)
    return euclidean(centred, centred).square() / signal
