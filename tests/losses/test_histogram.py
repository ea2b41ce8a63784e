"""The histogram loss, compared with Eqs. 1 to 4 in loops, with the library, and by hand; cosines of exactly 1."""

import math

import pytest
import torch
from pytorch_metric_learning.losses import HistogramLoss

from benchmark.core.errors import UserError
from benchmark.losses.histogram import Histogram
from tests.losses.pair_loops import cosines, pairs


def by_loops(embeddings, labels, num_bins):
    cosine, step = cosines(embeddings), 2 / num_bins
    histograms = []
    for kind in pairs(labels):
        counts = [0.0] * (num_bins + 1)
        for i, j in kind:
            left = min(math.floor((cosine[i][j] + 1) / step), num_bins - 1)
            within = (cosine[i][j] + 1) / step - left
            counts[left] += 1 - within
            counts[left + 1] += within
        histograms.append([count / len(kind) for count in counts])
    of_positives, of_negatives = histograms
    return sum(of_negatives[r] * sum(of_positives[: r + 1]) for r in range(num_bins + 1))


@pytest.mark.parametrize("num_bins", [1, 3, 50, 400])
def test_agrees_with_the_formula_in_loops(batch, num_bins):
    embeddings, labels, _ = batch
    value = Histogram(num_bins=num_bins)(embeddings, labels)
    assert value.item() == pytest.approx(by_loops(embeddings, labels, num_bins), rel=1e-10)


def test_pairs_between_two_nodes_are_shared_by_hand():
    # Nodes -1, 0, 1. The positive pair has cosine 0.6: shares 0, 0.4, 0.6. Negatives at 0 and 0.8: shares 0, 0.6, 0.4.
    embeddings, labels = (
        torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]], dtype=torch.float64),
        torch.tensor([0, 0, 1]),
    )
    assert Histogram(num_bins=2)(embeddings, labels).item() == pytest.approx(0.6 * 0.4 + 0.4 * 1.0)


def test_is_0_if_all_positives_are_above_all_negatives_and_1_in_the_worst_case():
    apart = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
    assert Histogram(num_bins=200)(apart, torch.tensor([0, 0, 1, 1])).item() == pytest.approx(0, abs=1e-4)
    assert Histogram(num_bins=200)(apart, torch.tensor([0, 1, 0, 1])).item() == pytest.approx(1, abs=1e-4)


def test_gradients_agree_with_finite_differences(batch):
    module = Histogram(num_bins=7)
    assert torch.autograd.gradcheck(lambda e: module(e, batch[1]), batch[0].requires_grad_(), atol=1e-6)


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")
def test_agrees_with_the_library_where_every_sample_has_positives_and_negatives(batch):
    labels, results = torch.tensor([0, 0, 1, 1, 1, 2, 2, 0, 2]), []
    for module in (HistogramLoss(n_bins=50), Histogram(num_bins=50)):
        embeddings = batch[0].clone().requires_grad_()
        value = module(embeddings, labels)
        results.append((value, *torch.autograd.grad(value, embeddings)))
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)  # the library's shares are off by float32


def test_equal_samples_are_in_the_last_node_in_float32():
    rows = torch.randn(1, 16, generator=torch.Generator().manual_seed(0)).expand(8, -1).clone().requires_grad_()
    value = Histogram(num_bins=400)(rows, torch.arange(8) // 2)  # all pairs in the last node
    assert value.item() == pytest.approx(1, abs=1e-4)
    assert torch.autograd.grad(value, rows)[0].isfinite().all()


@pytest.mark.parametrize("labels", [[0], [1, 1], [2] * 9, list(range(9))])
def test_without_a_positive_or_a_negative_there_is_no_loss_and_no_gradient(batch, labels):
    embeddings = batch[0][: len(labels)].float().requires_grad_()
    value = Histogram(num_bins=20)(embeddings, torch.tensor(labels))
    assert value.item() == 0
    assert torch.autograd.grad(value, embeddings)[0].abs().max() == 0


def test_a_number_of_bins_below_1_is_refused():
    with pytest.raises(UserError, match="num_bins=0 of the histogram loss"):
        Histogram(num_bins=0)
