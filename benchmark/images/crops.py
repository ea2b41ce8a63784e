"""Crops of pictures: the central one that is evaluated, random ones that are trained on.

Source: `RandomResizedCrop`, `CenterCrop` and `RandomHorizontalFlip` of torchvision.transforms on PIL images, composed
by the Reality Check's code: Resize(256), then RandomResizedCrop(227, scale 0.16-1, ratio 0.75-1.33) and a flip, or
CenterCrop(227). A crop is cut first and then resized on its own: PIL's `resize(box=...)` would look beyond its edges.

Departures: every image takes `NUMBERS` random numbers, whatever becomes of them, so that a batch depends on nothing but
generator and sizes (torchvision draws as many attempts as it needs); the distribution is the same. `resampling="torch"`
is torch's antialiased resize of uint8: faster, but up to 1 grey level off in about 3 % of the values. A central crop of
a picture that is too small is refused (torchvision pads with black).
"""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

ATTEMPTS = 10
NUMBERS = 2 * ATTEMPTS + 3  # areas, ratios, place down, place sideways, flip
RESAMPLINGS = ("pil", "torch")


@dataclass(frozen=True)
class Crops:
    """How pictures are cut.

    Attributes:
        short_side: pixels of the shorter side of a picture before its central crop.
        crop: pixels of the side of what is cut out.
        scale: smallest and largest area of a random crop, as a fraction of its picture's.
        ratio: smallest and largest width over height of a random crop.
        flip: probability that a random crop is mirrored.
        resize_first: whether random crops, too, are cut from the picture resized to `short_side`, or from all of it.
        resampling: `pil`, or `torch` (faster, not bit for bit).

    Raises:
        ValueError: a value is out of range.
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
            raise ValueError(f"crop={self.crop} of short_side={self.short_side} pixels: allowed is 1 to short_side.")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale={self.scale}: allowed are two fractions of an area, 0 < smallest <= largest <= 1.")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"ratio={self.ratio}: allowed are two ratios of width to height, 0 < smallest <= largest.")
        if not 0 <= self.flip <= 1:
            raise ValueError(f"flip={self.flip}: allowed is a probability, 0 to 1.")
        if self.resampling not in RESAMPLINGS:
            raise ValueError(f"resampling={self.resampling!r}: allowed are {', '.join(RESAMPLINGS)}.")


def centre_crop(picture: np.ndarray, size: int) -> np.ndarray:
    """The square in the middle, a view.

    Args:
        picture: (H, W, 3).
        size: pixels of its side. An odd number to leave out is halved to the even neighbour, as Python rounds.

    Raises:
        ValueError: the picture is smaller.
    """
    height, width = picture.shape[:2]
    if min(height, width) < size:
        raise ValueError(f"No crop of {size} pixels fits into a picture of {height} x {width}: resize it first.")
    top, left = round((height - size) / 2), round((width - size) / 2)
    return picture[top : top + size, left : left + size]


def draw_boxes(sizes: np.ndarray, crops: Crops, generator: torch.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Where a batch of pictures is cut and which crops are mirrored.

    A crop's area is uniform in `scale`, the logarithm of its ratio in `ratio`; the first of `ATTEMPTS` that fits is
    taken, or else the largest central crop that keeps to `ratio`.

    Args:
        sizes: (B, 2), height and width of the pictures.
        crops: says how.
        generator: on the CPU; gives B x `NUMBERS` numbers.

    Returns:
        (B, 4) int64: top, left, height, width; and (B,) bool.
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


def cut(picture: np.ndarray, box: np.ndarray, crops: Crops) -> np.ndarray:
    """A box of a picture, resized to (crop, crop, 3).

    Args:
        picture: uint8, (H, W, 3).
        box: top, left, height, width.
        crops: says to what size and with which resampling.
    """
    top, left, height, width = box.tolist()
    part = picture[top : top + height, left : left + width].copy()  # one that torch may write to
    side = crops.crop
    if (height, width) == (side, side):
        return part
    if crops.resampling == "pil":
        return np.asarray(Image.fromarray(part).resize((side, side), Image.Resampling.BILINEAR))
    image = torch.from_numpy(part).permute(2, 0, 1)[None]
    return functional.interpolate(image, (side, side), mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()
