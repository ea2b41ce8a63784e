"""Fifty steps of the training loop, compared with pytorch-metric-learning's trainer, loss, miner and memory.

Both start from the same weights, see the same batches and use RMSprop as in the Reality Check, at learning rates that
change the weights visibly. In float64, they differ only by rounding.
"""

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_metric_learning import losses, miners
from torch import nn

from benchmark.heads.linear import Linear
from benchmark.images.batches import to_batch
from benchmark.images.in_memory import InMemoryImages
from benchmark.samplers.m_per_class import MPerClass
from benchmark.study.instantiate import build
from benchmark.training.components import EvaluationSet, TrainingComponents
from benchmark.training.loop import train_fold
from benchmark.trunks.small_conv import SmallConv
from tests.cases import slow_except
from tests.losses.every_loss import CLASSES, DIM, config
from tests.losses.library import of_version_2
from tests.training.small_fold import a_checkpoint, a_schedule, nothing

MetricLossOnly = of_version_2("trainers").MetricLossOnly
STEPS, BATCH = 50, 12
PROXIES = torch.randn(CLASSES, DIM, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


class InFloat64(nn.Module):
    """A float64 trunk that accepts the float32 images of the loop."""

    def __init__(self, trunk):
        super().__init__()
        self.trunk, self.mean, self.std = trunk.double(), trunk.mean, trunk.std

    def forward(self, images):
        return self.trunk(images.double())


def with_proxies(loss):
    """Convert a loss of ours or of the library to float64, with the shared proxies."""
    for parameter in loss.double().parameters():
        parameter.data = (PROXIES if parameter.shape == PROXIES.shape else PROXIES.T).clone()
    return loss


def ours(name, **changes):
    node = config(name)
    offered = {"num_classes": CLASSES, "embedding_dim": DIM, "seed": 0, "num_images": 40}
    return with_proxies(build(node["module"] | changes, "loss", **{key: offered[key] for key in node["needs"]}))


FAMILIES = {
    "pairs": (lambda: ours("contrastive"), lambda: losses.ContrastiveLoss(0.0, 1.0), None),
    "proxies": (
        lambda: ours("cosface"),
        lambda: with_proxies(losses.CosFaceLoss(CLASSES, DIM, margin=0.35, scale=64)),
        None,
    ),
    "miner": (
        lambda: ours("ms_miner"),
        lambda: losses.MultiSimilarityLoss(2, 50, 0.5),
        lambda: miners.MultiSimilarityMiner(0.1),
    ),
    "memory": (
        lambda: ours("xbm", flavour="pml", memory_fraction=0.75),
        lambda: losses.CrossBatchMemory(losses.ContrastiveLoss(0.0, 1.0), DIM, memory_size=30).double(),
        None,
    ),
}


def a_fold(loss):
    """Return a fold of eight training classes of five 8 x 8 images, identical for both trainers."""
    torch.manual_seed(1)
    trunk, head = InFloat64(SmallConv(channels=(4, 8), strides=(2, 2))), Linear(8, DIM).double()
    optimizers = {
        name: torch.optim.RMSprop(part.parameters(), lr=rate, momentum=0.9, weight_decay=1e-4)
        for name, part, rate in (("trunk", trunk, 1e-3), ("head", head, 1e-3), ("loss", loss, 1e-2))
        if list(part.parameters())
    }
    images = InMemoryImages(np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8))
    labels = torch.arange(40) % CLASSES
    sampler = MPerClass(labels.numpy(), batch_size=BATCH, m=3, seed=7)
    validation = EvaluationSet(images.part(np.arange(40, 60)), torch.arange(20) % 4 + CLASSES)
    return TrainingComponents(trunk, head, loss, optimizers, sampler, images.part(np.arange(40)), labels, validation)


def weights(parts):
    """Return all parameters of each module as one vector."""
    parts_of = {"trunk": parts.trunk, "head": parts.head, "loss": parts.loss}
    found = {name: [p.detach().flatten() for p in part.parameters()] for name, part in parts_of.items()}
    return {name: torch.cat(vectors) for name, vectors in found.items() if vectors}


def train_with_the_library(parts, miner):
    """Train with `MetricLossOnly` on the batches of our sampler."""
    pixels = to_batch(parts.images.plain(np.arange(40)), parts.trunk.mean, parts.trunk.std)
    order = [int(position) for step in range(STEPS) for position in parts.sampler.batch(step)]
    names = {"trunk": "trunk_optimizer", "head": "embedder_optimizer", "loss": "metric_loss_optimizer"}
    trainer = MetricLossOnly(
        models={"trunk": parts.trunk, "embedder": parts.head},
        optimizers={names[name]: optimizer for name, optimizer in parts.optimizers.items()},
        batch_size=BATCH, loss_funcs={"metric_loss": parts.loss}, mining_funcs={"tuple_miner": miner} if miner else {},
        dataset=torch.utils.data.TensorDataset(pixels, parts.labels), sampler=order, iterations_per_epoch=STEPS,
        dataloader_num_workers=0, freeze_trunk_batchnorm=True, data_device=torch.device("cpu"), dtype=None,
    )  # fmt: skip
    with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
        trainer.train(num_epochs=1)


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad:UserWarning")  # the library's progress bar
@pytest.mark.parametrize("family", slow_except(["pairs", "proxies"], FAMILIES))
def test_fifty_steps_end_where_the_library_s_trainer_ends(family, tmp_path: Path):
    make_ours, make_theirs, make_miner = FAMILIES[family]
    mine, theirs = a_fold(make_ours()), a_fold(make_theirs())
    start = weights(mine)
    train_fold(mine, a_schedule(iterations_per_epoch=STEPS, max_epochs=1, freeze_batchnorm=True),
               a_checkpoint(tmp_path / "checkpoint.pt"), nothing)  # fmt: skip
    train_with_the_library(theirs, make_miner() if make_miner else None)
    ends, others = weights(mine), weights(theirs)
    if family == "proxies":
        others["loss"] = theirs.loss.W.detach().T.flatten()
    for part, end in ends.items():
        distance = torch.linalg.vector_norm(end - start[part])
        assert distance > 1e-2, f"the {part} has not moved"
        assert torch.linalg.vector_norm(end - others[part]) < 1e-6 * distance, part
