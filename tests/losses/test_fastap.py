"""FastAP of its YAML file, compared with its formula in loops and by hand; half-precision embeddings."""

import pytest
import torch

from tests.losses.every_loss import build
from tests.losses.pair_loops import distances


def loss(embeddings, labels, num_bins):
    return build("fastap", num_bins=num_bins)[0](embeddings, labels)


def by_loops(embeddings, labels, num_bins):
    """Return 1 - AP of each anchor with positives: precision at each bin, weighted by its positives."""
    distance, y, width = distances(embeddings), labels.tolist(), 4 / num_bins
    losses = []
    for a in range(len(y)):
        positives = [j for j in range(len(y)) if j != a and y[j] == y[a]]
        if not positives:
            continue
        ap = within = positives_within = 0.0
        for k in range(num_bins + 1):
            share = [max(1 - abs(distance[a][j] ** 2 - k * width) / width, 0) for j in range(len(y))]
            here = sum(share[j] for j in positives)
            positives_within += here
            within += sum(share[j] for j in range(len(y)) if j != a)
            ap += here * positives_within / within if here else 0.0
        losses.append(1 - ap / len(positives))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("num_bins", [2, 10, 17, 32])
def test_agrees_with_the_formula_in_loops(batch, num_bins):
    embeddings, labels, _ = batch
    expected = by_loops(embeddings, labels, num_bins)
    assert expected > 0.01
    assert loss(embeddings, labels, num_bins).item() == pytest.approx(expected, rel=1e-10)


def test_a_positive_ranked_after_a_negative_by_hand():
    # Squared distances 0 and 4 lie on the first and last of the edges 0, 2, 4. Anchor east: its negative is there at 0,
    # its positive at 4, found last of two: AP 1/2. Anchor west: both at 4, AP 1/2. The negative has no positive.
    embeddings = torch.tensor([[1.0, 0.0], [3.0, 0.0], [-1.0, 0.0]])
    assert loss(embeddings, torch.tensor([0, 1, 0]), 2).item() == pytest.approx(0.5)
    assert loss(embeddings, torch.tensor([0, 0, 1]), 2).item() == pytest.approx(0, abs=1e-6)


def test_gradients_agree_with_finite_differences(batch):
    embeddings, labels, _ = batch
    module, _ = build("fastap", num_bins=10)
    assert torch.autograd.gradcheck(lambda e: module(e, labels), embeddings.requires_grad_(), atol=1e-6)


@pytest.mark.parametrize("labels", [[0], list(range(9)), [1, 1], [2] * 9])
def test_without_positives_or_without_negatives_there_is_no_loss(batch, labels):
    embeddings = batch[0][: len(labels)].requires_grad_()
    value = loss(embeddings, torch.tensor(labels), 10)
    assert value.item() == pytest.approx(0, abs=1e-12)
    assert torch.autograd.grad(value, embeddings)[0].abs().max() < 1e-12


def test_half_precision_embeddings_get_bins_of_full_precision(batch):
    half = batch[0].bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(half, batch[1], 27)
    value.backward()
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(by_loops(half.detach().double(), batch[1], 27), rel=1e-5)
