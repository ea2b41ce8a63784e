"""Triplet losses of their YAML files, over all or semi-hard triplets, compared with loops and by hand."""

import math

import pytest
import torch

from tests.losses.every_loss import build
from tests.losses.pair_loops import distances, mean_above_zero, triplets, with_duplicates

KINDS = ("triplet", "triplet_semihard")


def loss(kind, embeddings, labels, margin):
    return build(kind, margin=margin)[0](embeddings, labels)


def by_loops(kind, embeddings, labels, margin):
    distance, terms = distances(embeddings), []
    for a, p, n in triplets(labels):
        gap = distance[a][n] - distance[a][p]
        if kind == "triplet" or 0 < gap <= margin:
            terms.append(margin - gap)
    return mean_above_zero(terms)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("margin", [0.1, 0.7, 2.0])
def test_agrees_with_the_formula_in_loops(batch, kind, margin):
    embeddings, labels, _ = batch
    expected = by_loops(kind, embeddings, labels, margin)
    assert expected > 0
    assert loss(kind, embeddings, labels, margin).item() == pytest.approx(expected, rel=1e-12)


def on_circle(*degrees):
    angle = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack([angle.cos(), angle.sin()], dim=1)


def test_semi_hard_drops_harder_and_easier_negatives_by_hand():
    # Classes {0, 60} and {80}, {90}, {180} degrees; a chord of t degrees is 2 sin(t/2).
    # Anchor 0, positive at 1: 80 is at 1.286, 90 at 1.414, 180 at 2. Anchor 60, positive at 1: 80 at 0.347 and 90 at
    # 0.518 are harder than the positive, 180 is at 1.732. With margin 0.5 only 80 and 90 of anchor 0 are semi-hard.
    embeddings, labels = on_circle(0, 60, 80, 90, 180), torch.tensor([0, 0, 1, 2, 3])
    eighty, ninety = 2 * math.sin(math.radians(40)), math.sqrt(2)
    expected = ((1 - eighty + 0.5) + (1 - ninety + 0.5)) / 2
    assert loss("triplet_semihard", embeddings, labels, 0.5).item() == pytest.approx(expected)
    harder = [1.5 - 2 * math.sin(math.radians(10)), 1.5 - 2 * math.sin(math.radians(15))]
    assert loss("triplet", embeddings, labels, 0.5).item() == pytest.approx((2 * expected + sum(harder)) / 4)


def test_a_negative_as_far_as_the_positive_is_not_semi_hard():
    embeddings, labels = on_circle(0, 60, -60).float(), torch.tensor([0, 0, 1])
    embeddings[2] = embeddings[1]
    assert loss("triplet_semihard", embeddings, labels, 0.5).item() == 0
    assert loss("triplet", embeddings, labels, 0.5).item() == pytest.approx((0.5 + 1.5) / 2)  # anchors 0 and 60


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_agree_with_finite_differences(batch, kind):
    embeddings, labels, _ = batch
    module, _ = build(kind, margin=0.7)
    assert torch.autograd.gradcheck(lambda e: module(e, labels), embeddings.requires_grad_(), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("labels", [[0], [1, 1], [2] * 9, list(range(9))])
def test_without_a_triplet_there_is_no_loss_and_no_gradient(batch, kind, labels):
    embeddings = batch[0][: len(labels)].requires_grad_()
    value = loss(kind, embeddings, torch.tensor(labels), 2.0)
    assert value.item() == 0
    assert torch.autograd.grad(value, embeddings)[0].abs().max() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_duplicates_beyond_25_rows_have_the_float64_gradient_in_float32(kind):
    rows, labels = with_duplicates()
    results = []
    for dtype in (torch.float32, torch.float64):
        embeddings = rows.to(dtype).requires_grad_()
        results.append(torch.autograd.grad(loss(kind, embeddings, labels, 2.0), embeddings)[0].double())
    torch.testing.assert_close(*results, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_embeddings_give_a_float32_loss(batch, kind):
    half = batch[0].bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        cast = loss(kind, half, batch[1], 0.7)
    cast.backward()
    assert cast.dtype == torch.float32
    assert torch.equal(cast, loss(kind, half.detach().float(), batch[1], 0.7))
    assert half.grad.dtype == torch.bfloat16
