"""make bench-front: the validation MAP@R of variants of a training against their core-seconds, and the Pareto front.

The variants are in `front.yaml`. They are trained on one thread of the CPU, on folds of the protocol, at one setting
each of a proxy loss and of a pair loss, so that the choice favours neither kind; test classes are never read. With
constant rates, a training has the scores of all shorter ones on its way, so it gives a row for each number of epochs.
CPU time is measured, because other processes hardly affect it; it includes building the fold and all evaluations.
"""

import csv
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from benchmark.core import plain_yaml, records
from benchmark.core.console import write
from benchmark.core.csv_file import write_csv
from benchmark.core.errors import UserError
from benchmark.core.provenance import commit, hardware, versions
from benchmark.core.threads import use_threads
from benchmark.perf.timing import interleave
from benchmark.study import cli
from benchmark.study.assemble import build
from benchmark.study.prepare import prepare
from benchmark.study.selected import check_read
from benchmark.study.study import Study
from benchmark.training import loop
from benchmark.training.checkpoint import Checkpoint
from benchmark.training.history import HistoryRow

VARIANTS = Path(__file__).with_suffix(".yaml")
NAME = "glyphs_front"
Values = dict[str, Any]
NEVER = 1e9  # seconds between checkpoints
ITERATIONS, ROUNDS = 3, 7  # timed against the first variant


@dataclass(frozen=True)
class Point:
    """The cost and the score of a training that ends after a number of epochs, as means over folds.

    Attributes:
        stage: the stage of `front.yaml`.
        variant: name of the variant.
        loss: name of the loss.
        epochs: number of epochs.
        map_at_r: validation MAP@R of the best epoch so far, in percent.
        core_seconds: CPU time of a fold until then.
        step: CPU time of an iteration in units of the stage's first variant: the median of interleaved rounds.
        commit: commit of the code that measured it.
        machine: processor that measured it, and the version of PyTorch.
    """

    stage: str
    variant: str
    loss: str
    epochs: int
    map_at_r: float
    core_seconds: float
    step: float
    commit: str
    machine: str


@dataclass(frozen=True)
class Line:
    """A variant at a number of epochs, over all losses of its stage.

    Attributes:
        variant: name of the variant.
        epochs: number of epochs.
        map_at_r: validation MAP@R of each loss, in percent.
        core_seconds: CPU time of a fold, the mean over the losses.
        cost: CPU time of its iterations in epochs of the stage's first variant, which other programs on the machine
            change less than `core_seconds`, the mean over the losses.
    """

    variant: str
    epochs: int
    map_at_r: dict[str, float]
    core_seconds: float
    cost: float

    @property
    def mean(self) -> float:
        """Mean MAP@R over the losses, in percent."""
        return statistics.fmean(self.map_at_r.values())

    def is_beaten_by(self, other: "Line") -> bool:
        """Whether another line is at least as good in cost and score, and better in one of them."""
        better = other.mean > self.mean or other.cost < self.cost
        return better and other.mean >= self.mean and other.cost <= self.cost


COLUMNS = [field.name for field in fields(Point)]


def bench_front(study: Study, overrides: list[str]) -> None:
    """Train the variants that have no rows yet, then write `results/bench/glyphs_front.csv` and `.md`.

    Args:
        study: supplies `results_dir`; what is trained is in `front.yaml`.
        overrides: those on the command line, none of which changes what is trained.

    Raises:
        UserError: an option is not read, a variant is no valid configuration, or a file cannot be read or written.
    """
    check_read("bench-front", overrides, ())
    use_threads(1)
    machine = f"{hardware()['cpu']}, torch {versions()['torch']}"
    plan = plain_yaml.read_mapping(VARIANTS)
    path = Path(study.config.results_dir) / "bench" / f"{NAME}.csv"
    points = read_points(path)
    for stage, of in plan["stages"].items():
        known = {(point.variant, point.loss) for point in points if point.stage == stage}
        todo = [one for one in itertools.product(of["variants"], of["losses"]) if one not in known]
        for variant, loss in todo:
            own, values = of["variants"][variant], values_of(plan, stage, variant, loss)
            step = step_ratio(values, values_of(plan, stage, next(iter(of["variants"])), loss))
            curves = [curve(values, fold, own["epochs"][-1]) for fold in of["folds"]]
            for count in own["epochs"]:
                score, seconds = (statistics.fmean(one[count - 1][n] for one in curves) for n in (0, 1))
                points.append(Point(stage, variant, loss, count, score, seconds, step, commit(), machine))
            write_points(points, path)
            write(f"{variant}, {loss}: {points[-1].map_at_r:.1f} in {points[-1].core_seconds:.1f} core-seconds a fold")
    text = as_markdown(plan, points)
    records.write_whole(path.with_suffix(".md"), text.encode())
    write(f"\n{text}\nWritten to {path.with_suffix('.md')}")


