"""make bench: hold the harness against other code that does the same work, on one CPU core.

Every comparison is a ratio of interleaved repeats in one sitting, peer over ours, so that a busy or slow machine moves
both sides; the median decides. Ratios are of CPU seconds, which other processes hardly move; those of wall-clock seconds
stand beside them. A peer gets its best case: pixels in memory, no worker processes, embeddings already normalised.

Peers: pytorch-metric-learning's trainer `MetricLossOnly` and its `AccuracyCalculator` (Musgrave, Belongie, Lim, "PyTorch
Metric Learning", arXiv 2008.09164), and a bare `import torch`.
"""

import contextlib
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from torch.nn import functional

from benchmark import ledger, records, train
from benchmark.checks import prepare
from benchmark.protocol.retrieval import retrieval_metrics
from benchmark.provenance import hardware, versions
from benchmark.study import Study, conf_dir, main
from benchmark.worker import build

ROOT = Path(__file__).resolve().parent.parent
LOSSES = ("proxy_anchor", "contrastive")
ITERATIONS = 20  # of one repeat
REPEATS = 7
CLASSES = {6_000: 100, 60_000: 11_316}  # the shapes of the test halves of CUB and SOP
NAMES = {"precision_at_1": "precision_at_1", "r_precision": "r_precision", "map_at_r": "mean_average_precision_at_r"}
TOLERANCE = 1e-6
SEARCH_MINUTES = 10.0


class Spent(NamedTuple):
    """Seconds that a piece of work took."""

    cpu: float
    wall: float


@dataclass
class Row:
    """One line of the table.

    Attributes:
        what: is measured.
        target: `>=` or `<=` and a number.
        values: measured, one for each repeat; empty if there is nothing to measure yet.
        compared: with what, and how.
        unit: of the values; `x` for ratios.
        wall: the same by the wall clock, where `values` are CPU time.
    """

    what: str
    target: tuple[str, float]
    values: list[float]
    compared: str
    unit: str = "x"
    wall: list[float] = field(default_factory=list)

    def verdict(self) -> str:
        """Whether the median keeps the promise."""
        if not self.values:
            return "not measured"
        median, (sign, bound) = statistics.median(self.values), self.target
        return "met" if (median >= bound if sign == ">=" else median <= bound) else "MISSED"

    def cells(self) -> list[str]:
        """The line as text."""
        numbers = [f"{f(self.values):.2f} {self.unit}" for f in (statistics.median, min, max) if self.values]
        median, low, high = numbers or [""] * 3
        wall = f"{statistics.median(self.wall):.2f} {self.unit}" if self.wall else ""
        spread = f"{low.split()[0]} - {high.split()[0]}" if low else ""
        return [self.what, f"{self.target[0]} {self.target[1]:g} {self.unit}", median, spread, wall, self.verdict(), self.compared]


def bench(study: Study, overrides: list[str]) -> None:
    """Measure everything and print one table.

    Args:
        study: names the data set, trunk and protocol of the trainings, and the search whose time is reported.
        overrides: unused.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    load = f"{os.getloadavg()[0]:.1f}"
    print(f"{hardware()['cpu']}, one thread, torch {versions()['torch']}, load {load} before. Some minutes ...", flush=True)
    import pytorch_metric_learning.utils.accuracy_calculator  # noqa: F401 - brings faiss, whose threads are limited below

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    rows: list[Row] = []
    with threadpool_limits(1):
        for part in (start_up(), trainings(study), metrics(), large_metrics(), searches(study)):
            for row in part:
                print(f"  {row.what}: {row.cells()[2] or row.verdict()}", flush=True)
                rows.append(row)
    torch.set_num_threads(before)
    print("\n" + table(rows))


def table(rows: list[Row]) -> str:
    """The rows in columns."""
    head = ["measured", "target", "median", "min - max", "by the wall", "", "compared"]
    lines = [head, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    widths[-1] = 0  # the last column ends where it ends
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


# -- measuring --------------------------------------------------------------------------------------------------------


def own_time() -> Spent:
    """Clocks of this process."""
    return Spent(time.process_time(), time.perf_counter())


def children_time() -> Spent:
    """Clocks of the processes that this one started and saw end."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Spent(used.ru_utime + used.ru_stime, time.perf_counter())


