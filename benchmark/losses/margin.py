"""Margin loss: positives within and negatives beyond a distance beta, which is learned, by a margin.

Source: Wu, Manmatha, Smola and Krähenbühl, "Sampling Matters in Deep Embedding Learning", ICCV 2017, arXiv 1706.07567,
Section 4.2, on all triplets of the batch, which the paper samples, as in the Reality Check, arXiv 2003.08505, and in
pytorch-metric-learning's MarginLoss.

Departures from the library, beside those of `pairs.py`: a pair is weighted by the number of its triplets instead of
being listed once for each; and without a triplet beta has a gradient of 0, whereas there it has none.
"""

import torch
from torch import Tensor, nn

from benchmark.losses.checks import check_non_negative, check_whole
from benchmark.losses.pairs import pairs_of, unit_distances


def margin_loss(embeddings: Tensor, labels: Tensor, beta: Tensor, *, margin: float, nu: float = 0.0) -> Tensor:
    """Sum of [d_ap - b + margin]+ + [b - d_an + margin]+ over triplets, over the number of terms above 0; a scalar.

    b is beta of the anchor's class. The regulariser is nu beta, or nu times the sum of b over triplets over the same
    number if there is a beta per class. Without a triplet, or a term above 0, the loss is 0.

    Easily got wrong: a positive pair counts once per negative of its anchor, and the reverse.

    Args:
        embeddings: (B, D), of any norm.
        labels: (B,) int64 in 0..C-1.
        beta: (1,), or (C,) for one per class.
        margin: by how much a distance should differ from beta.
        nu: weight of the regulariser, at least 0.
    """
    distance = unit_distances(embeddings)  # (B, B)
    positive, negative = pairs_of(labels)
    per_positive = positive * negative.sum(dim=1, keepdim=True)  # (B, B) triplets of a pair
    per_negative = negative * positive.sum(dim=1, keepdim=True)
    own = beta.to(distance.dtype)
    own = own if len(beta) == 1 else own[labels][:, None]  # (1,) or (B, 1)
    pull, push = (distance - own + margin).relu(), (own - distance + margin).relu()
    terms = (per_positive * (pull > 0)).sum() + (per_negative * (push > 0)).sum()
    loss = ((per_positive * pull).sum() + (per_negative * push).sum()) / terms.clamp(min=1)
    if nu == 0:
        return loss
    of_anchor = per_positive.sum(dim=1, keepdim=True)  # (B, 1) triplets of an anchor
    if len(beta) == 1:
        return loss + nu * own.sum() * (of_anchor > 0).any()
    return loss + nu * (of_anchor * own).sum() / terms.clamp(min=1) * (terms > 0)


class Margin(nn.Module):
    """`margin_loss` with its settings and its beta.

    Args:
        margin: by how much a distance should differ from beta.
        beta: initial distance that separates positives from negatives.
        learn_beta: whether beta is a parameter.
        nu: weight of the regulariser of a learned beta, at least 0.
        num_classes: C, for a beta per class; None for one that all share.

    Raises:
        UserError: nu is negative, or there are no classes.
    """

    beta: Tensor

    def __init__(
        self,
        *,
        margin: float = 0.2,
        beta: float = 1.2,
        learn_beta: bool = False,
        nu: float = 0.0,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        check_non_negative("the margin loss", nu=nu)
        if num_classes is not None:
            check_whole("the margin loss", at_least=1, num_classes=num_classes)
        self.margin, self.nu = margin, nu if learn_beta else 0.0
        initial = torch.full((num_classes or 1,), float(beta))
        if learn_beta:
            self.beta = nn.Parameter(initial)
        else:
            self.register_buffer("beta", initial)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar loss of embeddings (B, D) with labels (B,)."""
        return margin_loss(embeddings, labels, self.beta, margin=self.margin, nu=self.nu)
