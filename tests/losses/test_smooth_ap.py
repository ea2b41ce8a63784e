"""Smooth-AP, compared with its formula in loops and by hand; the steep limit is average precision; sets and chunks."""

import math

import pytest
import torch

from benchmark.core.errors import UserError
from benchmark.losses import ranks
from benchmark.losses.pretended_device import PretendedDevice
from benchmark.losses.smooth_ap import SmoothAP, smooth_ap
from tests.losses.pair_loops import cosines, with_duplicates


def sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


def by_loops(embeddings, labels, temperature, rank_query):
    cosine, y, losses = cosines(embeddings), labels.tolist(), []
    for q in range(len(y)):
        positives = [i for i in range(len(y)) if y[i] == y[q] and (i != q or rank_query)]
        negatives = [j for j in range(len(y)) if y[j] != y[q]]
        if y.count(y[q]) == 1:
            continue
        precisions = []
        for i in positives:
            own = sum(sigmoid((cosine[q][j] - cosine[q][i]) / temperature) for j in positives if j != i)
            rest = sum(sigmoid((cosine[q][j] - cosine[q][i]) / temperature) for j in negatives)
            precisions.append((1 + own) / (1 + own + rest))
        losses.append(1 - sum(precisions) / len(precisions))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("temperature", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("rank_query", [True, False])
def test_agrees_with_the_formula_in_loops(batch, temperature, rank_query):
    embeddings, labels, _ = batch
    expected = by_loops(embeddings, labels, temperature, rank_query)
    value = smooth_ap(embeddings, labels, temperature=temperature, rank_query=rank_query)
    assert expected > 0.01 and value.item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("rank_query", "expected"), [(False, 1 / 2), (True, 1 / 6)])
def test_a_steep_sigmoid_gives_average_precision_by_hand(rank_query, expected):
    # Angles 0, 40 | 10 degrees. Query 0 ranks the negative before its positive: precision 1/2; with itself as the first
    # of two positives, (1 + 2/3) / 2. So does query 40. The third sample is alone in its class and has no ranking.
    angle = torch.tensor([0.0, 40.0, 10.0], dtype=torch.float64).deg2rad()
    embeddings = torch.stack([angle.cos(), angle.sin()], dim=1)
    value = smooth_ap(embeddings, torch.tensor([0, 0, 1]), temperature=1e-4, rank_query=rank_query)
    assert value.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("rank_query", [True, False])
def test_gradients_agree_with_finite_differences(batch, rank_query):
    embeddings, labels, _ = batch
    module = SmoothAP(temperature=0.1, rank_query=rank_query)
    assert torch.autograd.gradcheck(lambda e: module(e, labels), embeddings.requires_grad_(), fast_mode=True)


def test_the_size_of_a_chunk_changes_only_rounding(monkeypatch):
    embeddings, labels = with_duplicates()
    found = []
    for size in (1, 300, 10**9):
        monkeypatch.setattr(ranks, "CHUNK", size)
        leaf = embeddings.double().requires_grad_()
        value = smooth_ap(leaf, labels, temperature=0.05)
        found.append((value, torch.autograd.grad(value, leaf)[0]))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-12, atol=1e-14)


def test_a_device_that_the_host_must_not_wait_for_gets_the_same_loss(monkeypatch):
    monkeypatch.setattr(ranks, "CHUNK", 3000)  # three of 32 queries, each against all 32 samples
    embeddings, labels = with_duplicates()
    leaf = embeddings.requires_grad_()
    value = smooth_ap(leaf, labels, temperature=0.05)
    gradient = torch.autograd.grad(value, leaf)[0]
    with PretendedDevice() as device:
        moved, classes = embeddings.detach().to("cuda").requires_grad_(), labels.to("cuda")
        device.clear()
        found = smooth_ap(moved, classes, temperature=0.05)
        slopes = torch.autograd.grad(found, moved)[0]
    assert not any(device.events.values())
    torch.testing.assert_close(found.inner, value.detach())
    torch.testing.assert_close(slopes.inner, gradient, rtol=1e-4, atol=1e-6)


def test_memory_grows_with_a_chunk_and_not_with_the_batch_to_the_third_power(monkeypatch):
    monkeypatch.setattr(ranks, "CHUNK", 2**14)
    embeddings, labels = torch.randn(64, 8, generator=torch.Generator().manual_seed(0)), torch.arange(64) // 32
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        smooth_ap(embeddings.requires_grad_(), labels, temperature=0.1)
    assert max(sizes) <= 2**14  # the leads of all queries: 64 x 32 x 64 = 2**17


def test_duplicates_have_a_finite_loss_and_finite_gradients():
    embeddings, labels = with_duplicates()
    value = smooth_ap(embeddings.requires_grad_(), labels, temperature=1e-3)
    assert value.isfinite() and torch.autograd.grad(value, embeddings)[0].isfinite().all()


@pytest.mark.parametrize("labels", [[0], list(range(9))])
def test_without_a_positive_there_is_no_loss_and_no_gradient(batch, labels):
    embeddings = batch[0][: len(labels)].requires_grad_()
    value = smooth_ap(embeddings, torch.tensor(labels), temperature=0.1)
    assert value.item() == 0
    assert torch.autograd.grad(value, embeddings)[0].abs().max() == 0


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_a_temperature_that_is_not_finite_and_above_zero_is_refused(temperature):
    with pytest.raises(UserError, match=f"temperature={temperature} of Smooth-AP"):
        SmoothAP(temperature=temperature)
