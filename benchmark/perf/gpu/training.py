"""Trainings on made-up images, with the harness's own trunks, head, loss, optimisers and loop."""

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from benchmark.datasets import Split
from benchmark.images import Images
from benchmark.images.batches import to_batch
from benchmark.images.in_memory import InMemoryImages
from benchmark.perf.gpu.fact import Target
from benchmark.study.assemble import make_parts, make_schedule
from benchmark.study.cli import study_of
from benchmark.study.study import Study
from benchmark.training.components import Schedule, TrainingComponents
from benchmark.training.loop import set_train_mode
from benchmark.training.precision import use_precision

CLASSES, EACH = 75, 8  # classes of a fold of CUB
SIDES = {"bn_inception": 227, "resnet50": 224, "vit_small": 224, "small_conv": 32}
Training = tuple[TrainingComponents, Schedule]


def study_for(trunk: str, batch_size: int, target: Target, *overrides: str) -> Study:
    """The study of CUB under MLRC's protocol with another trunk and batch, without pretrained weights.

    Args:
        trunk: a key of `SIDES`.
        batch_size: images per batch.
        target: its device trains.
        overrides: further ones, in Hydra's grammar.
    """
    small = ["trunk.width=8"] if trunk == "small_conv" else ["trunk.module.weights=null"]
    return study_of([
        "dataset=cub", f"trunk={trunk}", "protocol=mlrc_2020", "loss=proxy_anchor", *small,
        f"protocol.batch_size={batch_size}", f"device={target.device}", *overrides,
    ])  # fmt: skip


def made_up(count: int, side: int) -> np.ndarray:
    """Random images of a few classes that can be told apart, uint8 (N, side, side, 3); row i shows class i % 75."""
    rng, shape = np.random.default_rng(0), (side, side, 3)
    templates = rng.integers(0, 256, (CLASSES, *shape), dtype=np.int16)
    noise = rng.integers(-64, 65, (count, *shape), dtype=np.int16)
    images: np.ndarray = np.clip(templates[np.arange(count) % CLASSES] + noise, 0, 255).astype(np.uint8)
    return images


def training(study: Study, target: Target, images: Images | None = None, side: int | None = None) -> Training:
    """Components and schedule of a training on made-up images, in training mode and the study's precision.

    Args:
        study: from `study_for`.
        target: its device trains.
        images: the images, of which the first shows class 0, the next class 1, ...; by default small random ones.
        side: side of the default images in pixels.
    """
    config = study.config
    use_precision(config.precision, target.device, config.deterministic)
    if images is None:
        images = InMemoryImages(made_up(CLASSES * EACH, side or SIDES[config.trunk.name]), device=target.device)
    labels = np.arange(len(images)) % CLASSES
    classes = np.arange(CLASSES)
    split = Split(np.zeros((len(labels), 1, 1), np.uint8), labels, classes, [str(c) for c in classes], classes // 5,
                  [str(c) for c in range(CLASSES // 5)])  # fmt: skip
    parts = make_parts(study, split, images, labels, ("bench-gpu",))
    schedule = dataclasses.replace(make_schedule(study, seed=0), warmup_epochs=0)
    set_train_mode(parts, schedule.freeze_batchnorm)
    return parts, schedule


def bare_step(
    parts: TrainingComponents, channels_last: bool = True, network: Callable[[Tensor], Tensor] | None = None
) -> Callable[[], Tensor]:
    """A function that trains one step on a fixed batch; it returns the loss as a scalar and does not wait.

    Args:
        parts: what is trained.
        channels_last: memory format of images and convolutions.
        network: replaces `parts.embedder`, for example by its compiled form.
    """
    rows = parts.sampler.batch(0)
    pixels, labels = parts.images.plain(rows), parts.labels[torch.from_numpy(rows).to(parts.labels.device)]
    network = network or parts.embedder
    if not channels_last:
        parts.trunk.to(memory_format=torch.contiguous_format)

    def step() -> Tensor:
        images = to_batch(pixels, parts.trunk.mean, parts.trunk.std)
        loss = parts.loss(network(images if channels_last else images.contiguous()), labels)
        for optimizer in parts.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for optimizer in parts.optimizers.values():
            optimizer.step()
        return loss.detach()

    return step
