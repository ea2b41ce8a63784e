"""Bad image files, read as images of one's own: read right, or refused for the same reason by the check and the reader.

Oracles: pixels computed with numpy from the numbers that were encoded, and the PNG specification for hand-made chunks.
"""

import dataclasses
import io
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from benchmark.core.errors import UserError
from benchmark.study import data
from benchmark.study.config import Config
from benchmark.study.study import Study
from tests.datasets.trees import find_problems
from tests.images.synthetic_photos import encoded, synthetic_photo

RAMP = np.arange(192, dtype=np.uint8).reshape(12, 16)
COLOUR = np.dstack([RAMP, RAMP[::-1], 255 - RAMP])
WHITE = [255, 255, 255]

Read = Callable[..., np.ndarray]


@pytest.fixture(scope="module")
def config(compose_study_in: Callable[..., Study], tmp_path_factory: pytest.TempPathFactory) -> Config:
    return compose_study_in(tmp_path_factory.mktemp("results"), "dataset=folder").config


@pytest.fixture
def read(tmp_path: Path, config: Config, capfd: pytest.CaptureFixture[str]) -> Read:
    """Read a file as the first image of a folder of one's own; the check must agree with the reader."""

    def read_first(payload: bytes, name: str = "0.png", **images: Any) -> np.ndarray:
        root = tmp_path / "own"
        for label in "ab":
            (root / label).mkdir(parents=True, exist_ok=True)
            for number in (0, 1):
                (root / label / f"{number}.png").write_bytes(encoded(COLOUR, "PNG"))
        (root / "a" / "0.png").unlink()
        (root / "a" / name).write_bytes(payload)
        (problem,) = find_problems(root, [f"a/{name}"], "images")
        module = {**config.dataset.module, "root": str(root), "check": "files" if problem else "images"}
        options = {**config.dataset.images, "resize_first": False, **images}
        dataset = dataclasses.replace(config.dataset, module=module, images=options)
        try:
            pixels = (
                data.make_dataset(dataclasses.replace(config, decode="always", dataset=dataset))
                .trainval()
                .images.pixels(0)
            )  # type: ignore[union-attr]
        except UserError as error:
            assert problem and problem in str(error), f"the check says {problem}"
            assert not re.search(r"0x[0-9a-f]{6}|BytesIO", str(error)), "an address in a message"
            raise
        finally:
            assert capfd.readouterr() == ("", ""), "a decoder printed something"
        assert problem is None
        return pixels

    return read_first


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *more: bytes) -> bytes:
    """Write a PNG by hand: colour 0 is grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGB and alpha."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def grey(values: list[int], depth: int = 16) -> bytes:
    kind = ">H" if depth == 16 else ">B"
    return png(len(values), 1, depth, 0, b"\0" + b"".join(struct.pack(kind, value) for value in values))


def tiff(values: np.ndarray, **options: Any) -> bytes:
    return encoded(Image.fromarray(values), "TIFF", **options)


def raw_tiff(width: int, height: int, tags: dict[int, int], pixels: bytes) -> bytes:
    """Write a little-endian TIFF by hand, with one strip and tags of one value each."""
    found = {256: width, 257: height, 259: 1, 277: 1, 273: 0, 278: height, 279: len(pixels)} | tags
    start = 8 + 2 + 12 * len(found) + 4
    found[273] = start
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(found.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(found)) + entries + bytes(4) + pixels


def flipped(payload: bytes, first: int, count: int) -> bytes:
    damaged = bytearray(payload)
    for place in range(first, min(first + count, len(payload))):
        damaged[place] ^= 0x5A
    return bytes(damaged)


PHOTO = synthetic_photo(40, 60)
JPEG, PNG, LZW = encoded(PHOTO), encoded(PHOTO, "PNG"), encoded(PHOTO, "TIFF", compression="tiff_lzw")
DAMAGED = {
    "empty": (b"", "is empty"),
    "zero bytes only": (bytes(5000), "only zero bytes"),
    "JPEG, cut in its header": (JPEG[:100], "begins like a JPEG|cannot be decoded"),
    "JPEG, cut in its data": (JPEG[:-200], "truncated"),
    "JPEG, cut by two bytes": (JPEG[:-40], "truncated"),
    "progressive JPEG, cut": (encoded(PHOTO, progressive=True)[:-600], "truncated"),
    "JPEG of a start marker only": (b"\xff\xd8", "begins like a JPEG"),
    "JPEG with garbage for a header": (b"\xff\xd8\xff\xe0garbage", "cannot be decoded"),
    "PNG, cut": (PNG[:-900], "truncated"),
    "PNG with a wrong checksum": (flipped(PNG, 60, 1), "cannot be decoded"),
    "PNG of a signature only": (PNG[:8], "PNG"),
    "PNG of no height": (png(5, 0, 8, 2, b""), "PNG"),
    "GIF of a signature only": (b"GIF89a", "GIF"),
    "GIF, cut": (encoded(Image.fromarray(PHOTO).quantize(16), "GIF")[:-200], "truncated"),
    "BMP, cut": (encoded(PHOTO, "BMP")[:-3000], "truncated"),
    "PPM, cut": (encoded(PHOTO, "PPM")[:-100], "truncated"),
    "WebP, cut": (encoded(PHOTO, "WEBP")[:-200], "cannot be decoded"),
    "WebP of a header only": (b"RIFF\x10\0\0\0WEBP", "WebP"),
    "TIFF, cut": (LZW[:200], "TIFF|cannot be decoded"),
    "LZW TIFF, damaged": (flipped(LZW, 8, 60), "damaged data of a TIFF"),
    "deflate TIFF, damaged": (
        flipped(encoded(PHOTO, "TIFF", compression="tiff_deflate"), 8, 60), "damaged data of a TIFF",
    ),
    "JPEG TIFF, damaged": (flipped(encoded(PHOTO, "TIFF", compression="jpeg"), 8, 60), "damaged data of a TIFF"),
    "fax TIFF, damaged": (
        flipped(encoded(Image.fromarray(PHOTO).convert("1"), "TIFF", compression="group4"), 8, 60),
        "damaged data of a TIFF",
    ),
    "TIFF whose tags refer to themselves": (b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHII", 330, 4, 1, 8), "TIFF"),
}  # fmt: skip


@pytest.mark.bad_input("image", "damaged")
@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_image_is_refused_with_a_reason(case: str, read: Read) -> None:
    payload, reason = DAMAGED[case]
    with pytest.raises(UserError, match=reason):
        read(payload)


@pytest.mark.bad_input("image", "damaged")
@pytest.mark.parametrize("tail", [b"\0" * 100, b"garbage", JPEG], ids=["zeros", "garbage", "another image"])
@pytest.mark.parametrize("name", ["0.jpg", "0.png", "0.tiff"])
def test_bytes_after_the_image_and_the_suffix_of_another_format_do_not_matter(
    tail: bytes, name: str, read: Read
) -> None:
    assert np.array_equal(read(PNG + tail, name), PHOTO)


def sized(width: int, height: int, kind: str) -> bytes:
    """A file that claims a size, with hardly any data."""
    if kind == "png":
        return png(width, height, 8, 2, b"")
    if kind == "ppm":
        return b"P6 %d %d 255\n" % (width, height)
    if kind == "bmp":
        info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
        return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + info
    if kind == "gif":
        return b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0) + b"," + struct.pack(
            "<HHHHBB", 0, 0, width, height, 0, 2) + b"\0;"  # fmt: skip
    if kind == "tiff":
        return raw_tiff(width, height, {258: 8, 262: 1}, b"\0")
    payload = bytearray(encoded(PHOTO, kind))
    if kind == "jpeg":
        at = payload.index(b"\xff\xc0")
        payload[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(payload)


EXTREME = {
    "PNG of 50,000 x 50,000": (sized(50_000, 50_000, "png"), "more than 89,478,485 pixels"),
    "PNG of 10,000 x 10,000": (sized(10_000, 10_000, "png"), "100,000,000 pixels; at most 89,478,485"),
    "PNG of 2^31 - 1 squared": (sized(2**31 - 1, 2**31 - 1, "png"), "pixels"),
    "JPEG of 65,500 x 65,500": (sized(65_500, 65_500, "jpeg"), "more than 89,478,485 pixels"),
    "JPEG of 65,500 x 1": (sized(65_500, 1, "jpeg"), "too thin"),
    "GIF of 65,535 x 65,535": (sized(65_535, 65_535, "gif"), "pixels"),
    "BMP of 40,000 x 40,000": (sized(40_000, 40_000, "bmp"), "more than 89,478,485 pixels"),
    "PPM of 99,999 x 99,999": (sized(99_999, 99_999, "ppm"), "more than 89,478,485 pixels"),
    "PPM of 4 million x 1": (sized(4_000_000, 1, "ppm"), "too thin"),
    "TIFF of 65,535 x 65,535": (sized(65_535, 65_535, "tiff"), "more than 89,478,485 pixels"),
    "TIFF of 9,000 x 9,000 in one byte": (sized(9_000, 9_000, "tiff"), "cannot be decoded"),
    "TIFF of 1 x 4 billion": (sized(1, 2**32 - 1, "tiff"), "pixels|too thin"),
    "zero width": (sized(0, 40, "ppm"), "PPM|no pixels"),
    "a strip of 12 x 20,000": (encoded(np.zeros((12, 20_000, 3), np.uint8), "PNG"), r"too thin \(20,000 x 12 pixels\)"),
    "a strip of 20,000 x 12": (encoded(np.zeros((20_000, 12), np.uint8), "PNG"), "too thin"),
    "a thread of 1 x 65,535": (encoded(np.zeros((1, 65_535), np.uint8), "PNG"), "at most 200 times the other"),
    "a thread of 1 x 201": (encoded(np.zeros((1, 201, 3), np.uint8), "BMP"), "at most 200 times the other"),
    "WebP of 3 x 16,000": (encoded(np.zeros((3, 16_000, 3), np.uint8), "WEBP"), "too thin"),
}


@pytest.mark.bad_input("image", "too large or too thin")
@pytest.mark.parametrize("case", EXTREME)
def test_an_image_that_is_too_large_or_too_thin_is_refused_by_check_and_reader_alike(case: str, read: Read) -> None:
    payload, reason = EXTREME[case]
    with pytest.raises(UserError, match=reason):
        read(payload, resize_first=True)


@pytest.mark.bad_input("image", "too large or too thin")
@pytest.mark.parametrize("shape", [(1, 1), (1, 200), (200, 1), (2, 3), (5, 1000)], ids=str)
def test_small_and_long_images_within_the_limit_are_read(shape: tuple[int, int], read: Read) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert np.array_equal(read(encoded(pixels, "PNG")), pixels)


def heif(brand: bytes, *compatible: bytes) -> bytes:
    body = b"ftyp" + brand + bytes(4) + b"".join(compatible)
    return struct.pack(">I", 4 + len(body)) + body + b"\0\0\1\x20meta" + bytes(500)


PREVIEW = {254: 1, 258: 8, 262: 1}  # tags of a TIFF whose first image is a reduced copy
FOREIGN = {
    "HEIC": (heif(b"heic", b"mif1", b"heic"), "a HEIC image; convert it to JPEG or PNG"),
    "HEIC of a burst": (heif(b"msf1", b"hevc"), "a HEIC image"),
    "HEIF": (heif(b"mif1", b"mif1"), "a HEIF image"),
    "CR3": (heif(b"crx ", b"crx ", b"isom"), "camera's raw file"),
    "MP4": (heif(b"isom", b"mp42"), "a video"),
    "pointer of git LFS": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n", "run git lfs pull",
    ),
    "pointer of git-annex": (b"/annex/objects/SHA256E-s123--abc.jpg\n", "run git annex get"),
    "link of git-annex as text": (b"../.git/annex/objects/f8/4V/SHA256E-s1--a.jpg/SHA256E-s1--a.jpg", "git annex get"),
    "pointer of DVC": (b"outs:\n- md5: a304afb96060aad90176268345e10355\n  size: 37\n  path: 0.jpg\n", "run dvc pull"),
    "web page": (b"<!DOCTYPE html>\n<html><head><title>404</title></head></html>", "a web page"),
    "web page after a comment": (b"\xef\xbb\xbf  <!-- cached -->\n<html>", "a web page"),
    "XML of a cloud store": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "an XML document"),
    "JSON of a cloud store": (b'{"error": {"code": 403}}', "a JSON document"),
    "text": ("Zugriff für Gäste gesperrt".encode(), "a text file"),
    "AppleDouble": (b"\0\x05\x16\x07\0\x02\0\0Mac OS X        \0\x02\0\0" + bytes(60), "AppleDouble"),
    "PDF": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "a PDF document"),
    "EPS": (encoded(COLOUR, "EPS"), "PostScript"),
    "SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing"),
    "SVG with an XML head": (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing"),
    "Photoshop": (b"8BPS\0\x01" + bytes(40), "a Photoshop document"),
    "JPEG 2000": (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40), "a JPEG 2000 image"),
    "JPEG 2000 code stream": (b"\xff\x4f\xff\x51" + bytes(40), "a JPEG 2000 image"),
    "JPEG XL": (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40), "a JPEG XL image"),
    "JPEG XL code stream": (b"\xff\x0a" + bytes(40), "a JPEG XL image"),
    "DICOM": (bytes(128) + b"DICM" + bytes(40), "a DICOM file"),
    "NumPy": (b"\x93NUMPY\x01\0v\0" + bytes(40), "a NumPy array"),
    "zip": (b"PK\x03\x04" + bytes(40), "a zip archive; unpack it"),
    "gzip of a PNG": (b"\x1f\x8b\x08\0" + bytes(40), "gzip data; unpack it"),
    "icon": (encoded(COLOUR, "ICO"), "an icon"),
    "TARGA": (encoded(COLOUR, "TGA"), "of a format that is not read"),
    "CR2": (b"II*\0\x10\0\0\0CR\x02\0\0\0\0\0" + raw_tiff(8, 8, {258: 8, 262: 1}, bytes(64))[8:], "camera's raw file"),
    "NEF, which begins with a preview": (raw_tiff(8, 8, PREVIEW, bytes(64)), "camera's raw file"),
    "DNG": (raw_tiff(8, 8, {258: 8, 262: 1, 50706: 0x00000401}, bytes(64)), "camera's raw file"),
    "TIFF of a sensor's filter array": (raw_tiff(8, 8, {258: 8, 262: 32803}, bytes(64)), "camera's raw file"),
}  # fmt: skip


@pytest.mark.bad_input("image", "another format")
@pytest.mark.parametrize("case", FOREIGN)
def test_a_file_of_another_format_is_named_with_what_to_do(case: str, read: Read) -> None:
    payload, reason = FOREIGN[case]
    with pytest.raises(UserError, match=reason):
        read(payload, "0.jpg")


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow cannot read AVIF")
def test_an_avif_image_is_read_whatever_its_suffix(read: Read) -> None:
    assert np.abs(read(encoded(PHOTO, "AVIF", quality=95), "0.jpg").astype(int) - PHOTO).mean() < 16


VALUES = [0, 1, 1000, 2048, 4095]
AS_12_BITS = [0, 0, 62, 128, 255]  # value * 255 / 4095, rounded
SIXTEEN = RAMP.astype(np.uint16) * 257
DEEP: dict[str, tuple[bytes, Any]] = {
    "12 bits in a 16-bit PNG": (grey(VALUES), AS_12_BITS),
    "12 bits in a 16-bit TIFF": (tiff(np.array([VALUES], np.uint16)), AS_12_BITS),
    "12 bits in a 32-bit TIFF": (tiff(np.array([VALUES], np.int32)), AS_12_BITS),
    "12-bit PGM": (b"P5 5 1 4095\n" + struct.pack(">5H", *VALUES), AS_12_BITS),
    "12-bit PGM, dark": (b"P5 2 1 4095\n" + struct.pack(">2H", 0, 100), [0, 6]),
    "12-bit PGM as text": (b"P2 5 1 4095\n0 1 1000 2048 4095\n", AS_12_BITS),
    "16-bit PGM": (b"P5 3 1 65535\n" + struct.pack(">3H", 0, 32768, 65535), [0, 128, 255]),
    "16-bit copy of 8 bits": (encoded(SIXTEEN, "PNG"), RAMP),
    "dark 16-bit copy of 8 bits": (encoded(SIXTEEN[:3], "PNG"), RAMP[:3]),
    "16-bit copy of 8 bits, TIFF": (tiff(SIXTEEN), RAMP),
    "8 bits stored in 16": (encoded(RAMP.astype(np.uint16), "PNG"), RAMP),
    "20 bits in a 32-bit TIFF": (tiff(np.array([[0, 2**19, 2**20 - 1]], np.int32)), [0, 128, 255]),
    "all black, 16 bits": (grey([0, 0, 0]), [0, 0, 0]),
    "16 bits, 0 is white": (
        raw_tiff(3, 1, {258: 16, 262: 0}, struct.pack("<3H", 0, 32768, 65535)), [255, 127, 0],
    ),
    "16-bit RGB": (
        png(2, 1, 16, 2, b"\0" + struct.pack(">6H", 2570, 5140, 7710, 0, 65535, 257)), [[10, 20, 30], [0, 255, 1]],
    ),
    "16-bit RGB, PPM": (b"P6 1 1 65535\n" + struct.pack(">3H", 65535, 2570, 0), [[255, 10, 0]]),
    "1-bit PNG": (encoded(Image.fromarray(RAMP > 90), "PNG"), np.where(RAMP > 90, 255, 0)),
    "2-bit PNG": (png(4, 1, 2, 0, b"\0\x1b"), [0, 85, 170, 255]),
    "1-bit TIFF, 0 is white": (raw_tiff(8, 1, {258: 1, 262: 0}, b"\xf0"), [0, 0, 0, 0, 255, 255, 255, 255]),
    "PBM": (b"P1 4 1\n0 1 0 1\n", [255, 0, 255, 0]),
    "YCbCr TIFF": (encoded(Image.new("YCbCr", (2, 1), (255, 128, 128)), "TIFF"), [WHITE, WHITE]),
    "CMYK TIFF": (encoded(Image.new("CMYK", (2, 1), (255, 0, 0, 0)), "TIFF"), [[0, 255, 255]] * 2),
    "floating point": (tiff(np.zeros((4, 4), np.float32)), "floating-point values; save it as 8- or 16-bit integers"),
    "floating point with NaN": (tiff(np.full((4, 4), np.nan, np.float32)), "floating-point values"),
    "portable float map": (b"Pf\n2 1\n-1.0\n" + struct.pack("<2f", 0.5, 1), "floating-point values"),
    "negative values": (tiff(np.array([[-5, 7]], np.int32)), r"negative values \(down to -5\); save it with"),
    "signed 16 bits": (raw_tiff(2, 1, {258: 16, 262: 1, 339: 2}, struct.pack("<2h", -300, 5)), "negative values"),
    "Lab": (encoded(Image.new("LAB", (4, 4)), "TIFF"), "colour space LAB.*save it as RGB"),
}  # fmt: skip


@pytest.mark.bad_input("image", "unusual pixels")
@pytest.mark.parametrize("case", DEEP)
def test_deep_and_odd_pixels_keep_their_meaning_or_are_refused(case: str, read: Read) -> None:
    payload, expected = DEEP[case]
    if isinstance(expected, str):
        with pytest.raises(UserError, match=expected):
            read(payload)
        return
    found, wanted = read(payload), np.asarray(expected)
    if (wanted.ndim == 2 and found.shape[:2] == wanted.shape) or wanted.ndim == 1:
        wanted = np.repeat(wanted.reshape(*found.shape[:2], 1), 3, axis=2)
    assert np.array_equal(found, wanted.reshape(found.shape))


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Show stored pixels as EXIF 2.3 defines: where the 0th row and the 0th column are seen."""
    return {
        1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1],
        5: pixels.transpose(1, 0, 2), 6: pixels[::-1].transpose(1, 0, 2),
        7: pixels[::-1, ::-1].transpose(1, 0, 2), 8: pixels[:, ::-1].transpose(1, 0, 2),
    }[orientation]  # fmt: skip


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = orientation
    return found


