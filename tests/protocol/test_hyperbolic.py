"""The Poincare ball, compared with plain floats: Moebius addition, arcosh form, finite differences, values by hand."""

import math

import pytest
import torch

from benchmark.core.errors import UserError
from benchmark.protocol.hyperbolic import add_distances, check_ball, hyperbolic_distance, pull_to_rim, to_ball

C, R = 0.1, 2.3


def length(v):
    return math.sqrt(sum(a * a for a in v))


def float_map(u, c=C, r=R):
    """Clip one vector and apply the exponential map, by the formula."""
    shrink = min(1.0, r / (length(u) + 1e-5))
    u = [shrink * a for a in u]
    angle = math.sqrt(c) * max(length(u), 1e-5)
    return [math.tanh(angle) * a / angle for a in u]


def moebius_distance(x, y, c=C):
    """(2 / sqrt(c)) artanh(sqrt(c) |(-x) (+) y|), the sum of vectors written out, with 1e-5 in the denominator."""
    minus = [-a for a in x]
    dot, xx, yy = sum(a * b for a, b in zip(minus, y, strict=True)), length(x) ** 2, length(y) ** 2
    scale_x, scale_y = 1 + 2 * c * dot + c * yy, 1 - c * xx
    bottom = 1 + 2 * c * dot + c * c * xx * yy + 1e-5
    added = [(scale_x * a + scale_y * b) / bottom for a, b in zip(minus, y, strict=True)]
    return 2 / math.sqrt(c) * math.atanh(min(math.sqrt(c) * length(added), 1 - 1e-5))


def arcosh_distance(x, y, c=C):
    """The distance without the 1e-5: arcosh(1 + 2c |x - y|^2 / ((1 - c |x|^2) (1 - c |y|^2))) / sqrt(c)."""
    apart = length([a - b for a, b in zip(x, y, strict=True)]) ** 2
    ratio = 2 * c * apart / ((1 - c * length(x) ** 2) * (1 - c * length(y) ** 2))
    return math.acosh(1 + ratio) / math.sqrt(c)


