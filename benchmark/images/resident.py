"""Images that are cropped on the training device, with the same bytes as `cropped.CroppedImages`.

Source: this project. The uint8 pixels of a half of a data set either stay on the device, or a batch of them is sent
there through pinned memory while the device works on the batch before. The host then does nothing per pixel but copy.
"""

import threading
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from benchmark.core.threads import shared_pool
from benchmark.images import Source
from benchmark.images.cropped import check_sizes
from benchmark.images.crops import Crops, cut, draw_boxes
from benchmark.images.decode import resized, resized_shape
from benchmark.images.resampling import Windows, resized_windows

BOXES = ((3, 3), (2, 1 / 2), (1 / 2, 2), (1 / 3, 1 / 3), (1, 1), (0, 0))  # sides over that of the crop; 0: one pixel


class SizedSource(Source, Protocol):
    """A source that knows its images' sizes without reading them: `cache.Cache`.

    Attributes:
        sizes: int64 (N, 2), height and width of each image in pixels.
    """

    sizes: np.ndarray


class Fetched(NamedTuple):
    """Images on the device.

    Attributes:
        pixels: uint8 (P, 3), the pixels of at least these images, row by row.
        starts: int64 (B,), place of each image's first pixel.
        sizes: int64 (B, 2), height and width of each image in pixels.
    """

    pixels: Tensor
    starts: np.ndarray
    sizes: np.ndarray


