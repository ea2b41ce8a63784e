"""Resized crops of many images at once, on the device that holds the images, equal byte for byte to those of one image.

Source: Pillow, `src/libImaging/Resample.c` (version 13), and PyTorch, `aten/src/ATen/native/cpu/UpSampleKernel.cpp`,
both for uint8 and the bilinear filter whose support grows with the scale (antialiasing). Either resizes one axis after
the other and rounds in between; a value is a sum of pixels with whole-numbered weights, shifted to the right:

    value = (2^(bits - 1) + sum over k of weight[k] x pixel[first + k]) >> bits

Weights are computed in double precision, in the order of the originals, on the host and once for each length of a box.
So the device only adds and multiplies integers, which every device does alike.

The two differ in the weights' bits (Pillow 22; torch as many as fit into 16 with the largest weight) and in the order:
torch resizes rows first, Pillow columns if the height shrinks by more than twice as many pixels as the width.
"""

import functools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmark.images.batches import to_device

PILLOW_BITS = 22
INT16_BITS = 15
MOST = 2**25  # values of an intermediate result; larger batches are resized in parts


@dataclass(frozen=True)
class Windows:
    """What is cut out of B images: a box is resized, and of the result a square is kept.

    Attributes:
        boxes: int64 (B, 4): top, left, height and width in pixels, inside the image.
        sizes: int64 (B, 2): height and width that the box is resized to.
        corners: int64 (B, 2): top and left of the square in the resized box.
        mirrored: bool (B,): whether left and right of the square are exchanged.
        side: S, side of the square in pixels.
        resampling: `pil` or `torch`, see `crops.Crops`.
    """

    boxes: np.ndarray
    sizes: np.ndarray
    corners: np.ndarray
    mirrored: np.ndarray
    side: int
    resampling: str


class Weights(NamedTuple):
    """How an axis is resized.

    Attributes:
        first: int64 (S,), the first pixel that contributes to each value.
        weights: int32 (S, K), weights of this pixel and the next ones; 0 beyond the box.
        bits: fraction bits of the weights.
    """

    first: np.ndarray
    weights: np.ndarray
    bits: int


@functools.lru_cache(maxsize=4096)
def axis_weights(length: int, size: int, resampling: str) -> Weights:
    """Return how `length` pixels of a row or column become `size`.

    Args:
        length: pixels before.
        size: S, pixels after.
        resampling: `pil` or `torch`.
    """
    scale = length / size
    support = max(scale, 1.0)
    centre = (np.arange(size) + 0.5) * scale  # (S,)
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + support + 0.5).astype(np.int64), length)
    taps = first[:, None] + np.arange((last - first).max())  # (S, K)
    weights = np.maximum(1.0 - np.abs((taps - centre[:, None] + 0.5) * (1.0 / support)), 0.0)
    weights[taps >= last[:, None]] = 0.0
    weights /= np.cumsum(weights, axis=1)[:, -1:]  # adds from the left, unlike `sum`
    bits = PILLOW_BITS
    if resampling == "torch":
        top = weights.max()
        bits = next(bits for bits in range(PILLOW_BITS + 1) if int(0.5 + top * (1 << (bits + 1))) >= 1 << INT16_BITS)
    return Weights(first, (0.5 + weights * (1 << bits)).astype(np.int32), bits)


