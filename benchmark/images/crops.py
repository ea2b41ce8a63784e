"""Crops of images: the central one for evaluation, random ones for training.

Source: `RandomResizedCrop`, `CenterCrop` and `RandomHorizontalFlip` of torchvision.transforms on PIL images, composed
by the Reality Check's code: Resize(256), then RandomResizedCrop(227, scale 0.16-1, ratio 0.75-1.33) and a flip, or
CenterCrop(227). A crop is cut first and then resized by itself: PIL's `resize(box=...)` would sample beyond its edges.

Departures: every image consumes `NUMBERS` random numbers, used or not, so that a batch depends only on the generator
and the sizes (torchvision draws as many attempts as it needs); the distribution is unchanged. `resampling="torch"` is
torch's antialiased resize of uint8: faster, but it differs by up to 1 grey level in about 3 % of the values. A central
crop of an image that is too small is refused (torchvision pads with black).
"""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from benchmark.core.errors import UserError

ATTEMPTS = 10
NUMBERS = 2 * ATTEMPTS + 3  # areas, ratios, vertical and horizontal position, flip
FILTERS = {"pil": Image.Resampling.BILINEAR, "pil_bicubic": Image.Resampling.BICUBIC}
RESAMPLINGS = (*FILTERS, "torch")


@dataclass(frozen=True)
class Crops:
    """How images are cropped.

    Attributes:
        short_side: length in pixels to which an image's shorter side is resized before its central crop.
        crop: side of a crop in pixels.
        scale: smallest and largest area of a random crop, as a fraction of the image's area.
        ratio: smallest and largest width-to-height ratio of a random crop.
        flip: probability that a random crop is mirrored.
        resize_first: whether random crops are cut from the image resized to `short_side` or from the original.
        resampling: `pil`; `pil_bicubic`, the same with bicubic interpolation; or `torch` (faster, but not bit-exact).

    Raises:
        UserError: a value is out of range.
    """

    short_side: int
    crop: int
    scale: tuple[float, float]
    ratio: tuple[float, float]
    flip: float
    resize_first: bool
    resampling: str = "pil"

    def __post_init__(self) -> None:
        if not 1 <= self.crop <= self.short_side:
            raise UserError(f"crop={self.crop} of short_side={self.short_side} pixels: allowed is 1 to short_side.")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise UserError(f"scale={self.scale}: allowed are two fractions of an area, 0 < smallest <= largest <= 1.")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise UserError(f"ratio={self.ratio}: allowed are two ratios of width to height, 0 < smallest <= largest.")
        if not 0 <= self.flip <= 1:
            raise UserError(f"flip={self.flip}: allowed is a probability, 0 to 1.")
        if self.resampling not in RESAMPLINGS:
            raise UserError(f"resampling={self.resampling!r}: allowed are {', '.join(RESAMPLINGS)}.")


def centre_crop(pixels: np.ndarray, size: int) -> np.ndarray:
    """Return the central square, a view (size, size, 3).

    Args:
        pixels: (H, W, 3).
        size: side of the square in pixels. Half of an odd margin is rounded to the even neighbour, as Python rounds.

    Raises:
        ValueError: the image is smaller.
    """
    height, width = pixels.shape[:2]
    if min(height, width) < size:
        raise ValueError(f"No crop of {size} pixels fits into an image of {height} x {width}: resize it first.")
    top, left = round((height - size) / 2), round((width - size) / 2)
    return pixels[top : top + size, left : left + size]


def draw_boxes(sizes: np.ndarray, crops: Crops, generator: torch.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw the box of each random crop of a batch, and which crops are mirrored.

    The area of a crop is uniform in `scale`, and the logarithm of its ratio is uniform between the logarithms of
    `ratio`. The first of `ATTEMPTS` boxes that fits is taken, or else the largest central crop whose ratio is within
    `ratio`.

    Args:
        sizes: (B, 2), height and width of the images in pixels.
        crops: the distribution of the boxes.
        generator: CPU generator; advances by B x `NUMBERS` numbers.

    Returns:
        Boxes, int64 (B, 4): top, left, height, width in pixels; and which are mirrored, bool (B,).
    """
    numbers = torch.rand(len(sizes), NUMBERS, generator=generator, dtype=torch.float64).numpy()
    height, width = sizes[:, :1].astype(np.int64), sizes[:, 1:].astype(np.int64)  # (B, 1)
    area = height * width * _between(numbers[:, :ATTEMPTS], *crops.scale)  # (B, attempts)
    ratio = np.exp(_between(numbers[:, ATTEMPTS : 2 * ATTEMPTS], *np.log(crops.ratio)))
    wide = np.rint(np.sqrt(area * ratio)).astype(np.int64)
    high = np.rint(np.sqrt(area / ratio)).astype(np.int64)
    fits = (wide > 0) & (wide <= width) & (high > 0) & (high <= height)
    first = fits.argmax(axis=1)[:, None]
    shape = np.hstack([np.take_along_axis(high, first, axis=1), np.take_along_axis(wide, first, axis=1)])  # (B, 2)
    room = sizes - shape
    corner = np.floor(numbers[:, -3:-1] * (room + 1)).astype(np.int64)
    for row in np.flatnonzero(~fits.any(axis=1)):
        shape[row] = _fallback(sizes[row], crops.ratio)
        corner[row] = (sizes[row] - shape[row]) // 2
    return np.hstack([corner, shape]), numbers[:, -1] < crops.flip


def _between(numbers: np.ndarray, low: float, high: float) -> np.ndarray:
    return low + (high - low) * numbers


def _fallback(size: np.ndarray, ratio: tuple[float, float]) -> tuple[int, int]:
    height, width = size.tolist()
    if width / height < ratio[0]:
        return max(1, round(width / ratio[0])), width
    if width / height > ratio[1]:
        return height, max(1, round(height * ratio[1]))
    return height, width


def cut(pixels: np.ndarray, box: np.ndarray, crops: Crops, mirrored: bool = False) -> np.ndarray:
    """Cut a box out of an image, resize it to uint8 (crop, crop, 3), and mirror the result if asked to.

    Args:
        pixels: uint8, (H, W, 3).
        box: (4,): top, left, height, width in pixels.
        crops: supplies `crop` and `resampling`.
        mirrored: whether left and right are exchanged; after resizing, as in torchvision.
    """
    top, left, height, width = box.tolist()
    part, side = pixels[top : top + height, left : left + width], crops.crop
    if crops.resampling in FILTERS and (height, width) != (side, side):
        image = Image.fromarray(part).resize((side, side), FILTERS[crops.resampling])
        return np.asarray(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else image)
    # torch needs a writable array. Of a single image, it recognises only this order of steps as channels last, which
    # spares it two conversions, and both resizing and mirroring have kernels for that layout.
    batch = torch.from_numpy(part.copy())[None].permute(0, 3, 1, 2)
    if (height, width) != (side, side):
        batch = functional.interpolate(batch, (side, side), mode="bilinear", antialias=True)
    return (batch.flip(3) if mirrored else batch)[0].permute(1, 2, 0).numpy()
