"""A whole evaluation, trained and scored a second time with pytorch-metric-learning's trainer, hooks and tester.

`final_eval` runs as a user runs it. The other side takes from it the initial networks and proxies, the images, and the
rows of each batch as our sampler drew them. Everything else is the library's or written out here: the folds, the loss,
the optimisers, the validation every other epoch, early stopping, the best epoch, and the test scores of the four models
alone and of their concatenated embeddings. It shares no code with `training`, `protocol` and `study`.

Both sides train in float64, since rounding errors of float32 grow from batch to batch until they exchange neighbours.
The library's side searches in float64 too, with its `CustomKNN`.

Where the library differs, this side follows the Reality Check, as its authors' program around the library did:
- the library does not score the untrained model by itself: it is scored here as epoch 0, from which patience counts,
  and never is the best epoch;
- `drop_last` of its data loader drops nothing, since every batch of our sampler is full;
- an image that is twice in a batch is at distance 1e-8 from itself in the library, which counts it among the pairs with
  a loss above 0, and at 0 in ours: with m = 4, three batches make a pass over 24 classes, so that none occurs;
- its search leaves ties in any order, ours takes the lower index: these images have no ties.
"""

import contextlib
import copy
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_metric_learning import losses
from record_keeper import RecordKeeper, RecordWriter
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from benchmark.core import records
from benchmark.final_eval import final_eval
from benchmark.trunks.small_conv import SmallConv
from tests.command_line import run, trainings
from tests.losses.library import of_version_2

GlobalEmbeddingSpaceTester = of_version_2("testers").GlobalEmbeddingSpaceTester
MetricLossOnly = of_version_2("trainers").MetricLossOnly
AccuracyCalculator = of_version_2("utils.accuracy_calculator").AccuracyCalculator
CosineSimilarity = of_version_2("distances").CosineSimilarity
CustomKNN = of_version_2("utils.inference").CustomKNN
HookContainer = of_version_2("utils.logging_presets").HookContainer
CLASSES, PER_CLASS, SIDE = 64, 10, 32
BATCH, STEPS, EVERY, PATIENCE, MOST_EPOCHS, FOLDS = 32, 6, 2, 3, 10, 4
NAMES = {
    "map_at_r": "mean_average_precision_at_r_level0",
    "precision_at_1": "precision_at_1_level0",
    "r_precision": "r_precision_level0",
}
COMMON = (
    "dataset=csv", "trunk=small_conv", "trunk.width=32", "trunk.module.strides=[2,2,2,1,2]",
    "protocol.embedding_dim=16", f"protocol.batch_size={BATCH}",
    f"protocol.images.short_side={SIDE}", f"protocol.images.crop={SIDE}", "protocol.images.scale=[1.0,1.0]",
    "protocol.images.ratio=[1.0,1.0]", "protocol.images.flip=0.0", "decode=always",
    f"protocol.num_folds={FOLDS}", "protocol.num_runs=1", f"dataset.iterations_per_epoch={STEPS}",
    f"dataset.evaluate_every={EVERY}", f"dataset.patience={PATIENCE}", f"dataset.max_epochs={MOST_EPOCHS}",
    "training.shift=0", "trunk.module.mean=[0.5]", "trunk.module.std=[0.25]", "preset=default", "executor=inline",
    "display=plain",
)  # fmt: skip


class Start(NamedTuple):
    """What the other side takes from a fold: its networks before the first step, in float64, and its batches."""

    trunk: nn.Module
    head: nn.Module
    proxies: Tensor | None
    rows: list[int]  # of the fold's training images, one batch after the other


class Family(NamedTuple):
    """A loss with its training: overrides of our command, and the library's loss and the optimiser by hand."""

    overrides: tuple[str, ...]
    rate: float
    as_reality_check: bool  # RMSprop, and frozen batch-norm statistics

    def loss(self, start: Start) -> nn.Module:
        if start.proxies is None:
            return losses.ContrastiveLoss(pos_margin=0.0, neg_margin=1.0)
        loss = losses.ProxyNCALoss(*start.proxies.shape, softmax_scale=32.0)
        loss.proxies.data = start.proxies.clone()
        return loss

    def optimizer(self, parameters: Iterator[nn.Parameter], rate: float) -> torch.optim.Optimizer:
        if self.as_reality_check:
            return torch.optim.RMSprop(parameters, lr=rate, weight_decay=1e-4, momentum=0.9)
        return torch.optim.Adam(parameters, lr=rate, weight_decay=1e-4)


PROXY_RATE = 6.04e-3
FAMILIES = {
    "pairs": Family(("loss=contrastive",), 2e-3, as_reality_check=False),
    "proxies": Family(
        ("loss=proxy_nca", "training=finetune",
         "training.optimizers.trunk.lr=1e-4", "training.optimizers.head.lr=1e-4"), 1e-4, as_reality_check=True,
    ),
}  # fmt: skip


