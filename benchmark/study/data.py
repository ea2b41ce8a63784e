"""Where a study's images come from: pixels in memory, or picture files through their cache."""

import dataclasses
import os
from typing import Any

import numpy as np
import torch

from benchmark.datasets.image_dataset import ImageDataset
from benchmark.datasets.listing import Listing
from benchmark.images import Images
from benchmark.images.cropped import CroppedImages
from benchmark.images.crops import Crops
from benchmark.images.in_memory import InMemoryImages
from benchmark.study.config import Config
from benchmark.study.instantiate import build

MOST_THREADS = 8


def make_dataset(config: Config) -> Any:
    """The data set, with `prepare`, `fingerprint`, `total_classes`, `trainval` and `test`."""
    found = build(config.dataset.module)
    if not isinstance(found, Listing):
        return found
    return ImageDataset(found, config.dataset.name, crops(config), config.decode)


def make_images(config: Config, images: Any, device: torch.device) -> Images:
    """What a half's `images` are, pixels or picture files, as they are trained on and evaluated."""
    if isinstance(images, np.ndarray):
        return InMemoryImages(images, shift=config.training.shift or 0, device=device)
    how = crops(config)
    if images.short_side is not None:  # the test half: its pictures are only ever cropped at their centre
        how = dataclasses.replace(how, resize_first=True)
    return CroppedImages(images, np.arange(len(images)), how, device, num_threads(config, device))


def num_channels(images: Any) -> int:
    """1 for grey pixels, 3 for colour and for picture files."""
    return 1 if isinstance(images, np.ndarray) and images.ndim == 3 else 3


def crops(config: Config) -> Crops:
    """How picture files are resized, cropped and flipped; a trunk that takes one size only gets that.

    Raises:
        ValueError: an option is missing, unknown or out of range.
    """
    options = config.dataset.images | ({"crop": config.trunk.crop} if config.trunk.crop else {})
    try:
        return Crops(**options)
    except TypeError as error:
        raise ValueError(
            f"dataset.images={options}: {str(error).partition('() ')[2]}. A data set of pictures takes them "
            "from the protocol: images: ${protocol.images}"
        ) from error


def num_threads(config: Config, device: torch.device) -> int:
    """Threads that read pictures for one job; auto: none where the CPU trains, else a GPU's share of the cores."""
    if config.image_threads != "auto":
        return int(config.image_threads)
    gpus = torch.cuda.device_count() if device.type == "cuda" else 0
    return min(MOST_THREADS, max(1, (os.cpu_count() or 1) // gpus)) if gpus else 0
