"""ProxyNCA, compared with its equation in loops and by hand, also where other code drops samples in float32."""

import math

import pytest
import torch

from benchmark.core.errors import UserError
from benchmark.losses.proxy_nca import ProxyNCA, proxy_nca

DENOMINATORS = ("all", "others")


@pytest.mark.parametrize("denominator", DENOMINATORS)
@pytest.mark.parametrize("scale", [0.02, 1.0, 18.0, 200.0])
def test_agrees_with_the_equation_in_loops(batch, nca_by_loops, scale, denominator):
    expected = nca_by_loops(*batch, scale=scale, denominator=denominator)
    assert proxy_nca(*batch, scale=scale, denominator=denominator).item() == pytest.approx(expected, rel=1e-12)


def test_two_orthogonal_proxies_worked_out_by_hand():
    # One sample on its own proxy: cosines 1 and 0. All: log(e^a + e^0) - a = log(1 + e^-a). Others: log(e^0) - a = -a.
    arguments = torch.tensor([[5.0, 0.0]]), torch.tensor([0]), torch.tensor([[0.1, 0.0], [0.0, 7.0]])
    assert proxy_nca(*arguments, scale=3).item() == pytest.approx(math.log(1 + math.exp(-3)))
    assert proxy_nca(*arguments, scale=3, denominator="others").item() == pytest.approx(-3)


@pytest.mark.parametrize("denominator", DENOMINATORS)
def test_the_module_scales_squared_distances(batch, denominator):
    embeddings, labels, proxies = batch
    module = ProxyNCA(7, 5, softmax_scale=4.5, seed=0, denominator=denominator).double()
    module.load_state_dict({"proxies": proxies})
    expected = 0.0
    for embedding, label in zip(embeddings, labels.tolist(), strict=True):
        gaps = [((embedding / embedding.norm() - p / p.norm()) ** 2).sum().item() for p in proxies]
        kept = [gap for j, gap in enumerate(gaps) if denominator == "all" or j != label]
        expected += math.log(sum(math.exp(-4.5 * gap) for gap in kept)) + 4.5 * gaps[label]
    assert module(embeddings, labels).item() == pytest.approx(expected / len(labels), rel=1e-12)


@pytest.mark.parametrize("denominator", DENOMINATORS)
def test_gradients_agree_with_finite_differences(batch, denominator):
    embeddings, labels, proxies = batch
    inputs = embeddings.requires_grad_(), proxies.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda e, p: proxy_nca(e, labels, p, scale=6.0, denominator=denominator), inputs, atol=1e-6
    )


@pytest.mark.parametrize("denominator", DENOMINATORS)
def test_an_opposite_sample_at_the_largest_scale_keeps_its_loss_and_its_gradient_in_float32(denominator):
    # k = 100, proxies at (1, 0) and (-1, 0). The first sample is nearly on its proxy, the second nearly opposite:
    # its term is 200 (cos_other - cos_own) = 400 cos(0.01) up to e^-400, although e^-400 is 0 in float32.
    angle = torch.tensor([0.3, math.pi - 0.01])
    embeddings = torch.stack([angle.cos(), angle.sin()], dim=1).requires_grad_()
    proxies = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    loss = proxy_nca(embeddings, torch.tensor([0, 0]), proxies, scale=200.0, denominator=denominator)
    first = 0.0 if denominator == "all" else -400 * math.cos(0.3)
    assert loss.item() == pytest.approx((first + 400 * math.cos(0.01)) / 2, rel=1e-5)
    (gradient,) = torch.autograd.grad(loss, embeddings)
    assert gradient[1].norm().item() == pytest.approx(200 * math.sin(0.01), rel=1e-2)  # d(400 cos)/d angle, over B = 2


