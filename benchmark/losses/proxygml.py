"""ProxyGML as a pure function: a softmax over the classes of the few proxies nearest to a sample.

Source: Zhu, Yang, Deng and Liu, "Fewer is More: A Deep Graph Metric Learning Perspective Using Fewer Proxies", NeurIPS
2020, arXiv 2010.13636, Section 3, and the authors' code, whose r and lambda are r and reg_weight here. The released
code has no temperature: a class's vote is a sum of at most N cosines, so one proxy per class never comes near
certainty. In the repository's issue 2, its author confirms that the cosines were multiplied by 20 on SOP, a line that
the release lacks; `scale` is this factor.

Departures from the authors' code:
- embeddings are normalised here. The authors' network does it before the loss;
- a sample keeps at least one proxy of another class. Where ceil(r C N) <= N, theirs keeps none and the gradient is 0
  (and below N it drops proxies of the own class); `replicate_k=True` restores that;
- a class takes part in the softmax if one of its proxies is kept; in theirs, if its vote is not exactly 0;
- equally similar proxies are kept in the order of their index, whereas theirs leaves the order to the device's `topk`;
- their two epsilons are kept, because one of them changes values, but as terms of log-sum-exps;
- the regulariser multiplies proxies with the classes' sums of proxies, (C N, C), where theirs multiplies all proxies
  with each other, (C N, C N), and processes the rows in chunks.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from benchmark.core.errors import UserError
from benchmark.losses.checks import check_non_negative, check_positive
from benchmark.losses.numerics import BackwardContext, cosine_similarity

CHUNK = 2**22  # entries of a chunk of the regulariser's matrix
DENOMINATOR_EPSILON, PROBABILITY_EPSILON = 1e-8, 1e-20


def proxygml(
    embeddings: Tensor,
    labels: Tensor,
    proxies: Tensor,
    *,
    r: float,
    reg_weight: float = 0.0,
    scale: float = 1.0,
    replicate_k: bool = False,
) -> Tensor:
    """Mean of -log(1e-20 + p_i), plus reg_weight times the cross entropy of the proxies among themselves, a scalar.

    Of the C N proxies a sample keeps k: the N of its own class, then the most similar ones. With Z_c the sum of its
    cosines with the kept proxies of class c, times scale, p = exp(Z_own) / (1e-8 + sum exp(Z_c) over the classes with
    a kept proxy).
    The regulariser is the mean over proxies of CE(cosines summed per class, own class), the proxy itself included.

    Easily got wrong: votes are sums, not means; classes without a kept proxy have no vote, not the vote 0.

    Args:
        embeddings: (B, D), of any norm.
        labels: (B,) int64 in 0..C-1.
        proxies: (C, N, D), of any norm; (C, D) is N = 1.
        r: fraction of the proxies to keep, in (0, 1]; k = max(ceil(r C N), N + 1), at most C N.
        reg_weight: lambda, at least 0; 0 skips the regulariser.
        scale: factor of the cosines of samples with proxies, above 0.
        replicate_k: whether k is the authors' ceil(r C N), even if that is N or less.

    Raises:
        UserError: a setting is out of range.
    """
    if not 0 < r <= 1:
        raise UserError(f"r={r} of proxygml is the share of proxies that a sample keeps; set it within (0, 1].")
    check_non_negative("proxygml", reg_weight=reg_weight)
    check_positive("proxygml", scale=scale)
    by_class = proxies.reshape(len(proxies), -1, proxies.shape[-1])
    C, N, _ = by_class.shape
    k = math.ceil(r * C * N)
    if not replicate_k:
        k = min(max(k, N + 1), C * N)
    similarity = cosine_similarity(embeddings, by_class.flatten(0, 1))  # (B, C N)
    own = labels[:, None] == torch.arange(C, device=labels.device)  # (B, C)
    kept = _nearest(similarity.detach(), own.repeat_interleave(N, dim=1), k).view(-1, C, N)
    votes = scale * (similarity.view(-1, C, N) * kept).sum(dim=2)
    votes = votes.masked_fill(~kept.any(dim=2), -torch.inf)  # (B, C)
    in_denominator = votes.new_full((len(votes), 1), math.log(DENOMINATOR_EPSILON))
    total = torch.cat([votes, in_denominator], dim=1).logsumexp(dim=1)
    log_probability = votes.gather(1, labels[:, None]).squeeze(1) - total
    loss = -torch.logaddexp(log_probability, log_probability.new_full((), math.log(PROBABILITY_EPSILON))).mean()
    if reg_weight > 0:
        unit = functional.normalize(by_class.to(similarity.dtype), dim=-1)
        with torch.autocast(unit.device.type, enabled=False):
            loss = loss + reg_weight * _ProxyCrossEntropy.apply(unit)
    return loss


def _nearest(similarity: Tensor, own: Tensor, k: int) -> Tensor:
    """Mask (B, P) of the k proxies kept for each sample: those of its class first, then by similarity, then by index.

    Args:
        similarity: (B, P) cosines.
        own: (B, P) bool, whether a proxy is of the sample's class.
        k: proxies to keep, at most P.
    """
    rank = similarity + 4 * own  # cosines span 2
    last = rank.topk(k, dim=1, sorted=False).values.amin(dim=1, keepdim=True)
    tied, room = rank == last, k - (rank > last).sum(dim=1, keepdim=True)
    too_late = tied & (tied.cumsum(dim=1) > room)
    return ~(too_late | (rank < last))  # negated, since every comparison with NaN is false: NaN is kept and not hidden


class _ProxyCrossEntropy(torch.autograd.Function):
    """Mean over all proxies, unit vectors (C, N, D), of the cross entropy of their cosines summed per class.

    The forward pass also computes the gradient, so that no (C N, C) matrix is kept for the backward pass. With S the
    summed cosines and G = softmax(S) - one_hot(own), it is G times the classes' sums plus, for every proxy of a class,
    G^T times the proxies.
    """

    @staticmethod
    def forward(ctx: BackwardContext, unit: Tensor) -> Tensor:
        """(C, N, D) -> a scalar."""
        C, N, _ = unit.shape
        proxies, sums = unit.flatten(0, 1), unit.sum(dim=1)  # (C N, D), (C, D)
        own = torch.arange(C, device=unit.device).repeat_interleave(N)[:, None]
        total, gradient, gradient_of_sums = unit.new_zeros(()), torch.empty_like(proxies), torch.zeros_like(sums)
        rows = max(1, CHUNK // C)
        for some in (slice(start, start + rows) for start in range(0, C * N, rows)):
            log_softmax = (proxies[some] @ sums.T).log_softmax(dim=1)
            of_own = log_softmax.gather(1, own[some])
            total -= of_own.sum()
            slope = log_softmax.exp_().scatter_(1, own[some], of_own.expm1())
            gradient[some] = slope @ sums
            gradient_of_sums.addmm_(slope.T, proxies[some])
        ctx.save_for_backward((gradient.view_as(unit) + gradient_of_sums[:, None]) / (C * N))
        return total / (C * N)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: BackwardContext, gradient: Tensor) -> Tensor:
        """A scalar -> (C, N, D)."""
        return ctx.saved_tensors[0] * gradient
