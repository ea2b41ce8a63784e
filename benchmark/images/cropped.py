"""Pictures of different sizes, from a cache or from their files, as batches of equal crops.

Source: the transforms of the Reality Check's code (`crops.py`). Channels are in the order RGB and values 0 to 255;
whoever needs them otherwise (BGR, normalised) changes the batch.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from benchmark.images.crops import Crops, centre_crop, cut, draw_boxes
from benchmark.images.decode import resized


class Source(Protocol):
    """Where pictures come from.

    Attributes:
        short_side: what their shorter side was resized to, None if they are as they were.
    """

    short_side: int | None

    def __len__(self) -> int: ...
    def picture(self, index: int) -> np.ndarray:
        """One of them, uint8 (H, W, 3)."""
        ...


class CroppedImages:
    """Some pictures of a source, cut in one way; an `Images`.

    Args:
        source: `cache.Cache` or `cache.DecodedOnRead`.
        rows: (N,) int64, which of its pictures, in this order.
        crops: how they are cut.
        device: where batches go.
        threads: how many more threads cut a batch; the crops do not depend on it.

    Raises:
        ValueError: the source's pictures were resized to something else than the crops are cut from.
    """

    channels = 3
    eval_batch_size = 32  # the Reality Check's

    def __init__(self, source: Source, rows: np.ndarray, crops: Crops, device: torch.device, threads: int = 0) -> None:
        if source.short_side not in ({None, crops.short_side} if crops.resize_first else {None}):
            wanted = f"short_side={crops.short_side} or whole" if crops.resize_first else "whole (resize_first=False)"
            raise ValueError(f"The pictures were resized to short_side={source.short_side}; the crops want {wanted}.")
        self.source, self.rows, self.crops, self.device, self.threads = source, rows, crops, device, threads
        self._pool = ThreadPoolExecutor(threads, "crops") if threads else None

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, rows: np.ndarray) -> "CroppedImages":
        """These of them, in this order."""
        return CroppedImages(self.source, self.rows[rows], self.crops, self.device, self.threads)

    def plain(self, rows: np.ndarray) -> Tensor:
        """Central crops of these of them, uint8 (B, 3, S, S)."""
        return self._batch(lambda row: centre_crop(self._resized(row), self.crops.crop), rows)

    def augmented(self, rows: np.ndarray, generator: torch.Generator) -> Tensor:
        """Random crops of these of them, uint8 (B, 3, S, S)."""
        pictures = self._map(self._resized if self.crops.resize_first else self._picture, rows)
        sizes = np.array([picture.shape[:2] for picture in pictures], dtype=np.int64).reshape(-1, 2)
        boxes, mirrored = draw_boxes(sizes, self.crops, generator)
        batch = self._batch(lambda i: cut(pictures[i], boxes[i], self.crops), range(len(rows)))
        turned = torch.from_numpy(np.flatnonzero(mirrored)).to(self.device)
        batch[turned] = batch[turned].flip(3)  # after resizing, as torchvision does; numpy would take 20 times as long
        return batch

    def _picture(self, row: int) -> np.ndarray:
        return self.source.picture(int(self.rows[row]))

    def _resized(self, row: int) -> np.ndarray:
        return resized(self._picture(row), self.crops.short_side)

    def _map(self, work: Callable[[Any], np.ndarray], items: Iterable[Any]) -> list[np.ndarray]:
        return list((self._pool.map if self._pool else map)(work, items))

    def _batch(self, work: Callable[[Any], np.ndarray], items: Iterable[Any]) -> Tensor:
        """What `work` cuts for each item, on the device; channels lie last in memory, as in the crops."""
        side, items = self.crops.crop, list(items)
        batch = torch.empty((len(items), side, side, 3), dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        for place, crop in zip(batch.numpy(), self._map(work, items), strict=True):
            place[:] = crop
        return batch.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
