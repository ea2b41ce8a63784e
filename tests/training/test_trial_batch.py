"""The trial batch at the start of a unit: it needs the memory of a training and changes nothing."""

from pathlib import Path

import pytest
import torch

from benchmark.training import trial_batch
from benchmark.training.loop import train_fold
from benchmark.training.trial_batch import try_batch
from tests.training.small_fold import ProxyLoss, a_checkpoint, a_fold, a_schedule, nothing
from tests.training.test_resume import everything

SCHEDULE = a_schedule(iterations_per_epoch=2, max_epochs=1, warmup_epochs=1)


def test_a_trial_batch_changes_nothing_that_the_training_depends_on(tmp_path: Path) -> None:
    plain, tried = a_fold(), a_fold()
    before = [tensor.clone() for tensor in everything(tried)]
    try_batch(tried, SCHEDULE)
    assert all(torch.equal(a, b) for a, b in zip(before, everything(tried), strict=True))
    assert not any(optimizer.state for optimizer in tried.optimizers.values())
    outcomes = [
        train_fold(f, SCHEDULE, a_checkpoint(tmp_path / f"{i}.pt"), nothing) for i, f in enumerate((plain, tried))
    ]
    assert outcomes[0].result == outcomes[1].result
    assert all(torch.equal(a, b) for a, b in zip(everything(plain), everything(tried), strict=True))


def test_a_trial_batch_fills_the_state_of_all_optimisers_and_embeds_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    trained, sizes, fold = [], [], a_fold()
    train, embed = trial_batch.train_epoch, trial_batch.embed

    def noted(parts, schedule, iterations):  # type: ignore[no-untyped-def]
        trained.append(parts)
        return train(parts, schedule, iterations)

    monkeypatch.setattr(trial_batch, "train_epoch", noted)
    monkeypatch.setattr(trial_batch, "embed", lambda *all: sizes.append(len(all[1])) or embed(*all))
    fold.images.eval_batch_size = fold.validation.images.eval_batch_size = 4  # type: ignore[union-attr]
    try_batch(fold, SCHEDULE)
    (copied,) = trained
    for name, module in copied.modules.items():
        assert {*module.parameters()} == {*copied.optimizers[name].state}, "the warm-up left the trunk out"
    assert sizes == [4]


def test_a_trial_batch_that_diverges_is_left_to_the_training() -> None:
    def fault(steps: int) -> None:
        raise FloatingPointError("the proxies are not finite")

    try_batch(a_fold(loss=ProxyLoss(fault=fault)), SCHEDULE)


def test_a_lack_of_memory_is_not_taken_for_anything_else() -> None:
    class Full(ProxyLoss):
        def forward(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(torch.cuda.OutOfMemoryError):
        try_batch(a_fold(loss=Full()), SCHEDULE)
