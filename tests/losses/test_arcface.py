"""ArcFace, compared with its equation in loops, and at the ends of the arc cosine."""

import math

import pytest
import torch

from benchmark.core.errors import UserError
from benchmark.losses.arcface import arcface
from benchmark.losses.normalized_softmax import normalized_softmax
from tests.losses.conftest import cosine

TYPES = (torch.float32, torch.float64)


def widened(angle, margin, fallback):
    """Return the logit of the sample's own class, divided by the scale, for an angle and a margin in degrees."""
    if fallback and angle > 180 - margin:
        return math.cos(math.radians(angle)) - math.radians(margin) * math.sin(math.radians(margin))
    return math.cos(math.radians(angle + margin))


def by_loops(embeddings, labels, proxies, scale, margin, fallback):
    total = 0.0
    for embedding, label in zip(embeddings.tolist(), labels.tolist(), strict=True):
        values = [cosine(embedding, proxy) for proxy in proxies.tolist()]
        values[label] = widened(math.degrees(math.acos(values[label])), margin, fallback)
        top = max(values)  # e^1000 overflows a float
        total += scale * (top - values[label]) + math.log(sum(math.exp(scale * (value - top)) for value in values))
    return total / len(labels)


def at_angles(degrees, dtype=torch.float64):
    """Return embeddings (B, 2) of class 0 at given angles from the first of two orthogonal proxies."""
    angle = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    embeddings = torch.stack([angle.cos(), angle.sin()], dim=1).to(dtype)
    return embeddings.requires_grad_(), torch.zeros(len(degrees), dtype=torch.long), torch.eye(2, dtype=dtype)


@pytest.mark.parametrize("fallback", [True, False])
@pytest.mark.parametrize("margin", [0.0, 23.2259, 90.0])
@pytest.mark.parametrize("scale", [0.01, 64.0, 300.0])
def test_agrees_with_the_equation_in_loops(batch, scale, margin, fallback):
    expected = by_loops(*batch, scale, margin, fallback)
    loss = arcface(*batch, scale=scale, margin=margin, fallback=fallback)
    assert loss.item() == pytest.approx(expected, rel=1e-11)


def test_an_angle_of_40_degrees_widened_by_20_worked_out_by_hand():
    # The sample is 40 degrees from its own proxy and 50 from the other. Logits 2 cos(60) = 1 and 2 cos(50).
    loss = arcface(*at_angles([40.0]), scale=2.0, margin=20.0)
    assert loss.item() == pytest.approx(math.log(math.e + math.exp(2 * math.cos(math.radians(50)))) - 1, rel=1e-12)


def test_an_angle_beyond_180_minus_the_margin_worked_out_by_hand():
    # 170 degrees and a margin of 30: cos(170) - (pi / 6) (1 / 2) with the fallback, cos(200) without; other: cos(80).
    other = math.cos(math.radians(80))
    for fallback, own in ((True, math.cos(math.radians(170)) - math.pi / 12), (False, math.cos(math.radians(200)))):
        loss = arcface(*at_angles([170.0]), scale=1.0, margin=30.0, fallback=fallback)
        assert loss.item() == pytest.approx(math.log(math.exp(own) + math.exp(other)) - own, rel=1e-12)


@pytest.mark.parametrize("margin", [5.0, 28.6, 90.0])
def test_only_with_the_fallback_does_a_worse_sample_never_cost_less(margin):
    # Two equal proxies: the other logit is the plain cosine, so loss = log(1 + e^(cos - own)) gives the own one.
    def own_logits(fallback):
        embeddings, label, proxies = at_angles([float(a) for a in range(1, 180)])
        losses = [
            arcface(row[None], label[:1], proxies[:1].repeat(2, 1), scale=1.0, margin=margin, fallback=fallback)
            for row in embeddings.detach()
        ]
        cosines = embeddings.detach()[:, 0]
        return cosines - torch.stack(losses).expm1().log()

    assert (own_logits(fallback=True).diff() < 0).all()
    assert (own_logits(fallback=False).diff() > 0).any()


def test_without_a_margin_it_is_the_plain_softmax(batch):
    expected = normalized_softmax(*batch, temperature=1 / 40)
    assert arcface(*batch, scale=40.0, margin=0.0).item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("fallback", [True, False])
