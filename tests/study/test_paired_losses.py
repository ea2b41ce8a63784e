"""Losses that are compared start equal: trunk, head, batches and, where both have the same ones, proxies."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from benchmark.study.assemble import build
from benchmark.study.study import Study
from benchmark.training.components import Schedule, TrainingComponents
from benchmark.training.loop import set_train_mode, train_epoch
from tests.cases import slow_except

FINE_ONLY = 2  # iterations before the coarse level is switched on
COMMON = ("dataset=glyphs_small", "trunk.width=8", "protocol.batch_size=32", "threads=1")
Compose = Callable[..., Study]
BASES = {  # per HPL: its base, and the base's setting that equals HPL's own on the fine level
    "hpl_nca": ("proxy_nca", {"softmax_scale": 32.0}, {"scale_0": 64.0}),  # on the squared distance, and on the cosine
    "hpl_pa": ("proxy_anchor", {"alpha": 32.0, "margin": 0.1}, {"scale_0": 32.0, "margin_0": 0.1}),
    "hpl_cosface": ("cosface", {"scale": 64.0, "margin": 0.35}, {"scale_0": 64.0, "margin_0": 0.35}),
    "hpl_soft_triple": ("soft_triple", {"la": 20.0, "margin": 0.01}, {"la_0": 20.0, "margin_0": 0.01}),
}


def start(compose: Compose, loss: str, setting: dict[str, float]) -> tuple[TrainingComponents, Schedule]:
    warmup = [f"loss.schedule.warmup_iterations={FINE_ONLY}"] if loss.startswith("hpl") else []
    study = compose(f"loss={loss}", *COMMON, *warmup)
    return build(study, setting, fingerprint=study.make_dataset().fingerprint, kind="trial", index=0, fold=0)


def weights(parts: TrainingComponents) -> dict[str, Tensor]:
    named = {f"{part}.{name}": p for part, module in parts.modules.items() for name, p in module.named_parameters()}
    return {name: p.detach().clone() for name, p in named.items()}


def equal(one: TrainingComponents, other: TrainingComponents) -> bool:
    ours, theirs = weights(one), weights(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("name", slow_except(["hpl_nca"], BASES))
def test_hpl_equals_its_base_bit_for_bit_until_the_coarse_level_starts(name: str, compose_study: Compose) -> None:
    base, of_base, of_hpl = BASES[name]
    rate = {"proxy_lr": 0.01}
    ours, schedule = start(compose_study, name, of_hpl | rate)
    theirs, _ = start(compose_study, base, of_base | rate)
    assert equal(ours, theirs)
    for parts in (ours, theirs):
        set_train_mode(parts, schedule.freeze_batchnorm)
    before = weights(ours)
    for number in range(FINE_ONLY):
        losses = [train_epoch(parts, schedule, range(number, number + 1)) for parts in (ours, theirs)]
        assert losses[0] == losses[1] and equal(ours, theirs)
    assert not torch.equal(before["loss.proxies"], ours.loss.get_parameter("proxies"))
    after = [train_epoch(parts, schedule, range(FINE_ONLY, FINE_ONLY + 1)) for parts in (ours, theirs)]
    assert after[0] != after[1]