@pytest.mark.parametrize("denominator", DENOMINATORS)
def test_autocast_changes_no_bit(batch, denominator):
    embeddings, labels, proxies = (t.float() if t.is_floating_point() else t for t in batch)
    plain = proxy_nca(embeddings, labels, proxies, scale=100.0, denominator=denominator)
    with torch.autocast("cpu", torch.bfloat16):
        cast = proxy_nca(embeddings, labels, proxies, scale=100.0, denominator=denominator)
        double = proxy_nca(*batch, scale=100.0, denominator=denominator)
    assert torch.equal(plain, cast)
    assert double.dtype == torch.float64


def test_half_precision_embeddings_give_a_float32_loss_and_do_not_round_float32_proxies(batch):
    embeddings, labels, _ = batch
    module = ProxyNCA(7, 5, softmax_scale=50, seed=0)
    half = embeddings.bfloat16().requires_grad_()
    loss = module(half, labels)
    loss.backward()
    assert loss.dtype == module.proxies.dtype == module.proxies.grad.dtype == torch.float32
    assert torch.equal(loss, module(half.detach().float(), labels))


def test_one_proxy_gives_zero_loss_and_gradients_with_all_and_is_refused_with_others():
    embeddings = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels = torch.zeros(4, dtype=torch.long)
    loss = proxy_nca(embeddings, labels, torch.ones(1, 3), scale=10.0)
    assert loss.item() == 0
    assert torch.autograd.grad(loss, embeddings)[0].abs().max() == 0
    with pytest.raises(UserError, match="the total number is 1"):
        proxy_nca(embeddings, labels, torch.ones(1, 3), scale=10.0, denominator="others")
    with pytest.raises(UserError, match="the total number is 1"):
        ProxyNCA(1, 3, softmax_scale=1, seed=0, denominator="others")


@pytest.mark.parametrize("scale", [0.0, -1.0, math.inf, math.nan])
def test_a_scale_that_is_not_finite_and_above_zero_is_refused(batch, scale):
    with pytest.raises(UserError, match=f"^scale={scale} of ProxyNCA"):
        proxy_nca(*batch, scale=scale)
    with pytest.raises(UserError, match=f"^softmax_scale={scale} of ProxyNCA"):
        ProxyNCA(7, 5, softmax_scale=scale, seed=0)


def test_an_unknown_denominator_is_refused(batch):
    with pytest.raises(UserError, match="denominator='exclude' of ProxyNCA must be one of all, others"):
        proxy_nca(*batch, scale=1.0, denominator="exclude")


@pytest.mark.parametrize("denominator", DENOMINATORS)
def test_a_label_without_a_proxy_is_an_error(batch, denominator):
    embeddings, labels, proxies = batch
    with pytest.raises((IndexError, RuntimeError)):
        proxy_nca(embeddings, labels + 1, proxies, scale=1.0, denominator=denominator)


def test_norms_of_embeddings_and_proxies_do_not_matter(batch):
    embeddings, labels, proxies = batch
    factors = torch.arange(1, 10)[:, None]
    stretched = proxy_nca(embeddings * factors, labels, proxies * 0.01, scale=20.0)
    assert stretched.item() == pytest.approx(proxy_nca(*batch, scale=20.0).item(), rel=1e-12)


def test_initial_proxies_are_standard_normal_and_depend_only_on_the_seed():
    before = torch.get_rng_state()
    first, again, other = (ProxyNCA(300, 40, softmax_scale=1, seed=seed).proxies for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())
    assert abs(first.mean().item()) < 0.03  # standard error 0.009
    assert first.std().item() == pytest.approx(1, abs=0.03)


def test_proxy_std_scales_the_initial_proxies_and_keeps_their_directions():
    usual, short = (ProxyNCA(30, 4, softmax_scale=1, seed=1, proxy_std=std).proxies for std in (1.0, 0.125))
    assert torch.equal(short, usual / 8)
    with pytest.raises(UserError, match="proxy_std=0 of ProxyNCA"):
        ProxyNCA(30, 4, softmax_scale=1, seed=1, proxy_std=0)
