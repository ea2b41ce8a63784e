"""Recognise files that are no image of a format that is read, by their first bytes, and say what to do with them.

Source: the signatures in the formats' specifications, and in the list of file(1). A camera's raw file is a TIFF whose
first image is only a preview (TIFF/EP, DNG 1.7), so it is recognised by its tags.
"""

import io
import re
from collections.abc import Sequence

from PIL import TiffImagePlugin

from benchmark.core import formats

CONVERT = "convert it to JPEG or PNG"
RAW = f"is a camera's raw file, or begins with a reduced copy of the image; {CONVERT}"
AGAIN = "download it again"
KNOWN = {  # formats that `core.formats` names, and what to do
    formats.POINTER: "",
    "a PDF document": CONVERT,
    "a NumPy array (.npy)": CONVERT,
    "an HDF5 file": CONVERT,
    "a zip archive": "unpack it",
    "a RAR archive": "unpack it",
    "a 7-Zip archive": "unpack it",
    "gzip data": "unpack it",
    "an SQLite database": "name the folder of the images",
}
STARTS = {  # first bytes of further ones
    b"/annex/objects/": "is a pointer of git-annex, not the image: run git annex get",
    b"\0\5\x16\7": "is an AppleDouble file with macOS metadata, not an image; delete it",
    b"\0\5\x16\0": "is an AppleSingle file with macOS metadata, not an image; delete it",
    b"%!PS": f"is a PostScript (EPS) program; {CONVERT}",
    b"\xc5\xd0\xd3\xc6": f"is a PostScript (EPS) program; {CONVERT}",
    b"8BPS": f"is a Photoshop document; {CONVERT}",
    b"\0\0\0\x0cjP  ": f"is a JPEG 2000 image; {CONVERT}",
    b"\xff\x4f\xff\x51": f"is a JPEG 2000 image; {CONVERT}",
    b"\0\0\0\x0cJXL ": f"is a JPEG XL image; {CONVERT}",
    b"\xff\x0a": f"is a JPEG XL image; {CONVERT}",
    b"SIMPLE  =": f"is a FITS file; {CONVERT}",
    b"FUJIFILMCCD-RAW": f"is a camera's raw file; {CONVERT}",
    b"IIRO": f"is a camera's raw file; {CONVERT}",
    b"IIU\0": f"is a camera's raw file; {CONVERT}",
    b"\0\0\1\0": f"is an icon; {CONVERT}",
    b"\x1aE\xdf\xa3": "is a video, not an image",
    b"\x80\4\x95": "is a Python pickle, not an image",
}
IMAGES = {
    rb"\xff\xd8": "JPEG",
    rb"\x89PNG": "PNG",
    rb"GIF8[79]a": "GIF",
    rb"RIFF....WEBP": "WebP",
    rb"BM....\0\0\0\0": "BMP",
    rb"II[*+]\0|MM\0[*+]": "TIFF",
    rb"P[1-6]\s": "PPM",
}
BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"), f"is a HEIC image; {CONVERT}"),
    b"mif1": f"is a HEIF image; {CONVERT}",
    b"msf1": f"is a HEIF image; {CONVERT}",
    b"crx ": f"is a camera's raw file (CR3); {CONVERT}",
}
TEXT = 1024  # bytes of a file in which its kind of text is recognised
TIFF_SUBFILE, TIFF_PHOTOMETRIC, TIFF_DNG = 254, 262, 50706
REDUCED, FILTER_ARRAYS = 1, (32803, 34892)


def is_raw(payload: bytes) -> bool:
    """Return whether a file is a camera's raw file, or a TIFF that begins with a reduced copy of its image.

    Args:
        payload: all bytes of the file.
    """
    if payload[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return False
    try:
        header = payload[:16] if payload[2:4] in (b"+\0", b"\0+") else payload[:8]  # the first is a BigTIFF
        tags, file = TiffImagePlugin.ImageFileDirectory_v2(header), io.BytesIO(payload)
        file.seek(tags.next)
        tags.load(file)
        is_preview = bool(tags.get(TIFF_SUBFILE, 0) & REDUCED)
    except Exception:  # damaged; decoding it gives the reason
        return False
    return payload[8:10] == b"CR" or TIFF_DNG in tags or tags.get(TIFF_PHOTOMETRIC) in FILTER_ARRAYS or is_preview


def what_it_is(payload: bytes, readable: Sequence[str]) -> str:
    """Return what a file is that PIL does not recognise as an image, and what to do with it, as a predicate.

    Args:
        payload: all bytes of the file.
        readable: names of the formats that are read.
    """
    if not payload:
        return f"is empty (0 bytes); {AGAIN}"
    if not payload.strip(b"\0"):
        return f"holds only zero bytes; {AGAIN}"
    for signature, name in IMAGES.items():
        if re.match(signature, payload, re.DOTALL):
            return f"begins like a {name} image, but its header is damaged; {AGAIN}"
    if (known := formats.name(payload[: formats.HEAD])) in KNOWN:
        return f"is {known}" + f"; {KNOWN[known]}" * bool(KNOWN[known])
    if reason := next((reason for start, reason in STARTS.items() if payload.startswith(start)), None):
        return reason
    if payload[4:8] == b"ftyp":
        return _brand(payload, readable)
    if payload[128:132] == b"DICM":
        return f"is a DICOM file; {CONVERT}"
    return _text(payload[:TEXT]) or f"is no image, or of a format that is not read; read are {', '.join(readable)}"


def _brand(payload: bytes, readable: Sequence[str]) -> str:
    """Recognise a file in the ISO base media format by its major brand, then by its compatible brands."""
    size = min(int.from_bytes(payload[:4], "big"), TEXT)
    brands = [payload[at : at + 4] for at in (8, *range(16, size, 4))]
    if any(brand in (b"avif", b"avis") for brand in brands):
        if "AVIF" in readable:
            return f"begins like an AVIF image, but is damaged; {AGAIN}"
        return f"is an AVIF image, which this version of Pillow does not read; {CONVERT}"
    brands.sort(key=lambda brand: brand in (b"mif1", b"msf1"))  # structural brands say the least
    return next((BRANDS[brand] for brand in brands if brand in BRANDS), "is a video, not an image")


def _text(head: bytes) -> str | None:
    """Recognise text files, which take the place of images after a failed download or checkout."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if re.match(rb"<!doctype html|<html|<head|<body|<title", text) or (text.startswith(b"<!--") and b"<html" in text):
        return f"is a web page, as after a failed download; {AGAIN}"
    if text.startswith(b"<svg") or (text.startswith(b"<?xml") and b"<svg" in text):
        return f"is an SVG drawing; {CONVERT}"
    if text.startswith(b"<?xml"):
        return f"is an XML document, as after a failed download; {AGAIN}"
    if text.startswith((b"outs:\n- ", b"outs:\r\n- ", b"md5: ")):
        return "is a pointer of DVC, not the image: run dvc pull"
    if text.startswith((b"../", b".git/annex", b"./")) and b"annex/objects/" in text:
        return "is a pointer of git-annex, not the image: run git annex get"
    if text.startswith((b"{", b"[")) and re.match(rb"[{\[]\s*[\"{\[\]}]", text):
        return f"is a JSON document, as after a failed download; {AGAIN}"
    if (
        not re.match(rb"p[1-7fp]", text)
        and re.fullmatch(rb"[\x09\x0a\x0d\x20-\x7e\x80-\xff]+", head)
        and _is_utf8(head)
    ):
        return f"is a text file, not an image; {AGAIN}"
    return None


def _is_utf8(head: bytes) -> bool:
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data" or error.start >= TEXT - 4  # cut within a character
    return True
