"""Images with more bits a channel than are read."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmark.datasets import folder
from benchmark.images.decode import decode
from benchmark.images.depth import is_cut

CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # by PNG's kind of pixels: grey, RGB, grey and RGB with transparency


def png(depth: int, kind: int, value: int = 0x12FF) -> bytes:
    """A PNG of 2 x 2 pixels with one value everywhere."""

    def chunk(name: bytes, content: bytes) -> bytes:
        whole = name + content
        return struct.pack(">I", len(content)) + whole + struct.pack(">I", zlib.crc32(whole))

    row = b"\0" + (value % 2**depth).to_bytes(depth // 8, "big") * 2 * CHANNELS[kind]
    header = struct.pack(">IIBBBBB", 2, 2, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(row * 2)), chunk(b"IEND", b"")]
    )


def tiff(depth: int) -> bytes:
    """A TIFF of 2 x 2 pixels, as section 6 of the standard (revision 6.0) lays an RGB image out."""
    pixels = (0x12FF % 2**depth).to_bytes(depth // 8, "little") * 4 * 3
    end = 8 + 2 + 12 * 9 + 4  # of the header and the tags
    short, long = 3, 4
    tags = [(256, short, 1, 2), (257, short, 1, 2), (258, short, 3, end), (259, short, 1, 1), (262, short, 1, 2),
            (273, long, 1, end + 6), (277, short, 1, 3), (278, short, 1, 2), (279, long, 1, len(pixels))]  # fmt: skip
    packed = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<IH", 8, 9) + packed + bytes(4) + struct.pack("<HHH", *[depth] * 3) + pixels


def ppm(depth: int) -> bytes:
    """A PPM of 2 x 2 pixels, with comments where a reader may trip over them."""
    pixels = (0x12FF % 2**depth).to_bytes(depth // 8, "big") * 4 * 3
    return b"P6\n# by hand: 255\n2\n#\n2 %d\n" % (2**depth - 1) + pixels


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("make", [*(lambda depth, kind=kind: png(depth, kind) for kind in (2, 4, 6)), tiff, ppm])
def test_an_image_is_cut_if_its_lower_bits_change_nothing(make: Callable[[int], bytes], depth: int) -> None:
    assert is_cut(make(depth)) == (depth == 16)
    assert decode(make(depth), None).max() in ((0x12, 0x13) if depth == 16 else (0xFF,))  # of the value 0x12FF


def test_grey_images_and_other_formats_are_not_cut() -> None:
    assert not is_cut(png(16, 0)) and not is_cut(png(8, 0))
    for kind in ("JPEG", "BMP", "TIFF", "PPM"):
        whole = io.BytesIO()
        Image.fromarray(np.zeros((2, 2), np.uint8)).save(whole, kind)
        assert not is_cut(whole.getvalue())


def test_the_listing_of_ones_own_images_counts_them_also_when_the_check_is_remembered(tmp_path: Path) -> None:
    for label in "ab":
        (tmp_path / label).mkdir()
        (tmp_path / label / "1.png").write_bytes(png(8, 2, ord(label)))
        (tmp_path / label / "2.png").write_bytes(png(16, 2, ord(label)))
    for _ in range(2):
        notes = folder.listing(str(tmp_path), check="images").notes
        assert ("2 images have more than 8 bits a channel, in colour or with transparency: the upper 8 are read: "
                "a/2.png, b/2.png") in notes  # fmt: skip