@pytest.fixture
def in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the trunk convert images to the type of its weights."""
    forward = SmallConv.forward
    monkeypatch.setattr(SmallConv, "forward", lambda self, x: forward(self, x.to(next(self.parameters()).dtype)))


@torch.no_grad()
def spread(trunk: Any, head: Any, images: Tensor) -> None:
    """Give a network the batch-norm statistics of some images, and embeddings with mean 0.

    Those of an untrained network are nearly parallel: rounding of the search in float32 would decide their order.
    """
    layers = [layer for layer in trunk.modules() if isinstance(layer, nn.BatchNorm2d)]
    for momentum, training in ((1.0, True), (0.1, False)):
        for layer in layers:
            layer.momentum = momentum
        features = trunk.train(training)(normalised(images))
    head.linear.bias -= head(features).mean(dim=0)


def normalised(pixels: Tensor) -> Tensor:
    return (pixels.float() * (4 / 255) - 2).double()  # (pixel / 255 - 0.5) / 0.25


def ours(folder: Path, *overrides: str) -> tuple[dict[str, Any], list[Start]]:
    """Run `final_eval`; its record's result, and the start of each fold."""
    starts: list[Start] = []

    def note(number: int, parts: Any) -> None:
        for module in parts.modules.values():
            module.double()
        spread(parts.trunk, parts.head, parts.images.plain(np.arange(len(parts.images))))
        rows = [int(row) for step in range(STEPS * MOST_EPOCHS) for row in parts.sampler.batch(step)]
        proxies = next((value.detach().clone() for value in parts.loss.parameters()), None)
        starts.append(Start(copy.deepcopy(parts.trunk), copy.deepcopy(parts.head), proxies, rows))

    with trainings(note):
        ended = run(final_eval, *COMMON, *overrides, f"results_dir={folder}")
    assert ended.status == 0, ended.err
    (path,) = folder.rglob("run_00.json")
    return records.read_record(path).result, starts


