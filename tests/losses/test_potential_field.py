"""PFML, compared with its equations in loops, with values worked out by hand, and with finite differences."""

import math

import pytest
import torch

from benchmark.core.errors import UserError
from benchmark.losses import potential_field as module
from benchmark.losses.potential_field import potential_field
from tests.losses.proxy_loops import potential_field_by_loops

SETTING = {"alpha": 4.0, "delta": 0.7}  # wide, so that random points are on both sides of it


@pytest.mark.parametrize(("alpha", "delta"), [(0.0, 0.2), (0.5, 0.1), (4.0, 0.7), (6.0, 1.2), (3.3, 2.0)])
@pytest.mark.parametrize("centres", [1, 3])
def test_agrees_with_the_energy_in_loops(batch, alpha, delta, centres):
    embeddings, labels, proxies = batch
    if centres > 1:
        proxies = torch.randn(7, centres, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = potential_field_by_loops(embeddings, labels, proxies, alpha=alpha, delta=delta)
    found = potential_field(embeddings, labels, proxies, alpha=alpha, delta=delta)
    assert found.item() == pytest.approx(expected, rel=1e-11)


def test_four_points_worked_out_by_hand():
    # alpha = 2, delta = 0.5, samples at 0 and 36.9 degrees, proxies at 53.1 and 180 degrees. Squared distances: samples
    # 0.4 (two classes, plateau 4); sample 0 to the proxies 0.8 (own, -1/0.8) and 4 (other, 4); sample 1 to them 0.08
    # (other, within delta, 1/0.08 = 12.5) and 3.6 (own, -1/3.6); the proxies 3.2 (plateau 4).
    embeddings, labels = torch.tensor([[1.0, 0.0], [0.8, 0.6]], dtype=torch.float64), torch.tensor([0, 1])
    proxies = torch.tensor([[0.6, 0.8], [-1.0, 0.0]], dtype=torch.float64)
    energy = 2 * (4 - 1 / 0.8 + 4 + 12.5 - 1 / 3.6 + 4)
    expected = (
        (energy - 2 * 4 * 4) / 4 / 2
    )  # without the plateau of four pairs of two classes, in units of 4, per sample
    assert potential_field(embeddings, labels, proxies, alpha=2.0, delta=0.5).item() == pytest.approx(
        expected, rel=1e-12
    )


def test_gradients_agree_with_finite_differences(batch):
    embeddings, labels, proxies = batch
    inputs = embeddings.requires_grad_(), proxies.requires_grad_()
    assert torch.autograd.gradcheck(lambda e, p: potential_field(e, labels, p, **SETTING), inputs, atol=1e-6)


def test_blocks_change_neither_value_nor_gradients(batch, monkeypatch):
    embeddings, labels, proxies = batch
    found = []
    for pairs in (10**6, 112, 48, 1):  # 16 points: all at once, or seven, three or one row at a time
        monkeypatch.setattr(module, "PAIRS_AT_ONCE", pairs)
        leaves = embeddings.clone().requires_grad_(), proxies.clone().requires_grad_()
        loss = potential_field(leaves[0], labels, leaves[1], **SETTING)
        found.append((loss, *torch.autograd.grad(loss, leaves)))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-12, atol=1e-14)


def pair(distance, same):
    """Return the force on a sample away from a proxy at a distance, and the loss; the other proxy is far away."""
    angle = 2 * math.asin(distance / 2)
    sample = torch.tensor([[math.cos(angle), math.sin(angle), 0.0]], dtype=torch.float64, requires_grad=True)
    proxies = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    loss = potential_field(sample, torch.tensor([0 if same else 1]), proxies, alpha=3.0, delta=0.2)
    (gradient,) = torch.autograd.grad(loss, sample)
    away = torch.tensor([-math.sin(angle), math.cos(angle), 0.0], dtype=torch.float64)
    return -(gradient[0] @ away).item(), loss.item()


def test_attraction_acts_beyond_delta_and_repulsion_within_it():
    assert pair(0.19, same=True)[0] == 0 and pair(0.21, same=False)[0] == 0
    assert pair(0.21, same=True)[0] < 0 < pair(0.19, same=False)[0]
    assert pair(0.6, same=True)[0] > pair(0.3, same=True)[0]  # the farther, the weaker
    assert pair(0.02, same=False)[0] > pair(0.1, same=False)[0]


def test_the_repulsion_stays_finite_and_continuous_within_the_core():
    (_, outside), (_, inside) = pair(0.0100001, same=False), pair(0.0099999, same=False)
    assert inside == pytest.approx(outside, rel=1e-4)
    assert inside < pair(0.001, same=False)[1] < pair(0.0, same=False)[1] < 3 * inside


@pytest.mark.parametrize("alpha", [0.5, 6.0])
def test_duplicates_of_two_classes_are_finite_in_float32(alpha):
    axis = torch.eye(5)[0]  # whose squared distance from itself is exactly 0
    embeddings, proxies = axis.repeat(4, 1).requires_grad_(), axis.repeat(3, 2, 1).requires_grad_()
    loss = potential_field(embeddings, torch.tensor([0, 0, 1, 2]), proxies, alpha=alpha, delta=0.1)
    assert loss.isfinite()
    assert all(g.isfinite().all() for g in torch.autograd.grad(loss, [embeddings, proxies]))


def test_autocast_and_half_precision_leave_float32(batch):
    embeddings, labels, proxies = (t.float() if t.is_floating_point() else t for t in batch)
    plain = potential_field(embeddings, labels, proxies, **SETTING)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(potential_field(embeddings, labels, proxies, **SETTING), plain)
    half = embeddings.bfloat16().requires_grad_()
    loss = potential_field(half, labels, proxies, **SETTING)
    assert loss.dtype == torch.float32 and torch.autograd.grad(loss, half)[0].dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("wrong", "name"), [({"alpha": -1.0}, "alpha"), ({"delta": 0.0}, "delta"), ({"core": math.nan}, "core"),
                        ({"core": 0.8}, "core=0.8 of potential_field must be at most delta=0.7")],
)  # fmt: skip
def test_a_setting_out_of_range_is_refused(batch, wrong, name):
    with pytest.raises(UserError, match=name):
        potential_field(*batch, **SETTING | wrong)
