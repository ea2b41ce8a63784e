"""The card's own limits: products in each precision, copies, and what a small operation and a wait cost."""

from collections.abc import Iterator

import torch

from benchmark.core.provenance import hardware
from benchmark.perf.gpu.fact import Fact, Target
from benchmark.training.precision import use_precision


def facts(target: Target) -> Iterator[Fact]:
    """Yield the card's name and memory, TFLOP/s of a large product, GB/s from the host, and two latencies.

    Args:
        target: what is measured.
    """
    device = target.device
    if target.is_gpu:
        properties = torch.cuda.get_device_properties(device)
        yield Fact("card", properties.total_memory / 1e9, "GB", f"{properties.name}, CUDA {torch.version.cuda}")
    yield Fact("host", note=f"{hardware()['cpu']}, torch {torch.__version__}")
    size = 128 if target.small else 8192
    for name in ("ieee", "tf32", "bf16"):
        if name == "tf32" and not target.is_gpu:
            continue
        use_precision(name, device)
        kind = torch.bfloat16 if name == "bf16" else torch.float32
        a, b = (torch.randn(size, size, device=device, dtype=kind) for _ in range(2))
        out = torch.empty_like(a)
        seconds = target.seconds(lambda a=a, b=b, out=out: torch.mm(a, b, out=out), 0.5)  # type: ignore[misc]
        yield Fact(f"product of {size} x {size}, {name}", 2 * size**3 / seconds / 1e12, "TFLOP/s")
    host = torch.empty(2**20 if target.small else 2**28, dtype=torch.uint8, pin_memory=target.is_gpu)
    seconds = target.seconds(lambda: host.to(device, non_blocking=True), 0.3)
    yield Fact("copy from pinned memory", host.numel() / seconds / 1e9, "GB/s")
    one = torch.zeros((), device=device)
    yield Fact("small operation", 1e6 * target.seconds(lambda: one.add_(1), 0.3), "us")
    yield Fact("reading one number", 1e6 * target.seconds(one.item, 0.3), "us")
