"""The ranked list loss, compared with loops, with the library, and by hand; who moves, and weights of queries."""

import math

import pytest
import torch
from pytorch_metric_learning.losses import RankedListLoss

from benchmark.core.errors import UserError
from benchmark.losses.ranked_list import RankedList
from tests.losses.pair_loops import distances, pairs, unit

SETTING = {"alpha": 1.3, "margin": 0.5, "temperature_n": 5.0}


def mean_and_total(violations, temperature):
    weights = [(v, math.exp(temperature * v)) for v in violations if v > 0]
    total = sum(w for _, w in weights)
    return (sum(v * w for v, w in weights) / total if weights else 0.0), total


def by_loops(
    embeddings, labels, *, alpha, margin, temperature_n, temperature_p=0.0, negative_weight=0.5, queries="equal"
):
    distance, (positive, negative), losses, totals = distances(embeddings), pairs(labels), [], []
    for query in range(len(labels)):
        pull, pull_total = mean_and_total(
            [distance[query][p] - alpha + margin for a, p in positive if a == query], temperature_p
        )
        push, push_total = mean_and_total(
            [alpha - distance[query][n] for a, n in negative if a == query], temperature_n
        )
        losses.append((1 - negative_weight) * pull + negative_weight * push)
        totals.append(pull_total + push_total)
    shares = [1 / len(losses)] * len(losses) if queries == "equal" else [t / sum(totals) for t in totals]
    return sum(loss * share for loss, share in zip(losses, shares, strict=True))


@pytest.mark.parametrize("queries", ["equal", "weighted"])
@pytest.mark.parametrize(
    "setting",
    [{}, {"temperature_n": 0.0}, {"temperature_p": 2.0, "negative_weight": 0.2}, {"alpha": 0.9}, {"margin": 0.0},
    {"alpha": 1.7}, {"alpha": 0.3, "margin": 0.8, "temperature_p": 2.0}], ids=str,
)  # fmt: skip
def test_agrees_with_the_formula_in_loops(batch, setting, queries):
    embeddings, labels, _ = batch
    setting = SETTING | setting | {"queries": queries}
    value = RankedList(**setting)(embeddings, labels)
    assert value.item() == pytest.approx(by_loops(embeddings, labels, **setting), rel=1e-10)


def test_radii_are_alpha_and_alpha_minus_the_margin_by_hand():
    # Distances of unit vectors: sqrt(2) between the positives, sqrt(2) and 2 to the negative. alpha 1.6, margin 0.4:
    # the positives are 0.2142 too far apart, and the negative is 0.1858 too near to one of them.
    embeddings, labels = (
        torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64),
        torch.tensor([0, 0, 1]),
    )
    value = RankedList(alpha=1.6, margin=0.4, temperature_n=10.0)(embeddings, labels)
    root = math.sqrt(2)
    assert value.item() == pytest.approx(0.5 * (2 * (root - 1.2) + 2 * (1.6 - root)) / 3)


def gradient(module, embeddings, labels):
    leaf = embeddings.clone().requires_grad_()
    return torch.autograd.grad(module(leaf, labels), leaf)[0]


def test_a_query_moves_alone_and_weights_are_constants(batch):
    # Each query's own loss with fixed others, in loops over pairs: the derivative of d_ij by x_i is (x_i - x_j) / d_ij.
    embeddings = torch.nn.functional.normalize(batch[0], dim=1)
    labels, rows = batch[1], embeddings.tolist()
    distance, (positive, negative) = distances(embeddings), pairs(labels)
    expected = torch.zeros_like(embeddings)
    for sign, kind, temperature in ((1, positive, 0.0), (-1, negative, 5.0)):
        for query in range(9):
            edge = 1.3 - (0.5 if sign == 1 else 0)
            violations = {j: sign * (distance[query][j] - edge) for i, j in kind if i == query}
            active = {j: math.exp(temperature * v) for j, v in violations.items() if v > 0}
            for j, weight in active.items():
                step = [sign * (x - y) / distance[query][j] for x, y in zip(rows[query], rows[j], strict=True)]
                expected[query] += 0.5 / 9 * weight / sum(active.values()) * torch.tensor(step, dtype=torch.float64)
    tangent = expected - (expected * embeddings).sum(dim=1, keepdim=True) * embeddings  # norms are 1 and do not change
    torch.testing.assert_close(gradient(RankedList(**SETTING), embeddings, labels), tangent, rtol=1e-8, atol=1e-12)


def test_a_moving_gallery_doubles_the_step_of_two_mutual_neighbours():
    # One positive pair, too far apart: each end moves for its own query, and with a moving gallery for the other's too.
    embeddings, labels = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0])
    fixed = gradient(RankedList(**SETTING), embeddings, labels)
    torch.testing.assert_close(gradient(RankedList(**SETTING, gallery="moving"), embeddings, labels), 2 * fixed)
    assert fixed.abs().max() > 0.1


def test_agrees_with_the_library(batch):
    library = RankedListLoss(margin=0.5, Tn=5.0, alpha=1.3, Tp=0)
    # The library adds 1e-5 per sample to the sums of weights.
    assert RankedList(**SETTING)(*batch[:2]).item() == pytest.approx(library(*batch[:2]).item(), rel=1e-3)


def test_the_hottest_weights_stay_finite_in_float32():
    rows = torch.tensor([unit([1.0, 0.001 * i]) for i in range(6)]).requires_grad_()
    for queries in ("equal", "weighted"):
        value = RankedList(alpha=2.0, margin=0.5, temperature_n=500.0, queries=queries)(rows, torch.arange(6) // 2)
        assert value.item() == pytest.approx(1.0, rel=1e-2)  # half of the nearest negative's 2 - 0.001
        assert torch.autograd.grad(value, rows)[0].isfinite().all()


@pytest.mark.parametrize("queries", ["equal", "weighted"])
@pytest.mark.parametrize("labels", [[0], list(range(4))])
def test_without_violations_there_is_no_loss_and_no_gradient(labels, queries):
    embeddings = torch.eye(4)[: len(labels)].requires_grad_()  # distances of 1.41
    value = RankedList(**SETTING, queries=queries)(embeddings, torch.tensor(labels))
    assert value.item() == 0
    assert torch.autograd.grad(value, embeddings)[0].abs().max() == 0


def test_a_bad_setting_is_refused():
    with pytest.raises(UserError, match=r"temperature_n=-1.0 of the ranked list loss"):
        RankedList(alpha=1.0, margin=0.1, temperature_n=-1.0)
    with pytest.raises(UserError, match=r"negative_weight=1.5 of the ranked list loss must be from 0 to 1"):
        RankedList(**SETTING, negative_weight=1.5)
    for option in ("gallery", "queries"):
        with pytest.raises(UserError, match=f"{option}='all' of the ranked list loss must be one of"):
            RankedList(**SETTING, **{option: "all"})
