"""The Poincare ball of curvature -c: mapping vectors to points, and distances between points.

Source: Ganea, Becigneul and Hofmann, "Hyperbolic Neural Networks", NeurIPS 2018, arXiv 1805.09112 (Moebius addition,
distance, exponential map at 0); Ermolov et al., "Hyperbolic Vision Transformers", CVPR 2022, arXiv 2203.10833 (feature
clipping); Nickel and Kiela, "Poincare Embeddings", NIPS 2017, arXiv 1705.08039, Eq. 4 (gradient of the ball). Constants
are those of the code of Kim, Jeong and Kwak, "HIER", CVPR 2023, arXiv 2212.14258, including the 1e-5 in Moebius
addition.

Moebius addition in closed form. With g(v) = 1 - c |v|^2 the textbook denominator 1 - 2c<x, y> + c^2 |x|^2 |y|^2 is

    Z = c |x - y|^2 + g(x) g(y),   and its numerator has the squared length  |x - y|^2 Z,

so that |(-x) (+) y| = |x - y| sqrt(Z) / (Z + 1e-5). Norms and a matrix of distances suffice, without an (N, M, D)
tensor, and no digits cancel where x is near y, provided that |x - y| is accurate there.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.linalg import vector_norm

from benchmark.core.errors import UserError

MARGIN = 1e-5  # lower bound of norms; arguments of artanh are at most 1 minus this
RIM = 1 - 1e-3  # largest distance of a point from the centre, as a fraction of the radius


def check_ball(curvature: float, clip_radius: float = 1.0) -> None:
    """Check the settings of a Poincare ball.

    Args:
        curvature: c; the radius is 1 / sqrt(c).
        clip_radius: largest norm of a vector before it is mapped.

    Raises:
        UserError: a value is not finite or not above 0.
    """
    for name, value in {"curvature": curvature, "clip_radius": clip_radius}.items():
        if not (value > 0 and math.isfinite(value)):
            raise UserError(f"{name}={value} of the Poincare ball must be finite and above 0; HIER has 0.1 and 2.3.")


def to_ball(vectors: Tensor, *, curvature: float, clip_radius: float) -> Tensor:
    """Map vectors to points (N, D) of the ball by `exponential_map`, with the gradient of HIER.

    Easily got wrong: in the backward pass, the gradient of a point z is first multiplied by (1 - c |z|^2)^2 / 4, the
    inverse of the ball's metric. This is part of the method, not of the derivative of the map.

    Args:
        vectors: (N, D), of any norm and floating type; computed in at least float32, also under autocast.
        curvature: c, above 0; the ball has radius 1 / sqrt(c).
        clip_radius: r, above 0; longer vectors are scaled to this norm.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        points = exponential_map(vectors, curvature=curvature, clip_radius=clip_radius)
        mapped: Tensor = _RiemannianGradient.apply(points, curvature)
        return mapped