def resized_windows(pixels: Tensor, starts: np.ndarray, widths: np.ndarray, windows: Windows) -> Tensor:
    """Cut and resize one window of each of B images: uint8 (B, 3, S, S), in channels-last memory format.

    The host does not wait for the device.

    Args:
        pixels: uint8 (P, 3), the pixels of all images, row by row, one image after another.
        starts: int64 (B,), place of each image's first pixel.
        widths: int64 (B,), pixels in a row of each image.
        windows: what is cut out of each image.
    """
    side = windows.side
    if np.array_equal(windows.boxes[:, 2:], windows.sizes) and not windows.mirrored.any():  # cut only
        top, left = (windows.boxes[:, :2] + windows.corners).T
        steps, lengths = np.column_stack([np.ones_like(widths), widths]), np.full((len(starts), 2), side)
        found = _boxes(pixels, starts + top * widths + left, steps, lengths, side, side)
    else:
        plan = _planned(starts, widths, windows)
        along, across = plan.lengths.max(axis=0).tolist()
        step = max(1, MOST // (3 * max(along * across, side * along, side * across, side * side)))
        parts = [_resized(pixels, plan.part(slice(i, i + step))) for i in range(0, len(starts), step)]
        found = parts[0] if len(parts) == 1 else torch.cat(parts)
    return found.permute(0, 3, 1, 2)


@dataclass(frozen=True)
class _Plan:
    """How B windows are resized: first along one axis, then across.

    Attributes:
        corners: int64 (B,), place of the first pixel that is read.
        steps: int64 (B, 2), distance of neighbouring pixels along and across.
        lengths: int64 (B, 2), pixels that are read along and across.
        is_upright: bool (B,), whether the first axis is the vertical one.
        tables: int32 (B, 2, S, 2 + K), along and across: first pixel, bits and weights of each value.
    """

    corners: np.ndarray
    steps: np.ndarray
    lengths: np.ndarray
    is_upright: np.ndarray
    tables: np.ndarray

    def part(self, rows: slice) -> "_Plan":
        """The plan of some of the windows."""
        return _Plan(*(values[rows] for values in vars(self).values()))


def _planned(starts: np.ndarray, widths: np.ndarray, windows: Windows) -> _Plan:
    axes = [
        [axis_weights(length, size, windows.resampling) for length, size in zip(lengths, sizes, strict=True)]
        for lengths, sizes in zip(windows.boxes[:, 2:].tolist(), windows.sizes.tolist(), strict=True)
    ]
    most = max(axis.weights.shape[1] for both in axes for axis in both)
    tables = np.zeros((len(starts), 2, windows.side, 2 + most), np.int32)  # vertical, horizontal
    for table, both, corner in zip(tables, axes, windows.corners.tolist(), strict=True):
        for part, axis, begin in zip(table, both, corner, strict=True):
            kept = slice(begin, begin + windows.side)
            part[:, 0], part[:, 1] = axis.first[kept], axis.bits
            part[:, 2 : 2 + axis.weights.shape[1]] = axis.weights[kept]
    unread = tables[:, :, 0, 0].astype(np.int64)  # (B, 2), pixels of the box before the first one that is read
    lengths = np.minimum(tables[:, :, -1, 0] + most, windows.boxes[:, 2:]) - unread
    tables[:, :, :, 0] -= unread[:, :, None].astype(np.int32)
    tables[windows.mirrored, 1] = tables[windows.mirrored, 1, ::-1]
    top, left = (windows.boxes[:, :2] + unread).T
    steps = np.stack([widths, np.ones_like(widths)], axis=1)
    shrinks = windows.boxes[:, 2:] - windows.sizes
    is_upright = (shrinks[:, 0] > 0) & (shrinks[:, 0] > 2 * shrinks[:, 1]) & (windows.resampling == "pil")
    for values in (steps, lengths, tables):
        values[~is_upright] = values[~is_upright, ::-1]
    return _Plan(starts + top * widths + left, steps, lengths, is_upright, tables)


def _resized(pixels: Tensor, plan: _Plan) -> Tensor:
    """The windows of a plan, uint8 (B, S, S, 3), contiguous."""
    boxes = _boxes(pixels, plan.corners, plan.steps, plan.lengths, *plan.lengths.max(axis=0).tolist())
    tables = torch.from_numpy(plan.tables)
    if pixels.is_cuda:
        tables = tables.pin_memory().to(pixels.device, non_blocking=True)
    lines = _resize_axis(boxes, tables[:, 0])  # (B, across, S, 3)
    found = _resize_axis(lines.transpose(1, 2), tables[:, 1])  # (B, S along, S across, 3)
    turned = found.transpose(1, 2)
    if plan.is_upright.any():
        is_upright = to_device(plan.is_upright, pixels.device)[:, None, None, None]
        turned = torch.where(is_upright, found, turned)
    return turned.contiguous()


def _boxes(
    pixels: Tensor, corners: np.ndarray, steps: np.ndarray, lengths: np.ndarray, along: int, across: int
) -> Tensor:
    """Boxes side by side, uint8 (B, across, along, 3), filled up with their last row and column."""
    numbers = to_device(np.column_stack([corners, steps, lengths - 1]), pixels.device)
    corner, step_along, step_across, last_along, last_across = numbers[:, :, None, None].unbind(1)  # (B, 1, 1)
    second = torch.arange(across, device=pixels.device)[:, None].minimum(last_across) * step_across
    first = torch.arange(along, device=pixels.device).minimum(last_along) * step_along
    return pixels[corner + second + first]


def _resize_axis(values: Tensor, tables: Tensor) -> Tensor:
    """Resize the third axis of uint8 (B, M, L, 3) to S values, as tables int32 (B, S, 2 + K) say.

    No value exceeds 255: rounding adds at most K / 2 to the sum of the weights, 2^bits, and K is below 2^bits / 255.
    """
    batch, others, length, channels = values.shape
    first, bits, weights = tables[:, None].split([1, 1, tables.shape[2] - 2], dim=3)
    first, total = first.long(), torch.ones_like(bits) << (bits - 1)
    for k in range(weights.shape[3]):
        places = (first + k).clamp(max=length - 1).expand(batch, others, -1, channels)
        total = torch.addcmul(total, values.gather(2, places), weights[..., k : k + 1])
    found: Tensor = total >> bits
    return found.to(torch.uint8)
