"""SoftTriple: a softmax over classes with several centres each.

Source: Qian, Shang, Sun, Hu, Li and Jin, "SoftTriple Loss: Deep Metric Learning Without Triplet Sampling", ICCV 2019,
arXiv 1909.05235, Section 3, and the authors' code, whose names of settings are kept.

Departures:
- embeddings are normalised here. The authors' network does it before the loss; the loss itself does not;
- the regulariser multiplies the K centres of one class, never all C K centres with each other (51 GB at C = 11318,
  K = 10);
- similarities in float32 under mixed precision, and a backward pass written out below, which stores one (K, B, C)
  tensor, whereas automatic differentiation stores two and needs three more;
- `root_epsilon=0` gives the distance of two centres without the authors' 1e-5 under the root, as in
  pytorch-metric-learning's SparseCentersRegularizer. Coincident centres then neither attract nor repel each other.

`reg_weight` is the authors' tau and the library's `weight_reg_weight`. At the time of the Reality Check, the library
divided by half as much: a weight r there is 2 r here.
"""

import torch
from torch import Tensor
from torch.nn import functional

from benchmark.losses.checks import check_non_negative, check_positive
from benchmark.losses.numerics import BackwardContext, at_least_float32


def soft_triple(
    embeddings: Tensor,
    labels: Tensor,
    centres: Tensor,
    *,
    la: float,
    gamma: float,
    margin: float,
    reg_weight: float = 0.0,
    root_epsilon: float = 1e-5,
) -> Tensor:
    """Cross entropy of la (S_ic - margin [c = y_i]) plus reg_weight times the spread of each class's centres, a scalar.

    S_ic = sum_k p_k cos_ick, with p = softmax_k(cos_ick / gamma). The regulariser is the sum over classes and pairs
    k < l of sqrt(root_epsilon + 2 - 2 cos(w_ck, w_cl)), divided by C K (K - 1). This is half the mean distance;
    minimising it merges centres.

    Args:
        embeddings: (B, D), of any norm.
        labels: (B,) int64 in 0..C-1.
        centres: (C, K, D), of any norm; (C, D) is K = 1.
        la: factor of the similarity, above 0.
        gamma: temperature of the pooling, above 0; near 0 only the nearest centre of a class counts, large values
            average all of its centres.
        margin: subtracted from the similarity, at least 0.
        reg_weight: tau, at least 0; no effect for K = 1.
        root_epsilon: added under the regulariser's root, at least 0.

    Raises:
        UserError: a setting is out of range.
    """
    check_positive("soft_triple", la=la, gamma=gamma)
    check_non_negative("soft_triple", margin=margin, reg_weight=reg_weight, root_epsilon=root_epsilon)
    embeddings = at_least_float32(embeddings)
    with torch.autocast(embeddings.device.type, enabled=False):
        unit = functional.normalize(embeddings, dim=1)
        by_centre = functional.normalize(centres.to(unit.dtype), dim=-1).view(len(centres), -1, centres.shape[-1])
        similarity = unit @ by_centre.permute(1, 2, 0)  # (K, B, C)
        pooled = _SoftMaximum.apply(similarity, gamma)  # (B, C)
        own = labels[:, None]
        loss = functional.cross_entropy(la * pooled.scatter(1, own, pooled.gather(1, own) - margin), labels)
        if reg_weight > 0 and by_centre.shape[1] > 1:
            loss = loss + reg_weight * _centre_distance(by_centre, root_epsilon)
    return loss


def _centre_distance(unit_centres: Tensor, epsilon: float) -> Tensor:
    """Sum of the distances between centres (C, K, D) of one class, divided by C K (K - 1), a scalar."""
    C, K, _ = unit_centres.shape
    squared = 2 * (1 - unit_centres @ unit_centres.mT) + epsilon  # (C, K, K)
    apart = squared > 0  # rounding can push squares below 0, and a root at 0 has no finite slope
    return squared.where(apart, 1).sqrt().mul(apart).triu(1).sum() / (C * K * (K - 1))


class _PoolingContext(BackwardContext):
    gamma: float


class _SoftMaximum(torch.autograd.Function):
    """sum_k p_k s_k (B, C) with p = softmax_k(s_k / gamma), for similarities (K, B, C).

    Its derivative by s_k is p_k (1 + (s_k - sum_l p_l s_l) / gamma).
    """

    @staticmethod
    def forward(ctx: _PoolingContext, similarity: Tensor, gamma: float) -> Tensor:
        """(K, B, C) -> (B, C)."""
        pooled = (similarity / gamma).softmax(0).mul_(similarity).sum(0)
        ctx.save_for_backward(similarity, pooled)
        ctx.gamma = gamma
        return pooled

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: _PoolingContext, gradient: Tensor) -> tuple[Tensor, None]:
        """(B, C) -> (K, B, C)."""
        similarity, pooled = ctx.saved_tensors
        weight = (similarity / ctx.gamma).softmax(0)
        slope = (similarity - pooled).div_(ctx.gamma).add_(1)
        return slope.mul_(weight).mul_(gradient), None
