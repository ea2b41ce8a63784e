"""Decode image files to uint8 RGB arrays, bit-identical to torchvision's loader and its `Resize` of a PIL image.

Source: torchvision's `ImageFolder` loader (open, `convert("RGB")`: no EXIF rotation, transparency is dropped) and
`torchvision.transforms.Resize(size)`: bilinear over the whole support (antialiased), the long side truncated. The
Reality Check's code reads and resizes with both.

Departures: images are never decoded at a lower resolution (`draft` changes pixels); only `FORMATS` are read, since
others (EPS) start external programs; images above `MAX_PIXELS` are refused before their pixels are allocated.
"""

import io
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from benchmark.core.errors import UserError

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
MAX_PIXELS = 2**28 // 3  # a quarter of a GiB as RGB, above which PIL warns of a decompression bomb
SHOWN = 5  # number of images that a message names
_PIL = re.compile(r"PIL\.")


class UnreadableImageError(UserError):
    """A file that cannot be read as an image; the message is only the reason, to be printed after the file's name."""


def decode(payload: bytes, short_side: int | None) -> np.ndarray:
    """Decode the bytes of an image file to uint8 (H, W, 3), read-only.

    Args:
        payload: all bytes of the file.
        short_side: length in pixels to which the shorter side is resized; None keeps the size.

    Raises:
        UnreadableImageError: the file is damaged, has an unsupported format or is too large.
    """
    _ignore_warnings_of_pil()
    image = _load(payload)
    return np.asarray(image if short_side is None else _resize(image, short_side))


def resized(pixels: np.ndarray, short_side: int) -> np.ndarray:
    """Resize an image so that its shorter side has `short_side` pixels; no copy if it already has.

    Args:
        pixels: uint8, (H, W, 3).
        short_side: length in pixels.

    Returns:
        uint8, (h, w, 3) with min(h, w) = `short_side`.

    Raises:
        UnreadableImageError: the image is so elongated that it would become too large.
    """
    if min(pixels.shape[:2]) == short_side:
        return pixels
    return np.asarray(_resize(Image.fromarray(pixels), short_side))


def shape_of(path: Path) -> tuple[int, int] | None:
    """Read height and width in pixels from a file's header; None if the header cannot be read."""
    _ignore_warnings_of_pil()
    try:
        with Image.open(path, formats=FORMATS) as image:
            return image.height, image.width
    except Exception:  # on a malicious file, PIL can raise nearly anything; `decode` reports the reason
        return None


def resized_shape(height: int, width: int, short_side: int | None) -> tuple[int, int]:
    """Return height and width after resizing the shorter side to `short_side`; the long side is truncated, not rounded.

    >>> resized_shape(375, 500, 256), resized_shape(375, 500, None)
    ((256, 341), (375, 500))
    """
    if short_side is None:
        return height, width
    long = int(short_side * max(height, width) / min(height, width))
    return (short_side, long) if height <= width else (long, short_side)


def describe_unusable(root: Path, num_images: int, reasons: Sequence[str], remedy: str) -> str:
    """Write the message about images that cannot be used: their number, the first few, and the remedy.

    Args:
        root: folder of the images.
        num_images: number of all images, usable or not.
        reasons: one line for each image that cannot be used, with its name.
        remedy: what the user can do.
    """
    named = "\n  ".join(reasons[:SHOWN])
    more = f"\n  and {len(reasons) - SHOWN:,} more" * (len(reasons) > SHOWN)
    return f"{len(reasons):,} of {num_images:,} images in {root} cannot be used:\n  {named}{more}\n{remedy}"


def _ignore_warnings_of_pil() -> None:
    """Silence PIL's warnings permanently, because `warnings.catch_warnings` is not thread-safe."""
    if ("ignore", None, Warning, _PIL, 0) not in warnings.filters:
        warnings.filterwarnings("ignore", module=_PIL.pattern)


def _load(payload: bytes) -> Image.Image:
    try:
        with Image.open(io.BytesIO(payload), formats=FORMATS) as image:
            _check_size(*image.size, "")
            image.load()
            return image if image.mode == "RGB" else image.convert("RGB")
    except UnreadableImageError:
        raise
    except Image.DecompressionBombError:
        raise UnreadableImageError(f"has more than {MAX_PIXELS:,} pixels") from None
    except Exception as error:  # on a malicious file, PIL's decoders can raise nearly anything
        raise UnreadableImageError(f"cannot be decoded ({type(error).__name__}: {str(error)[:80]})") from error


def _resize(image: Image.Image, short_side: int) -> Image.Image:
    width, height = image.size
    shape = resized_shape(height, width, short_side)
    _check_size(*shape, f" after resizing its shorter side to {short_side}")
    return image if shape == (height, width) else image.resize(shape[::-1], Image.Resampling.BILINEAR)


def _check_size(height: int, width: int, when: str) -> None:
    if height * width > MAX_PIXELS:
        raise UnreadableImageError(f"has {height * width:,} pixels{when}; at most {MAX_PIXELS:,} are read")
