"""Proxy-Anchor as a pure function, so that it can be the base of a hierarchy.

Source: Kim, Kim, Cho and Kwak, "Proxy Anchor Loss for Deep Metric Learning", CVPR 2020, arXiv 2003.13911, Eq. 4.
A test compares it with pytorch-metric-learning's class.

Departures from the authors' code:
- log-sum-exp: their plain `exp` overflows float32 once alpha (1 + margin) passes 88.7, within the search space;
- `one_hot`: their scikit-learn helper returns one column for two proxies, which silently gives a wrong mask.
"""

from torch import Tensor
from torch.nn import functional

from benchmark.losses.checks import check_non_negative, check_positive
from benchmark.losses.numerics import cosine_similarity, log_one_plus_sum_exp


def proxy_anchor(embeddings: Tensor, labels: Tensor, proxies: Tensor, *, alpha: float, margin: float) -> Tensor:
    """Return the pull of each proxy on its hardest positives plus the push on its hardest negatives, a scalar.

    With LSE1(z) = log(1 + sum exp z):
    mean over proxies with a positive in the batch of LSE1_{i: y_i = j}(-alpha (cos_ij - margin))
    + mean over ALL proxies of LSE1_{i: y_i != j}(alpha (cos_ij + margin)).

    Easily got wrong: the two means divide by different counts.

    Args:
        embeddings: (B, D), of any norm.
        labels: (B,) int64 in 0..P-1.
        proxies: (P, D), of any norm, row j for label j.
        alpha: factor of the cosines, above 0.
        margin: delta, on the cosine, at least 0.

    Raises:
        UserError: alpha or the margin is out of range.
        ValueError: embeddings or proxies are not matrices.
    """
    check_positive("proxy_anchor", alpha=alpha)
    check_non_negative("proxy_anchor", margin=margin)
    cosine = cosine_similarity(embeddings, proxies)  # (B, P)
    is_own = functional.one_hot(labels, len(proxies)).bool()  # (B, P)
    pull = log_one_plus_sum_exp(-alpha * (cosine - margin), is_own, dim=0)  # (P,)
    push = log_one_plus_sum_exp(alpha * (cosine + margin), ~is_own, dim=0)  # (P,)
    return pull.sum() / is_own.any(dim=0).sum() + push.mean()
