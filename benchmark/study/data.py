"""The images of a study: pixels in memory, or image files through their cache."""

import dataclasses
from typing import cast

import numpy as np
import torch

from benchmark.core.errors import UserError
from benchmark.core.places import usable_path
from benchmark.core.threads import usable_cores
from benchmark.datasets import Dataset
from benchmark.datasets.image_dataset import ImageDataset
from benchmark.datasets.listing import Listing
from benchmark.images import Images
from benchmark.images.cropped import CroppedImages, Source
from benchmark.images.crops import Crops
from benchmark.images.decode import Reading, Tally
from benchmark.images.in_memory import InMemoryImages
from benchmark.study.config import Config, Node
from benchmark.study.instantiate import build

MOST_THREADS = 8
READING = ("orient", "background")  # options of `dataset.images` that are not about crops
PATHS = ("root", "path", "images_root")  # options of a data set that are paths on this machine
ImageSource = np.ndarray | Source  # the `images` of a split


def make_dataset(config: Config) -> Dataset:
    """Build the data set of a configuration.

    Raises:
        UserError: its files are missing or inconsistent, or an option is out of range.
    """
    _check_paths(config.dataset.module)
    found = build(config.dataset.module, "dataset", plugins=config.plugins)
    if isinstance(found, Listing):
        return ImageDataset(found, config.dataset.name, crops(config), config.decode, reading(config, found.tally))
    return cast(Dataset, found)


def _check_paths(module: Node) -> None:
    """Refuse options that cannot be paths, whatever the data set would do with them."""
    if not str(module.get("_target_")).startswith("benchmark.datasets."):
        return  # a plug-in's options have meanings of their own
    for key in PATHS:
        optional = key != "root" or "path" in module  # a list of paths may leave their folder open
        if key in module and not (optional and module[key] in (None, "")):
            usable_path(f"dataset.module.{key}", module[key])


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
    options = {key: value for key, value in options.items() if key not in READING}
    fields = dataclasses.fields(Crops)
    missing = [f.name for f in fields if f.default is dataclasses.MISSING and f.name not in options]
    # A data set that writes its keys out would ignore an unknown one of the protocol.
    given = options.keys() | config.protocol.images.keys()
    unknown = sorted(given - {f.name for f in fields} - {*READING})
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


def reading(config: Config, tally: Tally | None) -> Reading:
    """How the pixels of image files become RGB.

    Args:
        config: holds the options.
        tally: numbers of images with special pixels; None if they were not read.

    Raises:
        UserError: an option is out of range.
    """
    options = config.dataset.images
    orient, background = options.get("orient", False), options.get("background")
    if not isinstance(orient, bool):
        raise UserError(f"dataset.images.orient={orient!r}: allowed are true, false.")
    is_colour = isinstance(background, list | tuple) and [type(one) for one in background] == [int, int, int]
    if background is not None and not (is_colour and all(0 <= one <= 255 for one in background)):
        raise UserError(
            f"dataset.images.background={background}: allowed are a colour, such as [255,255,255], and null, which "
            "drops the transparency."
        )
    bits = tally.grey_bits if tally else 0
    return Reading(orient, tuple(background) if background is not None else None, bits or Reading.grey_bits)


def num_threads(config: Config, device: torch.device) -> int:
    """Number of threads that read image files for one job; `auto` is 0 on the CPU and a GPU's share of the cores."""
    if config.image_threads != "auto":
        return int(config.image_threads)
    gpus = torch.cuda.device_count() if device.type == "cuda" else 0
    return min(MOST_THREADS, max(1, usable_cores() // gpus)) if gpus else 0
