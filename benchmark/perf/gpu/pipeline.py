"""Crops from decoded images of CUB's usual size, and a step with everything that a training does."""

import time
from collections.abc import Iterator

import numpy as np
import torch

from benchmark.images import Images
from benchmark.images.batches import embed
from benchmark.images.cropped import CroppedImages
from benchmark.images.crops import Crops
from benchmark.images.resident import DevicePixels, ResidentImages
from benchmark.perf.gpu.fact import Fact, Target
from benchmark.perf.gpu.steps import precisions
from benchmark.perf.gpu.training import SIDES, study_for, training
from benchmark.training.loop import train_epoch

THREADS = (0, 8)
# Epochs of 100 iterations until a fold stops, and images of a fold's validation classes and of the test classes. The
# epochs are assumptions.
DATASETS = {"cub": (50, 1_466, 5_924), "cars196": (100, 2_013, 8_131), "sop": (200, 14_887, 60_502)}
# Hours of the search and the final runs by a cost model of an H200 that trains bn_inception at 8,000 images/s over all
# folds: an estimate, made without one.
MODEL = {("cub", 32): 1.57, ("cub", 128): 4.51, ("cars196", 32): 2.89, ("cars196", 128): 8.76, ("sop", 32): 5.83,
         ("sop", 128): 17.56}  # fmt: skip
FOLDS = 240  # 50 trials and 10 runs of 4 folds
EVALUATE_EVERY = 2


class RandomImages:
    """Random images of 256 x 341 pixels, as a cache holds a photograph of 375 x 500; a `Source`.

    Args:
        count: number of images.
    """

    short_side: int | None = 256

    def __init__(self, count: int) -> None:
        self.sizes = np.full((count, 2), (256, 341))
        self._pixels = np.random.default_rng(0).integers(0, 256, (count, 256, 341, 3), dtype=np.uint8)

    @property
    def contents(self) -> str:
        """Unused."""
        return ""

    def __len__(self) -> int:
        return len(self._pixels)

    def pixels(self, index: int) -> np.ndarray:
        """One image, uint8 (256, 341, 3)."""
        image: np.ndarray = self._pixels[index]
        return image


def facts(target: Target) -> Iterator[Fact]:
    """Yield crops per second, seconds of a fold of CUB, and hours of each data set's search and final runs.

    Args:
        target: the device that trains.
    """
    source = RandomImages(150 if target.small else 1500)
    trunk = "small_conv" if target.small else "bn_inception"
    batches = (8,) if target.small else (32, 128)
    yield from random_crops(target, source)
    for batch in batches:
        for precision in precisions(target):
            yield from whole_training(target, source, trunk, batch, precision)


def random_crops(target: Target, source: RandomImages) -> Iterator[Fact]:
    """Yield crops per second by the host and by the device, and whether they have the same bytes."""
    rows, batches = np.arange(2 if target.small else 128), {}
    for place in ("host", "pinned", "device"):
        for threads in THREADS[: 1 if target.small else None]:
            images = cropped(source, target, threads, place)
            batches[place] = images.augmented(rows, torch.Generator().manual_seed(0)).cpu()
            seconds = target.seconds(lambda images=images: images.augmented(rows, torch.Generator()))  # type: ignore[misc]
            yield Fact(
                f"random crops, image_memory={place}, {threads} additional threads", len(rows) / seconds, "images/s"
            )
    same = all(torch.equal(batches["host"], batch) for batch in batches.values())
    yield Fact("crops of the device equal the host's", note="yes" if same else "NO")


def cropped(source: RandomImages, target: Target, threads: int, place: str) -> Images:
    """Images that are cropped as MLRC does, to the trunk's size, by the host or by the device."""
    side = 32 if target.small else SIDES["bn_inception"]
    crops = Crops(short_side=256, crop=side, scale=(0.16, 1.0), ratio=(0.75, 1.33), flip=0.5, resize_first=True)
    rows = np.arange(len(source))
    if place == "host":
        return CroppedImages(source, rows, crops, target.device, threads)
    kept = DevicePixels(source, 256, target.device, place == "device", threads)
    return ResidentImages(kept, rows, crops, threads)


def whole_training(target: Target, source: RandomImages, trunk: str, batch: int, precision: str) -> Iterator[Fact]:
    """Yield images per second with crops, the evaluation's, and projected hours."""
    name = f"{trunk}, batch {batch}, {precision}"
    images = cropped(source, target, 0 if target.small else THREADS[-1], "device" if target.is_gpu else "host")
    parts, schedule = training(study_for(trunk, batch, target, f"precision={precision}"), target, images)
    count = 2 if target.small else max(10, 1600 // batch)
    if isinstance(images, ResidentImages):
        images.pixels.fetch(np.arange(len(images)))  # from now on all are on the device
    train_epoch(parts, schedule, range(3))
    started = time.perf_counter()
    train_epoch(parts, schedule, range(3, 3 + count))
    step = (time.perf_counter() - started) / count
    yield Fact(f"{name}, training with crops", batch / step, "images/s")
    seen = images.part(np.arange(min(len(images), 32 if target.small else 960)))
    image = target.seconds(lambda: embed(parts.embedder, seen, parts.trunk, parts.head), 0.5) / len(seen)
    yield Fact(f"{name}, embedding with crops", 1 / image, "images/s")
    for dataset, (epochs, validation, test) in DATASETS.items():
        fold = 100 * epochs * step + (epochs / EVALUATE_EVERY + 1) * validation * image
        model = f"; the cost model has {MODEL[dataset, batch]} h" if (dataset, batch) in MODEL else ""
        hours = (FOLDS * fold + 40 * test * image) / 3600
        yield Fact(f"{dataset}, search and final runs, {name}", hours, "h",
                   f"projected: {fold:.0f} s a fold of {epochs} epochs, one fold at a time{model}")  # fmt: skip