def interleave(
    jobs: dict[str, Callable[[], Any]], repeats: int, clock: Callable[[], Spent] = own_time
) -> dict[str, list[Spent]]:
    """What each repeat of each job took: one round uncounted, then rounds that go through the jobs back and forth.

    Args:
        jobs: do the work once per call.
        repeats: counted rounds.
        clock: read before and after each job.
    """
    spent: dict[str, list[Spent]] = {name: [] for name in jobs}
    for round_ in range(repeats + 1):
        for name in list(jobs)[:: -1 if round_ % 2 else 1]:
            start = clock()
            jobs[name]()
            end = clock()
            if round_:
                spent[name].append(Spent(end.cpu - start.cpu, end.wall - start.wall))
    return spent


def ratio_row(what: str, target: tuple[str, float], over: list[Spent], under: list[Spent], compared: str) -> Row:
    """A row of ratios, one for each round."""
    pairs = list(zip(over, under, strict=True))
    return Row(what, target, [a.cpu / b.cpu for a, b in pairs], compared, wall=[a.wall / b.wall for a, b in pairs])


# -- what is measured -------------------------------------------------------------------------------------------------


def start_up() -> Iterator[Row]:
    """Fresh interpreters until they end."""
    commands = {
        "bo": ["-m", "benchmark.bo", "--help"], "torch": ["-c", "import torch"], "ours": ["-c", "import benchmark"],
    }  # fmt: skip
    jobs = {
        name: lambda c=command: subprocess.run([sys.executable, *c], cwd=ROOT, check=True, capture_output=True)
        for name, command in commands.items()
    }
    spent = interleave(jobs, 5, children_time)
    bare = [s.cpu for s in spent["ours"]], [s.wall for s in spent["ours"]]
    yield Row("import benchmark", ("<=", 0.5), bare[0], "a fresh interpreter until it ends", "s", bare[1])
    what = "python -m benchmark.bo --help"
    yield ratio_row(what, ("<=", 1.5), spent["bo"], spent["torch"], 'over python -c "import torch"')


class Pictures(torch.utils.data.Dataset):
    """Training images one by one, as pytorch-metric-learning's trainer takes them: shifted, float, normalised.

    The arithmetic is that of `to_batch`; padding is done beforehand.
    """

    def __init__(self, parts: train.Parts, shift: int) -> None:
        images = parts.images[:, None] if parts.images.ndim == 3 else parts.images  # (N, Ch, H, W)
        self.size, self.shift, self.labels = images.shape[2:], shift, parts.labels.tolist()
        self.padded = functional.pad(images, (shift,) * 4)
        scale = torch.tensor(parts.trunk.std).reciprocal()
        self.scale, self.offset = (scale / 255).view(-1, 1, 1), (torch.tensor(parts.trunk.mean) * scale).view(-1, 1, 1)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        down, right = torch.randint(2 * self.shift + 1, (2,)).tolist()
        image = self.padded[index, :, down : down + self.size[0], right : right + self.size[1]]
        return image.float().mul_(self.scale).sub_(self.offset), self.labels[index]


def trainings(study: Study) -> Iterator[Row]:
    """Training images per second of a fold: our loop, and pytorch-metric-learning's trainer on the same parts."""
    fingerprint = prepare(study)
    for name in LOSSES:
        loss = yaml.safe_load((conf_dir() / "loss" / f"{name}.yaml").read_text(encoding="utf-8"))
        one = Study.of(study.raw | {"loss": loss, "device": "cpu", "threads": 1})
        unit = {"study": one.raw, "setting": {}, "fingerprint": fingerprint, "kind": "trial", "index": 0, "fold": 0}
        spent = interleave({"ours": our_loop(*build(unit)), "peer": their_trainer(one, *build(unit))}, REPEATS)
        rate = statistics.median(one.config.protocol.batch_size * ITERATIONS / s.cpu for s in spent["ours"])
        compared = f"images/s ({rate:,.0f}) over MetricLossOnly's; both shift by up to {one.config.training.shift} px"
        yield ratio_row(f"training a fold, {name}", (">=", 1.1), spent["peer"], spent["ours"], compared)


