"""Margin losses of their YAML files, with one beta or one per class, compared with loops and by hand."""

import math

import pytest
import torch

from tests.losses.every_loss import CLASSES, build
from tests.losses.pair_loops import distances, triplets, with_duplicates

KINDS = ("margin", "margin_class")


def make(kind, beta, margin=0.2):
    """Build the module in float64 with the given beta, a number or one per class."""
    module = build(kind, margin=margin)[0].double()
    module.beta.data.copy_(torch.as_tensor(beta, dtype=torch.float64).expand_as(module.beta))
    return module


def betas(kind):
    return torch.linspace(0.6, 1.6, CLASSES, dtype=torch.float64) if kind == "margin_class" else 1.1


def by_loops(embeddings, labels, beta, margin):
    distance, terms = distances(embeddings), []
    for a, p, n in triplets(labels):
        own = beta if isinstance(beta, float) else beta[labels[a]].item()
        terms += [max(distance[a][p] - own + margin, 0), max(own - distance[a][n] + margin, 0)]
    return sum(terms) / sum(t > 0 for t in terms)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("margin", [0.2, -0.1, 2.0])
def test_agrees_with_the_formula_in_loops(batch, kind, margin):
    embeddings, labels, _ = batch
    expected = by_loops(embeddings, labels, betas(kind), margin)
    assert make(kind, betas(kind), margin)(embeddings, labels).item() == pytest.approx(expected, rel=1e-12)


def test_a_positive_counts_once_per_negative_by_hand():
    # East and north are one class, at sqrt 2 = 1.414; west and southwest another, 0.765 apart: 2 and 1.848 from east,
    # 1.414 and 1.848 from north. With beta 1.4 and margin 0.1 the pull 1.414 - 1.3 is active in the 4 triplets of the
    # anchors east and north, the push 1.5 - 1.414 in the 2 that join north and west; the rest is satisfied.
    corners = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [-1.0, -1.0]], dtype=torch.float64)
    expected = (4 * (math.sqrt(2) - 1.3) + 2 * (1.5 - math.sqrt(2))) / 6
    value = make("margin", 1.4, 0.1)(corners, torch.tensor([0, 0, 1, 1]))
    assert value.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_embeddings_and_beta_agree_with_finite_differences(batch, kind):
    embeddings, labels, _ = batch
    module = make(kind, betas(kind))
    function = lambda e, b: torch.func.functional_call(module, {"beta": b}, (e, labels))  # noqa: E731
    inputs = embeddings.requires_grad_(), module.beta.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(function, inputs, atol=1e-6)


def test_beta_is_one_learned_number_or_one_per_class_and_starts_at_the_setting():
    for kind, shape in (("margin", (1,)), ("margin_class", (CLASSES,))):
        (beta,) = build(kind, beta=0.7)[0].parameters()
        assert beta.shape == shape
        assert beta.tolist() == pytest.approx([0.7] * len(beta))


def test_the_beta_of_an_absent_class_gets_no_gradient(batch):
    embeddings, labels, _ = batch  # classes 2 and 5 are absent, and 7; 1 and 4 are alone, so they anchor no triplet
    module = make("margin_class", 1.1)
    module(embeddings, labels).backward()
    assert module.beta.grad.nonzero().flatten().tolist() == [0, 3, 6]
    assert build("margin_class")[1]["optimizer"]["weight_decay"] == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("labels", [[0], [1, 1], [2] * 8, list(range(8))])
def test_without_a_triplet_there_is_no_loss_and_no_gradient(batch, kind, labels):
    embeddings, module = batch[0][: len(labels)].requires_grad_(), make(kind, 1.1)
    value = module(embeddings, torch.tensor(labels))
    value.backward()
    assert value.item() == 0
    assert embeddings.grad.abs().max() == 0
    assert module.beta.grad.abs().max() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_embeddings_do_not_round_beta(batch, kind):
    module = build(kind, beta=1.0 + 2**-10)[0]  # bfloat16 would make it 1
    half = batch[0].bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        value = module(half, batch[1])
    value.backward()
    assert value.dtype == module.beta.dtype == module.beta.grad.dtype == torch.float32
    expected = by_loops(half.detach().double(), batch[1], 1.0 + 2**-10, 0.2)
    assert value.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_duplicates_beyond_25_rows_have_the_float64_gradient_in_float32(kind):
    rows, labels = with_duplicates()
    results = []
    for dtype in (torch.float32, torch.float64):
        module, embeddings = make(kind, 0.9, margin=2.0).to(dtype), rows.to(dtype).requires_grad_()
        results.append(torch.autograd.grad(module(embeddings, labels), embeddings)[0].double())
    torch.testing.assert_close(*results, rtol=1e-3, atol=1e-5)
