"""The SNR contrastive loss, compared with variances in plain Python and by hand; near-duplicates; no variance."""

import math
import statistics

import pytest
import torch

from benchmark.core.errors import UserError
from benchmark.losses.snr import SNRContrastive, noise_to_signal
from tests.losses.pair_loops import mean_above_zero, pairs, unit


def ratios(rows):
    def of(a, b):
        return statistics.variance([x - y for x, y in zip(a, b, strict=True)]) / statistics.variance(a)

    return [[of(a, b) for b in rows] for a in rows]


def make(pos_margin=0.3, neg_margin=1.9, regularizer_weight=0.4, **options):
    return SNRContrastive(
        pos_margin=pos_margin, neg_margin=neg_margin, regularizer_weight=regularizer_weight, **options
    )


@pytest.mark.parametrize("reg_on", ["unit", "raw"])
@pytest.mark.parametrize("margins", [(0.0, 1.0), (0.3, 1.9), (2.0, 2.0), (-0.2, 0.5)])
def test_agrees_with_the_formula_in_loops(batch, margins, reg_on):
    embeddings, labels, _ = batch
    units = [unit(row) for row in embeddings.tolist()]
    ratio, (positive, negative) = ratios(units), pairs(labels)
    pull = mean_above_zero([ratio[i][j] - margins[0] for i, j in positive])
    push = mean_above_zero([margins[1] - ratio[i][j] for i, j in negative])
    rows = units if reg_on == "unit" else embeddings.tolist()
    expected = pull + push + 0.4 * sum(abs(sum(row)) for row in rows) / len(rows)
    assert make(*margins, reg_on=reg_on)(embeddings, labels).item() == pytest.approx(expected, rel=1e-12)


def test_the_anchor_is_in_the_denominator_by_hand():
    # Variances of (1, 0) and (0.8, 0.6): 1/2 and 0.02; of the difference (0.2, -0.6): 0.32.
    ratio = noise_to_signal(torch.tensor([[1.0, 0.0], [0.8, 0.6]], dtype=torch.float64))
    assert ratio.tolist() == [pytest.approx([0, 0.64]), pytest.approx([16, 0])]


def test_the_regulariser_uses_unit_embeddings_by_default():
    # One sample has no pair; (3, 4) has length 5, so the sums of its coordinates are 1.4 and 7.
    embeddings, labels = torch.tensor([[3.0, 4.0]]), torch.tensor([0])
    assert make(regularizer_weight=0.5)(embeddings, labels).item() == pytest.approx(0.7)
    assert make(regularizer_weight=0.5, reg_on="raw")(embeddings, labels).item() == pytest.approx(3.5)


@pytest.mark.parametrize("reg_on", ["unit", "raw"])
def test_gradients_agree_with_finite_differences(batch, reg_on):
    embeddings, labels, _ = batch
    module = make(reg_on=reg_on)
    assert torch.autograd.gradcheck(lambda e: module(e, labels), embeddings.requires_grad_(), atol=1e-6)


def test_near_duplicates_beyond_25_rows_are_exact_in_float32():
    rows = torch.randn(32, 8, generator=torch.Generator().manual_seed(0))
    rows[1], rows[9] = rows[0], rows[4]
    rows[3] = rows[2] + 1e-4
    rows[3, 0] += 1e-4
    expected = torch.tensor(ratios(rows.double().tolist()))
    assert 0 < expected[2, 3] < 1e-7
    ratio = noise_to_signal(rows)
    assert ratio[0, 1] == ratio[4, 9] == ratio[0, 0] == 0
    torch.testing.assert_close(ratio[2, 3], expected[2, 3], rtol=1e-2, atol=0)
    torch.testing.assert_close(ratio, expected, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("constant", [0.0, 1e-3, 1.0, -1e3])
def test_an_embedding_without_variance_keeps_loss_and_gradient_finite(constant):
    embeddings = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    embeddings[:2] = constant
    embeddings.requires_grad_()
    value = make(pos_margin=0.0, neg_margin=2.0)(embeddings, torch.tensor([0, 0, 0, 1, 1, 2]))
    value.backward()
    assert value.isfinite()
    assert embeddings.grad.isfinite().all()


@pytest.mark.parametrize("labels", [[0], [1, 1], [2] * 9, list(range(9))])
def test_missing_positives_or_negatives_add_nothing(batch, labels):
    embeddings = batch[0][: len(labels)].requires_grad_()
    positive, negative = pairs(torch.tensor(labels))
    ratio = ratios([unit(row) for row in embeddings.tolist()]) if len(labels) > 1 else []
    pull = mean_above_zero([ratio[i][j] - 0.3 for i, j in positive])
    push = mean_above_zero([1.9 - ratio[i][j] for i, j in negative])
    value = make(regularizer_weight=0.0)(embeddings, torch.tensor(labels))
    assert value.item() == pytest.approx(pull + push, rel=1e-12)
    assert torch.autograd.grad(value, embeddings)[0].isfinite().all()


def test_autocast_changes_no_bit_and_half_precision_embeddings_give_a_float32_loss(batch):
    embeddings, labels, _ = batch
    with torch.autocast("cpu", torch.bfloat16):
        cast = make()(embeddings.float(), labels)
        half = make()(embeddings.bfloat16(), labels)
    assert torch.equal(cast, make()(embeddings.float(), labels))
    assert torch.equal(half, make()(embeddings.bfloat16().float(), labels))
    assert half.dtype == torch.float32


def test_no_tensor_of_pairwise_differences_is_kept():
    embeddings, labels = torch.randn(64, 512, generator=torch.Generator().manual_seed(0)), torch.arange(64) // 4
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        make()(embeddings.requires_grad_(), labels)
    assert max(sizes) == 64 * 512


def test_a_negative_weight_and_an_unknown_regulariser_are_refused():
    for weight in (-0.1, math.nan):
        with pytest.raises(UserError, match=f"regularizer_weight={weight} of the SNR loss"):
            make(regularizer_weight=weight)
    with pytest.raises(UserError, match="reg_on='both' of the SNR loss must be one of unit, raw"):
        make(reg_on="both")
