"""Nine corruptions of test images, which measure how robust embeddings are to changes that no training has shown.

Source: Lim, Yun, Park and Choi, "Hypergraph-Induced Semantic Tuplet Loss for Deep Metric Learning", CVPR 2022,
supplement, A.3, which lists the nine operations with their ranges, in the terms of the library imgaug. What the list
leaves open follows that library's operations: noise is equal in all channels, rotated images are continued by their
mirror image, cut-out squares are grey and dropped regions black.

Readings, where the list can be read in two ways:
- JPEG, 80 to 95: the degree of compression, the number that imgaug takes, which is a quality of 20 to 5. The other
  reading, a quality of 80 to 95, is `jpeg_quality`; it changes a photograph by one grey level or two.
- Salt and pepper: exactly black or white, each with probability 1/2.

Departures: the corruptions apply to the pixels that the network gets, after resizing and cropping, so that strengths in
pixels mean the same for every data set. An image's corruption is a function of the seed, the corruption and the image's
number in its data set, whatever the batch.
"""

import io
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor

from benchmark.core.threads import shared_pool
from benchmark.images import Images
from benchmark.protocol.seeds import stable_seed

Corrupt = Callable[[np.ndarray, np.random.Generator], np.ndarray]  # uint8 (H, W, Ch) to uint8 (H, W, Ch)
GREY = 128


