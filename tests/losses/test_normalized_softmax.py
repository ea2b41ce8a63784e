"""Normalized Softmax, compared with its equation in loops and values worked out by hand."""

import math

import pytest
import torch

from benchmark.core.errors import UserError
from benchmark.losses.normalized_softmax import normalized_softmax
from tests.losses.conftest import cosine


def by_loops(embeddings, labels, proxies, temperature):
    total = 0.0
    for embedding, label in zip(embeddings.tolist(), labels.tolist(), strict=True):
        logits = [cosine(embedding, proxy) / temperature for proxy in proxies.tolist()]
        total += math.log(sum(math.exp(logit - logits[label]) for logit in logits))
    return total / len(labels)


@pytest.mark.parametrize("temperature", [0.01, 0.1087, 1.0, 100.0])
def test_agrees_with_the_equation_in_loops(batch, temperature):
    expected = by_loops(*batch, temperature)
    assert normalized_softmax(*batch, temperature=temperature).item() == pytest.approx(expected, rel=1e-12)


def test_two_orthogonal_classes_worked_out_by_hand():
    # On its own vector a sample has cosines 1 and 0: log(e^(1/T) + 1) - 1/T = log(1 + e^(-1/T)), here with T = 1/2.
    vectors = torch.tensor([[3.0, 0.0], [0.0, 0.2]])
    loss = normalized_softmax(torch.tensor([[9.0, 0.0]]), torch.tensor([0]), vectors, temperature=0.5)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-2)))


def test_gradients_agree_with_finite_differences(batch):
    inputs = batch[0].requires_grad_(), batch[2].requires_grad_()
    assert torch.autograd.gradcheck(lambda e, p: normalized_softmax(e, batch[1], p, temperature=0.3), inputs, atol=1e-6)


def test_a_sample_opposite_to_its_class_keeps_its_loss_at_the_lowest_temperature_in_float32():
    # Cosines -1 (own) and 1 over T = 0.01: 100 + 100, although e^-200 is 0 in float32.
    vectors = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    loss = normalized_softmax(torch.tensor([[-1.0, 0.0]]), torch.tensor([0]), vectors, temperature=0.01)
    assert loss.item() == pytest.approx(200)


def test_one_class_gives_zero_loss_and_gradients():
    embeddings = torch.tensor([[1.0, 2.0], [-3.0, 0.5]]).requires_grad_()
    loss = normalized_softmax(embeddings, torch.tensor([0, 0]), torch.ones(1, 2), temperature=0.05)
    assert loss.item() == 0
    assert torch.autograd.grad(loss, embeddings)[0].abs().max() == 0


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_a_temperature_that_is_not_finite_and_above_zero_is_refused(batch, temperature):
    with pytest.raises(UserError, match=f"temperature={temperature} of normalized_softmax"):
        normalized_softmax(*batch, temperature=temperature)