def our_loop(parts: train.Parts, schedule: train.Schedule) -> Callable[[], None]:
    """What trains `ITERATIONS` iterations more at each call, as in a fold."""
    first = 0

    def go_on() -> None:
        nonlocal first
        train._set_train_mode(parts, schedule.freeze_batchnorm)
        train._train_epoch(parts, schedule, range(first, first + ITERATIONS))
        first += ITERATIONS

    return go_on


def their_trainer(study: Study, parts: train.Parts, schedule: train.Schedule) -> Callable[[], None]:
    """The same with `MetricLossOnly`; its sampler's list is as long as one call needs, so none of it is wasted."""
    from pytorch_metric_learning.samplers import MPerClassSampler
    from pytorch_metric_learning.trainers import MetricLossOnly

    size, m = study.config.protocol.batch_size, study.config.loss.sampler["m"]
    enough = m * len(parts.labels.unique()) >= size  # else its batches are slices of passes, like ours
    sampler = MPerClassSampler(parts.labels, m, size if enough else None, length_before_new_iter=size * ITERATIONS)
    theirs = {"trunk": "trunk_optimizer", "head": "embedder_optimizer", "loss": "metric_loss_optimizer"}
    trainer = MetricLossOnly(
        models={"trunk": parts.trunk, "embedder": parts.head}, loss_funcs={"metric_loss": parts.loss},
        optimizers={theirs[name]: optimizer for name, optimizer in parts.optimizers.items()},
        dataset=Pictures(parts, schedule.shift), batch_size=size, sampler=sampler, iterations_per_epoch=ITERATIONS,
        dataloader_num_workers=0, freeze_trunk_batchnorm=schedule.freeze_batchnorm, data_device=torch.device("cpu"),
    )  # fmt: skip

    def go_on() -> None:
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
            trainer.train()

    return go_on


def made_up(num_images: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit vectors (N, 128) around the centres of their classes, a twentieth of them around another's, and labels (N,)."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(num_images) % CLASSES[num_images]
    labels = labels[torch.randperm(num_images, generator=generator)]
    stray = torch.rand(num_images, generator=generator) < 0.05
    around = torch.where(stray, labels.roll(1), labels)
    centres = torch.randn(CLASSES[num_images], 128, generator=generator)
    noise = torch.randn(num_images, 128, generator=generator)
    return functional.normalize(centres[around] + 0.7 * noise), labels


def scorer(side: str, embeddings: torch.Tensor, labels: torch.Tensor) -> Callable[[], dict[str, float]]:
    """What scores the embeddings, our way (`ours`) or pytorch-metric-learning's (`peer`), under our names."""
    if side == "ours":
        return lambda: {name: retrieval_metrics(embeddings, labels)[name] for name in NAMES}
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    calculator = AccuracyCalculator(include=tuple(NAMES.values()), k="max_bin_count", device=torch.device("cpu"))

    def score() -> dict[str, float]:
        found = calculator.get_accuracy(embeddings, labels)
        return {name: found[theirs] for name, theirs in NAMES.items()}

    return score


def check_equal(ours: dict[str, float], peer: dict[str, float]) -> None:
    """Fast and wrong does not count.

    Raises:
        ValueError: a metric differs by more than `TOLERANCE`.
    """
    if any(abs(ours[name] - peer[name]) > TOLERANCE for name in NAMES):
        raise ValueError(f"The metrics differ by more than {TOLERANCE:g}: ours {ours}, AccuracyCalculator's {peer}.")
