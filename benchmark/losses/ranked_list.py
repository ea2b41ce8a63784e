"""Ranked list loss: positives within one radius of a query, negatives beyond a larger one, weighted by violation.

Source: Wang, Hua, Kodirov, Hu, Garnier and Robertson, "Ranked List Loss for Deep Metric Learning", CVPR 2019,
arXiv 1903.03238, and Wang, Hua, Kodirov and Robertson, TPAMI 2021, with weights for positives too; the authors' Caffe
code (XinshaoAmosWang/Ranked-List-Loss-for-DML, commit 3706d22), whose tracker has no issue about the loss.

As in the code, the loss of a query moves the query only: the others are constants in its gradient, and so are the
weights. `gallery: moving` lets it move both ends of a pair, as pytorch-metric-learning does, which differentiates the
weights too and adds 1e-5 per sample to their sum. The code's last version also weighs a query by its share of all
weights of the batch before their normalisation, instead of a mean over queries; `queries: weighted` does that. Its two
radii are 1 + m/2 and 1 - m/2.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmark.core.errors import UserError
from benchmark.losses.checks import check_choice, check_non_negative
from benchmark.losses.numerics import at_least_float32, euclidean
from benchmark.losses.pairs import pairs_of

GALLERIES = ("fixed", "moving")
QUERIES = ("equal", "weighted")


class RankedList(nn.Module):
    """Mean over queries of (1 - w) sum_p w_p (d_p - alpha + m) + w sum_n w_n (alpha - d_n).

    d are distances of unit vectors. The sums are over the positives with d_p > alpha - m and the negatives with
    d_n < alpha; their weights are e^{T_p (d_p - alpha + m)} and e^{T_n (alpha - d_n)}, divided by their sum over that
    set. Without such samples, a sum is 0.

    Args:
        alpha: distance beyond which negatives should be.
        margin: m; positives should be within alpha - m.
        temperature_n: T_n, at least 0.
        temperature_p: T_p, at least 0; 0 gives positives equal weights.
        negative_weight: w, from 0 to 1.
        gallery: "fixed" or "moving", whether the gradient of a query's loss moves the query alone or both ends of a
            pair.
        queries: "equal" or "weighted", by each query's share of the sum of all weights before their normalisation.

    Raises:
        UserError: a temperature or the weight is out of range, or an option is unknown.
    """

    def __init__(
        self,
        *,
        alpha: float,
        margin: float,
        temperature_n: float,
        temperature_p: float = 0.0,
        negative_weight: float = 0.5,
        gallery: str = "fixed",
        queries: str = "equal",
    ) -> None:
        super().__init__()
        check_non_negative("the ranked list loss", temperature_n=temperature_n, temperature_p=temperature_p)
        if not 0 <= negative_weight <= 1:
            raise UserError(f"negative_weight={negative_weight} of the ranked list loss must be from 0 to 1.")
        check_choice("the ranked list loss", GALLERIES, gallery=gallery)
        check_choice("the ranked list loss", QUERIES, queries=queries)
        self.alpha, self.margin, self.negative_weight = alpha, margin, negative_weight
        self.temperature_n, self.temperature_p = temperature_n, temperature_p
        self.gallery, self.queries = gallery, queries

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar loss of embeddings (B, D) with labels (B,)."""
        with torch.autocast(embeddings.device.type, enabled=False):
            unit = functional.normalize(at_least_float32(embeddings), dim=1)
            distance = euclidean(unit, unit.detach() if self.gallery == "fixed" else unit)  # (B, B)
            positive, negative = pairs_of(labels)
            pull, pull_weight = weighted_violations(distance - (self.alpha - self.margin), positive, self.temperature_p)
            push, push_weight = weighted_violations(self.alpha - distance, negative, self.temperature_n)
            losses = (1 - self.negative_weight) * pull + self.negative_weight * push  # (B,)
            if self.queries == "equal":
                return losses.mean()
            return (losses * torch.logaddexp(pull_weight, push_weight).softmax(dim=0)).sum()


def weighted_violations(violations: Tensor, pairs: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Mean of the violations v above 0 of each query, weighted by e^{T v}; no gradient flows through the weights.

    Args:
        violations: v (B, B), one row per query.
        pairs: (B, B) bool, those that count.
        temperature: T, at least 0.

    Returns:
        The means (B,), 0 where no violation is above 0, and the logarithms (B,) of the sums of weights, which are the
        smallest number of the type there.
    """
    active = pairs & ~(violations <= 0)  # true for NaN
    logits = (temperature * violations.detach()).masked_fill(~active, torch.finfo(violations.dtype).min)
    means = (logits.softmax(dim=1) * violations.where(active, 0)).sum(dim=1)
    return means, logits.logsumexp(dim=1)
