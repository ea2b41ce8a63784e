"""uint8 images to normalised float batches, and a model's embeddings of many images.

Source: this project. Images stay uint8 until a batch is needed and are normalised as a batch on their own device.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from benchmark.images import Images

T = TypeVar("T")
U = TypeVar("U")


def to_batch(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Normalised float32 images (B, Ch, H, W), laid out channels last: (pixel / 255 - mean) / std.

    Args:
        images: uint8, (B, Ch, H, W).
        mean: Mean of a channel in 0..1; one number, or one for each channel.
        std: Standard deviation of a channel in 0..1; one number, or one for each channel.

    Raises:
        ValueError: If the images are not uint8 of 4 dimensions, or `mean` and `std` do not fit the channels.
    """
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise ValueError(f"images are {images.dtype} of shape {tuple(images.shape)}; allowed is uint8, (B, Ch, H, W).")
    channels = images.shape[1]
    if not {len(mean), len(std)} <= {1, channels}:
        raise ValueError(
            f"mean={list(mean)} and std={list(std)} do not fit images of {channels} channels: give 1 or {channels}."
        )
    batch = images.to(torch.float32, memory_format=torch.channels_last)
    scale = torch.tensor(std, device=images.device).reciprocal().view(1, -1, 1, 1)
    offset = torch.tensor(mean, device=images.device).view(1, -1, 1, 1) * scale
    return batch.mul_(scale / 255).sub_(offset)


def read_ahead(make: Callable[[T], U], items: Iterable[T], threads: int) -> Iterator[U]:
    """`make(item)` for each item in turn; with threads, one item is made while the caller works on the one before."""
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
) -> Tensor:
    """Embeddings (N, D), float32 on the images' device, in evaluation mode and without gradients.

    Every module gets back the mode it had, one by one: batch-norm layers frozen in evaluation mode stay frozen.

    Args:
        embedder: Maps a normalised batch (B, Ch, H, W) to (B, D) with `trunk` and `head`.
        images: On the device of the modules.
        trunk: Its `mean` and `std` normalise the images.
        head: The module after the trunk.
        batch_size: Images in one forward pass, by default what suits the images; part of the result's last digits,
            since sums depend on it.

    Raises:
        ValueError: If there are no images or `batch_size` is below 1.
    """
    size = images.eval_batch_size if batch_size is None else batch_size
    if not len(images) or size < 1:
        raise ValueError(f"embed got {len(images)} images and batch_size={size}; both must be at least 1.")
    mean, std = trunk.mean, trunk.std
    parts = [np.arange(first, min(first + size, len(images))) for first in range(0, len(images), size)]
    modes = [(module, module.training) for part in (trunk, head) for module in part.modules()]
    try:
        for module, _ in modes:
            module.training = False
        with torch.inference_mode():
            batches = read_ahead(images.plain, parts, images.threads)
            embeddings = torch.cat([embedder(to_batch(b, mean, std)).float() for b in batches])  # type: ignore[arg-type]
    finally:
        for module, training in modes:
            module.training = training
    return embeddings.clone()  # an inference tensor could not enter autograd later
