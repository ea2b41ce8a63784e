"""The images of a study: pixels in memory, or image files through their cache."""

import dataclasses
import functools
import math
from typing import cast

import numpy as np
import PIL
import torch

from benchmark.core.console import write
from benchmark.core.errors import UserError
from benchmark.core.places import usable_path
from benchmark.core.threads import share_of_cores
from benchmark.core.wording import human_size
from benchmark.datasets import Dataset
from benchmark.datasets.image_dataset import ImageDataset
from benchmark.datasets.listing import Listing
from benchmark.images import Images, Source
from benchmark.images.cache import Cache
from benchmark.images.cropped import CroppedImages
from benchmark.images.crops import Crops
from benchmark.images.decode import Reading, Tally
from benchmark.images.in_memory import InMemoryImages
from benchmark.images.resident import DevicePixels, ResidentImages, is_exact, resized_sizes
from benchmark.study.config import Config, Node
from benchmark.study.instantiate import build

MOST_THREADS = 8
MOST_PER_GPU = 8  # jobs that `make bench-gpu` tries, whose choice workers_per_gpu=auto means
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
    options, threads = crops(config), num_threads(config, device)
    if images.short_side is not None:  # the test half, which is only ever cropped at the centre
        options = dataclasses.replace(options, resize_first=True)
    pixels = device_pixels(config, images, options, device, threads)
    if pixels is None:
        return CroppedImages(images, np.arange(len(images)), options, device, threads)
    return ResidentImages(pixels, np.arange(len(images)), options, threads)


def device_pixels(
    config: Config, images: Source, options: Crops, device: torch.device, threads: int
) -> DevicePixels | None:
    """The images of a half for a device that crops them itself, as `image_memory` says; None if the host crops them.

    Args:
        config: holds `image_memory`, and how many jobs share a GPU.
        images: N images.
        options: how they are cropped.
        device: the training device.
        threads: additional threads that read images.

    Raises:
        UserError: the device was asked for, but its memory is too small, or its crops would differ from the host's.
    """
    place = config.image_memory
    if place == "host" or (place == "auto" and (device.type != "cuda" or not isinstance(images, Cache))):
        return None
    if not isinstance(images, Cache):
        raise UserError(f"image_memory={place}: only images in the cache can be cropped on a device, but decode=always "
                        "decodes them at each use. Omit one of the two.")  # fmt: skip
    return _device_pixels(images, options, device, place, jobs_per_gpu(config), threads)


@functools.lru_cache(maxsize=2)  # both halves: the folds of a long-lived worker share them
def _device_pixels(
    images: Cache, options: Crops, device: torch.device, place: str, share: float, threads: int
) -> DevicePixels | None:
    what = f"{len(images):,} images of {images.folder}"
    if not is_exact(device, options):
        why = f"{device} would resize them to other bytes than the host (Pillow {PIL.__version__})"
        if place != "auto":
            raise UserError(f"image_memory={place}: {what} cannot be cropped there, because {why}. Use auto or host.")
        write(f"{what} are cropped by the host, because {why}.", error=True)
        return None
    short_side = options.short_side if options.resize_first else None
    size = 3 * int(resized_sizes(images.sizes, short_side).prod(axis=1).sum())
    free = free_memory(device, share)
    if place == "device" and size > free:
        raise UserError(f"image_memory=device: {what} take {human_size(size)}, but at most {human_size(free)} of the "
                        f"memory of {device} are used for images. Use image_memory=pinned, or auto.")  # fmt: skip
    keep = place != "pinned" and size <= free
    how = f"are kept on {device}" if keep else f"are sent to {device} batch by batch"
    limit = f"; at most {human_size(free)} are kept" if free < math.inf else ""
    write(f"{what} {how} ({human_size(size)}{limit})", error=True)
    return DevicePixels(images, short_side, device, keep, threads)


def jobs_per_gpu(config: Config) -> float:
    """Number of jobs that share a GPU of this machine, as far as the executor's options say; otherwise 1."""
    options, workers = config.executor.options, config.executor.workers
    if "workers_per_gpu" in options:
        share = workers / max(1, torch.cuda.device_count()) if isinstance(workers, int) else options["workers_per_gpu"]
        return max(1, share) if isinstance(share, int | float) else MOST_PER_GPU
    part = options.get("gpus_per_worker")
    return 1 / part if isinstance(part, int | float) and 0 < part < 1 else 1


def free_memory(device: torch.device, share: float) -> float:
    """Bytes that images may take on a device: half of what is free, or of a job's share of the whole if that is less.

    Args:
        device: the training device; the memory of a CPU counts as unlimited.
        share: number of jobs that share it.
    """
    if device.type != "cuda":
        return math.inf
    free, total = torch.cuda.mem_get_info(device)
    return min(free, total / share) / 2


def num_channels(images: ImageSource) -> int:
    """Channels of an image: 1 for grey pixels (N, H, W), 3 for colour pixels (N, H, W, 3) and image files."""
    return 1 if isinstance(images, np.ndarray) and images.ndim == 3 else 3


def crops(config: Config) -> Crops:
    """How image files are resized, cropped and flipped; the trunk's own options take precedence.

    Raises:
        UserError: an option is missing, unknown or out of range.
    """
    options = config.dataset.images | own_images(config)
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
    fitting: Node = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    try:
        return Crops(**fitting)
    except TypeError as error:  # a value of another type, which Crops cannot compare
        raise UserError(f"dataset.images={options}: {error}. See protocol.images for values that fit.") from error


def own_images(config: Config) -> Node:
    """The options of `dataset.images` that the trunk replaces: its crop, and the pre-processing of its weights."""
    return ({"crop": config.trunk.crop} if config.trunk.crop else {}) | config.trunk.images


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
    """Number of threads that read image files for a job; `auto` is 0 on the CPU, else the job's share of the cores."""
    if config.image_threads != "auto":
        return int(config.image_threads)
    return min(MOST_THREADS, share_of_cores()) if device.type == "cuda" else 0
