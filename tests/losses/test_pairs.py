"""What the losses over pairs and triplets share: masks and averages by hand, counts of triplets in loops."""

import itertools
import math

import pytest
import torch

from benchmark.losses.contrastive import Contrastive
from benchmark.losses.fastap import FastAP
from benchmark.losses.margin import Margin
from benchmark.losses.pairs import mean_above_zero, pairs_of
from benchmark.losses.triplet import Triplet, contributing


def test_pairs_of_one_and_of_two_classes():
    positive, negative = pairs_of(torch.tensor([3, 1, 3]))
    assert positive.tolist() == [[False, False, True], [False, False, False], [True, False, False]]
    assert negative.tolist() == [[False, True, False], [True, False, True], [False, True, False]]


def test_an_average_counts_kept_values_above_zero_and_does_not_hide_a_nan():
    values = torch.tensor([[3.0, -1.0], [0.0, 1.0]])
    assert mean_above_zero(values, torch.ones(2, 2, dtype=torch.bool)).item() == 2
    assert mean_above_zero(values, torch.eye(2, dtype=torch.bool).flip(0)).item() == 0
    values[0, 1] = math.nan
    assert mean_above_zero(values, torch.ones(2, 2, dtype=torch.bool)).isnan()


@pytest.mark.parametrize("loss", [Contrastive(), Triplet(), Margin(), FastAP()], ids=lambda loss: type(loss).__name__)
def test_a_nan_embedding_is_not_hidden(loss):
    embeddings = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    embeddings[2, 1] = math.nan
    assert loss(embeddings, torch.arange(6) % 2).isnan()


def test_the_memory_of_a_triplet_loss_does_not_grow_with_the_number_of_triplets():
    embeddings = torch.randn(600, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    value = Triplet(margin=0.5)(embeddings, torch.arange(600) % 3)  # 48 million triplets
    value.backward()
    assert 0 < value.item() < 2.5 and embeddings.grad.isfinite().all()


@pytest.mark.parametrize("triplets", ["all", "semihard"])
@pytest.mark.parametrize("margin", [-0.25, 0.0, 0.25, 0.5])
def test_triplets_with_equal_distances_are_counted_as_in_loops(triplets, margin):
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 3])
    distance = torch.randint(5, (9, 9), generator=torch.Generator().manual_seed(0)).double() / 4
    expected = torch.zeros(2, 9, 9, dtype=torch.long)
    for a, p, n in itertools.product(range(9), repeat=3):
        if labels[a] == labels[p] != labels[n] and a != p and distance[a, n] < distance[a, p] + margin:
            for kind, other in enumerate((p, n) if triplets == "all" or distance[a, n] > distance[a, p] else ()):
                expected[kind, a, other] += 1
    found = contributing(distance, *pairs_of(labels), margin, triplets)
    assert torch.equal(torch.stack(found), expected)
