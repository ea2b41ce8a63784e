"""The anti-collapse term, compared with the coding rate in loops over the matrix, and with the authors' reading."""

import math
from functools import partial

import pytest
import torch

from benchmark.core.errors import UserError
from benchmark.losses.anti_collapse import AntiCollapse, coding_rate
from benchmark.losses.contrastive import Contrastive
from benchmark.losses.proxies import ProxyLoss
from benchmark.losses.proxy_anchor import proxy_anchor
from benchmark.losses.soft_triple import soft_triple
from benchmark.losses.threshold_margin import ThresholdMargin
from tests.losses.proxy_loops import coding_rate_by_loops

ANCHOR = partial(ProxyLoss, base=partial(proxy_anchor, alpha=8.0, margin=0.1), proxy_init="normal")
TRIPLE = partial(ProxyLoss, base=partial(soft_triple, la=8.0, gamma=0.1, margin=0.0), proxy_init="normal",
                 centres_per_class=2)  # fmt: skip
SIZES = {"num_classes": 7, "embedding_dim": 5, "seed": 3}


@pytest.mark.parametrize("scale", [0.01, 1.0, 50.0])
@pytest.mark.parametrize("size", [1, 3, 5, 12])
def test_the_coding_rate_agrees_with_elimination_on_the_larger_matrix(size, scale):
    vectors = torch.randn(size, 5, generator=torch.Generator().manual_seed(size), dtype=torch.float64)
    found = coding_rate(torch.nn.functional.normalize(vectors, dim=1), scale)
    assert found.item() == pytest.approx(coding_rate_by_loops(vectors.tolist(), scale), rel=1e-11)


def test_the_rate_of_orthogonal_vectors_is_largest_and_that_of_equal_ones_smallest():
    # Orthogonal: 3/2 log(1 + c). Equal: one eigenvalue of 3 is left, 1/2 log(1 + 3 c).
    assert coding_rate(torch.eye(3), 2.0).item() == pytest.approx(1.5 * math.log(3))
    assert coding_rate(torch.eye(3)[:1].expand(3, 3), 2.0).item() == pytest.approx(0.5 * math.log(7))


@pytest.mark.parametrize("reading", ["authors", "mcr2"])
@pytest.mark.parametrize("vectors", ["batch_proxies", "all_proxies", "embeddings"])
@pytest.mark.parametrize("form", ["exp", "rate"])
def test_the_term_is_that_of_the_authors_code(batch, reading, vectors, form):
    embeddings, labels, _ = batch
    module = AntiCollapse(ANCHOR, base_weight=0.3, weight=2.0, epsilon=0.4, vectors=vectors, reading=reading, form=form,
                          **SIZES).double()  # fmt: skip
    proxies = module.base.proxies.tolist()
    chosen = {"batch_proxies": [proxies[y] for y in sorted(set(labels.tolist()))], "all_proxies": proxies,
              "embeddings": embeddings.tolist()}[vectors]  # fmt: skip
    m, D = len(chosen), 5
    scale = m / (D * 0.4) if reading == "authors" and vectors != "embeddings" else D / (m * 0.4)
    rate = coding_rate_by_loops(chosen, scale)
    base = proxy_anchor(embeddings, labels, module.base.proxies, alpha=8.0, margin=0.1).item()
    expected = 0.3 * base + 2.0 * (math.exp(-rate) if form == "exp" else -rate)
    assert module(embeddings, labels).item() == pytest.approx(expected, rel=1e-11)


def test_every_centre_of_a_class_in_the_batch_counts(batch):
    embeddings, labels, _ = batch
    module = AntiCollapse(TRIPLE, base_weight=1.0, form="rate", **SIZES).double()
    chosen = [row for y in sorted(set(labels.tolist())) for row in module.base.proxies[y].tolist()]
    expected = -coding_rate_by_loops(chosen, len(chosen) / (5 * 0.5))
    assert module.term(embeddings, labels).item() == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("vectors", ["batch_proxies", "embeddings"])
def test_gradients_agree_with_finite_differences(batch, vectors):
    embeddings, labels, _ = batch
    module = AntiCollapse(ANCHOR, base_weight=0.3, vectors=vectors, **SIZES).double()
    proxies = module.base.proxies.detach().clone().requires_grad_()

    def loss(e, p):
        return torch.func.functional_call(module, {"base.proxies": p}, (e, labels))

    assert torch.autograd.gradcheck(loss, (embeddings.requires_grad_(), proxies), atol=1e-6)


def test_the_term_spreads_the_proxies_of_the_batch_alone(batch):
    embeddings, labels, _ = batch  # without the classes 2 and 5
    module = AntiCollapse(ANCHOR, base_weight=1.0, **SIZES).double()
    (gradient,) = torch.autograd.grad(module.term(embeddings, labels), module.base.proxies)
    assert [bool(row.any()) for row in gradient] == [True, True, False, True, True, False, True]


def test_the_proxies_of_a_base_inside_another_one_are_found(batch):
    embeddings, labels, _ = batch
    inner = partial(ThresholdMargin, ANCHOR)
    direct, nested = (AntiCollapse(base, base_weight=1.0, **SIZES).double() for base in (ANCHOR, inner))
    assert torch.equal(direct.term(embeddings, labels), nested.term(embeddings, labels))


def test_proxies_of_a_base_without_any_are_refused():
    with pytest.raises(UserError, match="needs proxies, but its base, Contrastive, has none"):
        AntiCollapse(Contrastive, base_weight=1.0)
    AntiCollapse(Contrastive, base_weight=1.0, vectors="embeddings")


@pytest.mark.parametrize(
    "wrong", [{"base_weight": 0.0}, {"weight": -1.0}, {"epsilon": math.inf}, {"vectors": "all"}, {"reading": "paper"},
              {"form": "log"}],
)  # fmt: skip
def test_a_setting_out_of_range_is_refused(wrong):
    with pytest.raises(UserError, match=f"{next(iter(wrong))}=.* of AntiCollapse"):
        AntiCollapse(ANCHOR, **{"base_weight": 1.0, **wrong}, **SIZES)
