"""Every loss on the CPU and on the device: how far apart, whether repeatable, how often the host waits in a step."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from benchmark.core import conf_files
from benchmark.losses import HasAfterStep
from benchmark.perf.gpu.fact import Fact, Target
from benchmark.study.cli import study_of
from benchmark.study.study import Study
from benchmark.training.precision import use_precision

CLASSES, BATCH, DIMS, STEPS = 100, 128, 128, 3
FAR = {torch.float64: 1e-8, torch.float32: 1e-2}  # a larger gap is listed as a difference


@dataclass(frozen=True)
class Steps:
    """Losses and gradients of some steps on the host, and how often the host waited for the device in the last one."""

    values: list[Tensor]
    waits: int


def facts(target: Target) -> Iterator[Fact]:
    """Yield for each loss its largest relative gap in float32, and at the end the losses that need a look.

    Args:
        target: the device that is compared with the CPU.
    """
    use_precision("ieee", target.device)
    names = conf_files.names("loss")
    differing = []
    for name in names[:3] if target.small else names:
        try:
            study = study_at_once(name)
            gaps = {kind: gap(steps(study, torch.device("cpu"), kind), steps(study, target.device, kind))
                    for kind in (torch.float64, torch.float32)}  # fmt: skip
            one, two = (steps(study, target.device, torch.float32) for _ in range(2))
            same = all(torch.equal(a, b) for a, b in zip(one.values, two.values, strict=True))
        except Exception as error:  # whatever is wrong with a loss here is a result, and the next loss comes
            yield Fact(name, note=f"FAILED: {type(error).__name__}: {str(error)[:200]}")
            differing.append(name)
            continue
        remarks = f"float64 {gaps[torch.float64]:.1e}; {'' if same else 'not '}repeatable; {one.waits} waits in a step"
        yield Fact(name, gaps[torch.float32], "", remarks)
        if not same or any(found > FAR[kind] for kind, found in gaps.items()):
            differing.append(name)
    yield Fact("losses that differ from the CPU, or from run to run", len(differing), "", ", ".join(differing))


def study_at_once(name: str) -> Study:
    """The study of a loss whose hierarchy or memory starts at the first steps.

    Args:
        name: a file of `conf/loss/`.
    """
    study = study_of(["dataset=glyphs_small", f"loss={name}"])
    schedule = study.config.loss.schedule
    at_once = schedule | dict.fromkeys(schedule.get("starts", ()), 0)
    raw = study.raw | {"loss": study.raw["loss"] | {"schedule": at_once}}
    return Study.of(raw, {"num_coarse": 10} if "num_coarse" in study.config.loss.setting else {})


def steps(study: Study, device: torch.device, kind: torch.dtype) -> Steps:
    """Train the parameters of a loss alone for some steps.

    Args:
        study: the loss's study.
        device: where it is computed.
        kind: type of embeddings and parameters.
    """
    loss = study.make_loss(CLASSES, 3, np.arange(CLASSES) // 5, 20 * CLASSES).to(device).to(kind)
    parameters = list(loss.parameters())
    optimizer = torch.optim.RMSprop(parameters, lr=1e-3) if parameters else None
    values, waits = [], 0
    for number in range(STEPS):
        generator = torch.Generator().manual_seed(number)
        batch = torch.randn(BATCH, DIMS, generator=generator, dtype=torch.float64)
        batch = 2 * batch / batch.norm(dim=1, keepdim=True)
        embeddings = batch.to(device, kind).requires_grad_()
        labels = (torch.arange(BATCH) // 4 * 3 % CLASSES).to(device)

        def step() -> Tensor:
            torch.manual_seed(number)  # noqa: B023
            value: Tensor = loss(embeddings, labels)  # noqa: B023
            loss.zero_grad(set_to_none=True)
            if value.requires_grad:
                value.backward()
            if optimizer:
                optimizer.step()
            if isinstance(loss, HasAfterStep):
                loss.after_step()
            return value

        value, waits = counting_waits(step, device)
        gradients = [p.grad for p in (embeddings, *parameters) if p.grad is not None]
        values += [tensor.detach().cpu() for tensor in (value, *gradients)]
    return Steps(values, waits)


def counting_waits(step: Callable[[], Tensor], device: torch.device) -> tuple[Tensor, int]:
    """The loss of a step, a scalar, and how often PyTorch made the host wait for the device meanwhile."""
    if device.type != "cuda":
        return step(), 0
    torch.cuda.synchronize(device)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            value = step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return value, sum("synchronizing" in str(warning.message) for warning in caught)


def gap(one: Steps, two: Steps) -> float:
    """Largest difference between tensors, each relative to the largest value of the first one's."""
    pairs = zip(one.values, two.values, strict=True)
    return max(float((a - b).abs().max() / a.abs().max().clamp(min=1e-12)) for a, b in pairs)