def vectors(num, dim, seed=0, dtype=torch.float64):
    """Return vectors with norms from 0.01 to 10, some of which are clipped."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(num, dim, generator=generator, dtype=dtype), dim=1)
    return directions * torch.logspace(-2, 1, num, dtype=dtype)[:, None]


def points(num, dim, seed=0, dtype=torch.float64):
    return to_ball(vectors(num, dim, seed, dtype), curvature=C, clip_radius=R)


@pytest.mark.parametrize("curvature", [0.1, 1.0, 0.01])
def test_vectors_are_clipped_and_mapped_like_floats(curvature):
    u = vectors(20, 5)
    expected = [float_map(v, curvature) for v in u.tolist()]
    found = to_ball(u, curvature=curvature, clip_radius=R)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)


def test_the_map_worked_out_by_hand():
    # c = 1, r = 10: artanh(0.6) = ln(1.6 / 0.4) / 2 = ln 2, so a vector of length ln 2 is mapped to norm 0.6.
    u = torch.tensor([[math.log(2) * 0.8, -math.log(2) * 0.6], [0.0, 0.0]], dtype=torch.float64)
    found = to_ball(u, curvature=1.0, clip_radius=10.0)
    torch.testing.assert_close(found, torch.tensor([[0.48, -0.36], [0.0, 0.0]], dtype=torch.float64))


def test_clipped_points_share_a_length_far_from_the_rim():
    # tanh(sqrt(0.1) * 2.3) / sqrt(0.1) = 1.9651, while the ball has radius 3.1623.
    found = to_ball(torch.tensor([[1e4, 0.0], [0.0, -1e15], [3.0, 3.0]]), curvature=C, clip_radius=R).norm(dim=1)
    torch.testing.assert_close(found, torch.full((3,), math.tanh(math.sqrt(C) * R) / math.sqrt(C)), rtol=1e-5, atol=0)
    assert 1.9651 < float(found[0]) < 1.9652


def test_backward_is_the_derivative_of_the_map_times_the_metric_of_the_ball():
    u, weights = vectors(12, 4), torch.randn(12, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    leaf = u.clone().requires_grad_()
    (to_ball(leaf, curvature=C, clip_radius=R) * weights).sum().backward()
    for vector, weight, found in zip(u.tolist(), weights.tolist(), leaf.grad.tolist(), strict=True):
        factor = (1 - C * length(float_map(vector)) ** 2) ** 2 / 4
        for axis in range(4):
            ends = []
            for step in (1e-6, -1e-6):
                moved = [a + step * (i == axis) for i, a in enumerate(vector)]
                ends.append(sum(w * z for w, z in zip(weight, float_map(moved), strict=True)))
            assert found[axis] == pytest.approx(factor * (ends[0] - ends[1]) / 2e-6, rel=1e-6, abs=1e-8)


def test_the_origin_passes_a_quarter_of_the_gradient():
    u = torch.zeros(2, 3, requires_grad=True)
    to_ball(u, curvature=C, clip_radius=R).sum().backward()
    assert torch.equal(u.grad, torch.full((2, 3), 0.25))


def test_distances_are_those_of_moebius_addition_and_almost_those_of_the_arcosh():
    x, y = points(15, 6, seed=1), points(9, 6, seed=2)
    found = hyperbolic_distance(x, y, curvature=C)
    for i, j in ((i, j) for i in range(15) for j in range(9)):
        assert found[i, j].item() == pytest.approx(moebius_distance(x[i].tolist(), y[j].tolist()), rel=1e-12)
        assert found[i, j].item() == pytest.approx(arcosh_distance(x[i].tolist(), y[j].tolist()), rel=1e-4)


def test_distances_worked_out_by_hand():
    # c = 1, from 0: 2 artanh(0.6) = 2 ln 2; from -0.6 to 0.6 twice that; both slightly less because of the 1e-5.
    x = torch.tensor([[0.0], [-0.6]], dtype=torch.float64)
    found = hyperbolic_distance(x, -x[1:], curvature=1.0)
    torch.testing.assert_close(found[:, 0], torch.tensor([2.0, 4.0]).double() * math.log(2), rtol=1e-4, atol=0)
    assert (found[:, 0] < torch.tensor([2.0, 4.0]) * math.log(2)).all()


def test_the_gradient_of_distances_is_that_of_finite_differences():
    x, y = points(5, 3, seed=1).requires_grad_(), points(4, 3, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: hyperbolic_distance(a, b, curvature=C), (x, y))
    assert torch.autograd.gradcheck(lambda a: hyperbolic_distance(a, a, curvature=C).triu(1), (x,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num", [3, 60])  # cdist changes its formula at 25 rows
def test_equal_points_have_distance_0_and_no_gradient(num, dtype):
    row = points(9, 128, dtype=dtype)[5:6]
    x = row.repeat(num, 1).requires_grad_()
    found = hyperbolic_distance(x, x, curvature=C)
    assert (found == 0).all()
    found.sum().backward()
    assert (x.grad == 0).all()
    mixed = torch.cat([row, row, points(2, 128, seed=3, dtype=dtype), torch.zeros(1, 128, dtype=dtype)])
    mixed.requires_grad_()
    found = hyperbolic_distance(mixed, mixed, curvature=C)
    assert (found.diagonal() == 0).all()
    found.sum().backward()
    assert mixed.grad.isfinite().all()
    assert torch.equal(mixed.grad[0], mixed.grad[1])


@pytest.mark.parametrize("apart", [1e-5, 1e-3, 1.0])
def test_float32_keeps_the_digits_of_small_distances_and_their_gradients(apart):
    x = points(100, 128, seed=1, dtype=torch.float32)
    y = x + apart * torch.nn.functional.normalize(torch.randn(100, 128, generator=torch.Generator().manual_seed(2)))
    y = pull_to_rim(y, curvature=C)
    results = []
    for dtype in (torch.float32, torch.float64):
        a, b = x.to(dtype).requires_grad_(), y.to(dtype)
        found = hyperbolic_distance(a, b, curvature=C).diagonal()
        results.append((found.detach().double(), torch.autograd.grad(found.sum(), a)[0].double()))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-5, atol=0)
    error = (results[0][1] - results[1][1]).norm(dim=1) / results[1][1].norm(dim=1)
    assert error.max() < max(1e-5, 1e-6 / apart)  # the gradient, a direction, is ill-conditioned for such points


def test_points_that_differ_in_the_last_bit_have_finite_gradients():
    x = points(60, 16, seed=1, dtype=torch.float32)
    y = torch.nextafter(x, torch.full_like(x, torch.inf)).requires_grad_()
    (hyperbolic_distance(x, y, curvature=C).diagonal().sum()).backward()
    assert y.grad.isfinite().all()
    assert y.grad.norm(dim=1).max() < 100


def test_the_farthest_points_have_finite_distances_and_gradients():
    x = pull_to_rim(torch.tensor([[50.0, 0.0], [-50.0, 0.0], [0.0, 1e30]]), curvature=C).requires_grad_()
    found = hyperbolic_distance(x, x, curvature=C)
    found.sum().backward()
    assert found.max() < 2 / math.sqrt(C) * math.atanh(1 - 1e-5) * 1.001
    assert x.grad.isfinite().all()


def test_inner_points_are_unchanged_and_outer_points_move_to_the_rim():
    inner = points(20, 4, dtype=torch.float32)
    assert torch.equal(pull_to_rim(inner, curvature=C), inner)
    outer = torch.tensor([[30.0, 40.0], [0.0, -3.2]])
    rim = (1 - 1e-3) / math.sqrt(C)
    torch.testing.assert_close(pull_to_rim(outer, curvature=C), torch.tensor([[0.6 * rim, 0.8 * rim], [0.0, -rim]]))


def test_a_wide_map_ends_at_the_rim():
    found = to_ball(torch.tensor([[1e3]]), curvature=1.0, clip_radius=100.0)
    assert found.item() == pytest.approx(1 - 1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast_are_computed_in_float32(dtype):
    u = vectors(30, 8, dtype=torch.float32).to(dtype)
    z = to_ball(u.float(), curvature=C, clip_radius=R)
    apart = hyperbolic_distance(z, z, curvature=C)
    assert torch.equal(to_ball(u, curvature=C, clip_radius=R), z)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(to_ball(u, curvature=C, clip_radius=R), z)
        assert torch.equal(hyperbolic_distance(z, z, curvature=C), apart)
    assert z.dtype == apart.dtype == torch.float32


@pytest.mark.parametrize("parts", [1, 3])
def test_summed_distances_are_sums_of_distances(parts):
    x, y = (torch.cat([points(num, 4, seed=s + part) for part in range(parts)], 1) for num, s in ((3, 1), (4100, 9)))
    out = torch.full((3, 4100), 5.0, dtype=torch.float64)
    add_distances(out, x, y, curvature=C, parts=parts)
    for i in range(3):
        for j in (*range(0, 4100, 97), 4095, 4096, 4099):
            slices = [(x[i, 4 * p : 4 * p + 4].tolist(), y[j, 4 * p : 4 * p + 4].tolist()) for p in range(parts)]
            assert out[i, j].item() == pytest.approx(5 + sum(moebius_distance(a, b) for a, b in slices), rel=1e-9)


@pytest.mark.parametrize("bad", [0.0, -0.1, math.inf, math.nan])
def test_invalid_settings_of_the_ball_are_refused(bad):
    with pytest.raises(UserError, match=f"curvature={bad} of the Poincare ball"):
        check_ball(bad)
    with pytest.raises(UserError, match=f"clip_radius={bad} of the Poincare ball"):
        check_ball(0.1, bad)