def test_gradients_agree_with_finite_differences(batch, fallback):
    inputs = batch[0].requires_grad_(), batch[2].requires_grad_()
    assert torch.autograd.gradcheck(
        lambda e, p: arcface(e, batch[1], p, scale=6.0, margin=40.0, fallback=fallback), inputs, atol=1e-6
    )


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("fallback", [True, False])
@pytest.mark.parametrize("margin", [0.0, 28.6, 90.0])
def test_a_copy_of_a_proxy_and_its_opposite_have_finite_gradients(margin, fallback, dtype):
    vector = torch.tensor([0.3, -0.7, 1.1], dtype=dtype)
    embeddings = torch.stack([vector, 5 * vector, -vector, -0.1 * vector, vector]).requires_grad_()
    proxies = torch.stack([2 * vector, torch.tensor([1.0, 1.0, 0.0], dtype=dtype)]).requires_grad_()
    loss = arcface(embeddings, torch.tensor([0, 0, 0, 0, 1]), proxies, scale=300.0, margin=margin, fallback=fallback)
    loss.backward()
    assert loss.isfinite()
    assert embeddings.grad.isfinite().all()
    assert proxies.grad.isfinite().all()


@pytest.mark.parametrize("dtype", TYPES)
def test_a_copy_of_its_proxy_costs_the_margin(dtype):
    # Angle 0, margin 60, other proxy at 90 degrees: logits 4 cos(60) = 2 and 0.
    loss = arcface(*at_angles([0.0], dtype), scale=4.0, margin=60.0)
    tolerance = 2e-3 if dtype == torch.float32 else 1e-7  # the clamped angle is sqrt(2 eps) instead of 0
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-2)), rel=tolerance)


@pytest.mark.parametrize(("dtype", "angle"), [(torch.float32, 3.45e-4), (torch.float64, 1.5e-8)])
def test_an_angle_too_small_for_its_cosine_passes_no_gradient_back(dtype, angle):
    # The cosine is the largest number below 1. Logits cos(90) = 0 and sin(angle) = 0: probabilities 1/2. Only the
    # derivative of the other logit by the angle, 1, is left; that of the own logit, -1, would add another 1/2.
    embeddings, labels, proxies = at_angles([math.degrees(angle)], dtype)
    (gradient,) = torch.autograd.grad(arcface(embeddings, labels, proxies, scale=1.0, margin=90.0), embeddings)
    assert gradient[0, 1].item() == pytest.approx(0.5, rel=1e-3)


def test_float32_agrees_with_float64_close_to_the_proxy_and_far_from_it():
    degrees = [0.5, 2.0, 45.0, 90.0, 149.0, 153.0, 178.0, 179.5]
    gradients = []
    for dtype in TYPES:
        embeddings, labels, proxies = at_angles(degrees, dtype)
        arcface(embeddings, labels, proxies, scale=64.0, margin=28.6).backward()
        gradients.append(embeddings.grad.double())
    torch.testing.assert_close(*gradients, rtol=5e-3, atol=1e-3)


def test_one_class_gives_zero_loss_and_gradients():
    embeddings = torch.tensor([[1.0, 2.0], [-3.0, 0.5]]).requires_grad_()
    loss = arcface(embeddings, torch.tensor([0, 0]), torch.ones(1, 2), scale=64.0, margin=28.6)
    assert loss.item() == 0
    assert torch.autograd.grad(loss, embeddings)[0].abs().max() == 0


@pytest.mark.parametrize("scale", [0.0, -1.0, math.inf, math.nan])
def test_a_scale_that_is_not_finite_and_above_zero_is_refused(batch, scale):
    with pytest.raises(UserError, match=f"scale={scale} of arcface"):
        arcface(*batch, scale=scale, margin=28.6)


@pytest.mark.parametrize("margin", [-0.1, 180.5, math.nan])
def test_a_margin_outside_0_to_180_degrees_is_refused(batch, margin):
    with pytest.raises(UserError, match=f"margin={margin} of arcface must lie in 0..180"):
        arcface(*batch, scale=64.0, margin=margin)