@pytest.mark.bad_input("image", "orientation and transparency")
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", *["AVIF"] * bool(features.check("avif"))])
def test_an_image_of_one_s_own_is_turned_upright(kind: str, orientation: int, read: Read) -> None:
    plain = read(encoded(PHOTO, kind))
    found = read(encoded(PHOTO, kind, exif=exif(orientation)))
    assert np.array_equal(found, turned(plain, orientation))
    assert np.abs(plain.astype(int) - PHOTO).mean() < 16  # lossy, and very unlike a turned one


@pytest.mark.parametrize("orientation", [3, 6])
def test_orientation_can_be_ignored(orientation: int, read: Read) -> None:
    assert np.array_equal(read(encoded(PHOTO, "PNG", exif=exif(orientation)), orient=False), PHOTO)


@pytest.mark.bad_input("image", "orientation and transparency")
@pytest.mark.parametrize(
    "damaged",
    [b"Exif\0\0", b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0" + exif(9).tobytes()[6:],
     b"Exif\0\0" + exif(0).tobytes()[6:], b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x04\0\0\0six\0" + bytes(4),
     b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01"],
    ids=["nothing", "garbage", "far away", "value 9", "value 0", "text", "cut"],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_damaged_exif_leaves_an_image_as_it_is(kind: str, damaged: bytes, read: Read) -> None:
    assert np.array_equal(read(encoded(PHOTO, kind, exif=damaged)), read(encoded(PHOTO, kind)))


KEY = {n: chunk(b"tRNS", struct.pack(">H", n)) for n in (1, 3, 5, 500)}
HALF = [132, 137, 142]  # (10, 20, 30) at an opacity of 128 / 255 on white
TRANSPARENT: dict[str, tuple[bytes, list[list[int]]]] = {
    "RGBA": (png(2, 1, 8, 6, b"\0\x0a\x14\x1e\x80\x01\x02\x03\0"), [HALF, WHITE]),
    "16-bit RGBA": (png(1, 1, 16, 6, b"\0" + struct.pack(">4H", 2570, 5140, 7710, 0x8080)), [HALF]),
    "grey and alpha": (png(2, 1, 8, 4, b"\0\x0a\xff\x0a\0"), [[10] * 3, WHITE]),
    "16-bit grey and alpha": (png(2, 1, 16, 4, b"\0" + struct.pack(">4H", 2570, 65535, 2570, 0)), [[10] * 3, WHITE]),
    "8-bit grey with a key": (png(2, 1, 8, 0, b"\0\x05\x07", KEY[5]), [WHITE, [7] * 3]),
    "4-bit grey with a key": (png(2, 1, 4, 0, b"\0\x37", KEY[3]), [WHITE, [119] * 3]),
    "2-bit grey with a key": (png(4, 1, 2, 0, b"\0\x93", KEY[1]), [[170] * 3, WHITE, [0] * 3, WHITE]),
    "1-bit grey with a key": (png(2, 1, 1, 0, b"\0\x80", KEY[1]), [WHITE, [0] * 3]),
    "16-bit grey with a key": (png(2, 1, 16, 0, b"\0" + struct.pack(">2H", 500, 65535), KEY[500]), [WHITE, WHITE]),
    "RGB with a key": (
        png(2, 1, 8, 2, b"\0\1\2\3\4\5\6", chunk(b"tRNS", struct.pack(">3H", 1, 2, 3))), [WHITE, [4, 5, 6]],
    ),
    "16-bit RGB with a key": (
        png(2, 1, 16, 2, b"\0" + struct.pack(">6H", 2570, 2570, 2570, 0, 0, 0),
            chunk(b"tRNS", struct.pack(">3H", 2570, 2570, 2570))), [WHITE, [0] * 3],
    ),
    "palette": (
        png(2, 1, 8, 3, b"\0\0\1", chunk(b"PLTE", bytes([10, 20, 30, 1, 2, 3])), chunk(b"tRNS", b"\x80")),
        [HALF, [1, 2, 3]],
    ),
    "opaque RGBA": (png(1, 1, 8, 6, b"\0\1\2\3\xff"), [[1, 2, 3]]),
    "WebP": (encoded(np.full((1, 1, 4), (10, 20, 30, 128), np.uint8), "WEBP", lossless=True), [HALF]),
    "TIFF": (encoded(np.full((1, 1, 4), (10, 20, 30, 128), np.uint8), "TIFF"), [HALF]),
}  # fmt: skip


@pytest.mark.bad_input("image", "orientation and transparency")
@pytest.mark.parametrize("case", TRANSPARENT)
def test_a_transparent_image_of_one_s_own_is_put_on_white(case: str, read: Read) -> None:
    payload, expected = TRANSPARENT[case]
    found = read(payload)
    assert found.reshape(-1, 3).tolist() == expected


def test_the_background_is_chosen_or_dropped(read: Read) -> None:
    payload = TRANSPARENT["RGBA"][0]
    assert read(payload, background=[0, 0, 0]).reshape(-1, 3).tolist() == [[5, 10, 15], [0, 0, 0]]
    assert read(payload, background=None).reshape(-1, 3).tolist() == [[10, 20, 30], [1, 2, 3]]


def frames(kind: str, number: int = 3, **options: Any) -> bytes:
    images = [Image.fromarray(np.full((12, 16, 3), (60 * i + 30) % 256, np.uint8)) for i in range(number)]
    stream = io.BytesIO()
    images[0].save(stream, kind, save_all=True, append_images=images[1:], **options)
    return stream.getvalue()


FIRST = np.full((12, 16, 3), 30, np.uint8)
GREY_JPEG = encoded(FIRST, quality=95)
FRAMES = {
    "GIF": frames("GIF"),
    "GIF, cut in its second frame": frames("GIF")[:-20],
    "GIF of 50 frames": frames("GIF", 50),
    "APNG": frames("PNG"),
    "APNG with another first image": frames("PNG", default_image=True),
    "WebP": frames("WEBP", lossless=True),
    "TIFF of three pages": frames("TIFF"),
    "LZW TIFF of three pages": frames("TIFF", compression="tiff_lzw"),
    "MPO of a camera": frames("MPO", quality=95),
    "JPEG with a colour profile": encoded(FIRST, quality=95, icc_profile=b"not a profile" * 20),
    "PNG with a damaged colour profile": encoded(FIRST, "PNG", icc_profile=b"\0" * 100),
    "JPEG with a comment": encoded(FIRST, quality=95, comment=b"\xff\xfe" * 500),
    "JPEG with XMP": encoded(FIRST, quality=95, xmp=b"<x:xmpmeta>" + b"\xff" * 300),
    "PNG with a text chunk": png(16, 12, 8, 2, (b"\0" + b"\x1e" * 48) * 12, chunk(b"tEXt", b"a\0" + b"b" * 900)),
    "PNG with an unknown chunk": png(16, 12, 8, 2, (b"\0" + b"\x1e" * 48) * 12, chunk(b"abCd", bytes(100))),
    "PNG with a large compressed text": png(
        16, 12, 8, 2, (b"\0" + b"\x1e" * 48) * 12, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**5)))
    ),
    "JPEG of 300 dpi": encoded(FIRST, quality=95, dpi=(300, 300)),
    "JPEG with a thumbnail in its EXIF": encoded(FIRST, quality=95, exif=exif(1).tobytes() + GREY_JPEG),
}  # fmt: skip


@pytest.mark.bad_input("image", "frames and metadata")
@pytest.mark.parametrize("case", FRAMES)
def test_the_first_frame_is_read_and_metadata_do_not_matter(case: str, read: Read) -> None:
    assert np.abs(read(FRAMES[case]).astype(int) - FIRST).max() <= 2