def write_images(folder: Path) -> np.ndarray:
    """Write noisy colour patterns, one per class, with a manifest; uint8 (CLASSES, PER_CLASS, SIDE, SIDE, 3)."""
    rng = np.random.default_rng(0)
    patterns = rng.normal(size=(CLASSES, 1, 4, 4, 3)).repeat(SIDE // 4, axis=2).repeat(SIDE // 4, axis=3)
    noise = rng.normal(size=(CLASSES, PER_CLASS, SIDE, SIDE, 3))
    pixels = (128 + 12 * patterns + 40 * noise).clip(0, 255).astype(np.uint8)
    lines = ["path,label"]
    for label, image in np.ndindex(CLASSES, PER_CLASS):
        Image.fromarray(pixels[label, image]).save(folder / f"{label}-{image}.png")
        lines.append(f"{label}-{image}.png,class {label:02d}")
    (folder / "images.csv").write_text("\n".join(lines))
    return pixels


def of_classes(pixels: np.ndarray, classes: list[int]) -> TensorDataset:
    """The images of some classes, normalised, with labels that count from 0."""
    chosen = torch.from_numpy(pixels[sorted(classes)]).flatten(0, 1).permute(0, 3, 1, 2)
    return TensorDataset(normalised(chosen), torch.arange(len(classes)).repeat_interleave(PER_CLASS))


def folds_of_the_reality_check() -> Iterator[tuple[list[int], list[int]]]:
    """The classes to train on and to validate on of each fold, by the arithmetic of the authors' program."""
    half, validation = int(CLASSES * 0.5), int(CLASSES * 0.125)
    for fold in range(FOLDS):
        start = int(fold / 4 * half)
        classes = [(start + position) % half for position in range(half)]
        yield classes[: half - validation], classes[half - validation :]


def a_tester(**options: Any) -> GlobalEmbeddingSpaceTester:
    wanted = ("mean_average_precision_at_r", "precision_at_1", "r_precision")
    search = CustomKNN(CosineSimilarity())  # in the type of the embeddings; faiss would round them to float32
    calculator = AccuracyCalculator(include=wanted, k="max_bin_count", device=torch.device("cpu"), knn_func=search)
    return GlobalEmbeddingSpaceTester(batch_size=512, dataloader_num_workers=0, data_device=torch.device("cpu"),
                                      accuracy_calculator=calculator, **options)  # fmt: skip


def scores_of(found: dict[str, Any]) -> dict[str, float]:
    return {name: float(found[key]) for name, key in NAMES.items()}


class Fold(NamedTuple):
    """What the library's side found in a fold: scores by epoch, best and last epoch, and the best epoch's model."""

    history: dict[int, dict[str, float]]
    best_epoch: int
    last_epoch: int
    model: nn.Module


def train(family: Family, start: Start, training: TensorDataset, validation: TensorDataset, folder: Path) -> Fold:
    """Train a fold with `MetricLossOnly`, and stop it with the library's `HookContainer`."""
    models = {"trunk": copy.deepcopy(start.trunk), "embedder": copy.deepcopy(start.head)}
    loss = family.loss(start)
    optimizers = {
        f"{name}_optimizer": family.optimizer(model.parameters(), family.rate) for name, model in models.items()
    }
    if start.proxies is not None:
        optimizers["metric_loss_optimizer"] = family.optimizer(loss.parameters(), PROXY_RATE)
    keeper = RecordKeeper(record_writer=RecordWriter(str(folder / "records")))
    hooks = HookContainer(keeper, save_models=False, log_freq=10**9)
    history: dict[int, dict[str, float]] = {}
    states: dict[int, nn.Module] = {}

    def tested(tester: Any) -> None:
        found = tester.all_accuracies["val"]
        history[found["epoch"]] = scores_of(found)
        states[found["epoch"]] = copy.deepcopy(nn.Sequential(models["trunk"], models["embedder"]))
        hooks.end_of_testing_hook(tester)

    tester = a_tester(end_of_testing_hook=tested)
    tester.test({"val": validation}, 0, models["trunk"], models["embedder"])
    keeper.save_records()
    trainer = MetricLossOnly(
        models=models, optimizers=optimizers, batch_size=BATCH, loss_funcs={"metric_loss": loss}, dataset=training,
        sampler=start.rows, iterations_per_epoch=STEPS, dataloader_num_workers=0, data_device=torch.device("cpu"),
        freeze_trunk_batchnorm=family.as_reality_check,
        end_of_epoch_hook=hooks.end_of_epoch_hook(tester, {"val": validation}, str(folder), EVERY, PATIENCE),
    )  # fmt: skip
    trainer.train(num_epochs=MOST_EPOCHS)
    best_epoch, _ = hooks.get_best_epoch_and_accuracy(tester, "val", ignore_epoch=(-1, 0))
    return Fold(history, best_epoch, trainer.epoch, states[best_epoch])


class SideBySide(nn.Module):
    """The unit embeddings of several models, joined."""

    def __init__(self, models: list[nn.Module]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([nn.functional.normalize(model(images)) for model in self.models], dim=1)


def difference(mine: dict[str, float], theirs: dict[str, float]) -> float:
    return max(abs(mine[name] - theirs[name]) for name in NAMES)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad:UserWarning")  # the library's progress bar
@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("name", FAMILIES)
def test_an_evaluation_equals_one_with_the_library_s_trainer_and_tester(name: str, tmp_path: Path) -> None:
    family = FAMILIES[name]
    pixels = write_images(tmp_path)
    result, starts = ours(tmp_path / "ours", f"dataset.module.path={tmp_path / 'images.csv'}", *family.overrides)

    folds: list[Fold] = []
    with contextlib.redirect_stderr(io.StringIO()):  # progress bars
        for number, (train_on, validate_on) in enumerate(folds_of_the_reality_check()):
            parts = (of_classes(pixels, classes) for classes in (train_on, validate_on))
            folds.append(train(family, starts[number], *parts, tmp_path / f"fold_{number}"))
        unseen = {"test": of_classes(pixels, list(range(CLASSES // 2, CLASSES)))}
        alone = [scores_of(a_tester().test(unseen, 0, fold.model)["test"]) for fold in folds]
        joined = scores_of(a_tester().test(unseen, 0, SideBySide([fold.model for fold in folds]))["test"])

    for mine, theirs in zip(result["folds"], folds, strict=True):
        assert mine["best_epoch"] == theirs.best_epoch
        assert mine["last_epoch"] == theirs.last_epoch
        assert [row["epoch"] for row in mine["history"]] == list(theirs.history)
        for row in mine["history"]:
            assert difference(row, theirs.history[row["epoch"]]) < 1e-5
    for mine, theirs in zip(result["separated_folds"], alone, strict=True):
        assert difference(mine, theirs) < 1e-5
    means = {metric: sum(scores[metric] for scores in alone) / FOLDS for metric in NAMES}
    assert difference(result["separated"], means) < 1e-5
    assert difference(result["concatenated"], joined) < 1e-5
    # The comparison would be empty if nothing was learned, or no fold stopped early at an epoch before its last.
    assert any(fold.last_epoch < MOST_EPOCHS for fold in folds) and any(f.best_epoch < f.last_epoch for f in folds)
    assert any(fold.history[fold.best_epoch]["map_at_r"] > 1.1 * fold.history[0]["map_at_r"] for fold in folds)
