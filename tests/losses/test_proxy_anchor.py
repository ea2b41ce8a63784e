"""Proxy-Anchor, compared with its equation in loops and values worked out by hand."""

import math

import pytest
import torch

from benchmark.core.errors import UserError
from benchmark.losses.proxy_anchor import proxy_anchor


@pytest.mark.parametrize("margin", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("alpha", [0.01, 32.0, 100.0])
def test_agrees_with_the_equation_in_loops(batch, anchor_by_loops, alpha, margin):
    expected = anchor_by_loops(*batch, alpha=alpha, margin=margin)
    assert proxy_anchor(*batch, alpha=alpha, margin=margin).item() == pytest.approx(expected, rel=1e-12)


def test_two_classes_worked_out_by_hand():
    # Samples on their orthogonal proxies, a = 2, d = 0.5: each proxy has one positive at cosine 1, one negative at 0.
    # log(1 + e^(-2 (1 - 0.5))) + log(1 + e^(2 (0 + 0.5))) = log(1 + e^-1) + log(1 + e)
    two = torch.eye(2)
    expected = math.log(1 + math.exp(-1)) + math.log(1 + math.e)
    assert proxy_anchor(two, torch.tensor([0, 1]), two, alpha=2, margin=0.5).item() == pytest.approx(expected)
    # Without the second sample proxy 1 has no positive (one proxy to average over) and proxy 0 no negative (still two).
    expected = math.log(1 + math.exp(-1)) + math.log(1 + math.e) / 2
    assert proxy_anchor(two[:1], torch.tensor([0]), two, alpha=2, margin=0.5).item() == pytest.approx(expected)


def test_one_proxy_has_only_a_pull():
    one = torch.ones(1, 4)
    loss = proxy_anchor(one, torch.tensor([0]), one, alpha=2, margin=0.5)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-1)))


def test_gradients_agree_with_finite_differences(batch):
    embeddings, labels, proxies = batch
    inputs = embeddings.requires_grad_(), proxies.requires_grad_()
    assert torch.autograd.gradcheck(lambda e, p: proxy_anchor(e, labels, p, alpha=8.0, margin=0.1), inputs, atol=1e-6)


def test_the_strongest_setting_of_the_space_stays_finite_in_float32(batch, anchor_by_loops):
    embeddings, labels, proxies = (t.float() if t.is_floating_point() else t for t in batch)
    embeddings.requires_grad_()
    loss = proxy_anchor(embeddings, labels, proxies, alpha=100.0, margin=1.0)  # exp of up to 200 overflows float32
    assert loss.item() == pytest.approx(anchor_by_loops(*batch, alpha=100.0, margin=1.0), rel=1e-5)
    assert torch.autograd.grad(loss, embeddings)[0].isfinite().all()


def test_autocast_changes_no_bit(batch):
    embeddings, labels, proxies = (t.float() if t.is_floating_point() else t for t in batch)
    plain = proxy_anchor(embeddings, labels, proxies, alpha=100.0, margin=0.1)
    with torch.autocast("cpu", torch.bfloat16):
        cast = proxy_anchor(embeddings, labels, proxies, alpha=100.0, margin=0.1)
        double = proxy_anchor(*batch, alpha=100.0, margin=0.1)
    assert torch.equal(plain, cast)
    assert double.dtype == torch.float64


@pytest.mark.parametrize("alpha", [0.0, -1.0, math.inf, math.nan])
def test_an_alpha_that_is_not_finite_and_above_zero_is_refused(batch, alpha):
    with pytest.raises(UserError, match=f"alpha={alpha} of proxy_anchor"):
        proxy_anchor(*batch, alpha=alpha, margin=0.1)


@pytest.mark.parametrize("margin", [-0.1, math.inf, math.nan])
def test_a_margin_that_is_not_finite_and_at_least_zero_is_refused(batch, margin):
    with pytest.raises(UserError, match=f"margin={margin} of proxy_anchor"):
        proxy_anchor(*batch, alpha=32.0, margin=margin)


def test_a_label_without_a_proxy_is_an_error(batch):
    embeddings, labels, proxies = batch
    with pytest.raises((IndexError, RuntimeError)):
        proxy_anchor(embeddings, labels + 1, proxies, alpha=32.0, margin=0.1)
