"""The metrics' exact search: over the bare matrix product, and against the CPU's result."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from benchmark.perf.gpu.fact import Fact, Target
from benchmark.protocol.retrieval import retrieval_metrics

SIZES = {"validation fold of CUB": (1_466, 25), "test classes of CUB": (5_924, 100),
         "test classes of SOP": (60_502, 11_316)}  # fmt: skip
DIMS, ROWS = 128, 256
COMPARED = 10_000  # images up to which the CPU computes the same


def facts(target: Target) -> Iterator[Fact]:
    """Yield seconds of the metrics at three sizes.

    Args:
        target: where the embeddings are.
    """
    for what, (count, classes) in list(SIZES.items())[: 1 if target.small else None]:
        generator = torch.Generator().manual_seed(0)
        labels = torch.randperm(count, generator=generator) % classes
        centres = torch.randn(classes, DIMS, generator=generator)
        embeddings = centres[labels] + 0.7 * torch.randn(count, DIMS, generator=generator)
        x, y = embeddings.to(target.device), labels.to(target.device)
        if count < COMPARED:
            here, there = retrieval_metrics(x, y), retrieval_metrics(embeddings, labels)
            yield Fact(f"{what}: difference to the CPU", max(abs(here[name] - there[name]) for name in here))
        floor = target.seconds(lambda x=x: product(functional.normalize(x)), 0.5)  # type: ignore[misc]
        seconds = target.seconds(lambda x=x, y=y: retrieval_metrics(x, y), 0.5)  # type: ignore[misc]
        peak = target.peak_gigabytes(lambda x=x, y=y: retrieval_metrics(x, y))  # type: ignore[misc]
        yield Fact(f"{what}, {count:,} x {DIMS}", seconds, "s",
                   f"{seconds / floor:.2f} x the bare product, {peak:.2f} GB")  # fmt: skip


def product(x: Tensor) -> None:
    """All similarities (N, N) of unit vectors (N, D), in blocks of rows that overwrite each other."""
    out = torch.empty(ROWS, len(x), device=x.device)
    for rows in x.split(ROWS):
        torch.mm(rows, x.T, out=out[: len(rows)])
