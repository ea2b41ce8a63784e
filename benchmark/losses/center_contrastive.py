"""Center Contrastive Loss (CCL): a softmax over class centres with a margin, plus the distance to the own centre.

Source: Cai, Xiong and Tian, "Center Contrastive Loss for Metric Learning", arXiv 2308.00458, Eq. 5:

    -log [ exp(s (c_y x - m) + 2 lambda c_y x) / (exp(s (c_y x - m)) + sum_{j != y} exp(s c_j x)) ]

for unit vectors x and centres c_j. The authors have published no code, and therefore no issues. The equation was read
in a public reimplementation that quotes it; it fits the paper's abstract, a contrastive loss with a bank of centres
that also reduces the variation within a class. Centres are parameters, as in the reimplementations: the bank is
"updated in real-time" by a gradient step in every iteration.

Departures: the second term is lambda |x - c_y|^2 = lambda (2 - 2 c_y x), which adds the constant 2 lambda; cosines in
float32 under mixed precision (`numerics.py`).
"""

from torch import Tensor
from torch.nn import functional

from benchmark.losses.checks import check_non_negative, check_positive
from benchmark.losses.numerics import cosine_similarity


def center_contrastive(
    embeddings: Tensor, labels: Tensor, proxies: Tensor, *, scale: float, margin: float, center_weight: float
) -> Tensor:
    """Mean over the batch, a scalar, of CosFace plus the weighted squared distance of a sample to its class's centre.

    CosFace is the cross entropy of the logits scale (cos_ij - margin [j = y_i]).

    Args:
        embeddings: (B, D), of any norm.
        labels: (B,) int64 in 0..P-1.
        proxies: (P, D), the centres, of any norm, row j for label j.
        scale: s, factor of the cosines, above 0.
        margin: m, subtracted from the cosine, at least 0.
        center_weight: lambda, factor of the squared distances, at least 0; with 0, this is CosFace.

    Raises:
        UserError: a setting is out of range.
        ValueError: embeddings or proxies are not matrices.
    """
    check_positive("center_contrastive", scale=scale)
    check_non_negative("center_contrastive", margin=margin, center_weight=center_weight)
    cosine = cosine_similarity(embeddings, proxies)  # (B, P)
    own = labels[:, None]
    to_own = cosine.gather(1, own)  # (B, 1)
    contrast = functional.cross_entropy(scale * cosine.scatter(1, own, to_own - margin), labels)
    return contrast + center_weight * (2 - 2 * to_own).mean()
