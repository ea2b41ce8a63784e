"""Circle loss: cosines of an anchor's positives and negatives, each weighted by its distance from the optimum.

Source: Sun, Cheng, Zhang, Zhang, Zheng, Wang and Wei, "Circle Loss: A Unified Perspective of Pair Similarity
Optimization", CVPR 2020, arXiv 2002.10857, Eq. 6 with the constants of Section 3.3: between samples, and between a
sample and one learned vector per class. No code of the authors was found; pytorch-metric-learning and
TinyZeaMays/CircleLoss, a reimplementation, agree with the formula.

What the paper leaves open:
- it defines the loss of one anchor. Here and in the library, the loss is the mean over the anchors with at least one
  positive and one negative; TinyZeaMays/CircleLoss joins all pairs of the batch in one logarithm;
- the weights count as constants in the gradient, as in its Eq. 10 and in both implementations. Differentiated, the
  penalty of a negative would be the square of what Eq. 10 says, up to a factor.

Departure: logarithms of sums of exponentials. The tracker of another reimplementation (qianjinhao/circle-loss, issue 2)
reports NaN without them.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmark.losses.checks import check_positive
from benchmark.losses.numerics import cosine_similarity
from benchmark.losses.pairs import pairs_of


def circle(embeddings: Tensor, labels: Tensor, *, gamma: float, margin: float) -> Tensor:
    """Mean over anchors of log(1 + sum_n e^{gamma [s_n + m]+ (s_n - m)} sum_p e^{-gamma [1 + m - s_p]+ (s_p - 1 + m)}).

    s are the cosines of the anchor with its positives p and its negatives n. The mean, a scalar, is over the anchors
    that have both, and 0 if there are none. Easily got wrong: no gradient flows through the factors in [ ]+.

    Args:
        embeddings: (B, D), of any norm.
        labels: (B,).
        gamma: scale, above 0.
        margin: m; a positive should have a cosine above 1 - m, a negative one below m.
    """
    cosine = cosine_similarity(embeddings, embeddings)  # (B, B)
    positive, negative = pairs_of(labels)
    fixed = cosine.detach()
    pull = -gamma * (1 + margin - fixed).relu() * (cosine - 1 + margin)
    push = gamma * (fixed + margin).relu() * (cosine - margin)
    of_positives = pull.masked_fill(~positive, -torch.inf).logsumexp(dim=1)  # (B,)
    of_negatives = push.masked_fill(~negative, -torch.inf).logsumexp(dim=1)
    counted = positive.any(dim=1) & negative.any(dim=1)
    losses = -functional.logsigmoid(-(of_positives + of_negatives))
    return losses.where(counted, 0).sum() / counted.sum().clamp(min=1)


def circle_class(embeddings: Tensor, labels: Tensor, proxies: Tensor, *, gamma: float, margin: float) -> Tensor:
    """Mean over the batch of `circle`'s term for one positive, the class's own vector, and the others as negatives.

    That is the cross entropy, a scalar, of the logits gamma [1 + m - s]+ (s - 1 + m) of the own class and
    gamma [s + m]+ (s - m) of the others, s being the cosine. No gradient flows through the factors in [ ]+.

    Args:
        embeddings: (B, D), of any norm.
        labels: (B,) int64 in 0..P-1.
        proxies: (P, D), of any norm, row j for label j.
        gamma: scale, above 0.
        margin: m, a cosine.

    Raises:
        UserError: gamma is not a finite number above 0.
        ValueError: embeddings or proxies are not matrices.
    """
    check_positive("Circle loss", gamma=gamma)
    cosine = cosine_similarity(embeddings, proxies)  # (B, P)
    own = cosine.gather(1, labels[:, None])  # (B, 1)
    pull = (1 + margin - own.detach()).relu() * (own - 1 + margin)
    push = (cosine.detach() + margin).relu() * (cosine - margin)
    return functional.cross_entropy(gamma * push.scatter(1, labels[:, None], pull), labels)


class Circle(nn.Module):
    """`circle` with its settings.

    Args:
        gamma: scale, above 0.
        margin: m, a cosine.

    Raises:
        UserError: gamma is not a finite number above 0.
    """

    def __init__(self, *, gamma: float, margin: float) -> None:
        super().__init__()
        check_positive("Circle loss", gamma=gamma)
        self.gamma, self.margin = gamma, margin

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar loss of embeddings (B, D) with labels (B,)."""
        return circle(embeddings, labels, gamma=self.gamma, margin=self.margin)
