"""NT-Xent: every positive pair against all negatives of its anchor, as a cross entropy.

Source: Sohn, "Improved Deep Metric Learning with Multi-class N-pair Loss Objective", NeurIPS 2016; named, and scaled by
a temperature, in Chen, Kornblith, Norouzi and Hinton, "A Simple Framework for Contrastive Learning of Visual
Representations", ICML 2020, arXiv 2002.05709, Eq. 1. With several positives per anchor, each pair is a separate term
that ignores the other positives, as in pytorch-metric-learning, which the Reality Check (arXiv 2003.08505) used.

Departures from the library:
- log-softmax. The library takes the logarithm of a probability plus a tiny number, so a pair whose probability vanishes
  has a constant loss and no gradient: in float32 once the cosines differ by 87.3 T, at the time of the Reality Check by
  46.1 T. Its optimum for SOP, T = 0.00024, is deep in that regime, which ignores the hardest pairs; `saturate` restores
  it, and the protocol mlrc_2020 sets it to 1e-20;
- one row per anchor, whereas the library stores a matrix of positive pairs by negative pairs.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmark.core.errors import UserError
from benchmark.losses.checks import check_positive
from benchmark.losses.numerics import cosine_similarity


class NTXent(nn.Module):
    """Mean over ordered positive pairs (a, p) of -log(e^{s_ap/T} / (e^{s_ap/T} + sum_{n: y_n != y_a} e^{s_an/T})).

    s is the cosine. Without a positive or without a negative pair, the loss is 0.

    Args:
        temperature: T, above 0.
        saturate: added to each probability before the logarithm: "none", "tiny" (the smallest normal number of the
            floating type, as in pytorch-metric-learning 2) or a number in (0, 1), 1e-20 for the Reality Check's
            library. The loss of a pair is then at most -log(saturate).

    Raises:
        UserError: the temperature or `saturate` is out of range.
    """

    def __init__(self, *, temperature: float, saturate: float | str = "none") -> None:
        super().__init__()
        check_positive("NT-Xent", temperature=temperature)
        if saturate not in ("none", "tiny") and not (isinstance(saturate, float) and 0 < saturate < 1):
            raise UserError(f"saturate={saturate!r} of NT-Xent; allowed: none, tiny, or a number between 0 and 1.")
        self.temperature = temperature
        self.saturate = saturate

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar loss of embeddings (B, D) with labels (B,)."""
        logits = cosine_similarity(embeddings, embeddings) / self.temperature  # (B, B)
        same = labels[:, None] == labels
        rivals = logits.masked_fill(same, -torch.inf).logsumexp(dim=1, keepdim=True)  # (B, 1)
        log_probability = functional.logsigmoid(logits - rivals)  # (B, B)
        if self.saturate != "none":
            added = self.saturate if isinstance(self.saturate, float) else torch.finfo(logits.dtype).tiny
            log_probability = torch.logaddexp(log_probability, torch.full_like(logits, math.log(added)))
        positive = same.clone().fill_diagonal_(False)
        return -log_probability.where(positive, 0).sum() / positive.sum().clamp(min=1)
