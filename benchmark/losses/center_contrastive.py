"""Center Contrastive Loss (CCL): a softmax over class centres with a margin, plus the distance to the own centre.

Source: Cai, Xiong and Tian, "Center Contrastive Loss for Metric Learning", arXiv 2308.00458, Eq. 5:

    -log [ exp(s (c_y x - m) + 2 lambda c_y x) / (exp(s (c_y x - m)) + sum_{j != y} exp(s c_j x)) ]

for unit vectors x and centres c_j. The authors have published no code, and therefore no issues, and the paper itself
could not be read. What rests on what:

- the equation: two independent reimplementations that cite it as Eq. 5, and agree. One quotes it as above, the other
  (dmmiller597/contrasted, commit 6b48e22) adds lambda |x - c_y|^2 to CosFace, and says that the paper drops the
  constant. A third, which quotes nothing, has a softmax with a temperature and without the second term;
- centres as parameters, moved by the gradient of every step: all three. The abstract says that the bank is updated in
  real time;
- s = 64, m = 0.2 and lambda = 1: defaults of the first. The second has 16, 0 and 2, with smoothed labels.

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
