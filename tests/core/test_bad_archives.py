"""Archives that are damaged, hostile or something else: refused with a sentence, and nothing is left of them.

The last tests hold what must still be read: archives whose oddities are harmless.
"""

import bz2
import gzip
import io
import lzma
import random
import stat
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmark.core.archives import MARKER, Limits, unpack
from benchmark.core.errors import UserError
from benchmark.core.escape import shown

LIMITS = Limits(members=50, bytes=1_000_000)
NOISE = random.Random(5).randbytes(5_000)
FILES = {"birds/a.jpg": NOISE, "birds/deep/b.jpg": b"b", "lists.txt": b"1 2"}
END = b"\0" * 1024
MEMORY_BYTES = 12 << 20  # that refusing an archive may take
Make = Callable[[], bytes]


def member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, **fields: object) -> bytes:
    """A member of a tar archive, with a GNU long name if it needs one."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    head = info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
    return head + content + b"\0" * (-len(content) % 512)


def tar(files: dict[str, bytes]) -> bytes:
    return b"".join(member(name, content) for name, content in files.items()) + END


def header(kind: bytes, content: bytes) -> bytes:
    """An extended header: pax for the next member (x) or all (g), or a GNU long name (L) or link (K)."""
    return member("./@LongLink", content, kind)


def pax(**records: str | bytes) -> bytes:
    lines = b""
    for key, value in records.items():
        rest = b" " + key.replace("_", ".").encode() + b"=" + (value if isinstance(value, bytes) else value.encode())
        size = len(rest) + 1
        while size != len(line := str(size).encode() + rest + b"\n"):
            size = len(line)
        lines += line
    return header(tarfile.XHDTYPE, lines)


def rehead(block: bytes, **parts: bytes) -> bytes:
    """A member with other bytes in its header, and a right checksum."""
    at = {"name": 0, "mode": 100, "size": 124, "type": 156, "magic": 257, "extended": 482}
    head = bytearray(block[:512])
    for part, new in parts.items():
        head[at[part] : at[part] + len(new)] = new
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + block[512:]


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED, mode: int = stat.S_IFREG | 0o644) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo("x")
            info.filename, info.external_attr = name, mode << 16
            archive.writestr(info, content, method)
    return file.getvalue()


def patched(content: bytes, signature: bytes, offset: int, new: bytes, nth: int = 0) -> bytes:
    """Bytes replaced at an offset from the nth signature."""
    place = -1
    for _ in range(nth + 1):
        place = content.index(signature, place + 1)
    place += offset
    return content[:place] + new + content[place + len(new) :]


LOCAL, CENTRAL, LAST = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
TAR, ZIP, STORED = tar(FILES), zipped(FILES), zipped(FILES, zipfile.ZIP_STORED)


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


def both(content: bytes, local: int, central: int, new: bytes) -> bytes:
    """A field changed in the first local header and in the first entry of the directory."""
    return patched(patched(content, LOCAL, local, new), CENTRAL, central, new)


def overlapping(copies: int = 30) -> bytes:
    """A zip archive all of whose members are the same compressed bytes."""
    one = zipped({"0": b"\0" * 20_000})
    entry = one[one.index(CENTRAL) : one.index(LAST)]
    directory = b"".join(entry[:46] + b"%d" % (i % 10) + entry[47:] for i in range(copies))
    return (
        one[: one.index(CENTRAL)]
        + directory
        + LAST
        + struct.pack("<4H2LH", 0, 0, copies, copies, len(directory), one.index(CENTRAL), 0)
    )


def refused(folder: Path, content: bytes, said: str = "", limits: Limits = LIMITS) -> str:
    """Check that an archive is refused, and that nothing is left of it or outside of it; return the message."""
    (folder / "data").mkdir()
    archive = folder / "data" / "archive.tgz"
    archive.write_bytes(content)
    before = {path: path.lstat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=rf"archive\.tgz cannot be unpacked: .*{said}") as caught:
        unpack(archive, folder / "data" / "out", limits=limits)
    assert {path: path.lstat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before
    assert [path.name for path in (folder / "data").iterdir()] == ["archive.tgz"]
    assert len(str(caught.value)) < 1000
    return str(caught.value)


DAMAGED: dict[str, Make] = {
    "gzip cut in the middle": lambda: gzip.compress(TAR)[:3000],
    "gzip without its last byte": lambda: gzip.compress(TAR)[:-1],
    "gzip with a wrong checksum": lambda: flipped(gzip.compress(TAR), -6),
    "gzip with a wrong length": lambda: flipped(gzip.compress(TAR), -2),
    "gzip with a flipped byte": lambda: flipped(gzip.compress(TAR, 0), 3000),
    "gzip followed by garbage": lambda: gzip.compress(TAR) + b"garbage",
    "gzip of two archives": lambda: gzip.compress(TAR) + gzip.compress(tar({"more": b"1"})),
    "bzip2 cut": lambda: bz2.compress(TAR)[:-20],
    "bzip2 with a flipped byte": lambda: flipped(bz2.compress(TAR), 500),
    "xz cut": lambda: lzma.compress(TAR)[:-20],
    "xz with a flipped byte": lambda: flipped(lzma.compress(TAR), 500),
    "tar cut in a file": lambda: TAR[:3000],
    "tar cut between two members": lambda: member("birds/a.jpg", NOISE),
    "compressed tar cut between two members": lambda: gzip.compress(member("birds/a.jpg", NOISE)),
    "tar cut in a header": lambda: member("a", b"1") + member("b", b"2")[:300],
    "tar with a damaged second header": lambda: member("a", b"1") + flipped(member("b", b"2"), 5) + END,
    "tar with zeros for the second header": lambda: member("a", b"1") + b"\0" * 512 + member("b", b"2") + END,
    "two tar archives": lambda: TAR + tar({"more": b"1"}),
    "tar followed by garbage": lambda: TAR + b"garbage",
    "tar with a negative size": lambda: rehead(member("a", b"1"), size=b"\xff" * 12) + END,
    "tar with a size that is no number": lambda: rehead(member("a", b"1"), size=b"12x45678901\0") + END,
    "tar with a header for nothing": lambda: member("a", b"1") + pax(path="b") + END,
    "tar with a damaged pax header": lambda: header(tarfile.XHDTYPE, b"99 path=b\n") + member("a", b"1") + END,
    "tar with a pax size that is no number": lambda: pax(size="much") + member("a", b"1") + END,
    "zip cut in the middle": lambda: ZIP[:3000],
    "zip without its end": lambda: ZIP[:-22],
    "zip without its beginning": lambda: ZIP[1000:],
    "zip with a flipped byte": lambda: flipped(STORED, 3000),
    "zip with a wrong checksum": lambda: both(ZIP, 14, 16, b"1234"),
    "zip with a wrong name": lambda: patched(ZIP, LOCAL, 30, b"fishes"),
    "zip that lacks members of its directory": lambda: patched(patched(ZIP, LAST, 8, b"\4"), LAST, 10, b"\4"),
    "zip with a member that is longer": lambda: both(ZIP, 22, 24, struct.pack("<L", 4000)),
    "zip with a member that is shorter": lambda: both(ZIP, 22, 24, struct.pack("<L", 6000)),
    "zip with a damaged directory": lambda: patched(ZIP, CENTRAL, 0, b"XX"),
    "zip with a directory elsewhere": lambda: patched(ZIP, LAST, 16, b"\xff\xff\xff\x7f"),
    "zip on several disks": lambda: patched(ZIP, LAST, 4, b"\1\0\1\0"),
    "zip followed by garbage": lambda: ZIP + b"garbage",
    "two zip archives": lambda: ZIP + zipped({"more": b"1"}),
    "zip with overlapping members": overlapping,
    "zip whose sizes are said elsewhere, but are not": lambda: both(ZIP, 22, 24, b"\xff" * 4),
}  # fmt: skip


@pytest.mark.bad_input("archive", "damaged")
@pytest.mark.parametrize("make", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_archive_is_refused_whole(tmp_path: Path, make: Make) -> None:
    refused(tmp_path, make())


BLOCK = 1 << 24
TOO_LARGE: dict[str, Make] = {
    "a file of zeros": lambda: tar({"a": b"\0" * 2_000_000}),
    "a file of zeros, compressed": lambda: gzip.compress(tar({"a": b"\0" * 2_000_000}), 1),
    "many files that are too large together": lambda: tar({f"{i}": b"\0" * 30_000 for i in range(40)}),
    "too many files": lambda: tar({f"{i}": b"" for i in range(51)}),
    "too many folders": lambda: b"".join(member(f"{i}", kind=tarfile.DIRTYPE) for i in range(51)) + END,
    "a size of exabytes": lambda: rehead(member("a", b"1"), size=b"\x80" + (1 << 60).to_bytes(11, "big")) + END,
    "a pax size of exabytes": lambda: pax(size=str(1 << 60)) + member("a", b"1") + END,
    "a pax header of megabytes": lambda: gzip.compress(pax(comment=b"a" * BLOCK) + member("a", b"1") + END, 1),
    "a pax header of digits, which takes hours": lambda: gzip.compress(
        header(tarfile.XHDTYPE, b"1" * BLOCK) + member("a", b"1") + END, 1
    ),
    "a pax header that is said to be huge": lambda: rehead(pax(path="a"), size=b"77777777777\0") + END,
    "a global header of megabytes": lambda: gzip.compress(
        header(tarfile.XGLTYPE, b"%d comment=" % (BLOCK + 17) + b"a" * BLOCK + b"\n") + member("a", b"1") + END, 1
    ),
    "many pax headers": lambda: pax(comment="1" * 400) * 100 + member("a", b"1") + END,
    "global headers before every member": lambda: b"".join(
        header(tarfile.XGLTYPE, b"%d k%02d=" % (5000, i) + b"1" * 4990 + b"\n") + member(f"{i}") for i in range(20)
    ) + END,
    "a GNU name of megabytes": lambda: gzip.compress(
        header(tarfile.GNUTYPE_LONGNAME, b"a" * BLOCK) + member("a") + END, 1
    ),
    "a GNU link of megabytes": lambda: gzip.compress(
        header(tarfile.GNUTYPE_LONGLINK, b"a" * BLOCK) + member("a") + END, 1
    ),
    "a sparse file with an endless map": lambda: gzip.compress(
        rehead(member("a"), type=b"S", extended=b"\1") + (b"1\0" * 252 + b"\1" + b"\0" * 7) * 5000 + END, 1
    ),
    "zeros without end after the end": lambda: gzip.compress(TAR + b"\0" * (2 * BLOCK), 1),
    "a zip of zeros": lambda: zipped({"a": b"\0" * 2_000_000}),
    "a zip with too many files": lambda: zipped({f"{i}": b"" for i in range(51)}),
    "a zip with files too large together": lambda: zipped({f"{i}": b"\0" * 30_000 for i in range(40)}),
    "a zip whose directory says exabytes": lambda: both(ZIP, 22, 24, b"\xfe\xff\xff\x7f"),
    "a zip with a directory of megabytes": lambda: zipped({"a": b""})[:31] + b"\0" * BLOCK + LAST + struct.pack(
        "<4H2LH", 0, 0, 1, 1, BLOCK, 31, 0
    ),
    "a zip of one member many times": lambda: overlapping(1000),
}  # fmt: skip


@pytest.mark.bad_input("archive", "too large")
@pytest.mark.parametrize("make", TOO_LARGE.values(), ids=TOO_LARGE)
def test_an_archive_that_is_too_large_is_refused_before_it_fills_the_memory_or_the_disk(
    tmp_path: Path, make: Make
) -> None:
    content = make()
    tracemalloc.start()
    try:
        refused(tmp_path, content)
        assert tracemalloc.get_traced_memory()[1] < MEMORY_BYTES
    finally:
        tracemalloc.stop()


OUTSIDE = {
    "..": "../evil",
    ".. below a folder": "a/../../evil",
    ".. that leads back": "a/../evil",
    ".. at the end": "a/..",
    "only ..": "..",
    "absolute": "/tmp/evil",
    "two slashes": "//tmp/evil",
    "a home": "/root/.bashrc",
    "a backslash": "a\\evil",
    ".. with backslashes": "..\\evil",
    "a drive": "C:/evil",
    "a drive without a slash": "c:evil",
    "a drive with a backslash": "C:\\evil",
    "a network share": "\\\\server\\evil",
    "absolute after ./": ".//../evil",
    "..  deep below": "/".join("abc") + "/../../../../evil",
}


@pytest.mark.bad_input("archive", "outside the folder")
@pytest.mark.parametrize("make", [tar, zipped])
@pytest.mark.parametrize("name", OUTSIDE.values(), ids=OUTSIDE)
def test_a_member_that_would_be_written_outside_is_refused(
    tmp_path: Path, name: str, make: Callable[[dict[str, bytes]], bytes]
) -> None:
    assert shown(name) in refused(tmp_path, make({"good": b"1", name: b"2"}), "would be written outside the folder")


def link(kind: bytes, target: str) -> bytes:
    return member("a", b"1") + member("odd", kind=kind, linkname=target) + member("odd/evil", b"2") + END


LINKS: dict[str, Make] = {
    "a link to a folder outside": lambda: link(tarfile.SYMTYPE, "/tmp"),
    "a link upwards": lambda: link(tarfile.SYMTYPE, "../.."),
    "a link inside": lambda: link(tarfile.SYMTYPE, "a"),
    "a hard link outside": lambda: link(tarfile.LNKTYPE, "/etc/passwd"),
    "a hard link inside": lambda: link(tarfile.LNKTYPE, "a"),
    "a device": lambda: link(tarfile.CHRTYPE, ""),
    "a disk": lambda: link(tarfile.BLKTYPE, ""),
    "a named pipe": lambda: link(tarfile.FIFOTYPE, ""),
    "a link in a zip": lambda: zipped({"odd": b"/etc/passwd"}, mode=stat.S_IFLNK | 0o777),
    "a device in a zip": lambda: zipped({"odd": b""}, mode=stat.S_IFCHR | 0o600),
    "a named pipe in a zip": lambda: zipped({"odd": b""}, mode=stat.S_IFIFO | 0o600),
    "a pax path outside": lambda: member("a", b"1") + pax(path="../odd") + member("b", b"2") + END,
    "a pax link": lambda: pax(linkpath="/etc/passwd") + member("odd", kind=tarfile.SYMTYPE, linkname="a") + END,
    "a GNU name outside": lambda: header(tarfile.GNUTYPE_LONGNAME, b"../odd\0") + member("b", b"2") + END,
    "a sparse file": lambda: rehead(member("odd"), type=b"S") + END,
    "a sparse file in pax": lambda: pax(GNU_sparse_major="1", GNU_sparse_minor="0") + member("odd", b"0\n") + END,
    "a volume label": lambda: member("odd", kind=b"V") + member("a", b"1") + END,
    "a continued file": lambda: member("odd", kind=b"M") + member("a", b"1") + END,
}  # fmt: skip


@pytest.mark.bad_input("archive", "outside the folder")
@pytest.mark.parametrize("make", LINKS.values(), ids=LINKS)
def test_what_is_no_ordinary_file_is_refused(tmp_path: Path, make: Make) -> None:
    assert "odd" in refused(tmp_path, make())


STRANGE: dict[str, tuple[str, str]] = {
    "300 letters": ("a" * 300, "too long"),
    "300 letters in a folder": ("a/" + "b" * 300 + "/c", "too long"),
    "200 letters of two bytes": ("é" * 200, "too long"),
    "5000 letters": ("a/" * 2 + "b" * 5000, "too long"),
    "a path of 2000 bytes": ("/".join(["a" * 99] * 20), "too long"),
    "2000 folders": ("a/" * 2000 + "b", "too long"),
    "40 folders": ("a/" * 40 + "b", "too long"),
    "a line break": ("a\nb", "control characters"),
    "a carriage return": ("a\rb", "control characters"),
    "an escape sequence": ("a\x1b[2Jb", "control characters"),
    "a tab": ("a\tb", "control characters"),
    "a C1 control": ("a\x9bb", "control characters"),
    "a line separator": ("a\u2028b", "control characters"),
    "a delete": ("a\x7fb", "control characters"),
    "another encoding": ("b\udce9b\udce9.jpg", "not UTF-8"),
    "the mark of this program": (MARKER, "own mark"),
    "the mark in upper case": (MARKER.upper(), "own mark"),
    "the mark as a folder": (f"{MARKER}/a", "own mark"),
    "a dot": (".", "has no name"),
    "a dot below a folder": ("a/.", "has no name|file and a folder"),
}  # fmt: skip


@pytest.mark.bad_input("archive", "strange names")
@pytest.mark.parametrize(("name", "said"), STRANGE.values(), ids=STRANGE)
def test_a_strange_name_in_a_tar_is_refused(tmp_path: Path, name: str, said: str) -> None:
    refused(tmp_path, tar({"good": b"1", name: b"2"}), said)


@pytest.mark.bad_input("archive", "strange names")
@pytest.mark.parametrize("key", [key for key in STRANGE if key != "another encoding"])
def test_a_strange_name_in_a_zip_is_refused(tmp_path: Path, key: str) -> None:
    refused(tmp_path, zipped({"good": b"1", STRANGE[key][0]: b"2"}), STRANGE[key][1])


TWICE: dict[str, Make] = {
    "one name twice": lambda: tar({"a": b"1"})[:-1024] + tar({"a": b"2"}),
    "one name twice, the second with ./": lambda: tar({"a/b": b"1", "./a//b": b"2"}),
    "names that differ in case": lambda: tar({"a/B.jpg": b"1", "a/b.JPG": b"2"}),
    "names that differ in composition": lambda: tar({"\u00e9": b"1", "e\u0301": b"2"}),
    "names of a zip that differ in case": lambda: zipped({"B.jpg": b"1", "b.jpg": b"2"}),
    "a file below a file": lambda: tar({"a": b"1", "a/b": b"2"}),
    "a file in place of a folder": lambda: tar({"a/b": b"1", "a": b"2"}),
    "a folder in place of a file": lambda: member("a", b"1") + member("a", kind=tarfile.DIRTYPE) + END,
    "a file below a file in a zip": lambda: zipped({"a": b"1", "a/b": b"2"}),
    "no name": lambda: rehead(member("x", b"1"), name=b"\0") + END,
    "a NUL in a pax name": lambda: pax(path="a\0b") + member("b", b"1") + END,
    "a Latin-1 name in a zip": lambda: zipped({"b1": b"1"}).replace(b"b1", b"b\xe9"),
    "a folder of a zip with content": lambda: zipped({"a": b"", "b": b"2"}).replace(b"b", b"/") ,
}  # fmt: skip


@pytest.mark.bad_input("archive", "strange names")
@pytest.mark.parametrize("make", TWICE.values(), ids=TWICE)
def test_names_that_collide_or_are_missing_are_refused(tmp_path: Path, make: Make) -> None:
    refused(tmp_path, make())


ANOTHER: dict[str, tuple[Make, str]] = {
    "empty": (lambda: b"", "an empty file"),
    "zeros": (lambda: b"\0" * 10_240, "nothing but zeros"),
    "compressed zeros": (lambda: gzip.compress(b"\0" * 10_240), "holds no files"),
    "an empty tar": (lambda: member("birds", kind=tarfile.DIRTYPE) + END, "holds no files"),
    "an empty zip": (lambda: zipped({}), "holds no files"),
    "compressed nothing": (lambda: gzip.compress(b""), ""),
    "a compressed file": (lambda: gzip.compress(b"1 a.jpg\n" * 1000), ""),
    "a web page": (lambda: b"<!DOCTYPE html><html>Sign in</html>" * 50, "a web page"),
    "RAR": (lambda: b"Rar!\x1a\x07\x01\0" + NOISE, "a RAR archive"),
    "7-Zip": (lambda: b"7z\xbc\xaf\x27\x1c\0\4" + NOISE, "a 7-Zip archive"),
    "zstd": (lambda: b"\x28\xb5\x2f\xfd" + NOISE, "zstd data"),
    "lz4": (lambda: b"\x04\x22\x4d\x18" + NOISE, "lz4 data"),
    "compress": (lambda: b"\x1f\x9d\x90" + NOISE, "data of compress"),
    "JPEG": (lambda: b"\xff\xd8\xff\xe0\0\x10JFIF\0" + NOISE, "a JPEG image"),
    "PNG": (lambda: b"\x89PNG\r\n\x1a\n" + NOISE, "a PNG image"),
    "PDF": (lambda: b"%PDF-1.7\n" + NOISE, "a PDF document"),
    "HDF5": (lambda: b"\x89HDF\r\n\x1a\n" + NOISE, "an HDF5 file"),
    "a pointer of Git LFS": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
    "text": (lambda: b"404: Not Found\n", ""),
    "JSON": (lambda: b'{"error": "quota exceeded"}', ""),
    "noise": (lambda: NOISE, ""),
    "raw deflate": (lambda: zlib.compress(TAR), ""),
    "a tar that ends with a zip": (lambda: member("a", b"1") + zipped({"b": b"2"}), ""),
    "a zip of deflate64": (lambda: both(ZIP, 8, 10, b"\x09\0"), "method 9"),
    "a zip of an unknown method": (lambda: both(ZIP, 8, 10, b"\x63\0"), "method 99"),
    "an encrypted zip": (lambda: both(ZIP, 6, 8, b"\1\0"), "is encrypted"),
    "a zip of a later version": (lambda: both(ZIP, 4, 6, b"\xff\0"), ""),
    "a program that unpacks itself": (lambda: b"MZ" + NOISE + ZIP, "a Windows program"),
}  # fmt: skip


@pytest.mark.bad_input("archive", "another format")
@pytest.mark.parametrize(("make", "said"), ANOTHER.values(), ids=ANOTHER)
def test_what_is_no_archive_is_refused_by_the_name_of_its_format(tmp_path: Path, make: Make, said: str) -> None:
    refused(tmp_path, make(), said)


# -- harmless oddities ------------------------------------------------------------------------------------------------

HARMLESS: dict[str, tuple[Make, dict[str, bytes]]] = {
    "a name with ./": (lambda: tar({f"./{name}": content for name, content in FILES.items()}), FILES),
    "a folder for the root": (lambda: member("./", kind=tarfile.DIRTYPE) + tar({"a": b"1"}), {"a": b"1"}),
    "folders after their files": (
        lambda: member("a/b", b"1") + member("a", kind=tarfile.DIRTYPE) * 2 + END, {"a/b": b"1"}
    ),
    "litter of macOS": (
        lambda: tar({"a": b"1", "._a": b"x", "__MACOSX/._a": b"y"}), {"a": b"1", "._a": b"x", "__MACOSX/._a": b"y"}
    ),
    "a comment for all members": (
        lambda: header(tarfile.XGLTYPE, b"52 comment=" + b"a" * 40 + b"\n") + tar({"a": b"1"}), {"a": b"1"}
    ),
    "long names": (lambda: tar({"a" * 60 + "/" + "b" * 150: b"1"}), {"a" * 60 + "/" + "b" * 150: b"1"}),
    "a pax name": (lambda: pax(path="ä/b") + tar({"x": b"1"}), {"ä/b": b"1"}),
    "a setuid program": (lambda: member("a", b"1", mode=0o6755) + END, {"a": b"1"}),
    "an old header": (lambda: rehead(member("a", b"1"), magic=b"\0" * 8) + END, {"a": b"1"}),
    "padding to a megabyte": (lambda: tar({"a": b"1"}) + b"\0" * (1 << 20), {"a": b"1"}),
    "two compressed parts": (lambda: gzip.compress(TAR[:4000]) + gzip.compress(TAR[4000:]), FILES),
    "a zip in UTF-8 that does not say so": (
        lambda: zipped({"b12": b"1"}).replace(b"b12", "bé".encode()), {"bé": b"1"}
    ),
    "a zip with a comment": (lambda: patched(ZIP, LAST, 20, b"\5\0") + b"hello", FILES),
    "a zip with folders": (lambda: zipped({"a/": b"", "a/b": b"1"}), {"a/b": b"1"}),
}  # fmt: skip


@pytest.mark.parametrize(("make", "files"), HARMLESS.values(), ids=HARMLESS)
def test_an_archive_with_harmless_oddities_is_read(tmp_path: Path, make: Make, files: dict[str, bytes]) -> None:
    (tmp_path / "archive.tgz").write_bytes(make())
    out = unpack(tmp_path / "archive.tgz", tmp_path / "out", limits=LIMITS)
    found = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
    assert found.pop(MARKER)
    assert {name: path.read_bytes() for name, path in found.items()} == files
    assert not any(path.stat().st_mode & 0o7000 for path in found.values())
