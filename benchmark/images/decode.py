"""Decode image files to uint8 RGB arrays, bit-identical to torchvision's loader and its `Resize` of a PIL image.

Source: torchvision's `ImageFolder` loader (open, `convert("RGB")`: no EXIF rotation, transparency is dropped) and
`torchvision.transforms.Resize(size)`: bilinear over the whole support (antialiased), the long side truncated. The
Reality Check's code reads and resizes with both.

Departures: a `Reading` can turn images upright and put transparent ones on a background; grey images of more than 8
bits are scaled to 8 (`convert` would clip them to white); images are never decoded at a lower resolution (`draft`
changes pixels); only `FORMATS` are read, since others (EPS) start external programs; images above `MAX_PIXELS` are
refused before their pixels are allocated, and so are images more than `MAX_ELONGATION` times as long as wide. As in
torchvision, colour profiles (ICC) are ignored, and of several frames or pages the first is read.
"""

import contextlib
import ctypes
import functools
import io
import logging
import re
import threading
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError, features

from benchmark.core.errors import UserError
from benchmark.core.invocation import arguments
from benchmark.core.wording import counted, first_lines
from benchmark.images.recognise import RAW, is_raw, what_it_is

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM", *(["AVIF"] if features.check("avif") else []))
MAX_PIXELS = 2**28 // 3  # a quarter of a GiB as RGB, above which PIL warns of a decompression bomb
MAX_ELONGATION = 200  # long side over short side; independent of the size it is resized to, so that every use agrees
PLAIN = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "LA", "La", "PA", "RGBA", "RGBa")  # PIL modes of 8 bits
ORIENTATION = 0x0112  # EXIF tag: 1 is upright, 2 to 8 are turned or mirrored
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
TIFF_PHOTOMETRIC, WHITE_IS_ZERO = 262, 0
DRAFT = (64, 64)
DEEPEST = 31  # bits of the largest grey value that PIL holds
_PIL = re.compile(r"PIL\.")
_ADDRESS = re.compile(r"<[^<>]* at 0x[0-9a-fA-F]+>|0x[0-9a-fA-F]{6,}")


class UnreadableImageError(UserError):
    """A file that cannot be read as an image; the message is only the reason, to be printed after the file's name."""


@dataclass(frozen=True)
class Reading:
    """How the pixels of an image file become RGB. The defaults are those of the loaders that published results used.

    Attributes:
        orient: whether images stored turned or mirrored (EXIF) are turned upright. TIFF files always are, by PIL.
        background: colour behind transparent pixels; None drops the transparency.
        grey_bits: bits of the grey values that become 0 to 255, for images of more than 8 bits. It is one number for a
            data set, so that its images stay comparable.
    """

    orient: bool = False
    background: tuple[int, int, int] | None = None
    grey_bits: int = 16


AS_PUBLISHED = Reading()


@dataclass(frozen=True)
class Traits:
    """What is special about an image file.

    Attributes:
        oriented: whether it is stored turned or mirrored, according to its EXIF orientation.
        transparent: whether some of its pixels are transparent.
        grey_bits: bits that hold its brightest value, 8 to 31, or 16 if its values fill the range of 16 bits by
            construction; 0 unless it is a grey image of more than 8 bits.
        frames: number of frames (animation) or pages.
    """

    oriented: bool = False
    transparent: bool = False
    grey_bits: int = 0
    frames: int = 1


@dataclass(frozen=True)
class Tally:
    """Numbers of the images of a data set that are special.

    Attributes:
        oriented: images stored turned or mirrored.
        transparent: images with transparent pixels.
        deep: grey images of more than 8 bits.
        grey_bits: bits that hold the brightest value of any of the deep images; 0 without one.
        animated: images with several frames or pages.
    """

    oriented: int = 0
    transparent: int = 0
    deep: int = 0
    grey_bits: int = 0
    animated: int = 0

    @classmethod
    def of(cls, traits: Iterable[Traits]) -> "Tally":
        """Count images by their traits.

        Args:
            traits: the traits of each image.
        """
        found = [*traits]
        return cls(
            oriented=sum(one.oriented for one in found),
            transparent=sum(one.transparent for one in found),
            deep=sum(one.grey_bits > 0 for one in found),
            grey_bits=max((one.grey_bits for one in found), default=0),
            animated=sum(one.frames > 1 for one in found),
        )

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            self.oriented + other.oriented, self.transparent + other.transparent, self.deep + other.deep,
            max(self.grey_bits, other.grey_bits), self.animated + other.animated,
        )  # fmt: skip


def decode(payload: bytes, short_side: int | None, reading: Reading = AS_PUBLISHED) -> np.ndarray:
    """Decode the bytes of an image file to uint8 (H, W, 3), read-only.

    Args:
        payload: all bytes of the file.
        short_side: length in pixels to which the shorter side is resized; None keeps the size.
        reading: how its pixels become RGB.

    Raises:
        UnreadableImageError: the file is damaged, has an unsupported format, or is too large or too long.
    """
    return decode_with_traits(payload, short_side, reading)[0]


