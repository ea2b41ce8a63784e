"""SupCon: a softmax over all other samples of the batch, with every sample of the anchor's class as a positive.

Source: Khosla, Teterwak, Wang, Sarna, Tian, Isola, Maschinot, Liu and Krishnan, "Supervised Contrastive Learning",
NeurIPS 2020, arXiv 2004.11362, L_out (Eq. 2) and L_in (Eq. 3), and the authors' PyTorch code (HobbitLong/SupContrast,
commit 02f458c). In L_out, the logarithm is inside the sum over positives; the paper prefers it, and it is the default.

Departures from both:
- the samples of a batch are different images; the paper also puts a second view of each image into the batch;
- a mean over the batch instead of the paper's sum, as in the code. An anchor without a positive adds 0; the code gave
  NaN until December 2023 (issue 141 of its tracker), then 0.

The code multiplies the loss by temperature / 0.07, which the paper's formulas do not; its author calls that a change of
scale that one may ignore (issue 1). `base_temperature: 0.07` does it. pytorch-metric-learning leaves anchors whose loss
is 0 out of the mean, and gives 0 for a batch without negatives.
"""

import torch
from torch import Tensor, nn

from benchmark.losses.checks import check_choice, check_positive
from benchmark.losses.numerics import cosine_similarity
from benchmark.losses.pairs import pairs_of

AVERAGES = ("outside", "inside")


def supcon(embeddings: Tensor, labels: Tensor, *, temperature: float, average: str = "outside") -> Tensor:
    """Mean over the anchors a of -1/|P| sum_{p in P} log(e^{s_ap/T} / sum_{k != a} e^{s_ak/T}), a scalar.

    s is the cosine, and P the positives of a. With `average="inside"`, the term of an anchor is
    -log(1/|P| sum_{p in P} e^{s_ap/T} / sum_{k != a} e^{s_ak/T}). Easily got wrong: the denominator has the positives
    too, so the loss of a perfect batch is not 0.

    Args:
        embeddings: (B, D), of any norm.
        labels: (B,).
        temperature: T, above 0.
        average: "outside" (L_out) or "inside" (L_in) the logarithm.
    """
    logits = cosine_similarity(embeddings, embeddings) / temperature  # (B, B)
    positive, _ = pairs_of(labels)
    num_positives = positive.sum(dim=1)
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    of_all = logits.masked_fill(itself, -torch.inf).logsumexp(dim=1)  # (B,)
    if average == "outside":
        terms = (of_all[:, None] - logits).where(positive, 0).sum(dim=1) / num_positives.clamp(min=1)
    else:
        of_positives = logits.masked_fill(~positive, -torch.inf).logsumexp(dim=1)
        terms = (of_all - of_positives + num_positives.to(logits.dtype).log()).where(num_positives > 0, 0)
    return terms.mean()


class SupCon(nn.Module):
    """`supcon` with its settings.

    Args:
        temperature: T, above 0.
        average: "outside" or "inside", where positives are averaged: outside or inside the logarithm.
        base_temperature: multiplies the loss by temperature / base_temperature; None for no factor.

    Raises:
        UserError: a temperature is not a finite number above 0, or `average` is unknown.
    """

    def __init__(self, *, temperature: float, average: str = "outside", base_temperature: float | None = None) -> None:
        super().__init__()
        check_positive("SupCon", temperature=temperature)
        check_choice("SupCon", AVERAGES, average=average)
        if base_temperature is not None:
            check_positive("SupCon", base_temperature=base_temperature)
        self.temperature, self.average = temperature, average
        self.factor = 1.0 if base_temperature is None else temperature / base_temperature

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar loss of embeddings (B, D) with labels (B,)."""
        return self.factor * supcon(embeddings, labels, temperature=self.temperature, average=self.average)
