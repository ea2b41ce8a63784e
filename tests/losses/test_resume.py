"""With every loss of conf/loss, a killed and resumed fold is bit-equal to an undisturbed one."""

import pytest
import torch

from benchmark.study.instantiate import build as build_node
from benchmark.training.loop import train_fold
from tests.losses.every_loss import DIM, NAMES, build
from tests.training.small_fold import a_checkpoint, a_fold, a_schedule, nothing

# One of each kind of state; the state of every loss alone is resumed in `test_contracts`.
KINDS = {"contrastive", "xbm", "hist", "hpl_pa"}


class KilledError(Exception):
    """Stops training from outside."""


def kill(history):
    if len(history) == 3:  # two of four epochs are trained
        raise KilledError


def fold_with(name):
    """Return the small fold with a loss, its optimiser and the head that it requires; and the schedule."""
    fold, (module, node) = a_fold(), build(name)
    torch.manual_seed(2)
    head = {"_target_": "benchmark.heads.linear.Linear"} | node.get("head", {})
    fold.head, fold.loss = build_node(head, "head", in_features=8, embedding_dim=DIM), module
    fold.optimizers = {
        part: torch.optim.RMSprop(getattr(fold, part).parameters(), lr=1e-3, momentum=0.9)
        for part in ("trunk", "head", "loss")
        if list(getattr(fold, part).parameters())
    }
    options = {"retrieval": node.get("retrieval", "cosine"), "retrieval_options": node.get("retrieval_options", {})}
    return fold, a_schedule(iterations_per_epoch=2, max_epochs=4, patience=20, **options)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in KINDS else pytest.mark.slow) for name in NAMES]
)
def test_a_killed_and_resumed_fold_is_bit_equal_to_an_undisturbed_one(name, tmp_path):
    fold, schedule = fold_with(name)
    alone = train_fold(fold, schedule, a_checkpoint(tmp_path / "alone.pt"), nothing)
    with pytest.raises(KilledError):
        train_fold(fold_with(name)[0], schedule, a_checkpoint(tmp_path / "killed.pt"), kill)
    outcome = train_fold(fold_with(name)[0], schedule, a_checkpoint(tmp_path / "killed.pt"), nothing)
    assert alone.result["stopped"] == "max_epochs"
    assert outcome.result == alone.result
    for part, state in alone.weights.items():
        assert all(torch.equal(outcome.weights[part][key], value) for key, value in state.items())