def values_of(plan: Values, stage: str, variant: str, loss: str) -> Values:
    """The configuration of a variant by key, without the length of the training.

    Args:
        plan: the content of `front.yaml`.
        stage: name of the stage.
        variant: name of the variant.
        loss: name of the loss.
    """
    change: Values = plan["stages"][stage]["variants"][variant].get("change", {})
    return {**plan["base"], "loss": loss, **plan["losses"][loss], **change}


def study_of(values: Values, epochs: int) -> Study:
    """The study of a variant, on one thread of the CPU.

    Args:
        values: its configuration by key.
        epochs: number of epochs, which no patience shortens.

    Raises:
        UserError: the configuration is invalid.
    """
    fixed = {"device": "cpu", "threads": 1, "dataset.max_epochs": epochs, "dataset.patience": epochs}
    return cli.study_of([f"{'++' * ('.' in key)}{key}={value}" for key, value in (values | fixed).items()])


def step_ratio(values: Values, base: Values) -> float:
    """The CPU time of some iterations of a variant over that of as many of another one, the median of rounds in turn.

    Args:
        values: the variant's configuration by key.
        base: that of the other one.

    Raises:
        UserError: a configuration is invalid.
    """

    def job(of: Values) -> Callable[[], object]:
        study = study_of(of, 1)
        parts, schedule = build(study, {}, fingerprint=prepare(study, "trainval"), kind="trial", index=0, fold=0)
        loop.set_train_mode(parts, schedule.freeze_batchnorm)
        return lambda: loop.train_epoch(parts, schedule, range(ITERATIONS))

    spent = interleave({"variant": job(values), "base": job(base)}, ROUNDS)
    return statistics.median(a.cpu / b.cpu for a, b in zip(spent["variant"], spent["base"], strict=True))


def curve(values: Values, fold: int, epochs: int) -> list[tuple[float, float]]:
    """Train a fold and return, for each number of epochs, the best MAP@R so far in percent, and the CPU time.

    Args:
        values: the variant's configuration by key.
        fold: number of the fold.
        epochs: number of epochs, which no patience shortens.

    Raises:
        UserError: the configuration is invalid.
    """
    study = study_of(values, epochs)
    fingerprint = prepare(study, "trainval")
    ends: list[float] = []
    start = time.process_time()

    def on_epoch(history: list[HistoryRow]) -> None:
        if history:
            ends.append(time.process_time() - start)

    parts, schedule = build(study, {}, fingerprint=fingerprint, kind="trial", index=0, fold=fold)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Checkpoint(Path(folder) / "checkpoint.pt", {}, lambda *_: "", seconds=NEVER)
        history = loop.train_fold(parts, schedule, checkpoint, on_epoch).result["history"]
    scores = [100 * row["map_at_r"] for row in history]  # that of the untrained network is the first
    return [(max(scores[1 : epoch + 1]), ends[epoch]) for epoch in range(1, len(scores))]


