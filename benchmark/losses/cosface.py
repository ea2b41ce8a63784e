"""CosFace: a softmax over cosines that subtracts a margin from the cosine of the sample's own class.

Source: Wang, Wang, Zhou, Ji, Gong, Zhou, Li and Liu, "CosFace: Large Margin Cosine Loss for Deep Face Recognition",
CVPR 2018, arXiv 1801.09414, Eq. 4; searched over by the Reality Check, arXiv 2003.08505.

Departure: cosines in float32 under mixed precision (`numerics.py`), since a scale of 100 multiplies their rounding.
"""

from torch import Tensor
from torch.nn import functional

from benchmark.losses.checks import check_non_negative, check_positive
from benchmark.losses.numerics import cosine_similarity


def cosface(embeddings: Tensor, labels: Tensor, proxies: Tensor, *, scale: float, margin: float) -> Tensor:
    """Mean over the batch, a scalar, of the cross entropy of the logits scale (cos_ij - margin [j = y_i]).

    Args:
        embeddings: (B, D), of any norm.
        labels: (B,) int64 in 0..P-1.
        proxies: (P, D), of any norm, row j for label j.
        scale: factor of the cosines, above 0.
        margin: subtracted from the cosine, at least 0.

    Raises:
        UserError: the scale or the margin is out of range.
        ValueError: embeddings or proxies are not matrices.
    """
    check_positive("cosface", scale=scale)
    check_non_negative("cosface", margin=margin)
    cosine = cosine_similarity(embeddings, proxies)  # (B, P)
    own = labels[:, None]
    lowered = cosine.scatter(1, own, cosine.gather(1, own) - margin)
    return functional.cross_entropy(scale * lowered, labels)