def exponential_map(vectors: Tensor, *, curvature: float, clip_radius: float) -> Tensor:
    """Map vectors to points (N, D) of the ball: clip u to norm r, then tanh(sqrt(c) |u|) u / (sqrt(c) |u|).

    Args:
        vectors: (N, D), of any norm and floating type; computed in at least float32, also under autocast.
        curvature: c, above 0; the ball has radius 1 / sqrt(c).
        clip_radius: r, above 0; longer vectors are scaled to this norm.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        vectors = _at_least_float32(vectors)
        lengths = vector_norm(vectors, dim=1, keepdim=True)
        vectors = vectors * (clip_radius / (lengths + MARGIN)).clamp(max=1)
        angles = math.sqrt(curvature) * vector_norm(vectors, dim=1, keepdim=True).clamp(min=MARGIN)
        return pull_to_rim(vectors * (angles.tanh() / angles), curvature=curvature)


def pull_to_rim(points: Tensor, *, curvature: float) -> Tensor:
    """Return the points (N, D) in at least float32, with those beyond the rim projected radially onto it."""
    points = _at_least_float32(points)
    lengths = vector_norm(points, dim=1, keepdim=True)
    pulled: Tensor = points * (RIM / math.sqrt(curvature) / lengths.clamp(min=MARGIN)).clamp(max=1)
    return pulled


def hyperbolic_distance(x: Tensor, y: Tensor, *, curvature: float) -> Tensor:
    """Distances (N, M) of points (N, D) and (M, D): (2 / sqrt(c)) artanh(sqrt(c) |(-x) (+) y|).

    Equal points have distance 0 and no gradient. Computed in at least float32, also under autocast.

    Args:
        x: (N, D) points of the ball.
        y: (M, D) points of the ball.
        curvature: c, above 0.
    """
    with torch.autocast(x.device.type, enabled=False):
        x, y = _at_least_float32(x), _at_least_float32(y)
        x_squares, y_squares = x.square().sum(dim=1, keepdim=True), y.square().sum(dim=1)
        expanded = x_squares + y_squares - 2 * x @ y.T  # correct gradient; the value may have lost all of its digits
        exact = torch.cdist(x.detach(), y.detach(), compute_mode="donot_use_mm_for_euclid_dist").square()
        return distance_from_squares(exact + (expanded - expanded.detach()), x_squares, y_squares, curvature=curvature)


def add_distances(out: Tensor, x: Tensor, y: Tensor, *, curvature: float, parts: int) -> None:
    """Add to `out` (N, M) the sum of the distances between F pairs of points; a row of x or y holds F points.

    Columns are processed a few thousand at a time, so even a long y needs little extra memory. Products are computed in
    float64.

    Args:
        out: (N, M) of any floating type.
        x: (N, F D), F points of the ball per row.
        y: (M, F D), F points of the ball per row.
        curvature: c, above 0.
        parts: F, points per row.
    """
    columns = out.split(4096, dim=1)
    for x_part, y_part in zip(x.double().chunk(parts, dim=1), y.chunk(parts, dim=1), strict=True):
        x_squares = x_part.square().sum(dim=1, keepdim=True)
        for target, points in zip(columns, y_part.split(4096), strict=True):
            points = points.double()
            y_squares = points.square().sum(dim=1)
            squared = torch.addmm(x_squares + y_squares, x_part, points.T, alpha=-2)
            squares = [values.to(out.dtype) for values in (squared, x_squares, y_squares)]
            target += distance_from_squares(*squares, curvature=curvature)


def distance_from_squares(squared: Tensor, x_squares: Tensor, y_squares: Tensor, *, curvature: float) -> Tensor:
    """Hyperbolic distances (N, M) from squared lengths.

    Args:
        squared: (N, M), |x - y|^2.
        x_squares: (N, 1), |x|^2.
        y_squares: (M,), |y|^2.
        curvature: c, above 0.
    """
    scaled, distinct = curvature * squared, squared > 0
    z = scaled + (1 - curvature * x_squares) * (1 - curvature * y_squares)
    sine = torch.where(distinct, scaled * z, 1).sqrt()  # the square root has no finite derivative at 0
    argument = torch.where(distinct, sine / (z + MARGIN), 0).clamp(max=1 - MARGIN)
    return argument.atanh() * (2 / math.sqrt(curvature))


class _RiemannianGradient(torch.autograd.Function):
    """The identity, whose gradient is multiplied by ((1 - c |z|^2) / 2)^2."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, curvature: float) -> Tensor:
        ctx.save_for_backward(points)
        ctx.curvature = curvature
        return points.view_as(points)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (points,) = ctx.saved_tensors
        gap = 1 - ctx.curvature * points.square().sum(dim=1, keepdim=True)
        return gradients[0] * (gap / 2).square(), None


def _at_least_float32(vectors: Tensor) -> Tensor:
    return vectors.to(torch.promote_types(vectors.dtype, torch.float32))
