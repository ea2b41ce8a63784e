"""CosFace, compared with its equation in loops and values worked out by hand."""

import math

import pytest
import torch

from benchmark.core.errors import UserError
from benchmark.losses.cosface import cosface
from benchmark.losses.normalized_softmax import normalized_softmax
from tests.losses.conftest import cosine


def by_loops(embeddings, labels, proxies, scale, margin):
    total = 0.0
    for embedding, label in zip(embeddings.tolist(), labels.tolist(), strict=True):
        lowered = [cosine(embedding, proxy) - (margin if j == label else 0) for j, proxy in enumerate(proxies.tolist())]
        total += math.log(sum(math.exp(scale * (value - lowered[label])) for value in lowered))
    return total / len(labels)


@pytest.mark.parametrize("margin", [0.0, 0.35, 1.0])
@pytest.mark.parametrize("scale", [0.01, 64.0, 200.0])
def test_agrees_with_the_equation_in_loops(batch, scale, margin):
    expected = by_loops(*batch, scale, margin)
    assert cosface(*batch, scale=scale, margin=margin).item() == pytest.approx(expected, rel=1e-12)


def test_two_orthogonal_classes_worked_out_by_hand():
    # On its own vector a sample has cosines 1 and 0, logits 10 (1 - 0.4) = 6 and 0: log(e^6 + 1) - 6 = log(1 + e^-6).
    vectors = torch.tensor([[3.0, 0.0], [0.0, 0.2]])
    loss = cosface(torch.tensor([[9.0, 0.0]]), torch.tensor([0]), vectors, scale=10.0, margin=0.4)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-6)), rel=1e-4)


def test_without_a_margin_it_is_the_softmax_at_temperature_one_over_the_scale(batch):
    expected = normalized_softmax(*batch, temperature=1 / 40)
    assert cosface(*batch, scale=40.0, margin=0.0).item() == pytest.approx(expected.item(), rel=1e-12)


def test_gradients_agree_with_finite_differences(batch):
    inputs = batch[0].requires_grad_(), batch[2].requires_grad_()
    assert torch.autograd.gradcheck(lambda e, p: cosface(e, batch[1], p, scale=6.0, margin=0.3), inputs, atol=1e-6)


def test_a_sample_opposite_to_its_class_keeps_its_loss_at_the_largest_scale_in_float32():
    # Logits 300 (-1 - 1) = -600 (own) and 300: 900, although e^-900 is 0 in float32.
    vectors = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    loss = cosface(torch.tensor([[-1.0, 0.0]]), torch.tensor([0]), vectors, scale=300.0, margin=1.0)
    assert loss.item() == pytest.approx(900)


def test_one_class_gives_zero_loss_and_gradients():
    embeddings = torch.tensor([[1.0, 2.0], [-3.0, 0.5]]).requires_grad_()
    loss = cosface(embeddings, torch.tensor([0, 0]), torch.ones(1, 2), scale=64.0, margin=0.35)
    assert loss.item() == 0
    assert torch.autograd.grad(loss, embeddings)[0].abs().max() == 0


@pytest.mark.parametrize("scale", [0.0, -1.0, math.inf, math.nan])
def test_a_scale_that_is_not_finite_and_above_zero_is_refused(batch, scale):
    with pytest.raises(UserError, match=f"scale={scale} of cosface"):
        cosface(*batch, scale=scale, margin=0.1)


@pytest.mark.parametrize("margin", [-0.1, math.inf, math.nan])
def test_a_margin_that_is_not_finite_and_at_least_zero_is_refused(batch, margin):
    with pytest.raises(UserError, match=f"margin={margin} of cosface"):
        cosface(*batch, scale=64.0, margin=margin)
