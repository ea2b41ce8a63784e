"""Learning-rate factors, compared with torch's schedulers."""

import pytest
import torch

from benchmark.core.errors import UserError
from benchmark.training.lr_schedule import learning_rate_factor

SCHEDULERS = {
    "step": ({"kind": "step", "every": 5, "factor": 0.5}, lambda o: torch.optim.lr_scheduler.StepLR(o, 5, 0.5)),
    "milestones": (
        {"kind": "milestones", "epochs": [20, 40], "factor": 0.1},
        lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [20, 40], 0.1),
    ),
    "cosine": ({"kind": "cosine"}, lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 50)),
    "none": ({}, lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda epoch: 1.0)),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_epoch_s_rate_is_the_one_of_torch_s_scheduler_stepped_after_each_epoch(name: str) -> None:
    decay, make = SCHEDULERS[name]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    scheduler = make(optimizer)
    for epoch in range(1, 51):
        rate = optimizer.param_groups[0]["lr"]
        assert 0.3 * learning_rate_factor(decay, epoch, 50) == pytest.approx(rate, rel=1e-9, abs=1e-12), epoch
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_schedule_that_skips_epochs_starts_after_them(name: str) -> None:
    """HIST's script, CUB, ResNet-50: a warm-up epoch at the full rate, then 5 epochs until the first drop."""
    decay, _ = SCHEDULERS[name]
    later = [learning_rate_factor(decay | {"skip": 3} if decay else {}, epoch, 53) for epoch in range(1, 54)]
    assert later == [1.0] * 3 + [learning_rate_factor(decay, epoch, 50) for epoch in range(1, 51)]


@pytest.mark.parametrize(
    "decay",
    [{"kind": "linear"}, {"kind": "step", "every": 5}, {"kind": "cosine", "factor": 0.5}, {"every": 5, "factor": 0.5}],
)
def test_an_unknown_kind_or_other_settings_are_refused_with_what_is_allowed(decay: dict) -> None:
    with pytest.raises(UserError, match=r"training\.decay=.*kind: step, every, factor; kind: milestones"):
        learning_rate_factor(decay, 1, 50)
