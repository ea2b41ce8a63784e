"""Potential field metric learning (PFML): samples and proxies attract their own class and repel the others.

Source: Bhatnagar and Ahuja, "Potential Field Based Deep Metric Learning", CVPR 2025, arXiv 2405.18560, Section 3. With
d the distance of two unit vectors,

    attraction  psi(d) = -1/delta^alpha if d < delta, else -1/d^alpha     (same class; no force within delta)
    repulsion   psi(d) =  1/d^alpha if d < delta, else 1/delta^alpha      (other class; no force beyond delta)

and a class's field at a point is the sum over all samples of the batch and all proxies. The loss is the total energy,
the sum of the fields of their own classes at all samples and at all proxies, so that every pair counts twice.

The authors have published no code, and therefore no issues, and the paper itself could not be read. What rests on what:

- which points there are, the sum of their fields, and the sum of the fields' values at samples and proxies: the project
  page of the authors (shubhangb97.github.io, commit faa61e8), in words;
- both potentials (Eqs. 1 and 2) and the total energy (Eq. 6): two reimplementations that quote them and agree. One is
  CausalityHQ/sfora, commit 1f83490, which has compared its signs, branches and ordered pairs with paper and supplement,
  and tests them by hand; the other, a loss of pytorch-metric-learning, averages over pairs, and leaves out the energy
  of the proxies that its docstring quotes;
- unit vectors, of proxies too: both reimplementations. The first says that the paper does not settle it.

What the paper leaves open, and departures:
- the energy is counted from the plateau of the repulsion, in units of 1/delta^alpha, per sample of the batch. This
  subtracts a constant and multiplies by (delta^alpha)/B, without which float32 has no digits left for what changes;
- the repulsion of two coincident points is infinite. Within `core`, it continues along its tangent in d^2;
- a point's potential at its own place is left out: a constant;
- how proxies start is not said; see the YAML.
"""

import torch
from torch import Tensor
from torch.nn import functional

from benchmark.core.errors import UserError
from benchmark.losses.checks import check_non_negative, check_positive
from benchmark.losses.numerics import BackwardContext, at_least_float32
from benchmark.losses.pairs import pairs_of

PAIRS_AT_ONCE = 2**22  # pairs of points in memory at a time


def potential_field(
    embeddings: Tensor, labels: Tensor, proxies: Tensor, *, alpha: float, delta: float, core: float = 0.01
) -> Tensor:
    """Energy of the samples and the proxies in each other's fields, per sample, a scalar.

    Sum over ordered pairs of two points, divided by B, of -(delta / max(d, delta))^alpha in the same class and of
    (delta / min(d, delta))^alpha - 1 in different classes.

    Easily got wrong: proxies also attract and repel each other, and a batch's samples do, too.

    Args:
        embeddings: (B, D), of any norm.
        labels: (B,) int64 in 0..C-1.
        proxies: (C, M, D), of any norm, rows j for label j; (C, D) is M = 1.
        alpha: decay of the field, at least 0; with 0, there is no force.
        delta: distance of unit vectors within which attraction ends and beyond which repulsion ends, above 0.
        core: distance below which the repulsion grows no steeper, above 0 and at most delta.

    Raises:
        UserError: a setting is out of range.
    """
    check_non_negative("potential_field", alpha=alpha)
    check_positive("potential_field", delta=delta, core=core)
    if core > delta:
        raise UserError(f"core={core} of potential_field must be at most delta={delta}.")
    embeddings = at_least_float32(embeddings)
    with torch.autocast(embeddings.device.type, enabled=False):
        samples = functional.normalize(embeddings, dim=1)  # (B, D)
        by_class = functional.normalize(proxies.to(samples.dtype), dim=-1).view(len(proxies), -1, proxies.shape[-1])
        own = (by_class[labels] @ samples[:, :, None]).squeeze(2)  # (B, M)
        same, _ = pairs_of(labels)
        siblings = ~torch.eye(by_class.shape[1], dtype=torch.bool, device=samples.device)  # (M, M)
        attraction = (
            (_attraction(samples @ samples.mT, alpha, delta) * same).sum()
            + 2 * _attraction(own, alpha, delta).sum()
            + (_attraction(by_class @ by_class.mT, alpha, delta) * siblings).sum()
        )
        classes = torch.arange(len(by_class), device=labels.device)
        owners = torch.cat([labels, classes.repeat_interleave(by_class.shape[1])])  # (N,)
        points = torch.cat([samples, by_class.flatten(0, 1)])  # (N, D)
        repulsion: Tensor = _Repulsion.apply(points, owners.int(), alpha, delta, core)
        return (attraction + repulsion) / len(labels)


def _attraction(cosine: Tensor, alpha: float, delta: float) -> Tensor:
    """Potentials of pairs of one class, of any shape."""
    return -(delta**2 / (2 - 2 * cosine).clamp(min=delta**2)).pow(alpha / 2)


class _Repulsion(torch.autograd.Function):
    """Sum of the potentials of ordered pairs of unit vectors (N, D) with different labels (N,), a few rows at a time.

    The gradient is computed with the value, because both need the pairs, N^2 of them. With s = d^2 = 2 - 2 cos, it is
    -4 sum_j psi'(s_ij) u_j at u_i: each pair counts twice, and ds_ij / du_i = -2 u_j.
    """

    @staticmethod
    def forward(
        ctx: BackwardContext, points: Tensor, owners: Tensor, alpha: float, delta: float, core: float
    ) -> Tensor:
        """(N, D), (N,) -> ()."""
        low, high = core**2, delta**2
        energy, gradient = points.new_zeros(()), torch.zeros_like(points)
        size = max(1, PAIRS_AT_ONCE // len(points))
        for start in range(0, len(points), size):
            end = start + size
            rows, others = points[start:end], points[start:]  # those before have met the rows
            same = owners[start:end, None] == owners[start:]
            squared = (rows @ others.mT).mul_(-2).add_(2).masked_fill_(same, high).clamp_(max=high)
            if squared.is_cpu and bool((squared == high).all()):  # no other class is near; a GPU would have to wait
                continue
            reach = squared.clamp(min=low)
            power = (high / reach).pow_(alpha / 2)
            slope = (power / reach).mul_(alpha / 2)  # -psi'(s)
            potential = power - 1 + slope * (reach - squared)
            energy += 2 * potential.sum() - potential[:, :size].sum()  # pairs of two rows are there in both orders
            slope.mul_(squared < high)
            gradient[start:end] += slope @ others
            gradient[end:] += slope[:, size:].mT @ rows
        ctx.save_for_backward(gradient.mul_(4))
        return energy

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: BackwardContext, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        """() -> (N, D)."""
        (of_energy,) = ctx.saved_tensors
        return gradient * of_energy, None, None, None, None
