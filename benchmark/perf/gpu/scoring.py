"""The metrics' exact search: over the bare matrix product, and against the CPU's result."""

from collections.abc import Iterator

import torch
from torch import Tensor

from benchmark.perf.cpu import CLASSES, made_up
from benchmark.perf.gpu.fact import Fact, Target
from benchmark.protocol.retrieval import retrieval_metrics

ROWS = 256
COMPARED = 10_000  # images up to which the CPU computes the same


def facts(target: Target) -> Iterator[Fact]:
    """Yield seconds of the metrics at three sizes.

    Args:
        target: where the embeddings are.
    """
    for count in list(CLASSES)[: 1 if target.small else None]:
        embeddings, labels = made_up(count)
        what, x, y = f"{count:,} x {embeddings.shape[1]}", embeddings.to(target.device), labels.to(target.device)
        if count < COMPARED:
            here, there = retrieval_metrics(x, y), retrieval_metrics(embeddings, labels)
            yield Fact(f"{what}: difference to the CPU", max(abs(here[name] - there[name]) for name in here))
        floor = target.seconds(lambda x=x: product(x), 0.5)  # type: ignore[misc]
        seconds = target.seconds(lambda x=x, y=y: retrieval_metrics(x, y), 0.5)  # type: ignore[misc]
        peak = target.peak_gigabytes(lambda x=x, y=y: retrieval_metrics(x, y))  # type: ignore[misc]
        yield Fact(what, seconds, "s",
                   f"{seconds / floor:.2f} x the bare product, {peak:.2f} GB")  # fmt: skip


def product(x: Tensor) -> None:
    """All similarities (N, N) of unit vectors (N, D), in blocks of rows that overwrite each other."""
    out = torch.empty(ROWS, len(x), device=x.device)
    for rows in x.split(ROWS):
        torch.mm(rows, x.T, out=out[: len(rows)])
