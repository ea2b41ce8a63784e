"""The Center Contrastive Loss, compared with its equation in loops and with CosFace."""

import math

import pytest
import torch

from benchmark.core.errors import UserError
from benchmark.losses.center_contrastive import center_contrastive
from benchmark.losses.cosface import cosface
from tests.losses.proxy_loops import center_contrastive_by_loops


@pytest.mark.parametrize("center_weight", [0.0, 1.0, 7.5])
@pytest.mark.parametrize(("scale", "margin"), [(0.01, 0.0), (16.0, 0.2), (64.0, 1.0)])
def test_agrees_with_the_equation_in_loops(batch, scale, margin, center_weight):
    setting = {"scale": scale, "margin": margin, "center_weight": center_weight}
    expected = center_contrastive_by_loops(*batch, **setting)
    assert center_contrastive(*batch, **setting).item() == pytest.approx(expected, rel=1e-11)


def test_without_the_distance_it_is_cosface_bit_for_bit(batch):
    assert torch.equal(center_contrastive(*batch, scale=16.0, margin=0.2, center_weight=0.0),
                       cosface(*batch, scale=16.0, margin=0.2))  # fmt: skip


def test_a_sample_between_two_centres_worked_out_by_hand():
    # x at 45 degrees of both centres: cosines sqrt(1/2), so without a margin the softmax says 1/2 each, and the squared
    # distance to its own centre is 2 - sqrt(2).
    found = center_contrastive(
        torch.ones(1, 2), torch.tensor([1]), torch.eye(2), scale=9.0, margin=0.0, center_weight=3.0
    )
    assert found.item() == pytest.approx(math.log(2) + 3 * (2 - math.sqrt(2)), rel=1e-6)


def test_gradients_agree_with_finite_differences(batch):
    embeddings, labels, proxies = batch
    inputs = embeddings.requires_grad_(), proxies.requires_grad_()
    setting = {"scale": 8.0, "margin": 0.2, "center_weight": 2.0}
    assert torch.autograd.gradcheck(lambda e, p: center_contrastive(e, labels, p, **setting), inputs, atol=1e-6)


@pytest.mark.parametrize("wrong", [{"scale": 0.0}, {"margin": -0.1}, {"center_weight": math.inf}])
def test_a_setting_out_of_range_is_refused(batch, wrong):
    with pytest.raises(UserError, match=f"{next(iter(wrong))}=.* of center_contrastive"):
        center_contrastive(*batch, **{"scale": 8.0, "margin": 0.1, "center_weight": 1.0} | wrong)
