"""CosFace: a softmax over cosines whose own cosine is lowered by a margin.

Source: Wang, Wang, Zhou, Ji, Gong, Zhou, Li and Liu, "CosFace: Large Margin Cosine Loss for Deep Face Recognition",
CVPR 2018, arXiv 1801.09414, Eq. 4; searched over by the Reality Check, arXiv 2003.08505.

Departure: cosines in float32 under mixed precision (`cosine.py`), since a scale of 100 multiplies their rounding.
"""

import math

from torch import Tensor
from torch.nn import functional

from benchmark.losses.cosine import cosine_similarity


def cosface(embeddings: Tensor, labels: Tensor, proxies: Tensor, *, scale: float, margin: float) -> Tensor:
    """Mean over the batch of the cross entropy of the logits scale (cos_ij - margin [j = y_i]).

    Args:
        embeddings: (B, D), of any length.
        labels: (B,) int64 in 0..P-1.
        proxies: (P, D), of any length, row j for label j.
        scale: of the cosine, above 0.
        margin: on the cosine, at least 0.

    Raises:
        ValueError: the scale or the margin is not allowed.
    """
    if not (scale > 0 and math.isfinite(scale)):
        raise ValueError(f"scale={scale} of cosface must be a finite number above 0; set a larger scale.")
    if not (margin >= 0 and math.isfinite(margin)):
        raise ValueError(f"margin={margin} of cosface must be a finite number of at least 0; set a larger margin.")
    cosine = cosine_similarity(embeddings, proxies)  # (B, P)
    own = labels[:, None]
    lowered = cosine.scatter(1, own, cosine.gather(1, own) - margin)
    return functional.cross_entropy(scale * lowered, labels)