def lines(points: Sequence[Point]) -> list[Line]:
    """Join the points of all losses, in the order of their cost.

    Args:
        points: the points of one stage.
    """
    groups: dict[tuple[str, int], list[Point]] = {}
    for point in points:
        groups.setdefault((point.variant, point.epochs), []).append(point)
    found = [
        Line(*key, {one.loss: one.map_at_r for one in group}, statistics.fmean(one.core_seconds for one in group),
             statistics.fmean(one.epochs * one.step for one in group))
        for key, group in groups.items()
    ]  # fmt: skip
    return sorted(found, key=lambda line: line.cost)


def front(found: Sequence[Line]) -> list[Line]:
    """The lines that no other one beats.

    Args:
        found: lines of the same losses and folds.
    """
    return [line for line in found if not any(line.is_beaten_by(other) for other in found)]


def as_markdown(plan: Values, points: Sequence[Point]) -> str:
    """A table for each stage, then what each variant changes.

    Args:
        plan: the content of `front.yaml`.
        points: all points.
    """
    text = [
        "# Glyphs: score against cost", "",
        "Written by `make bench-front`: validation MAP@R in percent after a number of epochs; the cost of the "
        "iterations in epochs of the first variant, timed in turn with it; core-seconds of a fold with evaluations, "
        "which grow with the machine's load, so compare costs. One seed and the folds named below: a difference of a "
        "point is noise. A star marks the Pareto front of cost and the losses' mean.", "",
        f"One thread. {'; '.join(_origins(points))}.",
    ]  # fmt: skip
    for stage, of in plan["stages"].items():
        found = lines([point for point in points if point.stage == stage])
        kept = front(found)
        text += ["", f"## {stage}", "", f"Folds {', '.join(map(str, of['folds']))}; {', '.join(of['losses'])}.", ""]
        text += ["| variant | epochs | cost | core-seconds | " + " | ".join(of["losses"]) + " | front |"]
        text += ["|---|---:|---:|---:|" + "---:|" * len(of["losses"]) + "---|"]
        text += [
            f"| {line.variant} | {line.epochs} | {line.cost:.1f} | {line.core_seconds:.1f} | "
            + " | ".join(f"{line.map_at_r[loss]:.1f}" for loss in of["losses"])
            + f" | {'*' * (line in kept)} |"
            for line in found
        ]
    changes = {v: own.get("change", {}) for of in plan["stages"].values() for v, own in of["variants"].items()}
    text += ["", "## What the variants change", "", f"All start from {_listed(plan['base'])}.", ""]
    text += [f"- {name}: {_listed(change)}" for name, change in changes.items() if change]
    text += ["", *(f"{loss}: {_listed(setting)}" for loss, setting in plan["losses"].items()), ""]
    return "\n".join(text)


def _listed(values: Values) -> str:
    return ", ".join(f"`{key}={value}`" for key, value in values.items())


def _origins(points: Sequence[Point]) -> list[str]:
    return list(dict.fromkeys(f"{point.machine}, commit {point.commit[:12]}" for point in points))


def read_points(path: Path) -> list[Point]:
    """Read the points of earlier calls; none if there is no file.

    Args:
        path: a file of `write_points`.

    Raises:
        UserError: the file has other columns.
    """
    if not path.exists():
        return []
    rows = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
    if list(rows.fieldnames or []) != COLUMNS:
        raise UserError(f"{path} has the columns {rows.fieldnames}. Move it away, and run the same command again.")
    return [
        Point(row["stage"], row["variant"], row["loss"], int(row["epochs"]), float(row["map_at_r"]),
              float(row["core_seconds"]), float(row["step"]), row["commit"], row["machine"])
        for row in rows
    ]  # fmt: skip


def write_points(points: Sequence[Point], path: Path) -> None:
    """Write the points as CSV.

    Args:
        points: the points.
        path: the file, which is replaced.

    Raises:
        WriteError: it cannot be written.
    """
    rows = [
        (p.stage, p.variant, p.loss, p.epochs, f"{p.map_at_r:.2f}", f"{p.core_seconds:.2f}", f"{p.step:.2f}",
         p.commit, p.machine)
        for p in points
    ]  # fmt: skip
    write_csv(path, [COLUMNS, *rows])
