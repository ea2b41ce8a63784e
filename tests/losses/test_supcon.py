"""SupCon, compared with L_out and L_in in loops, with the library, and by hand; anchors without a positive."""

import math

import pytest
import torch
from pytorch_metric_learning.losses import SupConLoss

from benchmark.core.errors import UserError
from benchmark.losses.supcon import SupCon
from tests.losses.pair_loops import cosines, pairs


def by_loops(embeddings, labels, temperature, average):
    cosine, (positive, _), total = cosines(embeddings), pairs(labels), 0.0
    for a in range(len(labels)):
        everyone = sum(math.exp(cosine[a][k] / temperature) for k in range(len(labels)) if k != a)
        shares = [math.exp(cosine[a][p] / temperature) / everyone for b, p in positive if b == a]
        if shares and average == "outside":
            total -= sum(math.log(share) for share in shares) / len(shares)
        elif shares:
            total -= math.log(sum(shares) / len(shares))
    return total / len(labels)


@pytest.mark.parametrize("average", ["outside", "inside"])
@pytest.mark.parametrize("temperature", [0.01, 0.1, 100.0])
def test_agrees_with_the_formula_in_loops(batch, temperature, average):
    embeddings, labels, _ = batch
    value = SupCon(temperature=temperature, average=average)(embeddings, labels)
    assert value.item() == pytest.approx(by_loops(embeddings, labels, temperature, average), rel=1e-10)


def test_positives_are_in_the_denominator_by_hand():
    # Three equal samples of one class and one at a right angle. An anchor of the class: -log(e^2 / (2 e^2 + 1)), with
    # both positives in the denominator; the other sample has no positive and adds 0 to the mean over four.
    embeddings, labels = torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0, 0, 1])
    expected = 0.75 * math.log(2 + math.exp(-2))
    assert SupCon(temperature=0.5)(embeddings, labels).item() == pytest.approx(expected)
    assert SupCon(temperature=0.5, average="inside")(embeddings, labels).item() == pytest.approx(expected)


def test_averaging_inside_the_logarithm_forgives_a_hard_positive_by_hand():
    # Anchor 0 has cosine 1 with one positive and 0 with the other, anchors 1 and 2 likewise or 0 and 0; T = 1.
    embeddings, labels = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0, 0])
    both = math.log(math.e + 1)
    outside = (2 * (both - 0.5) + math.log(2)) / 3
    inside = (2 * math.log(2) + math.log(2)) / 3
    assert SupCon(temperature=1.0)(embeddings, labels).item() == pytest.approx(outside)
    assert SupCon(temperature=1.0, average="inside")(embeddings, labels).item() == pytest.approx(inside)


@pytest.mark.parametrize("average", ["outside", "inside"])
def test_gradients_agree_with_finite_differences(batch, average):
    embeddings, labels, _ = batch
    module = SupCon(temperature=0.1, average=average)
    assert torch.autograd.gradcheck(lambda e: module(e, labels), embeddings.requires_grad_(), atol=1e-6)


def test_agrees_with_the_library_where_every_sample_has_a_positive(batch):
    embeddings, labels = batch[0][:8], torch.tensor([0, 0, 1, 1, 1, 2, 2, 0])
    results = []
    for module in (SupConLoss(temperature=0.07), SupCon(temperature=0.07)):
        leaf = embeddings.clone().requires_grad_()
        value = module(leaf, labels)
        results.append((value, *torch.autograd.grad(value, leaf)))
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-12)
    with_a_singleton = torch.tensor([0, 0, 1, 1, 1, 2, 2, 3])  # the library leaves it out of the mean
    ours, library = (m(embeddings, with_a_singleton).item() for m in (SupCon(temperature=0.07), SupConLoss(0.07)))
    assert ours == pytest.approx(library * 7 / 8, rel=1e-9)


def test_the_base_temperature_scales_the_loss(batch):
    plain, scaled = SupCon(temperature=0.1), SupCon(temperature=0.1, base_temperature=0.07)
    assert scaled(*batch[:2]).item() == pytest.approx(plain(*batch[:2]).item() / 0.7, rel=1e-12)


@pytest.mark.parametrize("average", ["outside", "inside"])
@pytest.mark.parametrize("labels", [[0], list(range(9))])
def test_without_a_positive_there_is_no_loss_and_no_gradient(batch, labels, average):
    embeddings = batch[0][: len(labels)].float().requires_grad_()
    value = SupCon(temperature=1e-5, average=average)(embeddings, torch.tensor(labels))
    assert value.item() == 0
    assert torch.autograd.grad(value, embeddings)[0].abs().max() == 0


def test_a_bad_setting_is_refused():
    with pytest.raises(UserError, match=r"temperature=0.0 of SupCon"):
        SupCon(temperature=0.0)
    with pytest.raises(UserError, match=r"base_temperature=-1.0 of SupCon"):
        SupCon(temperature=0.1, base_temperature=-1.0)
    with pytest.raises(UserError, match="average='mean' of SupCon must be one of outside, inside"):
        SupCon(temperature=0.1, average="mean")
