"""Proxy-Anchor as a pure function, so that it can be the base of a hierarchy.

Source: Kim, Kim, Cho and Kwak, "Proxy Anchor Loss for Deep Metric Learning", CVPR 2020, arXiv 2003.13911, Eq. 4.
A test holds it and pytorch-metric-learning's class to the same numbers.

Departures from the authors' code:
- log-sum-exp: their plain `exp` overflows float32 once alpha (1 + margin) passes 88.7, inside the searched space;
- `one_hot`: their scikit-learn helper returns one column for two proxies, which silently gives a wrong mask.
"""

import math

from torch import Tensor
from torch.nn import functional

from benchmark.losses.cosine import cosine_similarity
from benchmark.losses.log_sum_exp import log_one_plus_sum_exp


def proxy_anchor(embeddings: Tensor, labels: Tensor, proxies: Tensor, *, alpha: float, margin: float) -> Tensor:
    """Pull of each proxy on its hardest positives plus push on its hardest negatives.

    With LSE1(z) = log(1 + sum exp z):
    mean over proxies with a positive in the batch of LSE1_{i: y_i = j}(-alpha (cos_ij - margin))
    + mean over ALL proxies of LSE1_{i: y_i != j}(alpha (cos_ij + margin)).

    Easily got wrong: the two means divide by different counts.

    Args:
        embeddings: (B, D), of any length.
        labels: (B,) int64 in 0..P-1.
        proxies: (P, D), of any length, row j for label j.
        alpha: scale of the cosine, above 0.
        margin: delta on the cosine, at least 0.

    Raises:
        ValueError: alpha or the margin is not allowed.
    """
    if not (alpha > 0 and math.isfinite(alpha)):
        raise ValueError(f"alpha={alpha} of proxy_anchor must be a finite number above 0; set a larger alpha.")
    if not (margin >= 0 and math.isfinite(margin)):
        raise ValueError(f"margin={margin} of proxy_anchor must be a finite number of at least 0; set a larger margin.")
    cosine = cosine_similarity(embeddings, proxies)  # (B, P)
    is_own = functional.one_hot(labels, len(proxies)).bool()  # (B, P)
    pull = log_one_plus_sum_exp(-alpha * (cosine - margin), is_own, dim=0)  # (P,)
    push = log_one_plus_sum_exp(alpha * (cosine + margin), ~is_own, dim=0)  # (P,)
    return pull.sum() / is_own.any(dim=0).sum() + push.mean()
