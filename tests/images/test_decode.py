"""Oracle: torchvision's loader of image folders and its transforms, on the same files."""

import struct
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets.folder import default_loader
from torchvision.transforms import Resize

from benchmark.images import decode as module
from benchmark.images.decode import (
    Reading,
    UnreadableImageError,
    decode,
    decode_with_traits,
    examine,
    resized,
    resized_shape,
    shape_of,
)
from tests.images.synthetic_photos import encoded, synthetic_photo

SHAPES = [(375, 500), (500, 375), (256, 256), (300, 256), (257, 255), (48, 64), (1, 40), (40, 1), (3, 7), (1, 1)]
GREY = synthetic_photo(60, 80)[:, :, 0]
SEE_THROUGH = np.dstack([synthetic_photo(60, 80), GREY])


def palette() -> Image.Image:
    return Image.fromarray(synthetic_photo(60, 80)).quantize(16)


def rotated() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation
    return exif


KINDS = {
    "grey JPEG": encoded(GREY),
    "CMYK JPEG": encoded(Image.fromarray(synthetic_photo(60, 80)).convert("CMYK")),
    "progressive JPEG": encoded(synthetic_photo(60, 80), progressive=True),
    "JPEG with a rotation tag": encoded(synthetic_photo(60, 80), exif=rotated()),
    "1-bit PNG": encoded(Image.fromarray(GREY).convert("1"), "PNG"),
    "palette PNG, transparent": encoded(palette(), "PNG", transparency=bytes(range(16))),
    "grey PNG, transparent": encoded(np.dstack([GREY, GREY]), "PNG"),
    "PNG, transparent": encoded(SEE_THROUGH, "PNG"),
    "GIF": encoded(palette(), "GIF", transparency=3),
    "TIFF": encoded(synthetic_photo(60, 80), "TIFF"),
    "BMP": encoded(synthetic_photo(60, 80), "BMP"),
    "WebP": encoded(SEE_THROUGH, "WEBP"),
    "PPM": encoded(synthetic_photo(60, 80), "PPM"),
}  # fmt: skip


def loaded(payload: bytes, folder: Path) -> Image.Image:
    """Load a file like torchvision's `ImageFolder`."""
    (folder / "image").write_bytes(payload)
    with warnings.catch_warnings(action="ignore"):
        return default_loader(str(folder / "image"))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("short_side", [32, 256])
def test_every_shape_is_resized_like_torchvision(shape: tuple[int, int], short_side: int, tmp_path: Path) -> None:
    payload = encoded(synthetic_photo(*shape), quality=90)
    image = loaded(payload, tmp_path)
    expected = np.asarray(Resize(short_side)(image))
    assert np.array_equal(decode(payload, short_side), expected)
    assert np.array_equal(resized(decode(payload, None), short_side), expected)
    assert resized_shape(*shape, short_side) == expected.shape[:2]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_image_is_read_like_torchvision_and_without_warnings(kind: str, tmp_path: Path) -> None:
    image = loaded(KINDS[kind], tmp_path)
    assert np.array_equal(decode(KINDS[kind], None), np.asarray(image))
    assert np.array_equal(decode(KINDS[kind], 32), np.asarray(Resize(32)(image)))


def test_an_image_that_fits_is_not_copied() -> None:
    pixels = synthetic_photo(32, 50)
    assert resized(pixels, 32) is pixels


