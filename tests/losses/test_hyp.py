"""Hyp, compared with Moebius addition in plain floats and by hand; near the rim; its head's gradient."""

import math

import pytest
import torch

from benchmark.core.errors import UserError
from benchmark.heads.hyperbolic import Hyperbolic
from benchmark.losses.hyp import Hyp
from tests.losses.pair_loops import pairs


def moebius_distance(x, y, c):
    """The distance by Moebius addition, with the authors' 1e-5 in the denominator."""
    x = [-a for a in x]
    dot = sum(a * b for a, b in zip(x, y, strict=True))
    xx, yy = sum(a * a for a in x), sum(b * b for b in y)
    low = 1 + 2 * c * dot + c * c * xx * yy
    added = [((1 + 2 * c * dot + c * yy) * a + (1 - c * xx) * b) / (low + 1e-5) for a, b in zip(x, y, strict=True)]
    return 2 / math.sqrt(c) * math.atanh(math.sqrt(c) * math.hypot(*added))


def points(seed=0, num=8):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(num, 5, generator=generator, dtype=torch.float64)
    return rows / rows.norm(dim=1, keepdim=True) * torch.rand(num, 1, generator=generator, dtype=torch.float64) * 1.5


@pytest.mark.parametrize("labels", [[0, 0, 1, 1, 2, 2, 3, 3], [0, 0, 0, 1, 1, 2, 3, 4]], ids=["pairs", "mixed"])
@pytest.mark.parametrize(("temperature", "curvature"), [(0.2, 0.1), (0.05, 0.3), (10.0, 0.01)])
def test_agrees_with_the_formula_in_loops(temperature, curvature, labels):
    embeddings, labels, total = points(), torch.tensor(labels), 0.0
    distance = [[moebius_distance(a, b, curvature) for b in embeddings.tolist()] for a in embeddings.tolist()]
    positive, _ = pairs(labels)
    for i, j in positive:
        everyone = sum(math.exp(-distance[i][k] / temperature) for k in range(8) if k != i)
        total -= math.log(math.exp(-distance[i][j] / temperature) / everyone)
    value = Hyp(temperature=temperature, curvature=curvature)(embeddings, labels)
    assert value.item() == pytest.approx(total / len(positive), rel=1e-8)


def test_a_point_at_the_origin_by_hand():
    # From the origin, the distance to a point of norm r is (2 / sqrt(c)) artanh(sqrt(c) r); without a rival, the loss
    # of an anchor is 0. Anchor 0 is the origin, its positive at tanh(1/2) / 1 has distance 1 for c = 1, the negative
    # distance 2.
    near, far = math.tanh(0.5), math.tanh(1.0)
    embeddings = torch.tensor([[0.0, 0.0], [near, 0.0], [-far, 0.0]], dtype=torch.float64)
    value = Hyp(temperature=1.0, curvature=1.0)(embeddings, torch.tensor([0, 0, 1]))
    # Anchor 1 is 1 from the origin and 3 from the negative.
    expected = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-2))) / 2
    assert value.item() == pytest.approx(expected, abs=1e-4)  # the 1e-5 in Moebius addition


def test_gradients_agree_with_finite_differences():
    module, labels = Hyp(), torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    assert torch.autograd.gradcheck(lambda e: module(e, labels), points().requires_grad_(), atol=1e-6)


def test_points_at_the_rim_and_equal_points_keep_float32_finite():
    embeddings = torch.randn(8, 5, generator=torch.Generator().manual_seed(0)) * 100
    embeddings[1] = embeddings[0]
    embeddings[2:4] = 0
    value = Hyp(temperature=0.01)(embeddings.requires_grad_(), torch.arange(8) // 2)
    assert value.isfinite()
    assert value.item() == pytest.approx(Hyp(temperature=0.01)(10 * embeddings, torch.arange(8) // 2).item(), rel=1e-3)
    assert torch.autograd.grad(value, embeddings)[0].isfinite().all()


@pytest.mark.parametrize("labels", [[0], list(range(8))])
def test_without_a_positive_there_is_no_loss_and_no_gradient(labels):
    embeddings = points(num=len(labels)).float().requires_grad_()
    value = Hyp(temperature=0.01)(embeddings, torch.tensor(labels))
    assert value.item() == 0
    assert torch.autograd.grad(value, embeddings)[0].abs().max() == 0


def test_its_head_has_neither_layer_norm_nor_riemannian_gradient():
    torch.manual_seed(0)
    head = Hyperbolic(4, 3, curvature=0.1, clip_radius=2.3, layer_norm=False, riemannian=False).double()
    features = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    norms = head.linear(features).norm(dim=1).clamp(max=2.3)
    torch.testing.assert_close(
        head(features).norm(dim=1), (math.sqrt(0.1) * norms).tanh() / math.sqrt(0.1), rtol=1e-4, atol=0
    )
    assert torch.autograd.gradcheck(head, features, atol=1e-4)
    of_hier = Hyperbolic(4, 3, curvature=0.1, clip_radius=2.3).double()
    assert not torch.autograd.gradcheck(of_hier, features, atol=1e-4, raise_exception=False)
    with pytest.raises(UserError, match="at least 2 features, or 1 with layer_norm=false"):
        Hyperbolic(0, 3, curvature=0.1, clip_radius=2.3, layer_norm=False)


def test_a_bad_setting_is_refused():
    with pytest.raises(UserError, match=r"temperature=0.0 of Hyp"):
        Hyp(temperature=0.0)
    with pytest.raises(UserError, match=r"curvature=-0.1"):
        Hyp(curvature=-0.1)
