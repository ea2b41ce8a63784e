"""Crops of equal size, in batches, from images of different sizes.

Source: the transforms of the Reality Check's code (`crops.py`). Channels are in the order RGB and values are 0 to 255;
a trunk that needs another order (BGR) or range converts the batch.
"""

from collections.abc import Callable, Iterable
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from benchmark.core.threads import shared_pool
from benchmark.images import Source
from benchmark.images.crops import FILTERS, Crops, centre_crop, cut, draw_boxes
from benchmark.images.decode import resized

T = TypeVar("T")
U = TypeVar("U")


def check_sizes(source: Source, crops: Crops) -> None:
    """Check that crops can be cut from the images of a source.

    Raises:
        ValueError: they were resized to another size than the crops need.
    """
    bicubic = crops.resampling == "pil_bicubic"  # but sources are resized bilinearly
    if source.short_side not in ({None, crops.short_side} if crops.resize_first and not bicubic else {None}):
        wanted = f"short_side={crops.short_side} or None" if crops.resize_first else "None (resize_first=False)"
        wanted = "None (resampling=pil_bicubic)" if bicubic else wanted
        raise ValueError(f"The images were resized to short_side={source.short_side}; the crops need {wanted}.")


class CroppedImages:
    """Selected images of a source, cropped to one size; an `Images`.

    Args:
        source: `cache.Cache` or `decoded_on_read.DecodedOnRead`.
        rows: int64 (N,), indices of the selected images in the source.
        crops: sizes and distribution of the crops.
        device: where batches are placed.
        threads: additional threads that crop a batch; the crops do not depend on their number.

    Raises:
        ValueError: the source's images were resized to another size than the crops need.
    """

    channels = 3
    eval_batch_size = 32  # as in the Reality Check

    def __init__(self, source: Source, rows: np.ndarray, crops: Crops, device: torch.device, threads: int = 0) -> None:
        check_sizes(source, crops)
        self.source, self.rows, self.crops, self.device, self.threads = source, rows, crops, device, threads
        self._pool = shared_pool(threads) if threads else None

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, rows: np.ndarray) -> "CroppedImages":
        """Select the images at the given rows, int64 (M,), in this order, without reading them."""
        return CroppedImages(self.source, self.rows[rows], self.crops, self.device, self.threads)

    def plain(self, rows: np.ndarray) -> Tensor:
        """Return central crops of the given rows, int64 (B,): uint8 (B, 3, crop, crop)."""
        return self._batch(lambda row: centre_crop(self._resized(row), self.crops.crop), rows.tolist())

    def augmented(self, rows: np.ndarray, generator: torch.Generator) -> Tensor:
        """Return random crops of the given rows, int64 (B,): uint8 (B, 3, crop, crop)."""
        images = self._map(self._resized if self.crops.resize_first else self._pixels, rows.tolist())
        sizes = np.array([pixels.shape[:2] for pixels in images], dtype=np.int64).reshape(-1, 2)
        boxes, mirrored = draw_boxes(sizes, self.crops, generator)
        return self._batch(lambda i: cut(images[i], boxes[i], self.crops, mirrored[i]), range(len(rows)))

    def _pixels(self, row: int) -> np.ndarray:
        return self.source.pixels(int(self.rows[row]))

    def _resized(self, row: int) -> np.ndarray:
        interpolation = FILTERS.get(self.crops.resampling, FILTERS["pil"])
        return resized(self._pixels(row), self.crops.short_side, interpolation)

    def _map(self, work: Callable[[T], U], items: Iterable[T]) -> list[U]:
        return list(self._pool.map(work, items) if self._pool else map(work, items))

    def _batch(self, crop_of: Callable[[int], np.ndarray], items: Iterable[int]) -> Tensor:
        """Crop every item and move the batch to the device, in channels-last memory format like the crops."""
        side, items = self.crops.crop, list(items)
        batch = torch.empty((len(items), side, side, 3), dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        places = batch.numpy()

        def fill(place: int) -> None:  # copies at once, so that memory for the next image is that of the last one
            places[place] = crop_of(items[place])

        self._map(fill, range(len(items)))
        return batch.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
