"""Unpack archives; a damaged or malicious one causes an error message, not damage.

An archive is unpacked into a temporary folder that is then renamed, so the result is complete or absent. Only files and
folders with ordinary names are unpacked, and headers, members and sizes are limited, so that no archive fills the
memory or the disk. Files get the permissions of new files, whatever the archive says.
"""

import bz2
import contextlib
import errno
import gzip
import lzma
import os
import re
import shutil
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from benchmark.core import formats
from benchmark.core.download import DownloadError, progress
from benchmark.core.escape import shown
from benchmark.core.paths import stays_inside

CHUNK = 1 << 20
MARKER = ".unpacked"  # file in a folder that holds a complete archive
NAME_BYTES = 255  # of a file or folder, as in common file systems
PATH_BYTES = 1000
DEPTH = 32  # folders below each other
HEADER_BYTES = 1 << 14  # of a member of a tar archive, with its extended headers; tarfile reads them at once
DIRECTORY_BYTES = 256  # of a member in the directory of a zip archive, on average; zipfile reads it at once
ZIP_HEADER, ZIP_END = 30, 22  # bytes before the name of a member, and of the record that ends a zip archive
PADDING_BYTES = 1 << 24  # zeros at the end of a tar archive
XZ_BYTES = 1 << 28  # memory for decompression
BROKEN = (  # what tarfile, zipfile and the decompressors raise for damaged archives
    tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, NotImplementedError,
    ValueError, OverflowError, TypeError, IndexError, MemoryError,
)  # fmt: skip
COMPRESSED: dict[str, Callable[[IO[bytes]], object]] = {
    "gzip data": gzip.open,
    "bzip2 data": bz2.open,
    "xz data": lzma.open,
}
NAMES_REFUSED = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)  # by file systems with other rules than common ones


@dataclass(frozen=True)
class Limits:
    """Limits on the contents of an archive, slightly above those of the genuine one.

    Attributes:
        members: number of files and folders.
        bytes: total size of the files.
    """

    members: int
    bytes: int


@dataclass(frozen=True)
class _Member:
    """A file or folder in an archive; the content of a folder is None."""

    name: str
    size: int
    content: IO[bytes] | None


def unpack(archive: Path, folder: Path, *, limits: Limits) -> Path:
    """Unpack a tar (plain, gz, bz2, xz) or zip archive of files and folders, and return the folder.

    After an interruption, unpacking starts from scratch; a complete folder is not unpacked again.

    Args:
        archive: the archive; its type is detected from its content, not its name.
        folder: where to unpack; it is created by renaming a hidden folder next to it.
        limits: an archive that exceeds them is refused.

    Raises:
        DownloadError: the archive is damaged, too large, or has forbidden members; or the folder exists and was not
            created here. No unpacked file remains.
        OSError: the disk is full, the archive cannot be read, or the folder cannot be written.
    """
    if is_unpacked(folder):
        return folder
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise DownloadError(
            f"{folder} is in the way: {archive.name} must be unpacked there, but the folder was not created by this "
            "program. If it is a copy of the data, it is incomplete. Move it away, then run the same command again."
        )
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        count = _write_members(_members(archive, limits), partial, limits)
        (partial / MARKER).write_text(f"{count} members of {archive.name}\n", encoding="utf-8")
        os.replace(partial, folder)
    except (DownloadError, *BROKEN) as error:
        raise _refused(archive, error) from (None if isinstance(error, DownloadError) else error)
    except OSError as error:
        if error.errno is not None:
            raise
        raise _refused(archive, error) from error  # from a decompressor, not from the disk
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def is_unpacked(folder: Path) -> bool:
    """Return whether `unpack` has unpacked an archive into a folder."""
    return (folder / MARKER).is_file()


def _refused(archive: Path, error: Exception) -> DownloadError:
    what = str(error) if isinstance(error, DownloadError) else f"it is damaged ({str(error) or type(error).__name__})"
    return DownloadError(f"{archive} cannot be unpacked: {what}. Check where it comes from; delete it to try again.")


def _members(archive: Path, limits: Limits) -> Iterator[_Member]:
    if special := formats.kind(archive):
        raise DownloadError(f"it is {special}, not a file")
    with open(archive, "rb") as file:
        head = file.read(formats.HEAD)
        file.seek(0)
        found = formats.name(head)
        if found in ("a zip archive", "an empty zip archive"):
            yield from _zip_members(file, limits)
        elif found in COMPRESSED:
            if found == "xz data":
                lzma.LZMADecompressor(memlimit=XZ_BYTES).decompress(head, 1)
            with contextlib.closing(cast("IO[bytes]", COMPRESSED[found](file))) as plain:
                yield from _tar_members(plain)
        elif found is None or found == "a tar archive":
            yield from _tar_members(file)
        else:
            raise DownloadError(f"it is {found}; only zip, tar, tar.gz, tar.bz2 and tar.xz can be unpacked")


