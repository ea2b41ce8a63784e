"""Download files and unpack archives; a broken connection or a malicious file causes an error message, not damage.

A download is written to `NAME.part`, resumes where an earlier one stopped, and is renamed only if its size and checksum
match the published ones. An archive is unpacked into a temporary folder that is then renamed, so the result is complete
or absent. This module knows nothing about data sets.
"""

import contextlib
import hashlib
import http.client
import lzma
import os
import re
import shutil
import sys
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from benchmark.core.console import write
from benchmark.core.errors import UserError
from benchmark.core.escape import visible

ATTEMPTS = 3  # for one download; each resumes where the previous one stopped
WAIT_SECONDS = 2.0
TIMEOUT_SECONDS = 60.0
PLAIN_SECONDS = 10.0  # plain output reports progress at most this often
CHUNK = 1 << 20
MARKER = ".unpacked"  # file in a folder that holds a complete archive
PAGE = re.compile(rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<(!doctype\s+html|html|head)\b", re.IGNORECASE | re.DOTALL)


class DownloadError(UserError):
    """A file that cannot be downloaded, or an archive that must not be unpacked; the message says what to do."""


@dataclass(frozen=True)
class Limits:
    """Limits on the contents of an archive, slightly above those of the genuine one.

    Attributes:
        members: number of files and folders.
        bytes: total size of the files.
    """

    members: int
    bytes: int


def download(
    url: str, path: Path, *, sha256: str | None = None, md5: str | None = None, size: int | None = None
) -> Path:
    """Download a file unless it exists already, verify it in either case, and return its path.

    Args:
        url: an http or https address.
        path: where to put the file; afterwards it is complete or absent.
        sha256: published checksum of the whole file, in hexadecimal; None if none is published.
        md5: published MD5 checksum, in hexadecimal; None if none is published.
        size: published size of the whole file, in bytes.

    Raises:
        DownloadError: the file cannot be downloaded or is not the published one; the message ends with instructions
            for doing it by hand.
        OSError: the disk is full or the folder cannot be written.
    """
    by_hand = f"Or download it by hand: {url}\nand put it at {path.absolute()}; then run the same command again."
    if not url.startswith(("http://", "https://")):
        raise DownloadError(f"{url} is not an http or https address. {by_hand}")
    published = {"sha256": sha256, "md5": md5}
    if path.exists():
        if wrong := _difference(path, published, size):
            raise DownloadError(
                f"{path} is not the published file: {wrong}. Move it away to download it again. {by_hand}"
            )
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    resumed = part.exists()
    try:
        _receive(url, part, size)
        if (wrong := _difference(part, published, size)) and resumed:
            part.unlink()  # the earlier part may be of another file
            _receive(url, part, size)
            wrong = _difference(part, published, size)
    except DownloadError as error:
        raise DownloadError(f"{error} {by_hand}") from error.__cause__
    if wrong:
        kept = path.with_name(path.name + ".wrong")
        os.replace(part, kept)
        raise DownloadError(f"{url} is not the published file: {wrong}. The download is kept as {kept}. {by_hand}")
    os.replace(part, path)
    return path


def _difference(path: Path, published: dict[str, str | None], size: int | None) -> str | None:
    """How a file differs from the published one, in words; None if it does not."""
    if size is not None and path.stat().st_size != size:
        return f"it has {path.stat().st_size:,} bytes, expected {size:,}"
    for name, expected in published.items():
        if expected is not None:
            with open(path, "rb") as file:
                found = hashlib.file_digest(file, name).hexdigest()
            if found != expected.lower():
                return f"its {name} is {found}, expected {expected}"
    return None


def _receive(url: str, part: Path, size: int | None) -> None:
    """Complete the partial file `part`, in up to `ATTEMPTS` attempts.

    Raises:
        DownloadError: the server refuses, sends a web page or a file of another size, or every attempt is interrupted.
    """
    for attempt in range(ATTEMPTS):
        try:
            _receive_once(url, part, size)
            return
        except urllib.error.HTTPError as error:
            error.close()
            failure = f"the server answers {error.code} {error.reason}"
            if error.code < 500 and error.code not in (408, 429):
                raise DownloadError(f"Cannot download {url}: {failure}.") from error
        except urllib.error.URLError as error:
            failure = str(error.reason)
        except (http.client.HTTPException, ConnectionError, TimeoutError) as error:
            failure = str(error) or type(error).__name__
        if attempt + 1 < ATTEMPTS:
            time.sleep(WAIT_SECONDS)
    there = part.stat().st_size if part.exists() else 0
    kept = f" {there:,} bytes are kept, and the same command resumes from there." * bool(there)
    raise DownloadError(f"Cannot download {url}: {failure}, {ATTEMPTS} times.{kept}")


def _receive_once(url: str, part: Path, size: int | None) -> None:
    there = part.stat().st_size if part.exists() else 0
    if size is not None and there == size:
        return
    if size is not None and there > size:
        there = 0
    headers = {"User-Agent": "metric-learning-benchmark", "Accept-Encoding": "identity"}
    request = urllib.request.Request(url, headers=headers | ({"Range": f"bytes={there}-"} if there else {}))
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not there:
            raise
        error.close()
        part.unlink()  # longer than the file, so the next attempt starts from scratch
        raise ConnectionError("the existing part is longer than the file") from error
    with response:
        if response.status != 206 or f"bytes {there}-" not in response.headers.get("Content-Range", ""):
            there = 0  # the server ignores the range and sends the whole file
        length = response.headers.get("Content-Length", "")
        total = there + int(length) if length.isdecimal() else None
        first = response.read(CHUNK)
        if response.headers.get_content_type() == "text/html" or (not there and PAGE.match(first[:1000])):
            raise DownloadError(
                f"{url} sends a web page instead of {part.stem} (final address: {response.url}): the server wants a "
                "login or an agreement, or limits downloads."
            )
        if None not in (size, total) and size != total:
            raise DownloadError(f"{url} is not the published file: it has {total:,} bytes, expected {size:,}.")
        with open(part, "ab" if there else "wb") as file, progress(part.stem, total, there) as advance:
            while first:
                file.write(first)
                advance(len(first))
                first = response.read(CHUNK)
        if total is not None and part.stat().st_size < total:
            raise ConnectionError(f"the transfer was interrupted after {part.stat().st_size:,} of {total:,} bytes")


@contextlib.contextmanager
def progress(what: str, total: int | None, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Report progress in bytes: a bar on a terminal, a line every ten seconds elsewhere.

    Args:
        what: the task, printed at the start of the line.
        total: total number of bytes; None if unknown.
        done: number of bytes present at the start.

    Yields:
        A function to call with the number of bytes added.
    """
    if sys.stdout.isatty():
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        with Progress(
            TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TimeRemainingColumn()
        ) as bar:
            task = bar.add_task(visible(what), total=total, completed=done)
            yield lambda amount: bar.advance(task, amount)
        return
    end, last = f" of {total / 1e6:,.1f} MB" if total else " MB", time.monotonic()

    def advance(amount: int) -> None:
        nonlocal done, last
        done += amount
        if time.monotonic() - last >= PLAIN_SECONDS:
            last = time.monotonic()
            write(f"  {what}: {done / 1e6:,.1f}{end}")

    yield advance


# -- archives ---------------------------------------------------------------------------------------------------------

BROKEN = (  # what tarfile, zipfile and the decompressors raise for damaged archives
    tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, NotImplementedError,
    ValueError, OverflowError, TypeError, IndexError,
)  # fmt: skip


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
        OSError: the disk is full or the folder cannot be written.
    """
    if (folder / MARKER).is_file():
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
        members = _zip_members(archive) if zipfile.is_zipfile(archive) else _tar_members(archive)
        count = _write_members(members, partial, limits)
        (partial / MARKER).write_text(f"{count} members of {archive.name}\n", encoding="utf-8")
        os.replace(partial, folder)
    except (DownloadError, *BROKEN) as error:
        what = str(error) or type(error).__name__
        raise DownloadError(
            f"{archive} cannot be unpacked: {what}. Check where it comes from; delete it to try again."
        ) from (None if isinstance(error, DownloadError) else error)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _tar_members(archive: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    """Yield the name and the content of each member; the content of a folder is None."""
    with tarfile.open(archive, "r|*") as tar:
        for member in tar:
            if not (member.isreg() or member.isdir()):
                raise DownloadError(f"its member {member.name!r} is a link or a device, and only files are allowed")
            yield member.name, tar.extractfile(member) if member.isreg() else None


def _zip_members(archive: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    with zipfile.ZipFile(archive) as whole:
        for member in whole.infolist():
            kind = member.external_attr >> 28  # the upper bits of a Unix mode; 0 if packed on another system
            if kind not in (0, 0o4, 0o10):
                raise DownloadError(f"its member {member.filename!r} is a link or a device, and only files are allowed")
            if member.is_dir():
                yield member.filename, None
            else:
                with whole.open(member) as content:
                    yield member.filename, content


def _write_members(members: Iterator[tuple[str, IO[bytes] | None]], folder: Path, limits: Limits) -> int:
    """Write all members below a folder and return their number."""
    count = size = 0
    with progress(f"unpacking {folder.name.strip('.').removesuffix('.partial')}", None) as advance:
        for name, content in members:
            count += 1
            if count > limits.members:
                raise DownloadError(f"it has more than {limits.members:,} members, unlike the genuine one")
            target = folder.joinpath(*_safe_parts(name))
            try:
                (target if content is None else target.parent).mkdir(parents=True, exist_ok=True)
                if content is None:
                    continue
                with open(target, "wb") as file:
                    while chunk := content.read(CHUNK):
                        size += len(chunk)
                        if size > limits.bytes:
                            raise DownloadError(f"it holds more than {limits.bytes:,} bytes, unlike the genuine one")
                        file.write(chunk)
                        advance(len(chunk))
            except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
                raise DownloadError(f"its member {name!r} is both a file and a folder") from error
    return count


def _safe_parts(name: str) -> tuple[str, ...]:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or re.match(r"[A-Za-z]:", name):
        raise DownloadError(f"its member {name!r} would be written outside the folder")
    return path.parts
