"""Decoupled contrastive loss (DCL) with labels: NT-Xent without the positive pair in its denominator.

Source: Yeh, Hong, Hsu, Liu, Chen and LeCun, "Decoupled Contrastive Learning", ECCV 2022, arXiv 2110.06848, the DCL
loss: -s_ip/T + log of the sum of e^{s_ij/T} over the negatives j of the anchor i, s being the cosine. No code of the
authors was found. raminnakhli/Decoupled-Contrastive-Learning (commit 50991ef), to which most refer, agrees with the
formula; lightly's `DCLLoss` adds the logarithms of two sums, one for each view, where the paper has one of both.

Departures:
- labels decide what a positive is. In the paper, it is the other view of one image, and all other images are negatives;
  here, every two images of a class are a positive pair, and none of them is a negative. For two samples per class, the
  two agree;
- a mean over ordered positive pairs. The paper adds them up, and the first implementation averages over images and adds
  up the two views, which is twice as much (issue 13 of its tracker asks about it).

DCLW, which weighs positive pairs by their similarity, is left out: the paper does not say whether the weights have a
gradient, as the author of lightly's notes in its pull request 793, and the first implementation has had them with and
without the number of pairs as a factor (issue 1).
"""

import torch
from torch import Tensor, nn

from benchmark.losses.checks import check_positive
from benchmark.losses.numerics import cosine_similarity
from benchmark.losses.pairs import pairs_of


class DCL(nn.Module):
    """Mean over ordered positive pairs (a, p) of -s_ap/T + log sum_{n: y_n != y_a} e^{s_an/T}.

    s is the cosine. Without a positive or without a negative pair, the loss is 0. Easily got wrong: it has no lower
    bound of 0, and no positive of the anchor is in the sum.

    Args:
        temperature: T, above 0.

    Raises:
        UserError: the temperature is not a finite number above 0.
    """

    def __init__(self, *, temperature: float) -> None:
        super().__init__()
        check_positive("DCL", temperature=temperature)
        self.temperature = temperature

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar loss of embeddings (B, D) with labels (B,)."""
        logits = cosine_similarity(embeddings, embeddings) / self.temperature  # (B, B)
        positive, negative = pairs_of(labels)
        rivals = logits.masked_fill(~negative, -torch.inf).logsumexp(dim=1, keepdim=True)  # (B, 1)
        counted = positive & negative.any(dim=1, keepdim=True)
        return (rivals - logits).where(counted, 0).sum() / counted.sum().clamp(min=1)
