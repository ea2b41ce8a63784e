"""Files of pictures to uint8 RGB arrays, bit for bit as torchvision's loader and its `Resize` on a PIL image make them.

Source: torchvision's `ImageFolder` loader (open, `convert("RGB")`: no EXIF rotation, transparency is dropped) and
`torchvision.transforms.Resize(size)`: bilinear over the whole support (antialiased), the long side truncated. The
Reality Check's code reads and resizes with both.

Departures: nothing is decoded at a lower resolution to save time (`draft` changes pixels); only `FORMATS` are read, as
others (EPS) run programs of their own; pictures above `MAX_PIXELS` are refused before their pixels are made.
"""

import io
import re
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
MAX_PIXELS = 2**28 // 3  # a quarter of a GiB as RGB, above which PIL speaks of a bomb
_PIL = re.compile(r"PIL\.")


class UnreadableError(ValueError):
    """A file that gives no picture; the message is the reason only, to stand behind the file's name."""


def decode(payload: bytes, short_side: int | None) -> np.ndarray:
    """The picture in a file's bytes, uint8 (H, W, 3), read-only.

    Args:
        payload: the whole file.
        short_side: pixels of the shorter side afterwards; None keeps the size.

    Raises:
        UnreadableError: it is broken, of another format or too large.
    """
    _keep_quiet()
    try:
        with Image.open(io.BytesIO(payload), formats=FORMATS) as image:
            _check_size(*image.size, "")
            image.load()
            picture = image if image.mode == "RGB" else image.convert("RGB")
            return np.asarray(picture if short_side is None else _resize(picture, short_side))
    except UnreadableError:
        raise
    except Image.DecompressionBombError:
        raise UnreadableError(f"has more than {MAX_PIXELS:,} pixels") from None
    except Exception as error:  # a hostile file makes the decoders raise nearly anything
        raise UnreadableError(f"cannot be decoded ({type(error).__name__}: {str(error)[:80]})") from error


def resized(picture: np.ndarray, short_side: int) -> np.ndarray:
    """The picture with a shorter side of so many pixels; itself if it has that already.

    Args:
        picture: uint8, (H, W, 3).
        short_side: pixels.

    Raises:
        UnreadableError: it is so thin that it would become too large.
    """
    if min(picture.shape[:2]) == short_side:
        return picture
    return np.asarray(_resize(Image.fromarray(picture), short_side))


def shape_of(path: Path) -> tuple[int, int] | None:
    """Height and width as a file's header has them, None where it cannot be read."""
    _keep_quiet()
    try:
        with Image.open(path, formats=FORMATS) as image:
            return image.height, image.width
    except Exception:  # as in `decode`, which will say why
        return None


def resized_shape(height: int, width: int, short_side: int | None) -> tuple[int, int]:
    """Height and width afterwards: the long side is truncated, not rounded."""
    if short_side is None:
        return height, width
    long = int(short_side * max(height, width) / min(height, width))
    return (short_side, long) if height <= width else (long, short_side)


def _keep_quiet() -> None:
    """Let none of PIL's warnings out; `catch_warnings` would not do, since it is not made for threads."""
    if ("ignore", None, Warning, _PIL, 0) not in warnings.filters:
        warnings.filterwarnings("ignore", module=_PIL.pattern)


def _resize(image: Image.Image, short_side: int) -> Image.Image:
    width, height = image.size
    shape = resized_shape(height, width, short_side)
    _check_size(*shape, f" after resizing its shorter side to {short_side}")
    return image if shape == (height, width) else image.resize(shape[::-1], Image.Resampling.BILINEAR)


def _check_size(height: int, width: int, when: str) -> None:
    if height * width > MAX_PIXELS:
        raise UnreadableError(f"has {height * width:,} pixels{when}; at most {MAX_PIXELS:,} are read")