def decode_with_traits(payload: bytes, short_side: int | None, reading: Reading) -> tuple[np.ndarray, Traits]:
    """Decode the bytes of an image file to uint8 (H, W, 3), read-only, and say what is special about it.

    Args:
        payload: all bytes of the file.
        short_side: length in pixels to which the shorter side is resized; None keeps the size.
        reading: how its pixels become RGB.

    Raises:
        UnreadableImageError: the file is damaged, has an unsupported format, or is too large or too long.
    """
    image, traits = _load(payload, reading)
    return np.asarray(image if short_side is None else _resize(image, short_side)), traits


def examine(payload: bytes) -> Traits:
    """Decode the bytes of an image file only to find out what is special about it.

    It fails exactly if `decode` does. Pixels of a JPEG are reconstructed at low resolution, which takes two thirds of
    the time; all of its data are read.

    Args:
        payload: all bytes of the file.

    Raises:
        UnreadableImageError: the file is damaged, has an unsupported format, or is too large or too long.
    """
    return _load(payload, None)[1]


def resized(
    pixels: np.ndarray, short_side: int, interpolation: Image.Resampling = Image.Resampling.BILINEAR
) -> np.ndarray:
    """Resize an image so that its shorter side has `short_side` pixels; no copy if it already has.

    Args:
        pixels: uint8, (H, W, 3).
        short_side: length in pixels.
        interpolation: how pixels are interpolated; every kind is antialiased.

    Returns:
        uint8, (h, w, 3) with min(h, w) = `short_side`.
    """
    if min(pixels.shape[:2]) == short_side:
        return pixels
    return np.asarray(_resize(Image.fromarray(pixels), short_side, interpolation))


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
    images = counted(num_images, "image")
    return f"{len(reasons):,} of {images} in {root} cannot be used:{first_lines(reasons)}\n{remedy}"


_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)
_tiff = threading.local()  # `failed`: whether libtiff met an error in this thread


@_HANDLER
def _on_tiff_error(_module: bytes, _format: bytes, _values: int) -> None:
    _tiff.failed = True


@functools.cache
def _silence_pil() -> None:
    """Stop PIL's log messages, and take note of libtiff's errors, which otherwise go to standard error only."""
    logging.getLogger("PIL").setLevel(logging.CRITICAL + 1)
    with contextlib.suppress(OSError, AttributeError):  # PIL without libtiff, or with one linked statically
        ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler(_on_tiff_error)  # finds PIL's own copy of libtiff


def _ignore_warnings_of_pil() -> None:
    """Silence PIL's warnings permanently, because `warnings.catch_warnings` is not thread-safe."""
    _silence_pil()
    if ("ignore", None, Warning, _PIL, 0) not in warnings.filters:
        warnings.filterwarnings("ignore", module=_PIL.pattern)


def _load(payload: bytes, reading: Reading | None) -> tuple[Image.Image, Traits]:
    """Decode an image to RGB; without a reading, only check it, so that the image returned is of no use."""
    _ignore_warnings_of_pil()
    if is_raw(payload):
        raise UnreadableImageError(f"cannot be decoded (it {RAW})")
    _tiff.failed = False
    try:
        with Image.open(io.BytesIO(payload), formats=FORMATS) as image:
            _check_size(*image.size)
            _check_mode(image)
            if reading is None:
                image.draft("RGB", DRAFT)
            image.load()
            if _tiff.failed:  # PIL does not report all of them
                raise OSError("decoder error")
            rgb, transparent, grey_bits = _to_rgb(image, payload, reading or Reading(grey_bits=DEEPEST))
            orientation, frames = _orientation(image), _num_frames(image)
    except UnreadableImageError:
        raise
    except Image.DecompressionBombError:
        raise UnreadableImageError(f"has more than {MAX_PIXELS:,} pixels") from None
    except UnidentifiedImageError:
        raise UnreadableImageError(f"cannot be decoded (it {what_it_is(payload, FORMATS)})") from None
    except Exception as error:  # on a malicious file, PIL's decoders can raise nearly anything
        reason = f"{type(error).__name__}: {_ADDRESS.sub('', str(error))[:80].strip()}"
        if _tiff.failed:
            reason = "damaged data of a TIFF image"
        raise UnreadableImageError(f"cannot be decoded ({reason})") from error
    if reading and reading.orient and orientation != 1:
        rgb = rgb.transpose(TURNS[orientation])
    return rgb, Traits(orientation != 1, transparent, grey_bits, frames)


