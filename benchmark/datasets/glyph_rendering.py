"""Render outlines to the images of `glyphs`: placement, a small affine map per image, and drawing.

Source: our own definition. One em is 0.75 of the image's side. A character is centred horizontally and keeps its height
above a fixed baseline (o and the degree sign differ by position as much as by size); it is shrunk only if it would not
fit. Each image then gets its own affine map, I + warp U(-1, 1) and a shift of warp U(-1, 1) half sides, which is part
of the data, not an augmentation. The numbers come from PCG64's raw stream, whose values numpy guarantees to be stable.
"""

from collections.abc import Callable, Sequence

import numpy as np

from benchmark.datasets.glyph_outlines import Outline
from benchmark.datasets.glyph_rasteriser import flatten, rasterise

EM = 0.75  # fraction of the image's side
BASE_LINE = 0.36  # in em, below the middle of the image
BATCH = 500  # images drawn at once: 70 MB of working memory at 32 pixels; larger batches are not faster


def warp_numbers(num_images: int, seed: int) -> np.ndarray:
    """Draw uniform numbers in [-1, 1), float64 (N, 6) with N = `num_images`: the matrix by rows, then the shift."""
    raw = np.random.PCG64(seed).random_raw(num_images * 6)
    unit = (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53  # the upper 53 bits, in [0, 1)
    return (-1 + 2 * unit).reshape(num_images, 6)


def draw(
    outlines: Sequence[Outline],
    numbers: np.ndarray,
    *,
    size: int,
    warp: float,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Draw images, uint8 (N, size, size), with ink 255 on background 0.

    Args:
        outlines: N outlines, none of them empty.
        numbers: float64 (N, 6) in [-1, 1), the affine map of each image; see `warp_numbers`.
        size: width and height in pixels.
        warp: strength of the affine maps, 0 for upright images.
        progress: called with (images drawn, N) after each batch.
    """
    images = np.empty((len(outlines), size, size), np.uint8)
    for start in range(0, len(outlines), BATCH):
        batch = outlines[start : start + BATCH]
        edges, image = _edges_of(batch)
        edges = _placed(edges, image, size)
        edges = _warped(edges, numbers[start : start + BATCH][image], size, warp)
        images[start : start + len(batch)] = rasterise(edges, image, len(batch), size)
        if progress is not None:
            progress(start + len(batch), len(outlines))
    return images


def _edges_of(outlines: Sequence[Outline]) -> tuple[np.ndarray, np.ndarray]:
    """Return edges (E, 4) in em, y up, and the image (E,) of each, ascending."""
    lengths = [np.diff(outline.ends, prepend=-1) for outline in outlines]
    image_of_contour = np.repeat(np.arange(len(outlines)), [len(length) for length in lengths])
    contour = np.repeat(np.arange(len(image_of_contour)), np.concatenate(lengths))
    units = np.repeat([outline.units_per_em for outline in outlines], [len(outline.points) for outline in outlines])
    points = np.concatenate([outline.points for outline in outlines]) / units[:, None]
    edges, owner = flatten(points, np.concatenate([outline.on_curve for outline in outlines]), contour)
    return edges, image_of_contour[owner]


def _placed(edges: np.ndarray, image: np.ndarray, size: int) -> np.ndarray:
    """Place edges (E, 4), in pixels from the middle of the image, y down, at least one pixel away from its border."""
    starts = np.flatnonzero(np.diff(image, prepend=-1))

    def lowest(values: np.ndarray) -> np.ndarray:  # (E, 2) -> (N,), over both ends of an image's edges
        return np.minimum.reduceat(values.min(axis=1), starts)

    def highest(values: np.ndarray) -> np.ndarray:
        return np.maximum.reduceat(values.max(axis=1), starts)

    em, half = EM * size, size / 2 - 1
    x, y = edges[:, 0::2] * em, BASE_LINE * em - edges[:, 1::2] * em
    x = x - ((lowest(x) + highest(x)) / 2)[image][:, None]
    top, bottom = lowest(y), highest(y)
    shrink = np.maximum(np.maximum(highest(np.abs(x)), (bottom - top) / 2) / half, 1.0)
    x, y = x / shrink[image][:, None], y / shrink[image][:, None]
    push_down, push_up = np.maximum(0.0, -half - top / shrink), np.maximum(0.0, bottom / shrink - half)
    y = y + push_down[image][:, None] - push_up[image][:, None]
    return np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], axis=1)


def _warped(edges: np.ndarray, numbers: np.ndarray, size: int, warp: float) -> np.ndarray:
    """Apply the affine map of each image to its edges (E, 4), in pixels from the upper left corner."""
    x, y = edges[:, 0::2], edges[:, 1::2]
    xx, xy, yx, yy, right, down = (numbers[:, i, None] for i in range(6))  # each (E, 1)
    new_x = (1 + warp * xx) * x + warp * xy * y + size / 2 + warp * size * 0.5 * right
    new_y = warp * yx * x + (1 + warp * yy) * y + size / 2 + warp * size * 0.5 * down
    return np.stack([new_x[:, 0], new_y[:, 0], new_x[:, 1], new_y[:, 1]], axis=1)
