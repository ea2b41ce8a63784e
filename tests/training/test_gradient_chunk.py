"""The two-pass gradient: the usual one up to rounding, in less memory, with every kind of loss, option and device."""

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmark.core.errors import UserError
from benchmark.core.memory import peak_allocated
from benchmark.core.pulse import heard_by
from benchmark.heads.linear import Linear
from benchmark.study.preflight import check_parts
from benchmark.study.study import Study
from benchmark.training.components import Schedule, TrainingComponents
from benchmark.training.loop import backward, check_chunks, set_train_mode, train_epoch, train_fold
from tests.losses.test_resume import KilledError, fold_with, kill
from tests.training.small_fold import ProxyLoss, a_checkpoint, a_fold, a_schedule, nothing
from tests.training.test_pretended_device import sampler

LOSSES: dict[str, dict[str, Any]] = {  # pairs, a memory, a network of its own, after_step; with options of the loop
    "recall_at_k": {},
    "xbm": {"clip": {"value": 1e-3}},
    "hist": {"clip": {"norm": 0.1}},
    "hpl_pa": {"warmup_epochs": 1},
}


def frozen(parts: TrainingComponents) -> TrainingComponents:
    set_train_mode(parts, freeze_batchnorm=True)
    return parts


def gradients(parts: TrainingComponents, chunk: int, size: int = 12, side: int = 8) -> tuple[Tensor, list[Tensor]]:
    """The loss of a batch, and its gradient with respect to all parameters of trunk, head and loss."""
    frozen(parts)
    pixels = torch.randint(256, (size, 1, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(4))
    loss = backward(parts, pixels, torch.arange(size) % 4, chunk)
    parameters = [p for module in parts.modules.values() for p in module.parameters()]
    return loss, [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]


@pytest.mark.parametrize("chunk", [1, 5, 11])
def test_the_gradient_is_that_of_one_pass(chunk: int) -> None:
    one, two = gradients(a_fold(), 0), gradients(a_fold(), chunk)
    assert any(gradient.abs().max() > 1e-3 for gradient in one[1])
    torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-6)


