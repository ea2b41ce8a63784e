"""ROADMAP: an upper bound of 1 - AP (SupAP), plus a contrastive loss that makes scores of different batches comparable.

Source: Ramzi, Thome, Rambour, Audebert and Bitot, "Robust and Decomposable Average Precision for Image Retrieval",
NeurIPS 2021, arXiv 2110.01445, and the authors' code (elias-ramzi/ROADMAP, commit 5010e15, `roadmap/losses/`). As in
that code, a query is one of its own positives, and both terms have weight 1.

Beyond `delta`, the bound is the paper's, which continues with the value it has there, as in the authors' later projects
(elias-ramzi/HAPPIER, elias-ramzi/SupRank). For SOP and CUB, the code of ROADMAP has slope t + 1.44 there, which jumps
from 1.49 to 6.44 at the paper's delta: `beyond="code"`. For iNaturalist, it has slope t + 1, and the sigmoid without
the 1/2, which are no option here. Of the loss itself, the trackers of these projects say only that the gap between
batches and the whole data set, which Eqs. 8 and 9 bound, may be negative: the bound assumes batches with an AP of 1
(elias-ramzi/ROADMAP, issue 7).

Departures from the authors' code:
- a sample that is alone in its class is a candidate in the rankings of others, and has none of its own; there, its
  average precision counts as almost 1;
- two positives whose cosines differ by at most 1e-6 are tied, which the code requires to be exact and rounding decides;
- the argument of the sigmoid is not clamped to 50 in absolute value, since PyTorch's sigmoid does not overflow;
- no memory of earlier batches, and no weights by the norm of gradients, which are off in its published settings.
"""

import torch
from torch import Tensor, nn

from benchmark.losses.checks import check_choice, check_non_negative, check_positive
from benchmark.losses.numerics import cosine_similarity
from benchmark.losses.pairs import mean_above_zero, pairs_of
from benchmark.losses.ranks import TIE, count, mean_over_queries, mean_precision

BEYOND = ("paper", "code")
OFFSET = 1.44  # authors' code, for SOP and CUB


def bound(lead: Tensor, *, temperature: float, slope: float, delta: float, beyond: str = "paper") -> Tensor:
    """Upper bound of a step for leads of any shape, of negatives over positives.

    With G(t) = 1 / (1 + exp(-t / temperature)): G(t) for t <= 0, G(t) + 1/2 up to delta, and beyond it
    slope (t - delta) + G(delta) + 1/2 ("paper") or slope t + 1.44 ("code").

    Args:
        lead: t.
        temperature: scale of the differences of cosines, above 0.
        slope: rho, above 0.
        delta: at least 0.
        beyond: "paper" or "code".
    """
    smooth = torch.sigmoid(lead / temperature)
    at_delta = torch.sigmoid(torch.full((), delta / temperature, dtype=lead.dtype, device=lead.device)) + 0.5
    linear = slope * lead + OFFSET if beyond == "code" else slope * (lead - delta) + at_delta
    return torch.where(lead > delta, linear, smooth + 0.5 * (lead > 0))


def sup_ap(
    embeddings: Tensor, labels: Tensor, *, temperature: float, slope: float, delta: float, beyond: str = "paper"
) -> Tensor:
    """Mean over the samples with another one of their class of an upper bound of 1 - AP, a scalar; 0 without any.

    With s the cosine, P_q the samples of the query's class, itself included, and N_q the others: AP_q is the mean over
    i in P_q of (1 + A_i) / (1 + A_i + B_i), A_i the number of j in P_q but i with s_qj >= s_qi, and B_i the sum of
    `bound` of s_qj - s_qi over the j in N_q.

    Easily got wrong: A has no gradient.

    Args:
        embeddings: (B, D), of any norm.
        labels: (B,).
        temperature: scale of the differences of cosines, above 0.
        slope: rho, above 0.
        delta: lead from which the bound is linear, at least 0.
        beyond: "paper" or "code", see `bound`.
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        scores = cosine_similarity(embeddings, embeddings)  # (B, B)
        others, negative = pairs_of(labels)

        def loss(lead: Tensor, exists: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
            ahead = bound(lead, temperature=temperature, slope=slope, delta=delta, beyond=beyond)  # (Q, P, B)
            return 1 - mean_precision(count(lead.detach() >= -TIE, positive), count(ahead, negative), exists)

        return mean_over_queries(scores, ~negative, negative, others.any(dim=1), loss)


def calibration(embeddings: Tensor, labels: Tensor, *, alpha: float, beta: float) -> Tensor:
    """Mean of [alpha - s]+ over the pairs of one class + mean of [s - beta]+ over those of two classes, a scalar.

    s is the cosine, and each mean is over the pairs for which the term is above 0, or 0 if there are none.

    Args:
        embeddings: (B, D), of any norm.
        labels: (B,).
        alpha: least cosine of a pair of one class that adds nothing.
        beta: largest cosine of a pair of two classes that adds nothing.
    """
    scores = cosine_similarity(embeddings, embeddings)  # (B, B)
    positive, negative = pairs_of(labels)
    return mean_above_zero(alpha - scores, positive) + mean_above_zero(scores - beta, negative)


class Roadmap(nn.Module):
    """`sup_ap` + weight * `calibration`.

    Args:
        temperature: tau, scale of the differences of cosines, above 0.
        slope: rho, slope of the bound beyond delta, above 0.
        delta: lead of a negative from which the bound is linear, at least 0.
        alpha: least cosine of a pair of one class that the second term leaves alone.
        beta: largest cosine of a pair of two classes that it leaves alone.
        calibration_weight: weight of the second term, at least 0; 0 for SupAP alone.
        beyond: "paper" or "code", see `bound`.

    Raises:
        UserError: a setting is out of range.
    """

    def __init__(
        self,
        *,
        temperature: float,
        slope: float,
        delta: float,
        alpha: float,
        beta: float,
        calibration_weight: float = 1.0,
        beyond: str = "paper",
    ) -> None:
        super().__init__()
        check_positive("ROADMAP", temperature=temperature, slope=slope)
        check_non_negative("ROADMAP", delta=delta, calibration_weight=calibration_weight)
        check_choice("ROADMAP", BEYOND, beyond=beyond)
        self.temperature, self.slope, self.delta, self.beyond = temperature, slope, delta, beyond
        self.alpha, self.beta, self.calibration_weight = alpha, beta, calibration_weight

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar loss of embeddings (B, D) with labels (B,)."""
        step = {"temperature": self.temperature, "slope": self.slope, "delta": self.delta}
        loss = sup_ap(embeddings, labels, beyond=self.beyond, **step)
        if self.calibration_weight:
            pairs = calibration(embeddings, labels, alpha=self.alpha, beta=self.beta)
            loss = loss + self.calibration_weight * pairs
        return loss