def test_the_shape_is_read_from_the_header(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(encoded(synthetic_photo(30, 40))[:700])  # the rest is not read
    assert shape_of(path) == (30, 40)
    path.write_bytes(b"")
    assert shape_of(path) is None
    assert shape_of(tmp_path / "nothing.jpg") is None


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that claims this size and ends where its pixels begin."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    head = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + head + struct.pack(">I", 9) + b"IDAT"


HOSTILE = {
    "nothing": (b"", "is empty"),
    "a web page": (b"<html>404</html>", "is a web page"),
    "header only": (encoded(synthetic_photo(60, 80))[:300], "cannot be decoded"),
    "JPEG, cut short": (encoded(synthetic_photo(60, 80))[:-300], "truncated"),
    "progressive JPEG, cut short": (encoded(synthetic_photo(60, 80), progressive=True)[:-900], "truncated"),
    "PNG, cut short": (encoded(synthetic_photo(60, 80), "PNG")[:-900], "truncated"),
    "EPS, which starts a program": (encoded(synthetic_photo(8, 8), "EPS"), "is a PostScript .EPS. program"),
    "a bomb": (png_header(50_000, 50_000), "more than 89,478,485 pixels"),
    "a bomb of which PIL only warns": (png_header(10_000, 10_000), "100,000,000 pixels; at most 89,478,485"),
    "a thread": (
        encoded(synthetic_photo(1, 2_000), "PNG"),
        r"is too thin \(2,000 x 1 pixels\): a side may be at most 200 times the other",
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_malicious_file_is_reported_as_unreadable(kind: str) -> None:
    payload, reason = HOSTILE[kind]
    with pytest.raises(UnreadableImageError, match=reason):
        decode(payload, 256)


def test_our_own_warnings_are_still_shown() -> None:
    decode(KINDS["palette PNG, transparent"], None)
    with pytest.warns(UserWarning, match="of ours"):
        warnings.warn("one of ours", stacklevel=1)


def test_no_image_is_decoded_before_its_size_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    payload = encoded(synthetic_photo(60, 80))
    monkeypatch.setattr(module, "MAX_PIXELS", 60 * 80 - 1)
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("decoded"))
    with pytest.raises(UnreadableImageError, match="4,800 pixels; at most 4,799 are read"):
        decode(payload, None)


def outcome(work: Callable[[bytes], object], payload: bytes) -> bool:
    """Whether an image can be read."""
    try:
        work(payload)
    except UnreadableImageError:
        return False
    return True


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0, "restart_marker_rows": 1}], ids=str)
def test_the_check_at_low_resolution_refuses_exactly_what_decoding_refuses(options: dict[str, Any]) -> None:
    whole = encoded(synthetic_photo(40, 56), quality=85, **options)
    rng = np.random.default_rng(0)
    payloads = [whole[:-n] for n in range(0, len(whole), 61)]
    for _ in range(60):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= int(rng.integers(1, 256))
        payloads.append(bytes(damaged))
    read = [outcome(lambda found: decode(found, 32), payload) for payload in payloads]
    assert [outcome(examine, payload) for payload in payloads] == read
    assert 0 < sum(read) < len(read)


def test_the_check_at_low_resolution_sees_what_decoding_sees() -> None:
    exif = rotated()
    for payload in (*KINDS.values(), encoded(synthetic_photo(60, 80), "WEBP", exif=exif)):
        assert examine(payload) == decode_with_traits(payload, 32, Reading(True, (1, 2, 3)))[1]


@pytest.mark.parametrize(("bits", "largest"), [(12, 4095), (16, 65535), (10, 1023)])
def test_one_range_for_all_images_keeps_them_comparable(bits: int, largest: int) -> None:
    dark, bright = (encoded(np.array([[0, value]], np.uint16), "PNG") for value in (largest // 8, largest))
    reading = Reading(grey_bits=bits)
    assert decode(dark, None, reading)[0, 1].tolist() == [round(largest // 8 * 255 / largest)] * 3
    assert decode(bright, None, reading)[0].tolist() == [[0] * 3, [255] * 3]


def test_a_value_beyond_the_expected_range_is_refused() -> None:
    payload = encoded(np.array([[0, 5000]], np.uint16), "PNG")
    with pytest.raises(UnreadableImageError, match=r"up to 5,000, but 12 bits were expected \(4,095\).*check"):
        decode(payload, None, Reading(grey_bits=12))


def test_equal_files_have_equal_messages_without_addresses() -> None:
    payload = encoded(synthetic_photo(60, 80), "TIFF", compression="tiff_lzw")[:-4000]
    messages = set()
    for _ in range(3):
        with pytest.raises(UnreadableImageError) as caught:
            decode(bytes(bytearray(payload)), None)
        messages.add(str(caught.value))
    assert len(messages) == 1 and "0x" not in messages.pop()


def test_decoders_are_silent_in_every_thread(capfd: pytest.CaptureFixture[str]) -> None:
    lzw = bytearray(encoded(synthetic_photo(60, 80), "TIFF", compression="tiff_lzw"))
    lzw[20:60] = bytes(range(40))
    bad_exif = encoded(synthetic_photo(60, 80), exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda payload: outcome(examine, payload), [bytes(lzw), bad_exif] * 8))
    assert found == [False, True] * 8
    assert capfd.readouterr() == ("", "")