# -- tar --------------------------------------------------------------------------------------------------------------


class _Tape:
    """The content of a tar archive, read forwards; what is read between two members is limited.

    Attributes:
        left: number of bytes that may still be read.
        last: what was read last.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.left, self.last = file, HEADER_BYTES, b""

    def read(self, size: int) -> bytes:
        self.left -= size
        if self.left < 0:
            raise DownloadError(f"a member has more than {HEADER_BYTES:,} bytes of headers")
        self.last = self.file.read(size)
        return self.last

    def seek(self, position: int) -> None:
        if position < self.file.tell():
            raise EOFError("a member has a negative size")
        self.file.seek(position)

    def tell(self) -> int:
        return self.file.tell()


def _tar_members(file: IO[bytes]) -> Iterator[_Member]:
    tape = _Tape(file)
    try:
        tar = tarfile.TarFile(fileobj=cast("IO[bytes]", tape), encoding="utf-8", errors="surrogateescape")
    except tarfile.ReadError as error:
        raise DownloadError(f"it is neither a zip nor a tar archive, or it is damaged ({error})") from error
    while (member := tar.next()) is not None:
        if member.issparse() or not (member.isreg() or member.isdir()):
            raise _no_file(member.name)
        if member.size < 0:
            raise EOFError("a member has a negative size")
        if sum(len(key) + len(value) for key, value in tar.pax_headers.items()) > HEADER_BYTES:
            raise DownloadError(f"it has more than {HEADER_BYTES:,} bytes of headers for all members")
        tar.members.clear()  # type: ignore[attr-defined]  # tarfile would keep them all in memory
        tape.left = member.size + HEADER_BYTES
        if member.isreg():
            yield _Member(member.name, member.size, tar.extractfile(member))
        else:
            yield _Member(member.name, 0, None)
        tape.left = HEADER_BYTES
    if len(tape.last) < tarfile.BLOCKSIZE:
        raise EOFError("it is truncated")
    if tape.last.strip(b"\0"):
        raise tarfile.ReadError("the header of a member is invalid")  # where tarfile stops without a word
    padding = 0
    while chunk := file.read(CHUNK):
        padding += len(chunk)
        if chunk.strip(b"\0") or padding > PADDING_BYTES:
            raise DownloadError("something follows the end of the archive, such as another archive")


# -- zip --------------------------------------------------------------------------------------------------------------


class _Bounded:
    """A file in which no single read is longer than a limit."""

    def __init__(self, file: IO[bytes], limit: int) -> None:
        self.file, self.limit = file, limit
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if size > self.limit:
            raise DownloadError(f"its directory has {size:,} bytes, many more than the genuine one")
        return self.file.read(size)

    def seekable(self) -> bool:
        return True


def _zip_members(file: IO[bytes], limits: Limits) -> Iterator[_Member]:
    bounded = cast("IO[bytes]", _Bounded(file, max(CHUNK, limits.members * DIRECTORY_BYTES)))
    with zipfile.ZipFile(bounded, metadata_encoding="utf-8") as whole:
        _check_zip(file, whole, limits)
        for member in whole.infolist():
            if member.is_dir():
                yield _Member(member.filename, member.file_size, None)
            else:
                with whole.open(member) as content:
                    yield _Member(member.filename, member.file_size, content)


def _check_zip(file: IO[bytes], whole: zipfile.ZipFile, limits: Limits) -> None:
    """Check what the directory says, before anything is written.

    Raises:
        DownloadError: a member is not allowed, or the archive is too large.
        BadZipFile: members overlap, or something stands before or after them.
    """
    members = whole.infolist()
    if sum(member.file_size for member in members) > limits.bytes:
        raise _too_large(limits)
    for member in members:
        kind = member.external_attr >> 28  # the upper bits of a Unix mode; 0 if packed on another system
        if kind not in (0, 0o4, 0o10):
            raise _no_file(member.filename)
        if member.flag_bits & 1:
            raise DownloadError(f"its member {shown(member.filename)} is encrypted")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DownloadError(
                f"its member {shown(member.filename)} is compressed by method {member.compress_type}, and only 0 "
                "(stored) and 8 (deflated) can be read; unpack it with another program"
            )
    end = 0
    for member in sorted(members, key=lambda member: member.header_offset):
        if member.header_offset < end or (end == 0 and member.header_offset > 0):
            raise zipfile.BadZipFile(f"its member {shown(member.filename)} is not where it should be")
        end = member.header_offset + ZIP_HEADER + len(member.orig_filename) + member.compress_size
    file.seek(-ZIP_END - len(whole.comment), os.SEEK_END)
    last = file.read(ZIP_END)
    count = int.from_bytes(last[10:12], "little")
    if end > whole.start_dir or not last.startswith(b"PK\x05\x06"):
        raise zipfile.BadZipFile("something follows its end, or its directory is damaged")
    if last[4:8] not in (b"\0" * 4, b"\xff" * 4):
        raise DownloadError("it is one of several parts; put them together with another program")
    if count not in (len(members) & 0xFFFF, 0xFFFF):
        raise zipfile.BadZipFile(f"it holds {len(members):,} members, but claims {count:,}")


# -- files ------------------------------------------------------------------------------------------------------------


def _write_members(members: Iterator[_Member], folder: Path, limits: Limits) -> int:
    """Write all members below a folder and return their number."""
    count = size = 0
    files: set[str] = set()
    with progress(f"unpacking {folder.name.strip('.').removesuffix('.partial')}", None) as advance:
        for member in members:
            count += 1
            if count > limits.members:
                raise DownloadError(f"it has more than {limits.members:,} members, unlike the genuine one")
            parts = _safe_parts(member.name, is_folder=member.content is None)
            if member.content is not None:
                if (key := unicodedata.normalize("NFC", "/".join(parts)).casefold()) in files:
                    raise DownloadError(
                        f"it has two members named {shown(member.name)} (A and a are one name on some disks)"
                    )
                files.add(key)
            size += member.size
            if size > limits.bytes:
                raise _too_large(limits)
            try:
                _write(member, folder.joinpath(*parts), advance)
            except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
                raise DownloadError(f"its member {shown(member.name)} is both a file and a folder") from error
            except OSError as error:
                if error.errno not in NAMES_REFUSED:
                    raise
                raise DownloadError(
                    f"its member {shown(member.name)} has a name that the disk does not allow"
                ) from error
    if not files:
        raise DownloadError("it holds no files")
    return count


def _write(member: _Member, path: Path, advance: Callable[[int], None]) -> None:
    """Write a file, which must have the announced size, or create a folder, which must have none."""
    (path if member.content is None else path.parent).mkdir(parents=True, exist_ok=True)
    written = 0
    if member.content is not None:
        with open(path, "wb") as file:
            while chunk := member.content.read(CHUNK):
                file.write(chunk)
                written += len(chunk)
                advance(len(chunk))
    if written != member.size:
        raise EOFError(f"its member {shown(member.name)} has {written:,} bytes, but claims {member.size:,}")


def _too_large(limits: Limits) -> DownloadError:
    return DownloadError(f"it holds more than {limits.bytes:,} bytes, unlike the genuine one")


def _no_file(name: str) -> DownloadError:
    return DownloadError(f"its member {shown(name)} is a link or a device, and only files are allowed")


def _safe_parts(name: str, is_folder: bool) -> tuple[str, ...]:
    """Split the name of a member.

    Raises:
        DownloadError: the name leads outside the folder, or is not an ordinary one.
    """
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if not stays_inside(name) or "\\" in name or re.match(r"[A-Za-z]:", name):
        raise DownloadError(f"its member {shown(name)} would be written outside the folder")
    try:
        sizes = [len(part.encode()) for part in parts]
    except UnicodeEncodeError as error:
        raise DownloadError(f"its member {shown(name)} has a name that is not UTF-8") from error
    if any(unicodedata.category(char) in ("Cc", "Zl", "Zp") for char in name):
        raise DownloadError(f"its member {shown(name)} has control characters in its name")
    if len(parts) > DEPTH or sum(sizes) + len(sizes) > PATH_BYTES or any(size > NAME_BYTES for size in sizes):
        raise DownloadError(
            f"its member {shown(name)} has a name that is too long: allowed are {DEPTH} parts of {NAME_BYTES} bytes, "
            f"{PATH_BYTES:,} bytes in total"
        )
    if not (parts or is_folder) or (name.endswith("/.") and not is_folder):
        raise DownloadError(f"its member {shown(name)} has no name")
    if parts and parts[0].casefold() == MARKER:
        raise DownloadError(f"its member {shown(name)} has the name of this program's own mark")
    return parts
