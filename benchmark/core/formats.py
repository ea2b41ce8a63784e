"""Name the format of a file by its first bytes, for messages about a file that is not of the expected one."""

import re
import stat
from pathlib import Path

HEAD = 4096  # bytes that are looked at
PAGE = re.compile(rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<(!doctype\s+html|html|head)\b", re.IGNORECASE | re.DOTALL)
POINTER = "a pointer of Git LFS, not the file itself (run git lfs pull)"
TEXTS = ("a web page", POINTER)  # that are text, but hardly the expected one
MAGIC = (
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"PK\x05\x06", "an empty zip archive"),
    (0, b"PK\x07\x08", "a part of a zip archive"),
    (0, b"\x1f\x8b", "gzip data"),
    (0, b"BZh", "bzip2 data"),
    (0, b"\xfd7zXZ\0", "xz data"),
    (0, b"\x28\xb5\x2f\xfd", "zstd data"),
    (0, b"\x04\x22\x4d\x18", "lz4 data"),
    (0, b"\x1f\x9d", "data of compress (.Z)"),
    (257, b"ustar", "a tar archive"),
    (0, b"Rar!", "a RAR archive"),
    (0, b"7z\xbc\xaf", "a 7-Zip archive"),
    (0, b"!<arch>\n", "an ar archive"),
    (0, b"070707", "a cpio archive"),
    (0, b"070701", "a cpio archive"),
    (0, b"version https://git-lfs.github.com/", POINTER),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"\x89PNG", "a PNG image"),
    (0, b"GIF8", "a GIF image"),
    (0, b"%PDF", "a PDF document"),
    (0, b"{\\rtf", "an RTF document"),
    (0, b"\xd0\xcf\x11\xe0", "a file of old Excel (.xls) or Word"),
    (0, b"SQLite format 3\0", "an SQLite database"),
    (0, b"\x93NUMPY", "a NumPy array (.npy)"),
    (0, b"\x89HDF", "an HDF5 file"),
    (0, b"MATLAB 7.3 MAT-file", "a MATLAB file of version 7.3 (HDF5)"),
    (0, b"MATLAB 5.0 MAT-file", "a MATLAB file of version 5"),
    (0, b"GGUF", "a GGUF file"),
    (0, b"PAR1", "a Parquet file"),
    (0, b"ARROW1", "an Arrow or Feather file"),
    (0, b"TDF$", "a TensorFlow record"),
    (4, b"TFL3", "a TensorFlow Lite file"),
    (0, b"\x7fELF", "a program"),
    (0, b"MZ", "a Windows program"),
    (0, b"\xff\xfe", "UTF-16 text"),
    (0, b"\xfe\xff", "UTF-16 text"),
)


def kind(path: Path) -> str | None:
    """Say what stands at a path instead of a file: a folder, a named pipe, a device; None for a file, or for nothing.

    Opening a named pipe or a device could wait forever.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return None
    return kind_of(mode)


def kind_of(mode: int) -> str | None:
    """Say what has a mode (`st_mode`) instead of a file, as `kind` does; None for a file."""
    kinds = {stat.S_ISREG: None, stat.S_ISDIR: "a folder", stat.S_ISFIFO: "a named pipe", stat.S_ISSOCK: "a socket"}
    return next((name for is_one, name in kinds.items() if is_one(mode)), "a device")


def name(head: bytes) -> str | None:
    r"""Name the format of a file, as a noun phrase with its article; None if it is not one of those known here.

    >>> name(b"\x89PNG\r\n..."), name(b"")
    ('a PNG image', 'an empty file')

    Args:
        head: the first `HEAD` bytes of the file, or all of a shorter one.
    """
    if not head:
        return "an empty file"
    if not head.strip(b"\0"):
        return "nothing but zeros"
    if PAGE.match(head):
        return "a web page"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 30:  # the length of a JSON header
        return "a safetensors file"
    return next((said for start, magic, said in MAGIC if head.startswith(magic, start)), None)
