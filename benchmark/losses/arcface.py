"""ArcFace: a softmax over cosines that adds a margin to the angle of the sample's own class.

Source: Deng, Guo, Xue and Zafeiriou, "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", CVPR 2019,
arXiv 1801.07698, Eq. 3; searched over by the Reality Check, arXiv 2003.08505.

What Eq. 3 leaves open, and departures:
- cos(angle + m) increases again beyond angle = pi - m, which would reward the worst samples. There the logit of the
  sample's own class is cos(angle) - m sin(m) instead, as in the authors' code and in pytorch-metric-learning 2; for
  margins up to 90 degrees it drops at pi - m. The version of the library that the Reality Check used had no such rule:
  `fallback=False`, which the protocol mlrc_2020 takes;
- the arc cosine's slope is infinite at +-1. Beyond +-(1 - eps), where eps is the machine epsilon, the angle is clamped
  and passes no gradient back;
- the margin is in degrees, as in the library;
- cosines in float32 under mixed precision (`numerics.py`).
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from benchmark.core.errors import UserError
from benchmark.losses.checks import check_positive
from benchmark.losses.numerics import cosine_similarity


def arcface(
    embeddings: Tensor, labels: Tensor, proxies: Tensor, *, scale: float, margin: float, fallback: bool = True
) -> Tensor:
    """Mean over the batch, a scalar, of the cross entropy of the logits scale cos(angle_ij + margin [j = y_i]).

    Args:
        embeddings: (B, D), of any norm.
        labels: (B,) int64 in 0..P-1.
        proxies: (P, D), of any norm, row j for label j.
        scale: factor of the cosines, above 0.
        margin: m, added to the angle, in degrees from 0 to 180.
        fallback: whether the logit of the sample's own class keeps decreasing beyond the angle 180 - m.

    Raises:
        UserError: the scale or the margin is out of range.
        ValueError: embeddings or proxies are not matrices.
    """
    check_positive("arcface", scale=scale)
    if not 0 <= margin <= 180:
        raise UserError(f"margin={margin} of arcface must lie in 0..180: it is an angle in degrees.")
    cosine = cosine_similarity(embeddings, proxies)  # (B, P)
    own = labels[:, None]
    own_cosine = cosine.gather(1, own)  # (B, 1)
    limit = 1 - torch.finfo(cosine.dtype).eps
    angle = own_cosine.clamp(-limit, limit).acos()
    m = math.radians(margin)
    widened = (angle + m).cos()
    if fallback:
        widened = widened.where(angle <= math.pi - m, own_cosine - m * math.sin(m))
    return functional.cross_entropy(scale * cosine.scatter(1, own, widened), labels)
