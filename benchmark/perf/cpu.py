"""make bench: compare the harness with other code that does the same work, on one CPU core.

Every comparison is a ratio, baseline over ours, of jobs that take turns (`timing.py`). Baselines are used as
documented, and in their fastest form: images in memory, a few tensor operations to transform an image (torchvision's
transforms take five times as long), no worker processes to communicate with, embeddings already normalised.

Baselines: of pytorch-metric-learning 2, the trainer `MetricLossOnly`, the `BaseTester` and the `AccuracyCalculator`
(Musgrave, Belongie, Lim, "PyTorch Metric Learning", arXiv 2008.09164), and a bare `import torch` for start-up. Version
3 has no trainers and testers and another calculator, so with it these rows are not measured. The metrics are also
compared with the matrix product that they cannot do without, and with open-metric-learning's search and metrics where
that is installed; version 4 asks for numpy below 2, so not in our environment.
"""

import contextlib
import functools
import importlib.util
import io
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from benchmark.core import records
from benchmark.core.conf_files import content
from benchmark.core.memory import peak_bytes
from benchmark.core.paths import CHECKOUT_DIR
from benchmark.core.provenance import hardware, versions
from benchmark.core.records import JsonObject
from benchmark.core.threads import use_threads
from benchmark.images.batches import embed
from benchmark.images.in_memory import InMemoryImages
from benchmark.perf import scaling, table_file
from benchmark.perf.dispatch import dispatch_costs
from benchmark.perf.images import image_inputs
from benchmark.perf.kept_memory import kept_memory
from benchmark.perf.losses import loss_steps
from benchmark.perf.search import search_costs
from benchmark.perf.timing import Row, Spent, children_time, in_fresh_process, interleave, own_time, ratio_row, table
from benchmark.protocol.retrieval import retrieval_metrics
from benchmark.study.assemble import build
from benchmark.study.prepare import prepare
from benchmark.study.stored import all_studies
from benchmark.study.study import Study
from benchmark.training import loop
from benchmark.training.components import EvaluationSet, Schedule, TrainingComponents

LOSSES = ("proxy_anchor", "contrastive")
ITERATIONS = 20  # training iterations per round
REPEATS = 15
EVALUATIONS = 5  # rounds
CLASSES = {1_466: 25, 5_924: 100, 60_502: 11_316}  # by number of vectors: a fold of CUB, the test halves of CUB and SOP
FLOORS = {1_466: 3.5, 5_924: 1.8, 60_502: 1.25}  # targets for the time of the metrics, in bare products
PEER = "pytorch_metric_learning.trainers"  # a package that only version 2 of the library has
NEEDS_VERSION_2 = "needs pytorch-metric-learning 2: pip install 'pytorch-metric-learning<3'"
NAMES = {"precision_at_1": "precision_at_1", "r_precision": "r_precision", "map_at_r": "mean_average_precision_at_r"}
TOLERANCE = 1e-6


def bench(study: Study, overrides: list[str]) -> None:
    """Measure everything, print one table, and write it to `results/bench/` with a plot of how the costs grow.

    Args:
        study: the study whose data set, trunk and protocol are used, and whose search time is reported.
        overrides: unused.
    """
    print(f"{hardware()['cpu']}, one thread, torch {versions()['torch']}, load {os.getloadavg()[0]:.1f}", flush=True)
    use_threads(1)
    rows: list[Row] = []
    costs = (image_inputs(), kept_memory(), loss_steps(study), dispatch_costs(study))
    growth: list[scaling.Curve] = []
    for part in (
        start_up(),
        search_costs(study),  # early, since a search proposes in a process that does little else
        trainings(study),
        evaluations(study),
        metrics(),
        large_metrics(),
        *costs,
        searches(study),
        grown(study, growth),
    ):
        for row in part:
            print(f"  {row.what}: {row.cells()[2] or row.verdict()}", flush=True)
            rows.append(row)
    print("\n" + table(rows))
    path = table_file.path_for(Path(study.config.results_dir))
    for line in table_file.slower(rows, path):
        print(f"SLOWER {line}")
    table_file.write_table(rows, path)
    for written in (path, *scaling.draw(growth, path.with_suffix(""))):
        print(f"Written: {written}")


def grown(study: Study, found: list[scaling.Curve]) -> Iterator[Row]:
    """A row for each curve of `scaling`; the curves are added to a list."""
    for curve in scaling.curves(study):
        found.append(curve)
        yield curve.row()