class DevicePixels:
    """The decoded images of a cache, on their way to a device. All batches have to be made on one of its streams.

    Args:
        source: N images.
        short_side: length in pixels to which shorter sides are resized; None: as in the cache.
        device: where the pixels are used.
        keep: whether an image stays on the device after its first use.
        threads: additional threads that read images.

    Attributes:
        sizes: int64 (N, 2), height and width of each image in pixels.
        nbytes: bytes of all images.
    """

    def __init__(
        self, source: SizedSource, short_side: int | None, device: torch.device, keep: bool, threads: int
    ) -> None:
        self.source, self.device = source, device
        self._short_side, self._lock = short_side, threading.Lock()
        self._pool = shared_pool(threads) if threads else None
        self.sizes = resized_sizes(source.sizes, short_side)
        self.nbytes = 3 * int(self.sizes.prod(axis=1).sum())
        self._starts = _starts(self.sizes)
        self._kept = torch.empty((self.nbytes // 3, 3), dtype=torch.uint8, device=device) if keep else None
        self._is_kept = np.zeros(len(source), bool)

    def fetch(self, rows: np.ndarray) -> Fetched:
        """Return the images at the given rows, int64 (B,); the host does not wait until they have arrived."""
        sizes = self.sizes[rows]
        if self._kept is None:
            return Fetched(self._read(rows).to(self.device, non_blocking=True), _starts(sizes), sizes)
        with self._lock:
            new = np.unique(rows[~self._is_kept[rows]])
            if len(new):
                self._keep(self._kept, new)
        return Fetched(self._kept, self._starts[rows], sizes)

    def _keep(self, kept: Tensor, rows: np.ndarray) -> None:
        read = self._read(rows).split(self.sizes[rows].prod(axis=1).tolist())
        for start, pixels in zip(self._starts[rows].tolist(), read, strict=True):
            kept[start : start + len(pixels)].copy_(pixels, non_blocking=True)
        self._is_kept[rows] = True

    def _read(self, rows: np.ndarray) -> Tensor:
        """Read images from the cache, one after another: uint8 (P, 3) on the host, pinned if the device is a GPU."""
        counts, starts = self.sizes[rows].prod(axis=1), _starts(self.sizes[rows])
        read = torch.empty((int(counts.sum()), 3), dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        places = read.numpy()

        def fill(row: int, start: int, count: int) -> None:
            pixels = self.source.pixels(row)
            if self._short_side is not None:
                pixels = resized(pixels, self._short_side)
            places[start : start + count] = pixels.reshape(-1, 3)

        each = map if self._pool is None else self._pool.map
        for _ in each(fill, rows.tolist(), starts.tolist(), counts.tolist()):
            pass
        return read


class ResidentImages:
    """Selected images, cropped to one size on the training device; an `Images`.

    Args:
        pixels: the images of a cache.
        rows: int64 (N,), indices of the selected images in the cache.
        crops: sizes and distribution of the crops.
        threads: additional threads that prepare a batch.

    Raises:
        ValueError: the images were resized to another size than the crops need.
    """

    channels = 3
    eval_batch_size = 32  # as in `cropped.CroppedImages`

    def __init__(self, pixels: DevicePixels, rows: np.ndarray, crops: Crops, threads: int = 0) -> None:
        check_sizes(pixels.source, crops)
        self.pixels, self.rows, self.crops, self.threads = pixels, rows, crops, threads
        self.device = pixels.device

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, rows: np.ndarray) -> "ResidentImages":
        """Select the images at the given rows, int64 (M,), in this order; the pixels are shared."""
        return ResidentImages(self.pixels, self.rows[rows], self.crops, self.threads)

    def plain(self, rows: np.ndarray) -> Tensor:
        """Return central crops of the given rows, int64 (B,): uint8 (B, 3, crop, crop)."""
        found = self.pixels.fetch(self.rows[rows])
        boxes = np.hstack([np.zeros_like(found.sizes), found.sizes])
        sizes = resized_sizes(found.sizes, self.crops.short_side)
        corners = np.rint((sizes - self.crops.crop) / 2).astype(np.int64)
        return self._cropped(found, boxes, sizes, corners, np.zeros(len(rows), bool), "pil")

    def augmented(self, rows: np.ndarray, generator: torch.Generator) -> Tensor:
        """Return random crops of the given rows, int64 (B,): uint8 (B, 3, crop, crop)."""
        found = self.pixels.fetch(self.rows[rows])
        boxes, mirrored = draw_boxes(found.sizes, self.crops, generator)
        sizes = np.full_like(found.sizes, self.crops.crop)
        return self._cropped(found, boxes, sizes, np.zeros_like(sizes), mirrored, self.crops.resampling)

    def _cropped(
        self, found: Fetched, boxes: np.ndarray, sizes: np.ndarray, corners: np.ndarray, mirrored: np.ndarray,
        resampling: str,
    ) -> Tensor:  # fmt: skip
        windows = Windows(boxes, sizes, corners, mirrored, self.crops.crop, resampling)
        return resized_windows(found.pixels, found.starts, found.sizes[:, 1], windows)


def resized_sizes(sizes: np.ndarray, short_side: int | None) -> np.ndarray:
    """Height and width of each image after `decode.resized`, int64 (N, 2).

    Args:
        sizes: int64 (N, 2), height and width in pixels before.
        short_side: length in pixels to which shorter sides are resized; None keeps the sizes.
    """
    found = [resized_shape(height, width, short_side) for height, width in sizes.tolist()]
    return np.array(found, np.int64).reshape(-1, 2)


def is_exact(device: torch.device, crops: Crops) -> bool:
    """Return whether a device makes the same bytes as the host, of a few crops with all sizes relative to the crop.

    They differ if another version of Pillow or torch resizes in another way than `resampling` knows; it knows no
    bicubic interpolation.

    Args:
        device: the device.
        crops: supplies `crop` and `resampling`.
    """
    if crops.resampling == "pil_bicubic":
        return False
    side = crops.crop
    shapes = np.array([[max(1, round(high * side)), max(1, round(wide * side))] for high, wide in BOXES] * 2)
    height, width = shapes.max(axis=0).tolist()
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    boxes = np.hstack([([height, width] - shapes) // 2, shapes])
    mirrored = np.arange(len(boxes)) < len(BOXES)
    windows = Windows(boxes, np.full_like(shapes, side), np.zeros_like(shapes), mirrored, side, crops.resampling)
    nowhere = np.zeros(len(boxes), np.int64)
    found = resized_windows(torch.from_numpy(pixels.reshape(-1, 3)).to(device), nowhere, nowhere + width, windows)
    expected = [cut(pixels, box, crops, turned) for box, turned in zip(boxes, mirrored.tolist(), strict=True)]
    return bool((found.permute(0, 2, 3, 1).cpu().numpy() == np.stack(expected)).all())


def _starts(sizes: np.ndarray) -> np.ndarray:
    """Places of the first pixels of images that lie one after another, int64 (N,), from their sizes (N, 2)."""
    ends = np.cumsum(np.append(0, sizes.prod(axis=1)))
    return ends[:-1]
