"""The decoupled contrastive loss, compared with its formula in loops, with the paper's two views, and by hand."""

import math

import pytest
import torch

from benchmark.core.errors import UserError
from benchmark.losses.dcl import DCL
from tests.losses.pair_loops import cosines, pairs


def by_loops(embeddings, labels, temperature):
    similar, (positive, negative) = cosines(embeddings), pairs(labels)
    terms = []
    for a, p in positive:
        rivals = [math.exp(similar[a][n] / temperature) for b, n in negative if b == a]
        terms.append(-similar[a][p] / temperature + math.log(sum(rivals)))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("temperature", [0.05, 0.1, 2.0])
def test_agrees_with_the_formula_in_loops(batch, temperature):
    value = DCL(temperature=temperature)(*batch[:2])
    assert value.item() == pytest.approx(by_loops(*batch[:2], temperature), rel=1e-11)


def test_for_two_samples_per_class_it_is_the_papers_loss_of_two_views(batch):
    # Summed over images i and views k: -<z1_i, z2_i>/T + log of the sum over the views l of the images j != i.
    first, second = batch[0][:4], batch[0][4:8]
    similar, total = cosines(torch.cat([first, second])), 0.0
    for i in range(4):
        for k in (0, 4):
            rivals = [similar[i + k][j + view] for view in (0, 4) for j in range(4) if j != i]
            total += math.log(sum(math.exp(s / 0.1) for s in rivals)) - similar[i][i + 4] / 0.1
    value = DCL(temperature=0.1)(torch.cat([first, second]), torch.arange(8) % 4)
    assert value.item() == pytest.approx(total / 8, rel=1e-11)


def test_the_positives_of_an_anchor_are_not_among_its_rivals_by_hand():
    # Three equal samples of class 0 and one opposite them: of the six pairs, each has -1/T + log e^(-1/T) = -2/T.
    embeddings = torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [-1.0, 0.0]])
    assert DCL(temperature=0.5)(embeddings, torch.tensor([0, 0, 0, 1])).item() == pytest.approx(-4.0)


def test_pulls_a_near_positive_as_strongly_as_a_far_one():
    # In NT-Xent, the pull fades as the pair becomes likely. Moving p along its circle: d loss / d s_ap = -1/T, always.
    for angle in (0.1, 1.0, 2.0):
        at = torch.tensor(angle, dtype=torch.float64, requires_grad=True)
        positive = torch.stack([at.cos(), at.sin(), torch.zeros_like(at)])
        others = torch.eye(3, dtype=torch.float64)
        value = DCL(temperature=0.5)(torch.stack([others[0], positive, others[2]]), torch.tensor([0, 0, 1]))
        (slope,) = torch.autograd.grad(value, at)
        assert slope.item() == pytest.approx(math.sin(angle) / 0.5)


def test_gradients_agree_with_finite_differences(batch):
    assert torch.autograd.gradcheck(lambda e: DCL(temperature=0.3)(e, batch[1]), batch[0].requires_grad_(), atol=1e-6)


@pytest.mark.parametrize("labels", [[0] * 9, list(range(9)), [0]])
def test_without_a_positive_or_without_a_negative_there_is_no_loss_and_no_gradient(batch, labels):
    embeddings = batch[0][: len(labels)].requires_grad_()
    value = DCL(temperature=0.1)(embeddings, torch.tensor(labels))
    assert value.item() == 0
    assert not torch.autograd.grad(value, embeddings)[0].any()


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_a_temperature_that_is_not_positive_is_refused(temperature):
    with pytest.raises(UserError, match=r"temperature=.* of DCL"):
        DCL(temperature=temperature)
