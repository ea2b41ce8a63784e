"""Distances for the library's losses, compared with plain Python: float32, half precision and duplicates."""

import math

import pytest
import torch

from benchmark.losses.distances import Euclidean
from tests.losses.pair_loops import distances


def near_duplicates(num=40, dim=16):
    """Return float32 rows in pairs about 2e-5 apart, with norms from 0.1 to 10; the first two are equal."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(num // 2, dim, generator=generator).repeat_interleave(2, dim=0)
    rows[3::2] += 1e-4 / 4 * torch.randn(num // 2 - 1, dim, generator=generator)
    return rows * torch.logspace(-1, 1, num // 2).repeat_interleave(2)[:, None]


def test_euclidean_agrees_with_python_near_zero_beyond_25_rows_in_float32():
    rows = near_duplicates()
    expected = torch.tensor(distances(rows.double()))
    assert 1e-5 < expected[2, 3] < 1e-4
    torch.testing.assert_close(Euclidean()(rows), expected.float(), rtol=0, atol=3e-7)  # a few rounding errors of 6e-8


def test_power_two_squares_the_distance(batch):
    expected = torch.tensor(distances(batch[0]), dtype=torch.float64) ** 2
    torch.testing.assert_close(Euclidean(power=2)(batch[0]), expected)


@pytest.mark.parametrize("power", [1, 2])
def test_equal_rows_have_distance_zero_and_gradient_zero(power):
    rows = near_duplicates().requires_grad_()
    distance = Euclidean(power=power)(rows)
    assert distance.diagonal().abs().max() == 0
    assert distance[0, 1] == 0
    (gradient,) = torch.autograd.grad(distance.diagonal().sum() + distance[0, 1], rows)
    assert gradient.abs().max() == 0


def test_gradient_between_near_duplicates_points_along_their_difference():
    # Unit rows a and b: d|a - b|/db = (b - a)/|b - a|, of length 1, and almost tangent, so normalising keeps it.
    a = torch.nn.functional.normalize(near_duplicates()[2:4].double(), dim=1)
    rows = torch.cat([a.float(), near_duplicates()]).requires_grad_()
    (gradient,) = torch.autograd.grad(Euclidean()(rows)[0, 1], rows)
    direction = torch.nn.functional.normalize(rows.detach()[1].double() - rows.detach()[0].double(), dim=0)
    torch.testing.assert_close(gradient[1].double(), direction, rtol=0, atol=5e-3)


def test_gradients_agree_with_finite_differences(batch):
    assert torch.autograd.gradcheck(
        lambda e: Euclidean()(e)[~torch.eye(9, dtype=torch.bool)], batch[0].requires_grad_()
    )


def test_queries_and_references_may_differ(batch):
    queries, references = batch[0][:3], batch[0][2:]
    torch.testing.assert_close(Euclidean()(queries, references), Euclidean()(batch[0])[:3, 2:])


def test_autocast_changes_no_bit(batch):
    rows = batch[0].float()
    plain = Euclidean()(rows)
    with torch.autocast("cpu", torch.bfloat16):
        cast, double = Euclidean()(rows), Euclidean()(batch[0])
    assert torch.equal(plain, cast)
    assert double.dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rows_are_normalised_and_compared_in_float32(batch, dtype):
    rows = batch[0].to(dtype).requires_grad_()
    result = Euclidean()(rows)
    assert result.dtype == torch.float32
    assert torch.equal(result, Euclidean()(rows.detach().float()))
    result[0, 3].backward()
    assert rows.grad.dtype == dtype


def test_right_angle_and_opposite_by_hand():
    rows = torch.tensor([[3.0, 0.0], [0.0, 0.1], [-7.0, 0.0]])
    assert Euclidean()(rows)[0].tolist() == pytest.approx([0, math.sqrt(2), 2])
