"""The hyperbolic head, compared with plain Python floats."""

import math
from collections.abc import Callable

import pytest
import torch

from benchmark.core.errors import UserError
from benchmark.heads.hyperbolic import Hyperbolic
from benchmark.study.study import Study


def make(in_features: int = 7, embedding_dim: int = 5, seed: int = 0) -> Hyperbolic:
    torch.manual_seed(seed)
    return Hyperbolic(in_features, embedding_dim, curvature=0.1, clip_radius=2.3)


def float_head(head: Hyperbolic, features: list[float]) -> list[float]:
    """Layer norm, linear map, clip at 2.3 and exponential map of curvature 0.1."""
    mean = sum(features) / len(features)
    variance = sum((f - mean) ** 2 for f in features) / len(features)
    normal = [(f - mean) / math.sqrt(variance + 1e-5) for f in features]
    weight, bias = head.linear.weight.tolist(), head.linear.bias.tolist()
    u = [sum(w * f for w, f in zip(row, normal, strict=True)) + b for row, b in zip(weight, bias, strict=True)]
    norm = math.sqrt(sum(a * a for a in u))
    clipped = min(norm, 2.3)
    return [math.tanh(math.sqrt(0.1) * clipped) / math.sqrt(0.1) * a / norm for a in u]


@pytest.mark.parametrize("scale", [0.1, 1.0])
def test_a_point_is_the_mapped_linear_image_of_normalised_features(scale: float) -> None:
    head = make()
    with torch.no_grad():
        head.linear.weight.mul_(scale)  # so that some are not clipped
        head.linear.bias.copy_(torch.tensor([0.1, -0.2, 0.0, 0.3, 0.05]))
    features = 5 * torch.randn(6, 7) + 3
    expected = [float_head(head, row) for row in features.tolist()]
    torch.testing.assert_close(head(features), torch.tensor(expected), rtol=2e-5, atol=1e-6)


def test_the_linear_map_is_initialised_orthogonal_with_bias_0() -> None:
    weight = make(9, 4).linear.weight.detach()
    torch.testing.assert_close(weight @ weight.T, torch.eye(4), rtol=0, atol=1e-5)
    tall = make(4, 9).linear.weight.detach()
    torch.testing.assert_close(tall.T @ tall, torch.eye(4), rtol=0, atol=1e-5)
    assert (make().linear.bias == 0).all()


def test_only_the_linear_map_is_learned_and_out_features_is_the_dimension() -> None:
    assert {name for name, _ in make().named_parameters()} == {"linear.weight", "linear.bias"}
    assert make(7, 5).out_features == 5


def test_points_are_in_the_ball_for_any_features() -> None:
    features = torch.randn(20, 7) * torch.logspace(-6, 6, 20)[:, None]
    features[3] = 0.0
    points = make()(features)
    assert (points.norm(dim=1) < 1.9652).all() and points.isfinite().all()


def test_constant_features_give_finite_gradients() -> None:
    features = torch.full((2, 7), 3.0, requires_grad=True)
    make()(features).sum().backward()
    assert features.grad is not None and features.grad.isfinite().all()


def test_points_are_float32_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        points = make()(torch.randn(3, 7))
    assert points.dtype == torch.float32


@pytest.mark.parametrize(
    ("arguments", "options", "named"),
    [
        ((1, 5), {}, "in_features=1"),
        ((5, 0), {}, "embedding_dim=0"),
        ((5, 5), {"curvature": 0.0}, "curvature=0.0"),
        ((5, 5), {"clip_radius": -1.0}, "clip_radius=-1.0"),
    ],
)
def test_an_argument_out_of_range_is_named(arguments, options, named) -> None:
    with pytest.raises(UserError, match=named):
        Hyperbolic(*arguments, **({"curvature": 0.1, "clip_radius": 2.3} | options))


@pytest.mark.parametrize("name", ["hyp", "hier"])
def test_the_loss_the_head_and_the_search_measure_in_one_ball(name: str, compose_study: Callable[..., Study]) -> None:
    science = compose_study("dataset=glyphs_small", f"loss={name}", "loss.module.curvature=0.5").science("")
    found = [science["loss"][part]["curvature"] for part in ("module", "head", "retrieval_options")]
    assert found == [0.5, 0.5, 0.5]
