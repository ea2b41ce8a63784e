"""Circle loss, compared with Eq. 6 in loops, its gradient with Eq. 10, with the library, and by hand; large scales."""

import math

import pytest
import torch
from pytorch_metric_learning.losses import CircleLoss

from benchmark.core.errors import UserError
from benchmark.losses.circle import Circle, circle_class
from tests.losses.conftest import cosine
from tests.losses.pair_loops import cosines, pairs


def loss_of_anchor(positives, negatives, gamma, margin):
    pull = sum(math.exp(-gamma * max(0, 1 + margin - s) * (s - (1 - margin))) for s in positives)
    push = sum(math.exp(gamma * max(0, s + margin) * (s - margin)) for s in negatives)
    return math.log(1 + push * pull)


@pytest.mark.parametrize(("gamma", "margin"), [(80.0, 0.4), (1.0, 0.0), (128.0, 0.25), (20.0, 1.0)])
def test_agrees_with_the_formula_in_loops(batch, gamma, margin):
    embeddings, labels, _ = batch
    similar, (positive, negative) = cosines(embeddings), pairs(labels)
    losses = []
    for a in range(len(labels)):
        near = [similar[a][p] for b, p in positive if b == a]
        if near:  # every sample has a negative
            losses.append(loss_of_anchor(near, [similar[a][n] for b, n in negative if b == a], gamma, margin))
    value = Circle(gamma=gamma, margin=margin)(embeddings, labels)
    assert value.item() == pytest.approx(sum(losses) / len(losses), rel=1e-10)


def test_the_optimum_is_reached_at_a_cosine_of_1_and_0_by_hand():
    # Cosine 1 to the positive: factor [1.4 - 1]+ (1 - 0.6) = 0.16; cosine 0 to the negative: [0.4]+ (0 - 0.4) = -0.16.
    embeddings = torch.tensor([[2.0, 0.0], [5.0, 0.0], [0.0, 1.0]])
    value = Circle(gamma=10.0, margin=0.4)(embeddings, torch.tensor([0, 0, 1]))
    assert value.item() == pytest.approx(math.log(1 + math.exp(-3.2)))


def test_the_factors_are_constants_in_the_gradient_as_in_equation_10():
    # dL/ds_p = -Z gamma [1 + m - s_p]+ and dL/ds_n = Z gamma [s_n + m]+ with one pair of each, Z = 1 - e^-L. Of the
    # three samples, only the first two have a positive; moving the third along the unit circle changes s_02 and s_12
    # alone.
    def at(angle):
        return torch.stack(
            [torch.tensor([1.0, 0.0]), torch.tensor([0.6, 0.8]), torch.stack([angle.cos(), angle.sin()])]
        )

    angle, gamma, margin = torch.tensor(1.2, dtype=torch.float64, requires_grad=True), 8.0, 0.3
    (gradient,) = torch.autograd.grad(
        Circle(gamma=gamma, margin=margin)(at(angle).double(), torch.tensor([0, 0, 1])), angle
    )
    expected, own = 0.0, math.atan2(0.8, 0.6)
    for anchor in (0.0, own):
        rival, slope = math.cos(1.2 - anchor), -math.sin(1.2 - anchor)
        weight = 1 - math.exp(-loss_of_anchor([0.6], [rival], gamma, margin))
        expected += weight * gamma * (rival + margin) * slope / 2
    assert gradient.item() == pytest.approx(expected, rel=1e-6)  # the rows' cosine 0.6 is rounded to float32


def test_agrees_with_the_library(batch):
    results = []
    for module in (CircleLoss(m=0.25, gamma=32.0), Circle(gamma=32.0, margin=0.25)):
        embeddings = batch[0].clone().requires_grad_()
        value = module(embeddings, batch[1])
        results.append((value, *torch.autograd.grad(value, embeddings)))
    torch.testing.assert_close(*results, rtol=1e-7, atol=1e-9)  # the library's softplus is linear above 20


def test_the_largest_scale_keeps_float32_finite_and_exact():
    # Opposite positives and an equal negative: e^{512 * 2 * 2} overflows even float64.
    embeddings = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]], requires_grad=True)
    value = Circle(gamma=512.0, margin=0.0)(embeddings, torch.tensor([0, 0, 1]))
    # Anchor 0: 512 (2 * 1 + 1 * 1); anchor 1: 512 (2 * 2 ... ) is the same pull, and a negative at -1 has the factor 0.
    first, second = 512.0 * (2 * 2 + 1), 512.0 * (2 * 2)
    assert value.item() == pytest.approx((first + second) / 2, rel=1e-6)
    assert torch.autograd.grad(value, embeddings)[0].isfinite().all()


@pytest.mark.parametrize("labels", [[0], [1, 1], [2] * 9, list(range(9))])
def test_without_a_positive_or_a_negative_there_is_no_loss_and_no_gradient(batch, labels):
    embeddings = batch[0][: len(labels)].float().requires_grad_()
    value = Circle(gamma=80.0, margin=0.4)(embeddings, torch.tensor(labels))
    assert value.item() == 0
    assert torch.autograd.grad(value, embeddings)[0].abs().max() == 0


def test_a_scale_that_is_not_above_0_is_refused():
    with pytest.raises(UserError, match=r"gamma=0.0 of Circle loss"):
        Circle(gamma=0.0, margin=0.4)


@pytest.mark.parametrize(("gamma", "margin"), [(256.0, 0.25), (1.0, 0.0), (20.0, 1.0)])
def test_class_level_agrees_with_the_formula_and_equation_10_in_loops(batch, gamma, margin):
    embeddings, labels, proxies = batch
    proxies.requires_grad_()
    loss = circle_class(embeddings, labels, proxies, gamma=gamma, margin=margin)
    total, slopes = 0.0, torch.zeros(9, 7, dtype=torch.float64)
    for i, (embedding, label) in enumerate(zip(embeddings.tolist(), labels.tolist(), strict=True)):
        similar = [cosine(embedding, proxy) for proxy in proxies.tolist()]
        others = [s for j, s in enumerate(similar) if j != label]
        value = loss_of_anchor([similar[label]], others, gamma, margin)
        push = sum(math.exp(gamma * max(0, s + margin) * (s - margin)) for s in others)
        for j, s in enumerate(similar):
            share = math.exp(gamma * max(0, s + margin) * (s - margin)) / push
            slope = -max(0, 1 + margin - s) if j == label else share * max(0, s + margin)
            slopes[i, j] = (1 - math.exp(-value)) * gamma * slope / 9
        total += value
    assert loss.item() == pytest.approx(total / 9, rel=1e-10)
    unit = torch.nn.functional.normalize
    expected = torch.autograd.grad((slopes * (unit(embeddings) @ unit(proxies).T)).sum(), proxies)[0]
    torch.testing.assert_close(torch.autograd.grad(loss, proxies)[0], expected, rtol=1e-8, atol=1e-12)


def test_class_level_refuses_a_scale_that_is_not_above_0(batch):
    with pytest.raises(UserError, match=r"gamma=-1.0 of Circle loss"):
        circle_class(*batch, gamma=-1.0, margin=0.25)
