"""How the costs grow with the size of the problem: N images, C classes, D dimensions, F folds.

For each, the work is known (the matrix product, the proxies, the iterations), and the slope of log(seconds) over
log(work) is measured: 1 where the cost grows as the work does, less where fixed costs still count.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from benchmark.perf.timing import Row, interleave
from benchmark.protocol.retrieval import retrieval_metrics
from benchmark.report.figures import save
from benchmark.study.assemble import build
from benchmark.study.prepare import prepare
from benchmark.study.study import Study
from benchmark.training import loop

REPEATS = 3
SIZES = {"images": (2_000, 4_000, 8_000, 16_000), "classes": (500, 2_000, 8_000, 32_000),
         "dimensions": (64, 128, 256, 512), "folds": (1, 2, 4)}  # fmt: skip
ITERATIONS = 10
LIMIT = 1.15  # of the slope


@dataclass(frozen=True)
class Curve:
    """Costs over one size.

    Attributes:
        what: what is computed.
        size: what grows, a key of `SIZES`.
        work: relative work of each size.
        seconds: CPU seconds of each size in each round, (S, R).
    """

    what: str
    size: str
    work: list[float]
    seconds: np.ndarray

    def slopes(self) -> list[float]:
        """The slope of log(seconds) over log(work), one per round."""
        x = np.log(self.work)
        return [float(np.polyfit(x, np.log(one), 1)[0]) for one in self.seconds.T]

    def row(self) -> Row:
        """The curve as a line of the table."""
        ends = [f"{1000 * np.median(self.seconds[end]):.3g} ms at {SIZES[self.size][end]:,}" for end in (0, -1)]
        compared = f"{self.what}: slope over the work; {ends[0]}, {ends[1]}"
        return Row(f"growth over {self.size}", ("<=", LIMIT), self.slopes(), compared, "")


def curves(study: Study) -> Iterator[Curve]:
    """Yield a curve for each size.

    Args:
        study: whose folds are trained for the last curve.
    """
    yield measured("metrics of N x 128", "images", lambda n: (n / 1000) ** 2, scoring)
    yield measured("metrics of 4,000 x D", "dimensions", float, lambda dims: scoring(4_000, dims))
    yield measured("a step of proxy_anchor, C x 128", "classes", float, functools.partial(loss_step, study))
    yield measured("training folds one after the other", "folds", float, functools.partial(folds, study))


def measured(what: str, size: str, work: Callable[[int], float], make: Callable[[int], Callable[[], object]]) -> Curve:
    """Time one kind of job at all its sizes, in turn.

    Args:
        what: what is computed.
        size: a key of `SIZES`.
        work: the work of a size, in any unit.
        make: the job of a size.
    """
    jobs: Mapping[str, Callable[[], object]] = {str(n): make(n) for n in SIZES[size]}
    spent = interleave(jobs, REPEATS)
    return Curve(what, size, [work(n) for n in SIZES[size]], np.array([[s.cpu for s in spent[name]] for name in jobs]))


def scoring(count: int, dims: int = 128) -> Callable[[], object]:
    """A job that scores embeddings (N, D) of 20 images per class."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % max(1, count // 20)
    vectors = functional.normalize(torch.randn(count, dims, generator=generator))
    return lambda: retrieval_metrics(vectors, labels)


def loss_step(study: Study, classes: int) -> Callable[[], object]:
    """A job that computes the study's loss and its gradients, with C classes, 5 times."""
    loss = study.make_loss(classes, 0, np.zeros(classes, int), 5 * classes)
    generator = torch.Generator().manual_seed(0)
    size = (study.config.protocol.batch_size, study.config.protocol.embedding_dim)
    embeddings = functional.normalize(torch.randn(size, generator=generator)).requires_grad_()
    labels = torch.randint(classes, size[:1], generator=generator)

    def step() -> None:
        for _ in range(5):
            loss.zero_grad(set_to_none=True)
            loss(embeddings, labels).backward()

    return step


def folds(study: Study, count: int) -> Callable[[], object]:
    """A job that builds and trains the first folds for some iterations, without evaluating them."""
    fingerprint = prepare(study, "trainval")

    def train() -> None:
        for fold in range(count):
            parts, schedule = build(study, {}, fingerprint=fingerprint, kind="trial", index=0, fold=fold)
            loop.set_train_mode(parts, schedule.freeze_batchnorm)
            loop.train_epoch(parts, schedule, range(ITERATIONS))

    return train


def draw(found: list[Curve], stem: Path) -> list[Path]:
    """Draw seconds over size on logarithmic axes, one panel per curve, beside a line that grows as the work.

    Args:
        found: the curves.
        stem: the files without their endings.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * len(found), 3.2), layout="constrained")
    for axes, curve in zip(figure.subplots(1, len(found), squeeze=False)[0], found, strict=True):
        sizes, medians = SIZES[curve.size], np.median(curve.seconds, axis=1)
        ideal = medians[-1] * np.array(curve.work) / curve.work[-1]
        axes.loglog(sizes, medians, "o-", label="measured")
        axes.loglog(sizes, ideal, ":", color="0.4", label="as the work")
        axes.set(title=curve.what, xlabel=curve.size, ylabel="CPU seconds")
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes], minor=False)
        axes.minorticks_off()
    axes.legend()
    return save(figure, stem)
