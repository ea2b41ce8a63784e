"""The images of a study: pixels in memory, or image files through their cache."""

import dataclasses
from typing import cast

import numpy as np
import torch

from benchmark.core.errors import UserError
from benchmark.core.threads import usable_cores
from benchmark.datasets import Dataset
from benchmark.datasets.image_dataset import ImageDataset
from benchmark.datasets.listing import Listing
from benchmark.images import Images
from benchmark.images.cropped import CroppedImages, Source
from benchmark.images.crops import Crops
from benchmark.images.in_memory import InMemoryImages
from benchmark.study.config import Config
from benchmark.study.instantiate import build

MOST_THREADS = 8
ImageSource = np.ndarray | Source  # the `images` of a split


def make_dataset(config: Config) -> Dataset:
    """Build the data set of a configuration.

    Raises:
        UserError: its files are missing or inconsistent, or an option is out of range.
    """
    found = build(config.dataset.module, "dataset", plugins=config.plugins)
    if isinstance(found, Listing):
        return ImageDataset(found, config.dataset.name, crops(config), config.decode)
    return cast(Dataset, found)


def make_images(config: Config, images: ImageSource, device: torch.device) -> Images:
    """Prepare the images of a split for training and evaluation.

    Args:
        config: holds the options for shifting, or for resizing, cropping and flipping.
        images: uint8 pixels, (N, H, W) or (N, H, W, 3), or N image files.
        device: device of the batches.

    Raises:
        UserError: an option of `dataset.images` is missing, unknown or out of range.
    """
    if isinstance(images, np.ndarray):
        return InMemoryImages(images, shift=config.training.shift or 0, device=device)
    options = crops(config)
    if images.short_side is not None:  # the test half, which is only ever cropped at the centre
        options = dataclasses.replace(options, resize_first=True)
    return CroppedImages(images, np.arange(len(images)), options, device, num_threads(config, device))


def num_channels(images: ImageSource) -> int:
    """Channels of an image: 1 for grey pixels (N, H, W), 3 for colour pixels (N, H, W, 3) and image files."""
    return 1 if isinstance(images, np.ndarray) and images.ndim == 3 else 3


def crops(config: Config) -> Crops:
    """How image files are resized, cropped and flipped; the trunk's own crop size takes precedence.

    Raises:
        UserError: an option is missing, unknown or out of range.
    """
    options = config.dataset.images | ({"crop": config.trunk.crop} if config.trunk.crop else {})
    fields = dataclasses.fields(Crops)
    missing = [f.name for f in fields if f.default is dataclasses.MISSING and f.name not in options]
    unknown = sorted(options.keys() - {f.name for f in fields})
    if missing or unknown:
        faults = [f"missing: {', '.join(missing)}"] * bool(missing) + [f"unknown: {', '.join(unknown)}"] * bool(unknown)
        raise UserError(
            f"dataset.images={options}: {'; '.join(faults)}. A data set of image files takes these options from the "
            "protocol: images: ${protocol.images}"
        )
    try:
        return Crops(**options)
    except TypeError as error:  # a value of another type, which Crops cannot compare
        raise UserError(f"dataset.images={options}: {error}. See protocol.images for values that fit.") from error


def num_threads(config: Config, device: torch.device) -> int:
    """Number of threads that read image files for one job; `auto` is 0 on the CPU and a GPU's share of the cores."""
    if config.image_threads != "auto":
        return int(config.image_threads)
    gpus = torch.cuda.device_count() if device.type == "cuda" else 0
    return min(MOST_THREADS, max(1, usable_cores() // gpus)) if gpus else 0