def gaussian_noise(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add normal noise to an image (H, W, Ch), with a standard deviation of 0 to 25.5 (0.1 x 255) drawn for it."""
    return _rounded(image + rng.normal(0, rng.uniform(0, 0.1 * 255), (*image.shape[:2], 1)))


def salt_and_pepper(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Make each pixel of an image (H, W, Ch), with probability 5 %, black or white."""
    drawn = rng.random((*image.shape[:2], 1))
    return np.where(drawn < 0.025, np.uint8(0), np.where(drawn < 0.05, np.uint8(255), image))


def uniform_noise(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add a whole number of -50 to 50 to each pixel of an image (H, W, Ch)."""
    return _rounded(image + rng.integers(-50, 51, (*image.shape[:2], 1)))


def cutout(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Make two squares of an image (H, W, Ch) grey.

    Each has a side of 20 % of the image's shorter side, and its centre anywhere in the image.
    """
    height, width = image.shape[:2]
    side = round(0.2 * min(height, width))
    found = image.copy()
    for _ in range(2):
        top, left = (round(rng.uniform(0, length) - side / 2) for length in (height, width))
        found[max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = GREY
    return found


def coarse_dropout(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Make rectangles of an image (H, W, Ch) black: cells of a grid, each with a probability of 0 to 5 %.

    The probability is drawn for the image, and so is the grid, whose sides have 2 to 25 % as many cells as the image
    has pixels, and at least 3.
    """
    height, width = image.shape[:2]
    probability, fineness = rng.uniform(0, 0.05), rng.uniform(0.02, 0.25)
    rows, columns = (max(3, round(fineness * length)) for length in (height, width))
    dropped = rng.random((rows, columns)) < probability
    whole = dropped[np.arange(height) * rows // height][:, np.arange(width) * columns // width]
    return np.where(whole[..., None], np.uint8(0), image)


def rotation(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rotate an image (H, W, Ch) about its centre by -30 to 30 degrees; corners show its mirror image."""
    angle = rng.uniform(-30, 30)
    return _rounded(ndimage.rotate(image.astype(np.float32), angle, reshape=False, order=1, mode="reflect"))


def perspective(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Stretch a quadrilateral inside an image (H, W, Ch) to its full size.

    Each corner is moved inwards, in each direction by the absolute value of a normal number (and at most by 45 %) of
    the side, whose standard deviation of 0.05 to 0.15 is drawn for the image.
    """
    height, width = image.shape[:2]
    inwards = np.minimum(np.abs(rng.normal(0, rng.uniform(0.05, 0.15), (4, 2))), 0.45)
    corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1)])  # (x, y) of the result, as fractions
    source = (corners + inwards * (1 - 2 * corners)) * (width, height)
    picture = _to_picture(image).transform(
        (width, height), Image.Transform.PERSPECTIVE, _coefficients(corners * (width, height), source),
        Image.Resampling.BILINEAR,
    )  # fmt: skip
    return _to_array(picture)


def blur(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blur an image (H, W, Ch) by a Gaussian kernel with a standard deviation of 1 to 3 pixels."""
    sigma = rng.uniform(1, 3)
    return _rounded(ndimage.gaussian_filter(image.astype(np.float32), (sigma, sigma, 0), mode="reflect"))


def jpeg(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Compress an image (H, W, Ch) by JPEG with a degree of compression of 80 to 95: a quality of 20 to 5."""
    return _compressed(image, 100 - int(rng.integers(80, 96)))


def jpeg_quality(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Compress an image (H, W, Ch) by JPEG with a quality of 80 to 95."""
    return _compressed(image, int(rng.integers(80, 96)))


class Named(NamedTuple):
    """A corruption.

    Attributes:
        title: its name in tables.
        corrupt: the function that corrupts an image.
    """

    title: str
    corrupt: Corrupt


CORRUPTIONS = {
    "gaussian_noise": Named("Gaussian noise", gaussian_noise),
    "salt_and_pepper": Named("Salt and pepper", salt_and_pepper),
    "uniform_noise": Named("Uniform noise", uniform_noise),
    "cutout": Named("Cutout", cutout),
    "coarse_dropout": Named("Coarse dropout", coarse_dropout),
    "rotation": Named("Rotation", rotation),
    "perspective": Named("Perspective", perspective),
    "blur": Named("Blur", blur),
    "jpeg": Named("JPEG", jpeg),
    "jpeg_quality": Named("JPEG, quality 80-95", jpeg_quality),
}
PAPER = tuple(name for name in CORRUPTIONS if name != "jpeg_quality")


def corrupted(image: np.ndarray, name: str, seed: int, number: int) -> np.ndarray:
    """A corrupted copy of an image, uint8 (H, W, Ch).

    Args:
        image: uint8, (H, W, 1) grey or (H, W, 3) RGB.
        name: a key of `CORRUPTIONS`.
        seed: seed of all corruptions.
        number: the image's number in its data set.

    Raises:
        ValueError: the image is not uint8, or has another shape.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3):
        raise ValueError(f"the image is {image.dtype} of shape {image.shape}; allowed is uint8, (H, W, 1 or 3).")
    return CORRUPTIONS[name].corrupt(image, np.random.default_rng(stable_seed(seed, "corruption", name, number)))


class CorruptedImages:
    """Images that are corrupted when they are read for an evaluation; an `Images`.

    Args:
        images: N images.
        name: a key of `CORRUPTIONS`.
        seed: seed of all corruptions.
        numbers: int64 (N,), each image's number in its data set; None for 0 to N - 1.
    """

    def __init__(self, images: Images, name: str, seed: int, numbers: np.ndarray | None = None) -> None:
        self.images, self.name, self.seed = images, name, seed
        self.numbers = np.arange(len(images)) if numbers is None else numbers
        self.channels, self.device = images.channels, images.device
        self.eval_batch_size, self.threads = images.eval_batch_size, images.threads

    def __len__(self) -> int:
        return len(self.images)

    def part(self, rows: np.ndarray) -> "CorruptedImages":
        """Return the images at the given rows, int64 (M,), in this order, each with the corruption that it has here."""
        return CorruptedImages(self.images.part(rows), self.name, self.seed, self.numbers[rows])

    def plain(self, rows: np.ndarray) -> Tensor:
        """Return corrupted images at the given rows, int64 (B,): uint8 (B, Ch, H, W)."""
        arrays = self.images.plain(rows).permute(0, 2, 3, 1).cpu().numpy()
        numbers = self.numbers[rows].tolist()

        def make(array: np.ndarray, number: int) -> np.ndarray:
            return corrupted(array, self.name, self.seed, number)

        over = shared_pool(self.threads).map if self.threads else map
        found = list(over(make, arrays, numbers))
        return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).to(self.device)

    def augmented(self, rows: np.ndarray, generator: torch.Generator) -> Tensor:
        """Refuse to augment: corruptions are for test images.

        Args:
            rows: int64 (B,).
            generator: unused.

        Raises:
            TypeError: always.
        """
        raise TypeError("corrupted images are only evaluated; they cannot be augmented for training.")


def _rounded(values: np.ndarray) -> np.ndarray:
    """The nearest grey levels, uint8; values outside 0 to 255 are clipped."""
    found: np.ndarray = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return found


def _to_picture(image: np.ndarray) -> Image.Image:
    """A PIL image of an array (H, W, 1) or (H, W, 3)."""
    return Image.fromarray(np.ascontiguousarray(image[..., 0] if image.shape[2] == 1 else image))


def _to_array(picture: Image.Image) -> np.ndarray:
    """The pixels of a grey or RGB image: uint8 (H, W, 1) or (H, W, 3)."""
    pixels: np.ndarray = np.array(picture)
    return pixels.reshape(*pixels.shape[:2], -1)


def _coefficients(targets: np.ndarray, sources: np.ndarray) -> list[float]:
    """The eight numbers a..h of the map from (x, y) to ((ax + by + c) / (gx + hy + 1), (dx + ey + f) / (gx + hy + 1)).

    Args:
        targets: (4, 2), four points (x, y).
        sources: (4, 2), the points to which they are mapped.
    """
    rows, values = [], []
    for (x, y), (u, v) in zip(targets, sources, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    found: list[float] = np.linalg.solve(np.array(rows, dtype=float), np.array(values)).tolist()
    return found


def _compressed(image: np.ndarray, quality: int) -> np.ndarray:
    """The image after compression by JPEG and decompression."""
    buffer = io.BytesIO()
    _to_picture(image).save(buffer, "JPEG", quality=quality)
    return _to_array(Image.open(buffer))
