"""One training step: the harness's loop, precisions, memory formats, optimisers, CUDA graphs and compilation."""

import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from benchmark.core.errors import UserError
from benchmark.perf.gpu.fact import Fact, Target
from benchmark.perf.gpu.training import bare_step, study_for, training
from benchmark.training.components import TrainingComponents
from benchmark.training.loop import train_epoch
from benchmark.training.precision import check_precision

GFLOP = {"bn_inception": 12.05, "resnet50": 24.6, "vit_small": 27.6}  # of an image, forward and backward


def facts(target: Target) -> Iterator[Fact]:
    """Yield images per second of the loop and of bare steps with fixed images, by trunk and batch.

    Args:
        target: the device that trains.
    """
    trunks = {"bn_inception": (32, 128), "resnet50": (128,), "vit_small": (128,)}
    for trunk, batches in {"small_conv": (8,)}.items() if target.small else trunks.items():
        for batch in batches:
            yield from of_trunk(target, trunk, batch)


def of_trunk(target: Target, trunk: str, batch: int) -> Iterator[Fact]:
    """Yield the facts of one trunk with one batch size."""
    for precision in precisions(target):
        name = f"{trunk}, batch {batch}, {precision}"
        try:
            parts, _ = training(study_for(trunk, batch, target, f"precision={precision}"), target)
        except Exception as error:  # a trunk whose library is missing
            yield Fact(name, note=f"FAILED: {type(error).__name__}: {str(error)[:200]}")
            return
        yield speed(target, f"{name}, bare step", trunk, batch, bare_step(parts))
        if precision in ("ieee", "bf16"):
            yield loop_speed(target, name, trunk, batch, precision)
            yield from attempts(target, name, trunk, batch, precision)


def attempts(target: Target, name: str, trunk: str, batch: int, precision: str) -> Iterator[Fact]:
    """Yield bare steps with one thing changed; what does not work here is a fact, too."""

    def made(*overrides: str) -> TrainingComponents:
        return training(study_for(trunk, batch, target, f"precision={precision}", *overrides), target)[0]

    def compiled() -> Callable[[], Tensor]:
        parts = made()
        return bare_step(parts, network=torch.compile(parts.embedder))

    def benchmarked() -> Callable[[], Tensor]:
        step = bare_step(made())
        torch.backends.cudnn.benchmark = True
        return step

    def fused() -> Callable[[], Tensor]:
        parts = made()
        parts.optimizers = {key: torch.optim.AdamW(optimizer.param_groups[0]["params"], lr=1e-6, fused=True)
                            for key, optimizer in parts.optimizers.items()}  # fmt: skip
        return bare_step(parts)

    tried: dict[str, Callable[[], Callable[[], object]]] = {
        "channels first": lambda: bare_step(made(), channels_last=False),
        "fused AdamW": fused,
    }
    if target.is_gpu:
        tried |= {"cudnn.benchmark": benchmarked, "CUDA graph": lambda: graph_of(made())[0].replay}
    if precision == "bf16" and not target.small:
        tried["torch.compile"] = compiled
    for how, make in tried.items():
        try:
            started = time.perf_counter()
            step = make()
            yield speed(target, f"{name}, {how}", trunk, batch, step, started)
        except Exception as error:
            yield Fact(f"{name}, {how}", note=f"FAILED: {type(error).__name__}: {str(error)[:200]}")
        finally:
            torch.backends.cudnn.benchmark = False


def precisions(target: Target) -> list[str]:
    """The precisions that the device has."""
    found = []
    for name in ("ieee", "tf32", "bf16"):
        try:
            check_precision(name, target.device)
        except UserError:
            continue
        found.append(name)
    return found


def speed(
    target: Target, name: str, trunk: str, batch: int, step: Callable[[], object], started: float | None = None
) -> Fact:
    """The fact of a step: images per second, TFLOP/s, memory, and seconds until the first step was done."""
    peak = target.peak_gigabytes(step)
    first = "" if started is None else f", first step after {time.perf_counter() - started:.1f} s"
    rate = batch / target.seconds(step, 0.8)
    flops = f"{GFLOP[trunk] * rate / 1000:.1f} TFLOP/s, " if trunk in GFLOP else ""
    return Fact(name, rate, "images/s", f"{flops}{peak:.1f} GB{first}")


def loop_speed(target: Target, name: str, trunk: str, batch: int, precision: str) -> Fact:
    """The fact of the harness's own loop, with images that are at hand on the device."""
    parts, schedule = training(study_for(trunk, batch, target, f"precision={precision}"), target)
    count = 2 if target.small else max(10, 2560 // batch)
    train_epoch(parts, schedule, range(3))
    started = time.perf_counter()
    train_epoch(parts, schedule, range(3, 3 + count))  # which ends by reading the loss
    return Fact(f"{name}, our loop", count * batch / (time.perf_counter() - started), "images/s")


def graph_of(
    parts: TrainingComponents, stream: "torch.cuda.Stream | None" = None
) -> tuple["torch.cuda.CUDAGraph", Callable[[], Tensor]]:
    """A whole training step as a CUDA graph, and the captured function, which returns the loss as a scalar.

    Args:
        parts: what is trained; its optimisers are made capturable.
        stream: the stream to capture on; by default a new one.
    """
    for optimizer in parts.optimizers.values():
        for group in optimizer.param_groups:
            group["capturable"] = True
    step, stream = bare_step(parts), stream or torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        step()
    return graph, step
