"""The losses over pairs and triplets, compared with pytorch-metric-learning's; masks and averages by hand."""

import itertools
import math

import pytest
import torch
from pytorch_metric_learning import losses, miners

from benchmark.losses.contrastive import Contrastive
from benchmark.losses.fastap import FastAP
from benchmark.losses.margin import Margin
from benchmark.losses.pairs import mean_above_zero, pairs_of
from benchmark.losses.triplet import Triplet, contributing
from tests.losses.every_loss import CLASSES

BATCHES = {
    "four of each class": [0, 1, 2, 3, 4, 5] * 4,
    "imbalanced": [0] * 9 + [1] * 4 + [2] * 2 + [3, 4, 7],
    "no positive": list(range(8)),
    "no negative": [5] * 8,
    "one pair": [1, 1],
    "two classes": [0, 6],
    "one sample": [2],
}


def contrastive(pos_margin, neg_margin):
    return Contrastive(pos_margin=pos_margin, neg_margin=neg_margin), losses.ContrastiveLoss(pos_margin, neg_margin)


def triplet(margin):
    return Triplet(margin=margin), losses.TripletMarginLoss(margin)


def semihard(margin):
    loss, miner = losses.TripletMarginLoss(margin), miners.TripletMarginMiner(margin, "semihard")
    return Triplet(margin=margin, triplets="semihard"), lambda e, y: loss(e, y, miner(e, y))


def margin(beta, **settings):
    pair = [kind(beta=1.0, **settings).double() for kind in (Margin, losses.MarginLoss)]
    for module in pair:
        values = beta * torch.linspace(0.8, 1.2, len(module.beta), dtype=torch.float64)
        if settings["learn_beta"]:
            module.beta.data.copy_(values)
        else:
            module.beta = values  # a plain tensor in the library, which `double` does not convert
    return pair


def fastap(num_bins):
    return FastAP(num_bins=num_bins), losses.FastAPLoss(num_bins)


SETTINGS = [
    *((contrastive, {"pos_margin": p, "neg_margin": n}) for p, n in [(0.0, 1.0), (-0.2, 0.4), (0.4, 1.3), (2.0, 2.0)]),
    *((kind, {"margin": m}) for kind in (triplet, semihard) for m in (0.05, 0.7, 2.0, -0.2, 0.0)),
    *((margin, {"beta": 1.1, "margin": m, "nu": nu, "learn_beta": True, "num_classes": classes})
      for m in (0.2, -0.2, 2.0, -2.0) for nu in (0.0, 0.3) for classes in (None, CLASSES)),
    (margin, {"beta": 1.1, "margin": 0.2, "nu": 0.3, "learn_beta": False}),
    *((fastap, {"num_bins": bins}) for bins in (2, 10, 27)),
]  # fmt: skip


def results(loss, embeddings, labels):
    """The value of a loss, and its gradients by the embeddings and by beta, if it has one."""
    leaf = embeddings.clone().requires_grad_()
    value = loss(leaf, labels)
    leaves = [leaf, *(loss.parameters() if isinstance(loss, torch.nn.Module) else [])]
    found = torch.autograd.grad(value.sum(), leaves, allow_unused=True) if value.requires_grad else [None] * len(leaves)
    return [value.sum(), *(torch.zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=True))]


@pytest.mark.parametrize(("kind", "setting"), SETTINGS, ids=[f"{k.__name__} {[*s.values()]}" for k, s in SETTINGS])
def test_agrees_with_the_librarys_loss_in_value_and_gradients(kind, setting):
    generator = torch.Generator().manual_seed(1)
    for name, labels in BATCHES.items():
        embeddings = torch.randn(len(labels), 3, generator=generator, dtype=torch.float64)
        ours, theirs = (results(loss, embeddings, torch.tensor(labels)) for loss in kind(**setting))
        for found, expected in zip(ours, theirs, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}")


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
