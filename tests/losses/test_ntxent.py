"""NT-Xent, compared with its formula in loops and by hand; the Reality Check's smallest temperature; saturation."""

import math

import pytest
import torch

from benchmark.core.errors import UserError
from benchmark.losses.ntxent import NTXent
from tests.losses.library import only_in_version_2
from tests.losses.pair_loops import cosines, pairs


@pytest.mark.parametrize("temperature", [0.01, 0.07, 1.0, 100.0])
def test_agrees_with_the_formula_in_loops(batch, temperature):
    embeddings, labels, _ = batch
    cosine, (positive, negative) = cosines(embeddings), pairs(labels)
    total = 0.0
    for a, p in positive:
        rivals = [math.exp((cosine[a][n] - cosine[a][p]) / temperature) for b, n in negative if b == a]
        total += math.log(1 + sum(rivals))
    value = NTXent(temperature=temperature)(embeddings, labels)
    assert value.item() == pytest.approx(total / len(positive), rel=1e-10)


def test_another_positive_is_not_in_the_denominator_by_hand():
    # Three equal samples of one class and one at a right angle: each pair has one negative, log(1 + e^{-1/T}).
    embeddings = torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [0.0, 1.0]])
    value = NTXent(temperature=0.5)(embeddings, torch.tensor([0, 0, 0, 1]))
    assert value.item() == pytest.approx(math.log(1 + math.exp(-2)))


@pytest.mark.parametrize("saturate", ["none", "tiny", 1e-20])
def test_gradients_agree_with_finite_differences(batch, saturate):
    embeddings, labels, _ = batch
    module = NTXent(temperature=0.02, saturate=saturate)
    assert torch.autograd.gradcheck(lambda e: module(e, labels), embeddings.requires_grad_(), atol=1e-5)


def hard_pair():
    """One positive pair at a right angle, and a negative with cosine 1 to the anchor and cosine 0 to the other."""
    return torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]).requires_grad_(), torch.tensor([0, 0, 1])


def test_the_hardest_pair_keeps_its_loss_and_its_gradient_at_the_smallest_temperature_in_float32():
    # Anchor 0: the negative leads by 1, a loss of 1/T. Anchor 1: a tie, log 2. The mean over the two pairs.
    embeddings, labels = hard_pair()
    temperature = 0.000240119
    value = NTXent(temperature=temperature)(embeddings, labels)
    assert value.item() == pytest.approx((1 / temperature + math.log(2)) / 2, rel=1e-6)
    (gradient,) = torch.autograd.grad(value, embeddings)
    # d s_01 / d e_1 = (1, 0): pair (0, 1) pulls it with 1/T; pair (1, 0) with half of that, which its negative cancels.
    assert gradient[1].tolist() == pytest.approx([-0.5 / temperature, 0], rel=1e-5)


@pytest.mark.parametrize(("saturate", "end"), [(1e-20, 46.0517), ("tiny", 87.3365)])
def test_saturation_caps_the_loss_and_removes_the_gradient_as_in_the_reality_check(saturate, end):
    embeddings, labels = hard_pair()
    value = NTXent(temperature=0.005, saturate=saturate)(embeddings, labels)
    assert value.item() == pytest.approx((end + math.log(2)) / 2, rel=1e-5)  # without saturation 1/T = 200
    (gradient,) = torch.autograd.grad(value, embeddings)
    assert gradient[1].abs().max() < 1e-4  # without saturation 100


@only_in_version_2
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tiny_agrees_with_the_library(batch, dtype):
    from pytorch_metric_learning.losses import NTXentLoss

    results = []
    for module in (NTXentLoss(temperature=0.004), NTXent(temperature=0.004, saturate="tiny")):
        embeddings = batch[0].to(dtype).requires_grad_()
        value = module(embeddings, batch[1])
        results.append((value, torch.autograd.grad(value, embeddings)[0]))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-3)
    free = NTXent(temperature=0.004)(batch[0], batch[1])
    assert (free > results[0][0].double() + 1) == (dtype == torch.float32)  # saturated in float32 only


@pytest.mark.parametrize("saturate", ["none", "tiny", 1e-20])
@pytest.mark.parametrize("labels", [[0], [1, 1], [2] * 9, list(range(9))])
def test_without_a_positive_or_a_negative_there_is_no_loss_and_no_gradient(batch, labels, saturate):
    embeddings = batch[0][: len(labels)].float().requires_grad_()
    value = NTXent(temperature=1e-5, saturate=saturate)(embeddings, torch.tensor(labels))
    assert value.item() == pytest.approx(0, abs=1e-19)  # -log(1 + saturate)
    assert torch.autograd.grad(value, embeddings)[0].abs().max() == 0


def test_autocast_changes_no_bit_and_half_precision_embeddings_give_a_float32_loss(batch):
    embeddings, labels, _ = batch
    module = NTXent(temperature=0.01)
    with torch.autocast("cpu", torch.bfloat16):
        cast = module(embeddings.float(), labels)
        half = module(embeddings.bfloat16(), labels)
    assert torch.equal(cast, module(embeddings.float(), labels))
    assert torch.equal(half, module(embeddings.bfloat16().float(), labels))


def test_memory_grows_with_the_batch_squared_and_no_faster():
    embeddings, labels = torch.randn(256, 8, generator=torch.Generator().manual_seed(0)), torch.arange(256) // 64
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        NTXent(temperature=0.1)(embeddings.requires_grad_(), labels)
    assert 256**2 <= max(sizes) <= 2 * 256**2  # positive pairs by negative pairs would be 16128 * 49152


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_a_temperature_that_is_not_finite_and_above_zero_is_refused(temperature):
    with pytest.raises(UserError, match=f"temperature={temperature} of NT-Xent"):
        NTXent(temperature=temperature)


@pytest.mark.parametrize("saturate", ["1e-20", 0.0, 1.0, -1e-20, math.nan])
def test_an_unknown_saturation_is_refused(saturate):
    with pytest.raises(UserError, match="allowed: none, tiny, or a number"):
        NTXent(temperature=1.0, saturate=saturate)
