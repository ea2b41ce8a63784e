"""Whether an image is stored with more bits a channel than are read: Pillow keeps the upper 8 of 16 in colour images.

The same holds for grey images with transparency. Grey images of more than 8 bits without it are scaled (`decode`).
"""

import io
import re

from PIL import Image

PNG = b"\x89PNG\r\n\x1a\n"
PNG_DEPTH, PNG_COLOUR = 24, 25  # bytes of the header chunk
PNG_CHANNELS = (2, 4, 6)  # kinds of pixels with several channels: RGB, grey with transparency, RGB with transparency
PPM = re.compile(rb"P[36]" + 3 * rb"(?:\s|#[^\r\n]*[\r\n])+(\d+)")  # width, height and the value of white
TIFF_DEPTHS = 258  # tag BitsPerSample, a number for each channel


def is_cut(payload: bytes) -> bool:
    """Return whether only the upper 8 bits of each channel are read.

    Args:
        payload: all bytes of an image file that can be decoded.
    """
    if payload.startswith(PNG):
        return payload[PNG_DEPTH] == 16 and payload[PNG_COLOUR] in PNG_CHANNELS
    if ppm := PPM.match(payload):
        return int(ppm[3]) > 255
    if not payload.startswith((b"II", b"MM")):
        return False
    with Image.open(io.BytesIO(payload), formats=("TIFF",)) as image:
        depths = image.tag_v2.get(TIFF_DEPTHS, ())  # type: ignore[attr-defined]
    return len(depths) > 1 and max(depths) > 8
