"""The threshold-consistent margin, compared with its equation in loops and with pytorch-metric-learning's class."""

import math

import pytest
import torch
from pytorch_metric_learning.losses import ThresholdConsistentMarginLoss

from benchmark.core.errors import UserError
from benchmark.losses.contrastive import Contrastive
from benchmark.losses.threshold_margin import ThresholdMargin, threshold_margin
from tests.losses.proxy_loops import threshold_margin_by_loops

SETTING = {"pos_margin": 0.9, "neg_margin": 0.1, "pos_weight": 1.0, "neg_weight": 1.0}
SETTINGS = [SETTING, {"pos_margin": 0.3, "neg_margin": 0.5, "pos_weight": 2.0, "neg_weight": 0.25},
            {"pos_margin": -0.9, "neg_margin": 0.99, "pos_weight": 1.0, "neg_weight": 1.0}]  # fmt: skip


@pytest.mark.parametrize("setting", SETTINGS)
def test_agrees_with_the_equation_in_loops(batch, setting):
    embeddings, labels, _ = batch
    expected = threshold_margin_by_loops(embeddings, labels, **setting)
    assert threshold_margin(embeddings, labels, **setting).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("setting", SETTINGS[:2])
def test_agrees_with_the_library_in_value_and_gradient(batch, setting):
    embeddings, labels, _ = batch
    embeddings.requires_grad_()
    library = ThresholdConsistentMarginLoss(
        lambda_plus=setting["pos_weight"], lambda_minus=setting["neg_weight"], margin_plus=setting["pos_margin"],
        margin_minus=setting["neg_margin"],
    )  # fmt: skip
    expected, found = library(embeddings, labels), threshold_margin(embeddings, labels, **setting)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    gradients = [torch.autograd.grad(loss, embeddings)[0] for loss in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-13)


def test_a_pair_at_its_threshold_counts_in_the_mean():
    # Cosines: samples 0 and 1 (one class) 0, at the threshold; 0 and 2 (one class) 0.6; 1 and 2 (one class) 0.8.
    embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]], dtype=torch.float64)
    one_class, two_classes = torch.zeros(3, dtype=torch.long), torch.tensor([0, 1, 2])
    pull = threshold_margin(embeddings, one_class, pos_margin=0.7, neg_margin=0.0, pos_weight=1.0, neg_weight=1.0)
    push = threshold_margin(embeddings, two_classes, pos_margin=0.7, neg_margin=0.0, pos_weight=1.0, neg_weight=1.0)
    assert pull.item() == pytest.approx((0.7 + 0.1) / 2)
    assert push.item() == pytest.approx((0.0 + 0.6 + 0.8) / 3)


def test_gradients_agree_with_finite_differences(batch):
    embeddings, labels, _ = batch
    assert torch.autograd.gradcheck(
        lambda e: threshold_margin(e, labels, **SETTING), embeddings.requires_grad_(), atol=1e-6
    )


def test_a_nan_is_not_hidden(batch):
    embeddings, labels, _ = batch
    embeddings[0] = math.nan
    assert threshold_margin(embeddings, labels, **SETTING).isnan()


def test_the_loss_is_the_base_plus_the_term(batch):
    embeddings, labels, _ = batch
    module = ThresholdMargin(Contrastive, pos_margin=0.8, neg_margin=0.2, pos_weight=3.0, neg_weight=0.5)
    term = threshold_margin(embeddings, labels, pos_margin=0.8, neg_margin=0.2, pos_weight=3.0, neg_weight=0.5)
    assert torch.equal(module(embeddings, labels), Contrastive()(embeddings, labels) + term)
    assert module.diagnostics() == {"loss_threshold_margin": term.item()}


@pytest.mark.parametrize("wrong", [{"pos_weight": -1.0}, {"neg_weight": math.nan}])
def test_a_weight_out_of_range_is_refused(batch, wrong):
    embeddings, labels, _ = batch
    with pytest.raises(UserError, match=r"weight=.* of ThresholdMargin"):
        ThresholdMargin(Contrastive, **wrong)
    with pytest.raises(UserError, match=r"weight=.* of threshold_margin"):
        threshold_margin(embeddings, labels, **SETTING | wrong)