class Precise(torch.autograd.Function):
    """The identity, which records the precision of matrix products in both directions."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, seen: list[str]) -> Tensor:
        ctx.seen = seen
        seen.append(torch.backends.cuda.matmul.fp32_precision)
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        ctx.seen.append(torch.backends.cuda.matmul.fp32_precision)
        return gradients[0], None


@pytest.mark.parametrize("chunk", [0, 5])
def test_a_loss_and_its_gradient_are_in_float32_though_trunk_and_head_are_in_tf32(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = frozen(a_fold())
    of_loss: list[str] = []
    of_head: list[str] = []
    loss, head = parts.loss.forward, parts.head.forward
    monkeypatch.setattr(parts.loss, "forward", lambda points, labels: loss(Precise.apply(points, of_loss), labels))
    monkeypatch.setattr(parts.head, "forward", lambda features: Precise.apply(head(features), of_head))
    matmul: Any = torch.backends.cuda.matmul
    before, matmul.fp32_precision = matmul.fp32_precision, "tf32"
    try:
        backward(parts, torch.zeros(12, 1, 8, 8, dtype=torch.uint8), torch.arange(12) % 4, chunk)
        after = matmul.fp32_precision
    finally:
        matmul.fp32_precision = before
    assert of_loss == ["ieee", "ieee"] and set(of_head) == {"tf32"} and len(of_head) >= 2
    assert after == "tf32"


@pytest.mark.parametrize("chunk", [12, 99])
def test_a_batch_that_is_one_chunk_takes_one_pass(chunk: int) -> None:
    parts = a_fold()
    passes: list[None] = []
    with heard_by(lambda: passes.append(None)):
        gradients(parts, chunk)
        assert len(passes) == 1
        gradients(parts, 5)
    assert len(passes) == 1 + 2 * 3  # two passes over three chunks


@pytest.mark.parametrize("name", LOSSES)
def test_a_training_is_that_of_one_pass_up_to_rounding(name: str) -> None:
    found = []
    for chunk in (0, 5):
        fold, schedule = fold_with(name)
        fold.sampler = sampler()
        schedule = dataclasses.replace(schedule, gradient_chunk=chunk, freeze_batchnorm=True, **LOSSES[name])
        total = train_epoch(frozen(fold), schedule, range(3))
        found.append((torch.tensor(total), [p.detach() for m in fold.modules.values() for p in m.parameters()]))
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-4)


def test_mixed_precision_gives_the_gradient_of_one_pass_up_to_its_rounding() -> None:
    found = []
    for chunk in (0, 5):
        parts = a_fold()
        parts.precision = "bf16"
        found.append(gradients(parts, chunk))
    torch.testing.assert_close(found[1], found[0], rtol=0.05, atol=2e-3)


def test_a_killed_and_resumed_training_is_bit_equal_to_an_undisturbed_one(tmp_path: Path) -> None:
    def fold_of() -> tuple[TrainingComponents, Schedule]:
        fold, schedule = fold_with("hpl_pa")
        fold.sampler = sampler()
        return fold, dataclasses.replace(schedule, gradient_chunk=5, freeze_batchnorm=True)

    alone = train_fold(*fold_of(), a_checkpoint(tmp_path / "alone.pt"), nothing)
    with pytest.raises(KilledError):
        train_fold(*fold_of(), a_checkpoint(tmp_path / "killed.pt"), kill)
    outcome = train_fold(*fold_of(), a_checkpoint(tmp_path / "killed.pt"), nothing)
    assert outcome.result == alone.result
    assert outcome.weights is not None and alone.weights is not None
    for part, state in alone.weights.items():
        assert all(torch.equal(outcome.weights[part][key], value) for key, value in state.items())


@pytest.mark.slow
def test_memory_is_that_of_a_chunk() -> None:
    peaks = []
    for chunk in (0, 8):
        parts = a_fold()
        gradients(copy.deepcopy(parts), chunk)  # what a first call allocates for good
        peaks.append(peak_allocated(lambda: gradients(parts, chunk, size=64, side=32)))  # noqa: B023 - called here
    assert peaks[1] < peaks[0] / 4, peaks


def test_a_loss_without_a_gradient_leaves_the_network_alone() -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
            return self.weight * 3

    parts = a_fold(loss=Constant())
    loss, found = gradients(parts, 5)
    assert loss == 3 and [bool(gradient.abs().max() > 0) for gradient in found] == [False] * (len(found) - 1) + [True]


# -- networks that it does not fit ------------------------------------------------------------------------------------


def test_batch_norm_that_is_trained_is_refused_before_the_first_step(tmp_path: Path) -> None:
    schedule = a_schedule(gradient_chunk=5, max_epochs=1)
    with pytest.raises(UserError, match=r"training\.freeze_batchnorm=true") as refused:
        train_fold(a_fold(), schedule, a_checkpoint(tmp_path / "checkpoint.pt"), nothing)
    assert "training.gradient_chunk=5" in str(refused.value)


@pytest.mark.parametrize(
    ("trunk", "head", "freeze", "refused"),
    [
        (nn.Sequential(nn.BatchNorm2d(1)), Linear(8, 6), False, "batch norm"),
        (nn.Sequential(nn.BatchNorm2d(1)), Linear(8, 6), True, ""),
        (nn.Sequential(nn.BatchNorm2d(1)), Linear(8, 6), "all", ""),
        (nn.Flatten(), nn.BatchNorm1d(6), True, "batch norm"),  # only the trunk's can be frozen
        (nn.LayerNorm(8), Linear(8, 6, layer_norm=True), False, ""),
        (nn.Sequential(nn.Dropout(0.1)), Linear(8, 6), True, "dropout"),
        (nn.Sequential(nn.Dropout(0.0)), Linear(8, 6), True, ""),
    ],
)
def test_layers_that_depend_on_the_batch_or_on_chance_are_refused(
    trunk: nn.Module, head: nn.Module, freeze: bool | str, refused: str
) -> None:
    check_chunks(0, freeze, trunk, head)
    if not refused:
        check_chunks(5, freeze, trunk, head)
        return
    with pytest.raises(UserError, match=refused):
        check_chunks(5, freeze, trunk, head)


def test_a_command_refuses_such_a_network_before_it_trains(compose_study: Callable[..., Study]) -> None:
    options = ("dataset=glyphs_small", "loss=smooth_ap", "protocol.batch_size=16", "training.gradient_chunk=4")
    check_parts(compose_study(*options, "training.freeze_batchnorm=true"))
    with pytest.raises(UserError, match=r"training\.gradient_chunk=4"):
        check_parts(compose_study(*options))


def test_the_chunk_is_part_of_a_studys_identity_unless_there_is_none(compose_study: Callable[..., Study]) -> None:
    found = [compose_study(f"training.gradient_chunk={n}").identity("f") for n in ("null", "0", "8", "16")]
    assert found[0] == found[1] == compose_study().identity("f")
    assert len(set(found)) == 3


def test_a_proxy_loss_gets_the_gradient_of_its_own_parameters_once() -> None:
    one, two = a_fold(loss=ProxyLoss()), a_fold(loss=ProxyLoss())
    two.loss.load_state_dict(one.loss.state_dict())
    gradients(one, 0)
    gradients(two, 3)
    torch.testing.assert_close(two.loss.proxies.grad, one.loss.proxies.grad)