def _to_rgb(image: Image.Image, payload: bytes, reading: Reading) -> tuple[Image.Image, bool, int]:
    """Convert a loaded image to RGB; also return whether pixels are transparent, and `Traits.grey_bits`."""
    grey_bits, alpha = 0, None
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        grey_bits = _bits(image, values)
        rgb = Image.fromarray(_to_8_bits(image, values, reading.grey_bits)).convert("RGB")
        if "transparency" in image.info:
            alpha = Image.fromarray(np.where(values == image.info["transparency"], 0, 255).astype(np.uint8))
    elif image.mode in ("L", "RGB", "1") and "transparency" in image.info:
        rgb, alpha = image.convert("RGB"), _keyed_alpha(image, payload)
    elif image.has_transparency_data:
        rgba = image.convert("RGBA")
        rgb = rgba.convert("RGB") if image.mode in ("La", "RGBa") else image.convert("RGB")
        alpha = rgba.getchannel("A")
        if reading.background is not None:
            rgb = rgba.convert("RGB")
    else:
        own = image.copy() if hasattr(image, "n_frames") else image  # counting frames can discard the first
        return (own if image.mode == "RGB" else image.convert("RGB")), False, 0
    if alpha is None or alpha.getextrema()[0] == 255:
        return rgb, False, grey_bits
    if reading.background is not None:
        rgb = Image.composite(rgb, Image.new("RGB", rgb.size, reading.background), alpha)
    return rgb, True, grey_bits


def _keyed_alpha(image: Image.Image, payload: bytes) -> Image.Image:
    """Return the alpha channel of an image with one transparent colour, which PIL compares at the wrong depth."""
    key = np.atleast_1d(np.asarray(image.info["transparency"]))
    if image.format == "PNG" and image.mode != "1":
        depth = payload[24]  # bits of a sample, in the header chunk
        key = key >> 8 if depth == 16 else key * (255 // (2**depth - 1))
    pixels = np.asarray(image.convert("L") if image.mode == "1" else image).reshape(image.height, image.width, -1)
    return Image.fromarray(np.where((pixels == key).all(axis=2), 0, 255).astype(np.uint8))


def _bits(image: Image.Image, values: np.ndarray) -> int:
    """Return `Traits.grey_bits` of a grey image of more than 8 bits.

    Raises:
        UnreadableImageError: a value is negative.
    """
    if (smallest := int(values.min())) < 0:
        raise UnreadableImageError(f"holds negative values (down to {smallest:,}); save it with values from 0")
    steps = np.flatnonzero(np.bincount((values % 257).ravel(), minlength=257))
    copied = steps.tolist() == [0] and len(np.unique(values[values > 0])) > 1  # 8 bits, times 257
    if image.format == "PPM" or (copied and values.max() < 2**16):  # PIL scales PGM by the maximum in its header
        return 16
    return max(8, int(values.max()).bit_length())


def _to_8_bits(image: Image.Image, values: np.ndarray, bits: int) -> np.ndarray:
    """Scale grey values linearly from [0, 2^bits - 1] to uint8.

    Raises:
        UnreadableImageError: a value is larger.
    """
    top = 2**bits - 1
    if (largest := int(values.max())) > top:
        raise UnreadableImageError(
            f"holds grey values up to {largest:,}, but {bits} bits were expected ({top:,}); "
            f"measure the range: {arguments({'dataset.module.check': 'images'})}"
        )
    scaled = ((2 * values * 255 + top) // (2 * top)).astype(np.uint8)  # rounded, in whole numbers
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    if tags.get(TIFF_PHOTOMETRIC) == WHITE_IS_ZERO:  # PIL ignores it beyond 8 bits
        return np.asarray(255 - scaled)
    return np.asarray(scaled)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation that is yet to be applied, 1 to 8; damaged EXIF counts as upright."""
    if image.format == "TIFF":  # PIL applied it
        return 1
    try:
        found = image.getexif().get(ORIENTATION)
    except Exception:  # on malicious EXIF, PIL can raise nearly anything
        return 1
    return found if isinstance(found, int) and found in TURNS else 1


def _num_frames(image: Image.Image) -> int:
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # the first frame is fine, and no other is read
        return 1


def _check_mode(image: Image.Image) -> None:
    if image.mode == "F":
        raise UnreadableImageError("holds floating-point values; save it as 8- or 16-bit integers")
    if image.mode not in PLAIN and not image.mode.startswith("I"):
        raise UnreadableImageError(f"has the colour space {image.mode}, which is not read; save it as RGB")


def _check_size(width: int, height: int) -> None:
    """Check that an image can be decoded, and resized to any usual size.

    Raises:
        UnreadableImageError: it is too large or too long.
    """
    if height * width > MAX_PIXELS:
        raise UnreadableImageError(f"has {height * width:,} pixels; at most {MAX_PIXELS:,} are read")
    if min(width, height) < 1:
        raise UnreadableImageError(f"has no pixels ({width} x {height})")
    if max(width, height) > MAX_ELONGATION * min(width, height):
        raise UnreadableImageError(
            f"is too thin ({width:,} x {height:,} pixels): a side may be at most {MAX_ELONGATION} times the other"
        )


def _resize(
    image: Image.Image, short_side: int, interpolation: Image.Resampling = Image.Resampling.BILINEAR
) -> Image.Image:
    width, height = image.size
    shape = resized_shape(height, width, short_side)
    return image if shape == (height, width) else image.resize(shape[::-1], interpolation)
