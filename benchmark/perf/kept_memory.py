"""What a network on the CPU gains from memory that is kept for the next batch: `benchmark.core.memory`.

Each side runs in processes of its own, since a process that keeps memory cannot forget how.
"""

import importlib.util
import json
from collections.abc import Callable, Iterator

import torch

from benchmark.core.memory import is_glibc, keep_freed_memory
from benchmark.perf.timing import Row, Spent, in_fresh_process, own_time, ratio_row
from benchmark.trunks.efficientnet_lite0 import EfficientNetLite0

JOBS = {"embedding": 144, "training": 112}  # the side of the images, as for grocery and grocery_finetuned
BATCH_SIZE = 32
BATCHES = 4
ROUNDS = 3


def kept_memory() -> Iterator[Row]:
    """Rows for embedding and training with EfficientNet-Lite0."""
    for job, side in JOBS.items():
        what, target = f"{job} on the CPU, memory kept", (">=", 1.1)
        if missing := reason():
            yield Row(what, target, [], missing)
            continue
        spent: dict[bool, list[Spent]] = {True: [], False: []}
        for number in range(ROUNDS):
            for kept in (True, False)[:: -1 if number % 2 else 1]:
                spent[kept].append(in_child(job, kept=kept))
        compared = f"EfficientNet-Lite0 at {side} pixels with memory returned after each batch over memory kept"
        yield ratio_row(what, target, spent[False], spent[True], compared)


def reason() -> str:
    """Why nothing can be measured here; empty if it can."""
    if not is_glibc():
        return "needs glibc; other C libraries have other rules"
    return "" if importlib.util.find_spec("timm") else "timm is not installed"


def in_child(job: str, *, kept: bool) -> Spent:
    """What a job takes in a fresh process, without imports and the first batches."""
    return Spent(*in_fresh_process(f"kept_memory.child({job!r}, {kept})"))


def child(job: str, kept: bool) -> None:
    """Do a job, and print its CPU and wall-clock seconds as JSON."""
    torch.set_num_threads(1)
    if kept:
        keep_freed_memory()
    trunk = EfficientNetLite0(weights=None, pool="avg")
    images = torch.rand(BATCH_SIZE, 3, JOBS[job], JOBS[job]).contiguous(memory_format=torch.channels_last)
    work = {"embedding": embedding, "training": training}[job](trunk, images)
    work()
    work()
    start = own_time()
    for _ in range(BATCHES):
        work()
    end = own_time()
    print(json.dumps([end.cpu - start.cpu, end.wall - start.wall]))


def embedding(trunk: torch.nn.Module, images: torch.Tensor) -> Callable[[], object]:
    """A job that embeds a batch (B, Ch, H, W)."""
    trunk.eval()
    return torch.inference_mode()(lambda: trunk(images))


def training(trunk: torch.nn.Module, images: torch.Tensor) -> Callable[[], object]:
    """A job that trains for one iteration on a batch (B, Ch, H, W)."""
    trunk.train()
    optimizer = torch.optim.AdamW(trunk.parameters())

    def step() -> None:
        optimizer.zero_grad()
        trunk(images).square().mean().backward()
        optimizer.step()

    return step
