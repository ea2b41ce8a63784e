"""Lifted structure in both forms, compared with loops, with the library, and by hand; raw and unit embeddings."""

import math

import pytest
import torch
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import GeneralizedLiftedStructureLoss, LiftedStructureLoss

from benchmark.core.errors import UserError
from benchmark.losses.lifted_structure import LiftedStructure
from tests.losses.pair_loops import distances, pairs


def raw_distances(embeddings):
    return [[math.dist(a, b) for b in embeddings.tolist()] for a in embeddings.tolist()]


def original(distance, labels, margin):
    positive, negative = pairs(labels)
    unordered = [(i, j) for i, j in positive if i < j]
    total = 0.0
    for i, j in unordered:
        rivals = [math.exp(margin - distance[a][n]) for a, n in negative if a in (i, j)]
        total += max(0, distance[i][j] + math.log(sum(rivals))) ** 2
    return total / (2 * len(unordered))


def generalized(distance, labels, margin):
    positive, negative = pairs(labels)
    total = 0.0
    for a in range(len(labels)):
        near = [math.exp(distance[a][p]) for b, p in positive if b == a]
        far = [math.exp(margin - distance[a][n]) for b, n in negative if b == a]
        if near:
            total += max(0, math.log(sum(near)) + math.log(sum(far)))
    return total / len(labels)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("form", [original, generalized])
@pytest.mark.parametrize("margin", [-3.0, 0.1, 1.0, 10.0])
def test_agrees_with_the_formula_in_loops(batch, margin, form, normalize):
    embeddings, labels = batch[0] / 5, batch[1]
    distance = distances(embeddings) if normalize else raw_distances(embeddings)
    module = LiftedStructure(margin=margin, form=form.__name__, normalize=normalize)
    assert module(embeddings, labels).item() == pytest.approx(form(distance, labels, margin), rel=1e-10)


def test_the_negatives_of_both_samples_count_by_hand():
    # One positive pair at distance 3 with one negative, at 4 and 5: (3 + log(e^-3 + e^-4))^2 / 2, and with all
    # positives of each anchor ([3 - 3]+ + [3 - 4]+) / 3 = 0. A margin of 2 adds 1 to each.
    embeddings, labels = (
        torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]], dtype=torch.float64),
        torch.tensor([0, 0, 1]),
    )
    inner = 3 + math.log(math.exp(-3) + math.exp(-4))
    assert LiftedStructure()(embeddings, labels).item() == pytest.approx(inner**2 / 2)
    assert LiftedStructure(margin=2.0)(embeddings, labels).item() == pytest.approx((inner + 1) ** 2 / 2)
    assert LiftedStructure(margin=2.0, form="generalized")(embeddings, labels).item() == pytest.approx(1 / 3)


@pytest.mark.parametrize("form", ["original", "generalized"])
def test_gradients_agree_with_finite_differences(batch, form):
    module = LiftedStructure(form=form)
    embeddings = (batch[0] / 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda e: module(e, batch[1]), embeddings, atol=1e-6)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("library", [LiftedStructureLoss, GeneralizedLiftedStructureLoss])
def test_agrees_with_the_library_where_every_sample_has_a_positive(batch, library, normalize):
    labels = torch.tensor([0, 0, 1, 1, 1, 2, 2, 0, 2])
    form = "original" if library is LiftedStructureLoss else "generalized"
    results = []
    for module in (
        library(distance=LpDistance(normalize_embeddings=normalize)),
        LiftedStructure(form=form, normalize=normalize),
    ):
        embeddings = (batch[0] / 5).requires_grad_()
        value = module(embeddings, labels)
        results.append((value, *torch.autograd.grad(value, embeddings)))
    torch.testing.assert_close(*results, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("form", ["original", "generalized"])
def test_far_embeddings_stay_finite_in_float32(form):
    embeddings = 1e4 * torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    value = LiftedStructure(form=form)(embeddings.requires_grad_(), torch.arange(8) // 2)
    assert value.isfinite() and value > 0
    assert torch.autograd.grad(value, embeddings)[0].isfinite().all()


@pytest.mark.parametrize("form", ["original", "generalized"])
@pytest.mark.parametrize("labels", [[0], [1, 1], [2] * 9, list(range(9))])
def test_without_a_positive_or_a_negative_there_is_no_loss_and_no_gradient(batch, labels, form):
    embeddings = batch[0][: len(labels)].float().requires_grad_()
    value = LiftedStructure(margin=9.0, form=form)(embeddings, torch.tensor(labels))
    assert value.item() == 0
    assert torch.autograd.grad(value, embeddings)[0].abs().max() == 0


def test_an_unknown_form_is_refused():
    with pytest.raises(UserError, match="form='smooth' of lifted structure must be one of original, generalized"):
        LiftedStructure(form="smooth")
