"""Normalized Softmax: the cross entropy of cosines over a temperature.

Source: Zhai and Wu, "Classification is a Strong Baseline for Deep Metric Learning", BMVC 2019, arXiv 1811.12649,
Section 3; Wang, Xiang, Cheng and Yuille, "NormFace", ACM MM 2017, arXiv 1704.06369, whose scale is 1/T; searched over
by the Reality Check, arXiv 2003.08505.

Departures:
- Zhai and Wu's layer normalisation, class-balanced sampling and binary codes are not part of the loss, nor of what the
  Reality Check compared;
- cosines in float32 under mixed precision (`numerics.py`).
"""

from torch import Tensor
from torch.nn import functional

from benchmark.losses.checks import check_positive
from benchmark.losses.numerics import cosine_similarity


def normalized_softmax(embeddings: Tensor, labels: Tensor, proxies: Tensor, *, temperature: float) -> Tensor:
    """Mean over the batch, a scalar, of the cross entropy of the logits cos_ij / T.

    Args:
        embeddings: (B, D), of any norm.
        labels: (B,) int64 in 0..P-1.
        proxies: (P, D), of any norm, row j for label j.
        temperature: T, above 0; a smaller T gives the nearest proxies more weight.

    Raises:
        UserError: the temperature is not a finite number above 0.
        ValueError: embeddings or proxies are not matrices.
    """
    check_positive("normalized_softmax", temperature=temperature)
    return functional.cross_entropy(cosine_similarity(embeddings, proxies) / temperature, labels)
