"""N-pairs, compared with the formula in loops, with the library, and by hand; who is the anchor; unused samples."""

import math

import pytest
import torch
from pytorch_metric_learning.losses import NPairsLoss

from benchmark.core.errors import UserError
from benchmark.losses.n_pairs import NPairs, n_pairs


def by_loops(rows, labels, ranks, weight):
    roles = []
    for label in sorted(set(labels)):
        members = sorted((rank, i) for i, rank in enumerate(ranks) if labels[i] == label)
        if len(members) > 1:
            roles.append((rows[members[0][1]], rows[members[1][1]]))

    def dot(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True))

    total, squares = 0.0, 0.0
    for i, (anchor, own) in enumerate(roles):
        rivals = [math.exp(dot(anchor, other) - dot(anchor, own)) for j, (_, other) in enumerate(roles) if j != i]
        total += math.log(1 + sum(rivals))
        squares += dot(anchor, anchor) + dot(own, own)
    return total / len(roles) + weight / 2 * squares / (2 * len(roles))


@pytest.mark.parametrize("weight", [0.0, 0.002, 1.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_agrees_with_the_formula_in_loops(batch, seed, weight):
    embeddings, labels = batch[0] / 5, batch[1]
    ranks = torch.randperm(9, generator=torch.Generator().manual_seed(seed))
    value = n_pairs(embeddings, labels, ranks, regularizer_weight=weight)
    expected = by_loops(embeddings.tolist(), labels.tolist(), ranks.tolist(), weight)
    assert value.item() == pytest.approx(expected, rel=1e-10)


def test_an_anchor_meets_the_other_positives_but_not_the_other_anchors_by_hand():
    # Anchors (1, 0), (9, 9); positives (2, 0), (0, 3): dot products 2 and 0 with the first, 18 and 27 with the second.
    embeddings = torch.tensor([[1.0, 0.0], [2.0, 0.0], [9.0, 9.0], [0.0, 3.0]], dtype=torch.float64)
    value = n_pairs(embeddings, torch.tensor([4, 4, 2, 2]), torch.arange(4), regularizer_weight=0.0)
    assert value.item() == pytest.approx((math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-9))) / 2)
    # Mean of the squared norms 1, 4, 162 and 9: 44; half of it, times the weight.
    with_norms = n_pairs(embeddings, torch.tensor([4, 4, 2, 2]), torch.arange(4), regularizer_weight=0.5)
    assert with_norms.item() - value.item() == pytest.approx(0.5 * 44 / 2)


def test_gradients_agree_with_finite_differences(batch):
    embeddings, ranks = (batch[0] / 5).requires_grad_(), torch.arange(9)
    assert torch.autograd.gradcheck(
        lambda e: n_pairs(e, batch[1], ranks, regularizer_weight=0.1), embeddings, atol=1e-6
    )


def test_agrees_with_the_library_which_takes_the_first_two_samples_of_each_class(batch):
    embeddings, labels = batch[0] / 5, batch[1]
    library = NPairsLoss()
    library.distance.normalize_embeddings = False
    value = n_pairs(embeddings, labels, torch.arange(9), regularizer_weight=0.0)
    assert value.item() == pytest.approx(library(embeddings, labels).item(), rel=1e-9)


def test_roles_change_with_the_step_and_the_seed_but_not_with_the_order_of_the_batch(batch):
    embeddings, labels = batch[0] / 5, batch[1]
    module, other, order = (
        NPairs(seed=3, regularizer_weight=0.0),
        NPairs(seed=4, regularizer_weight=0.0),
        torch.arange(9).flip(0),
    )
    values = set()
    for _ in range(6):
        value = module(embeddings, labels)
        assert module(embeddings[order], labels[order]).item() == pytest.approx(value.item(), rel=1e-12)
        values.add(round(value.item(), 9))
        module.after_step()
    assert len(values) > 2
    assert round(other(embeddings, labels).item(), 9) != round(
        NPairs(seed=3, regularizer_weight=0.0)(embeddings, labels).item(), 9
    )


@pytest.mark.parametrize("labels", [[0], list(range(9))])
def test_without_a_pair_there_is_no_loss_and_no_gradient(batch, labels):
    embeddings = batch[0][: len(labels)].float().requires_grad_()
    value = NPairs(seed=0, regularizer_weight=1.0)(embeddings, torch.tensor(labels))
    assert value.item() == 0
    assert torch.autograd.grad(value, embeddings)[0].abs().max() == 0


def test_a_negative_weight_is_refused():
    with pytest.raises(UserError, match=r"regularizer_weight=-0.1 of N-pairs"):
        NPairs(seed=0, regularizer_weight=-0.1)
