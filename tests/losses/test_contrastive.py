"""The contrastive loss of its YAML file, compared with its formula in loops and by hand; duplicates in float32."""

import math

import pytest
import torch

from tests.losses.every_loss import build
from tests.losses.pair_loops import distances, mean_above_zero, pairs, with_duplicates

MARGINS = [(0.0, 1.0), (0.4, 1.3), (-0.2, 0.384119), (2.0, 2.0)]


def loss(embeddings, labels, pos_margin, neg_margin):
    return build("contrastive", pos_margin=pos_margin, neg_margin=neg_margin)[0](embeddings, labels)


@pytest.mark.parametrize("margins", MARGINS)
def test_agrees_with_the_formula_in_loops(batch, margins):
    embeddings, labels, _ = batch
    distance = distances(embeddings)
    positive, negative = pairs(labels)
    pull = mean_above_zero([distance[i][j] - margins[0] for i, j in positive])
    push = mean_above_zero([margins[1] - distance[i][j] for i, j in negative])
    assert loss(embeddings, labels, *margins).item() == pytest.approx(pull + push, rel=1e-12)


def test_satisfied_pairs_do_not_count_in_the_mean():
    # East and north are one class, at sqrt 2; west is another, at 2 from east and sqrt 2 from north.
    embeddings = torch.tensor([[5.0, 0.0], [0.0, 0.1], [-1.0, 0.0]])
    expected = (math.sqrt(2) - 0.2) + (1.5 - math.sqrt(2))  # the pair at 2 is beyond the margin and not in the mean
    assert loss(embeddings, torch.tensor([0, 0, 1]), 0.2, 1.5).item() == pytest.approx(expected, rel=1e-6)


def test_gradients_agree_with_finite_differences(batch):
    embeddings, labels, _ = batch
    module, _ = build("contrastive", pos_margin=0.4, neg_margin=1.3)
    assert torch.autograd.gradcheck(lambda e: module(e, labels), embeddings.requires_grad_(), atol=1e-6)


def test_duplicates_beyond_25_rows_have_the_float64_gradient_in_float32():
    rows, labels = with_duplicates()
    results = []
    for dtype in (torch.float32, torch.float64):
        embeddings = rows.to(dtype).requires_grad_()
        results.append(torch.autograd.grad(loss(embeddings, labels, -0.2, 1.0), embeddings)[0].double())
    torch.testing.assert_close(*results, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("labels", "expected"), [([0, 0, 0], 1.0), ([0, 1, 2], 0.5)])
def test_one_class_has_only_pull_and_singletons_only_push(labels, expected):
    # Three directions 120 degrees apart: every distance is sqrt 3.
    angle = torch.tensor([0.0, 2 * math.pi / 3, 4 * math.pi / 3])
    embeddings = torch.stack([angle.cos(), angle.sin()], dim=1)
    value = loss(embeddings, torch.tensor(labels), math.sqrt(3) - 1, math.sqrt(3) + 0.5)
    assert value.item() == pytest.approx(expected, rel=1e-6)


def test_a_single_sample_has_no_loss_and_no_gradient():
    embeddings = torch.ones(1, 3, requires_grad=True)
    value = loss(embeddings, torch.tensor([0]), -0.2, 2.0)
    assert value.item() == 0
    assert torch.autograd.grad(value, embeddings)[0].abs().max() == 0