def start_up() -> Iterator[Row]:
    """Rows for the time of fresh interpreters from start to exit."""
    commands = {
        "bo": ["-m", "benchmark.bo", "--help"], "torch": ["-c", "import torch"], "ours": ["-c", "import benchmark"],
    }  # fmt: skip
    python = functools.partial(subprocess.run, cwd=CHECKOUT_DIR, check=True, capture_output=True)
    jobs = {name: functools.partial(python, [sys.executable, *command]) for name, command in commands.items()}
    spent = interleave(jobs, 5, children_time)
    bare = [s.cpu for s in spent["ours"]], [s.wall for s in spent["ours"]]
    yield Row("import benchmark", ("<=", 0.5), bare[0], "a fresh interpreter until it ends", "s", bare[1])
    what = "python -m benchmark.bo --help"
    yield ratio_row(what, ("<=", 1.5), spent["bo"], spent["torch"], 'over python -c "import torch"')


class LibraryDataset(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """Images one by one, as pytorch-metric-learning's trainer and tester expect them: float, normalised.

    The arithmetic per image is that of `to_batch`.

    Args:
        parts: whose training images are shifted, as in training.
        evaluated: images that replace them, and are not shifted.
    """

    def __init__(self, parts: TrainingComponents, evaluated: EvaluationSet | None = None) -> None:
        images, labels = (parts.images, parts.labels) if evaluated is None else (evaluated.images, evaluated.labels)
        assert isinstance(images, InMemoryImages)
        self.images, self.shift, self.labels = images.images, images.shift, labels.tolist()
        self.is_shifted = evaluated is None
        self.height, self.width = self.images.shape[2:]
        scale = torch.tensor(parts.trunk.std).reciprocal()
        self.scale, self.offset = (scale / 255).view(-1, 1, 1), (torch.tensor(parts.trunk.mean) * scale).view(-1, 1, 1)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = self.images[index]
        if self.is_shifted:
            down, right = torch.randint(2 * self.shift + 1, (2,)).tolist()
            padded = functional.pad(image, (self.shift,) * 4)
            image = padded[:, down : down + self.height, right : right + self.width]
        return image.float().mul_(self.scale).sub_(self.offset), self.labels[index]


def trainings(study: Study) -> Iterator[Row]:
    """Rows for the training throughput of our loop and of pytorch-metric-learning's trainer on equal components."""
    fingerprint = prepare(study, "trainval")
    for name in LOSSES:
        loss = content("loss", name)
        one = Study.of(study.raw | {"loss": loss, "device": "cpu", "threads": 1})
        what, target = f"training a fold, {name}", (">=", 1.1)
        if not has_peer():
            yield Row(what, target, [], f"MetricLossOnly {NEEDS_VERSION_2}")
            continue
        make = functools.partial(build, one, {}, fingerprint=fingerprint, kind="trial", index=0, fold=0)
        spent = interleave({"ours": our_loop(*make()), "peer": their_trainer(one, *make())}, REPEATS)
        rate = statistics.median(one.config.protocol.batch_size * ITERATIONS / s.cpu for s in spent["ours"])
        compared = f"images/s ({rate:,.0f}) over MetricLossOnly's; both shift by up to {one.config.training.shift} px"
        yield ratio_row(what, target, spent["peer"], spent["ours"], compared)


def has_peer() -> bool:
    """Whether the installed pytorch-metric-learning has the trainer and the calculator that are the baselines."""
    return importlib.util.find_spec(PEER) is not None


def our_loop(parts: TrainingComponents, schedule: Schedule) -> Callable[[], None]:
    """A job that continues the training of a fold by `ITERATIONS` iterations."""
    first = 0

    def train() -> None:
        nonlocal first
        loop.set_train_mode(parts, schedule.freeze_batchnorm)
        loop.train_epoch(parts, schedule, range(first, first + ITERATIONS))
        first += ITERATIONS

    return train


class WithoutTuples(torch.nn.Module):
    """A loss with the signature that pytorch-metric-learning's trainer needs; it ignores mined tuples."""

    def __init__(self, loss: torch.nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor, _: object = None) -> torch.Tensor:
        """Scalar loss of embeddings (B, D) with labels (B,)."""
        loss: torch.Tensor = self.loss(embeddings, labels)
        return loss


def their_trainer(study: Study, parts: TrainingComponents, schedule: Schedule) -> Callable[[], None]:
    """The counterpart of `our_loop` with `MetricLossOnly`; its sampler draws only what one call needs."""
    from pytorch_metric_learning.samplers import MPerClassSampler
    from pytorch_metric_learning.trainers import MetricLossOnly

    size, m = study.config.protocol.batch_size, study.config.loss.sampler["m"]
    enough = m * len(parts.labels.unique()) >= size  # otherwise its batches are slices of passes, like ours
    sampler = MPerClassSampler(parts.labels, m, size if enough else None, length_before_new_iter=size * ITERATIONS)
    theirs = {"trunk": "trunk_optimizer", "head": "embedder_optimizer", "loss": "metric_loss_optimizer"}
    trainer = MetricLossOnly(
        models={"trunk": parts.trunk, "embedder": parts.head}, loss_funcs={"metric_loss": WithoutTuples(parts.loss)},
        optimizers={theirs[name]: optimizer for name, optimizer in parts.optimizers.items()},
        dataset=LibraryDataset(parts), batch_size=size, sampler=sampler, iterations_per_epoch=ITERATIONS,
        dataloader_num_workers=0, freeze_trunk_batchnorm=schedule.freeze_batchnorm, data_device=torch.device("cpu"),
    )  # fmt: skip

    def train() -> None:
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
            trainer.train()

    return train


def evaluations(study: Study) -> Iterator[Row]:
    """A row for evaluating a fold's model on its validation images, by us and by pytorch-metric-learning's tester."""
    what, target = "evaluating a fold", (">=", 1.1)
    if not has_peer():
        yield Row(what, target, [], f"BaseTester {NEEDS_VERSION_2}")
        return
    one = Study.of(study.raw | {"device": "cpu", "threads": 1})
    parts, _ = build(one, {}, fingerprint=prepare(one, "trainval"), kind="trial", index=0, fold=0)
    evaluated = parts.validation
    assert evaluated is not None
    jobs = {"ours": our_evaluation(parts, evaluated), "peer": their_tester(parts, evaluated)}
    check_equal(jobs["ours"](), jobs["peer"](), "BaseTester")
    spent = interleave(jobs, EVALUATIONS)
    number = len(evaluated.labels)
    rate = statistics.median(number / s.cpu for s in spent["ours"])
    compared = f"images/s ({rate:,.0f}) over BaseTester and AccuracyCalculator's; {number:,} images, equal to 1e-6"
    yield ratio_row(what, target, spent["peer"], spent["ours"], compared)


def our_evaluation(parts: TrainingComponents, evaluated: EvaluationSet) -> Callable[[], dict[str, float]]:
    """A job that embeds images and scores the embeddings, as training does after an epoch."""

    def evaluate() -> dict[str, float]:
        embeddings = embed(parts.embedder, evaluated.images, parts.trunk, parts.head)
        return retrieval_metrics(embeddings, evaluated.labels)

    return evaluate


def their_tester(parts: TrainingComponents, evaluated: EvaluationSet) -> Callable[[], dict[str, float]]:
    """The counterpart of `our_evaluation` with `BaseTester` and `AccuracyCalculator`, in batches of the same size."""
    from pytorch_metric_learning.testers import BaseTester
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    cpu, size = torch.device("cpu"), evaluated.images.eval_batch_size
    tester = BaseTester(batch_size=size, dataloader_num_workers=0, data_device=cpu)
    calculator = AccuracyCalculator(include=tuple(NAMES.values()), k="max_bin_count", device=cpu)
    dataset = LibraryDataset(parts, evaluated)

    def evaluate() -> dict[str, float]:
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
            embeddings, labels = tester.get_all_embeddings(dataset, parts.trunk, parts.head)
        return dict(calculator.get_accuracy(embeddings, labels[:, 0]))

    return evaluate


def made_up(num_images: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit vectors (N, 128) and labels (N,): near the centre of their class, one in twenty near another class's."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randperm(num_images, generator=generator) % CLASSES[num_images]
    stray = torch.rand(num_images, generator=generator) < 0.05
    around = torch.where(stray, labels.roll(1), labels)
    centres = torch.randn(CLASSES[num_images], 128, generator=generator)
    vectors = torch.randn(num_images, 128, generator=generator).mul_(0.7)
    for rows in torch.arange(num_images).split(1000):  # in small blocks, to keep this below the memory peak
        vectors[rows] = functional.normalize(vectors[rows] + centres[around[rows]])
    return vectors, labels


def scorer(side: str, vectors: torch.Tensor, labels: torch.Tensor) -> Callable[[], dict[str, float]]:
    """A job that scores embeddings.

    Args:
        side: `ours`, `peer` (the baseline), `oml` (open-metric-learning), or `inputs`, which scores nothing and so
            measures the inputs alone.
        vectors: (N, D) unit vectors.
        labels: (N,) integer class ids.
    """
    if side == "inputs":
        return dict
    if side == "ours":
        return lambda: retrieval_metrics(vectors, labels)
    if side == "oml":
        return functools.partial(by_oml, vectors, labels)
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    calculator = AccuracyCalculator(include=tuple(NAMES.values()), k="max_bin_count", device=torch.device("cpu"))
    return lambda: calculator.get_accuracy(vectors, labels)


def by_oml(vectors: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Precision@1 and the precision at the largest R of vectors (N, D) with labels (N,), by open-metric-learning."""
    from oml.functional.knn import batched_knn
    from oml.functional.metrics import calc_retrieval_metrics

    ids, deepest = torch.arange(len(labels)), int(labels.bincount().max()) - 1
    _, retrieved, relevant = batched_knn(vectors, ids, ids, top_n=deepest, labels_gt=labels)
    found = calc_retrieval_metrics(
        retrieved, relevant, cmc_top_k=(1,), precision_top_k=(deepest,), map_top_k=(deepest,), verbose=False
    )
    return {"precision_at_1": float(found["cmc"][1]), "precision": float(found["precision"][deepest])}


def bare_product(vectors: torch.Tensor) -> Callable[[], None]:
    """A job that multiplies vectors (N, D) by each other in blocks of 256 rows, which it overwrites."""
    references = vectors.numpy()
    out = np.empty((256, len(references)), np.float32)

    def multiply() -> None:
        for start in range(0, len(references), 256):
            queries = references[start : start + 256]
            np.matmul(queries, references.T, out=out[: len(queries)])

    return multiply


def check_equal(ours: dict[str, float], peer: dict[str, float], name_of_peer: str = "AccuracyCalculator") -> None:
    """Check that our metrics equal the baseline's, since speed counts only for correct results.

    Args:
        ours: our metrics.
        peer: the baseline's, by its names.
        name_of_peer: the baseline in the message.

    Raises:
        ValueError: a metric differs by more than `TOLERANCE`.
    """
    for name, theirs in NAMES.items():
        if not abs(ours[name] - peer[theirs]) <= TOLERANCE:
            raise ValueError(
                f"{name} is {ours[name]!r}, but {peer[theirs]!r} by {name_of_peer}: more than {TOLERANCE:g} apart. "
                "Run make test; if it passes, please report this with the line of versions above."
            )


def metrics() -> Iterator[Row]:
    """Rows for the retrieval metrics of a validation fold and of a small test half, in this process."""
    for num_images in (1_466, 5_924):
        vectors, labels = made_up(num_images)
        installed = {"ours": True, "peer": has_peer(), "oml": importlib.util.find_spec("oml") is not None}
        jobs = {side: scorer(side, vectors, labels) for side, found in installed.items() if found}
        if "peer" in jobs:
            check_equal(jobs["ours"](), jobs["peer"]())
        spent = interleave({"product": bare_product(vectors), **jobs}, REPEATS)
        what, floor = f"metrics of {num_images:,} x 128", ("<=", FLOORS[num_images])
        yield ratio_row(f"{what}, limit", floor, spent["ours"], spent["product"], "ours over the bare product")
        compared = f"AccuracyCalculator(k='max_bin_count') over ours; {CLASSES[num_images]} classes, equal to 1e-6"
        missing = Row(what, (">=", 1.1), [], f"AccuracyCalculator {NEEDS_VERSION_2}")
        yield ratio_row(what, (">=", 1.1), spent["peer"], spent["ours"], compared) if "peer" in spent else missing
        yield oml_row(what, spent.get("oml", []), spent["ours"])


def oml_row(what: str, theirs: list[Spent], ours: list[Spent]) -> Row:
    """A row for open-metric-learning, which is not measured if `theirs` is empty."""
    if not theirs:
        return Row(f"{what}, OML", (">=", 1.1), [], "open-metric-learning is not installed")
    return ratio_row(f"{what}, OML", (">=", 1.1), theirs, ours, "open-metric-learning over ours")


def large_metrics() -> Iterator[Row]:
    """Rows for time and memory of the metrics of a large test half, once, each side in its own process."""
    inputs, ours = in_child("inputs"), in_child("ours")
    extra = ours["megabytes"] - inputs["megabytes"]
    what, mine = "metrics of 60,502 x 128", [Spent(ours["cpu"], ours["wall"])]
    compared = "ours over the bare product"
    yield ratio_row(f"{what}, limit", ("<=", FLOORS[60_502]), mine, [Spent(*ours["product"])], compared)
    more = ""
    try:
        peer = in_child("peer") if has_peer() else None
    except subprocess.CalledProcessError as error:  # it needs about 7 GB
        yield Row(what, (">=", 1.0), [], f"AccuracyCalculator's process ended with status {error.returncode}")
        peer = {}
    if peer is None:
        yield Row(what, (">=", 1.0), [], f"AccuracyCalculator {NEEDS_VERSION_2}")
    elif peer:
        check_equal(ours["metrics"], peer["metrics"])
        compared = f"AccuracyCalculator over ours ({ours['cpu']:.0f} s); 11,316 classes, values equal to 1e-6"
        yield ratio_row(what, (">=", 1.0), [Spent(peer["cpu"], peer["wall"])], mine, compared)
        more = f"; AccuracyCalculator {peer['megabytes'] - inputs['megabytes']:,.0f}"
    oml = in_child("oml") if importlib.util.find_spec("oml") else None
    yield oml_row(what, [Spent(oml["cpu"], oml["wall"])] if oml else [], mine)
    yield Row("memory for them", ("<=", 200), [extra], f"peak above a process that only makes the inputs{more}", "MB")


def in_child(side: str) -> JsonObject:
    """The measurements that `child` prints in a fresh process."""
    return dict(in_fresh_process(f"cpu.child({side!r})"))


def product_of(vectors: torch.Tensor) -> list[Spent]:
    """What one bare product of vectors (N, D) costs; its memory is free again afterwards."""
    return interleave({"product": bare_product(vectors)}, 1)["product"]


def child(side: str) -> None:
    """Score 60,502 vectors; print metrics, seconds, peak memory and the mean time of a product around it as JSON."""
    torch.set_num_threads(1)
    vectors, labels = made_up(60_502)
    score = scorer(side, vectors, labels)
    before = product_of(vectors) if side == "ours" else []
    start, found, end = own_time(), score(), own_time()
    megabytes = peak_bytes(torch.device("cpu")) / 1e6
    spent: JsonObject = {"cpu": end.cpu - start.cpu, "wall": end.wall - start.wall, "megabytes": megabytes}
    if side == "ours":
        both = before + product_of(vectors)
        spent["product"] = [statistics.fmean(values) for values in zip(*both, strict=True)]
    print(json.dumps({"metrics": found} | spent))


# -- finished searches -----------------------------------------------------------------------------------------------


def searches(study: Study) -> Iterator[Row]:
    """Rows for the share of time that searches spent outside training, and for the length of this study's search."""
    found = {}
    for directory in all_studies(Path(study.config.results_dir)):
        lines = directory / "bo" / "sessions.jsonl"
        if (directory / "bo" / "best.yaml").exists() and lines.exists():
            found[directory] = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
    how = "1 - (training + scoring) / (wall x workers)"
    if len(found) > 1:
        shares = [100 * overhead(sessions) for sessions in found.values()]
        yield Row(f"harness, {len(found)} finished searches", ("<=", 10), shares, how, "%")
    mine, name = found.get(study.directory), study.command("bo")
    first = f"run {name} first"
    yield Row(f"harness, {name}", ("<=", 10), [100 * overhead(mine)] if mine else [], how if mine else first, "%")
    minutes = [sum(s["wall_seconds"] for s in mine) / 60] if mine and is_whole(study.directory, mine) else []
    why = "a session was killed, so its time is unknown" if mine else first
    yield Row(f"length, {name}", ("<=", 10), minutes, "wall clock, all sessions" if minutes else why, "min")


def overhead(sessions: list[JsonObject]) -> float:
    """The share of the workers' time that was neither training nor evaluation."""
    available = sum(s["wall_seconds"] * s["workers"] for s in sessions)
    return 1 - float(sum(s["compute_seconds"] for s in sessions) / available)


def is_whole(directory: Path, sessions: list[JsonObject]) -> bool:
    """Whether the sessions account for every trial; a session that was killed leaves trials but no line."""
    trials = [records.read_record(path) for path in (directory / "bo").glob("trial_*.json")]
    seconds = sum(sum(trial.provenance["seconds"].values()) for trial in trials)
    return bool(sum(s["compute_seconds"] for s in sessions) >= 0.99 * seconds)
