"""Normalise batches of uint8 images, and embed all images with a model.

Source: this project. Images stay uint8 until a batch is needed; each batch is normalised on its own device.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from benchmark.core.errors import UserError
from benchmark.core.memory import keep_freed_memory
from benchmark.images import Images

T = TypeVar("T")
U = TypeVar("U")


def to_batch(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Normalise a batch to float32 (B, Ch, H, W), channels last in memory: (pixel / 255 - mean) / std.

    Features (B, F) of a frozen trunk, float16, only become float32.

    Args:
        images: uint8, (B, Ch, H, W).
        mean: mean of the pixels scaled to [0, 1]; one number, or one per channel.
        std: standard deviation of the pixels scaled to [0, 1]; one number, or one per channel.

    Raises:
        ValueError: the images are not uint8 with 4 dimensions.
        UserError: `mean` and `std`, which a user can configure, do not fit the channels.
    """
    if images.dtype == torch.float16 and images.ndim == 2:
        return images.float()
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise ValueError(f"images are {images.dtype} of shape {tuple(images.shape)}; allowed is uint8, (B, Ch, H, W).")
    channels = images.shape[1]
    if not {len(mean), len(std)} <= {1, channels}:
        raise UserError(
            f"mean={list(mean)} and std={list(std)} do not fit images of {channels} channels: give 1 or {channels}."
        )
    batch = images.to(torch.float32, memory_format=torch.channels_last)
    scale, offset = _normalisation(tuple(mean), tuple(std), images.device)
    return batch.mul_(scale).sub_(offset)


@functools.lru_cache(maxsize=8)  # a new tensor from values of the host makes the host wait for the device
@torch.inference_mode(False)
def _normalisation(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Factor and offset (1, Ch or 1, 1, 1) of pixels from 0 to 255."""
    scale = torch.tensor(std, device=device).reciprocal().view(1, -1, 1, 1)
    offset = torch.tensor(mean, device=device).view(1, -1, 1, 1) * scale
    return scale / 255, offset


def to_device(rows: np.ndarray, device: torch.device) -> Tensor:
    """A small array (B,) on a device. The host does not wait for CUDA, whose driver keeps a copy until it is needed."""
    return torch.from_numpy(rows).to(device, non_blocking=device.type == "cuda")


def read_ahead(make: Callable[[T], U], items: Iterable[T], threads: int) -> Iterator[U]:
    """Yield `make(item)` for each item; threads prepare the next item while the caller uses the current one."""
    if not threads:
        yield from map(make, items)
        return
    with ThreadPoolExecutor(1) as reader:
        coming: Future[U] | None = None
        for item in items:
            ready, coming = coming, reader.submit(make, item)
            if ready is not None:
                yield ready.result()
        if coming is not None:
            yield coming.result()


def embed(
    embedder: Callable[[Tensor], Tensor],
    images: Images,
    trunk: nn.Module,
    head: nn.Module,
    *,
    batch_size: int | None = None,
    read: Callable[[np.ndarray], Tensor] | None = None,
) -> Tensor:
    """Embed all images: float32 (N, D) on the images' device, in evaluation mode and without gradients.

    Afterwards, the previous mode of every module is restored, so frozen batch-norm layers stay in evaluation mode.

    Args:
        embedder: maps a normalised batch (B, Ch, H, W) to (B, D) through `trunk` and `head`.
        images: N images, on the device of the modules.
        trunk: its `mean` and `std` normalise the images.
        head: the module after the trunk.
        batch_size: images in one forward pass, by default `images.eval_batch_size`. It affects the last digits of the
            embeddings, because sums depend on it.
        read: returns the batch (B, Ch, H, W) of some rows, by default `images.plain`.

    Raises:
        ValueError: there are no images, or `batch_size` is below 1.
        UserError: `mean` and `std` of the trunk do not fit the channels.
    """
    size = images.eval_batch_size if batch_size is None else batch_size
    if not len(images) or size < 1:
        raise ValueError(f"embed got {len(images)} images and batch_size={size}; both must be at least 1.")
    keep_freed_memory()
    mean, std = trunk.mean, trunk.std
    parts = [np.arange(first, min(first + size, len(images))) for first in range(0, len(images), size)]
    modes = [(module, module.training) for part in (trunk, head) for module in part.modules()]
    try:
        for module, _ in modes:
            module.training = False
        with torch.inference_mode():
            batches = read_ahead(read or images.plain, parts, images.threads)
            embeddings = torch.cat([embedder(to_batch(b, mean, std)).float() for b in batches])  # type: ignore[arg-type]
    finally:
        for module, training in modes:
            module.training = training
    return embeddings.clone()  # inference tensors cannot be used in autograd later
