"""A layer that draws random numbers, such as dropout, gives equal results whatever the process has done before."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from benchmark.bo import bo
from benchmark.heads.linear import Linear
from benchmark.training.components import TrainingComponents
from benchmark.training.loop import train_fold
from tests.command_line import results_of, tiny
from tests.training.small_fold import a_checkpoint, a_fold, a_schedule, nothing
from tests.training.test_resume import check_equal, everything, train_until_killed

SCHEDULE = a_schedule(iterations_per_epoch=3, evaluate_every=2, patience=20, max_epochs=4)


class Dropped(Linear):
    """A head that drops features at random before its linear map, and can be fitted by chance."""

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(functional.dropout(features, 0.3, self.training))

    @torch.no_grad()
    def fit(self, features: Tensor) -> None:
        self.linear.weight.add_(torch.rand(len(self.linear.weight), 1))


def dropped(state: int) -> TrainingComponents:
    """A fold with dropout, in a process whose generator is in another state."""
    parts = a_fold()
    torch.manual_seed(0)
    parts.head = Dropped(8, 6)
    parts.optimizers["head"] = torch.optim.Adam(parts.head.parameters(), lr=0.01)
    torch.manual_seed(state)
    return parts


@pytest.mark.parametrize("iteration", [0, 1, 6, 11])
def test_a_fold_with_dropout_that_is_killed_and_resumed_elsewhere_ends_bit_equal(
    tmp_path: Path, iteration: int
) -> None:
    whole = dropped(state=1)
    outcome = train_fold(whole, SCHEDULE, a_checkpoint(tmp_path / "whole.pt"), nothing)
    train_until_killed(dropped(state=2), SCHEDULE, tmp_path / "killed.pt", iteration)
    resumed = dropped(state=3)
    found = train_fold(resumed, SCHEDULE, a_checkpoint(tmp_path / "killed.pt"), nothing)
    check_equal(found, resumed, (outcome, everything(whole)))


def test_draws_differ_between_iterations_and_folds_and_leave_the_process_s_generator_alone(tmp_path: Path) -> None:
    drawn: list[Tensor] = []
    for seed in (3, 4):
        parts = dropped(state=1)
        parts.head.register_forward_hook(lambda module, *_: drawn.append(torch.rand(())) if module.training else None)
        before = torch.get_rng_state()
        train_fold(parts, a_schedule(iterations_per_epoch=3, max_epochs=1, seed=seed),
                   a_checkpoint(tmp_path / f"{seed}.pt"), nothing)  # fmt: skip
        assert torch.equal(torch.get_rng_state(), before)
    assert len({float(number) for number in drawn}) == len(drawn) == 6


@pytest.mark.slow
def test_records_of_a_head_with_dropout_are_equal_on_any_number_of_workers(tmp_path: Path) -> None:
    head = (
        "loss=contrastive",
        "plugins=[tests]",
        "head.module={_target_: tests.training.test_layer_draws.Dropped}",
    )
    for name, options in (("one", ["executor=inline"]), ("two", ["executor=local", "executor.workers=2"])):
        ended = tiny(bo, tmp_path / name, *head, *options)
        assert ended.status == 0, ended
    assert results_of(tmp_path / "one") == results_of(tmp_path / "two") != {}
