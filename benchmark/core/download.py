"""Files from the internet, and what archives hold, so that a broken line or a hostile file ends with a sentence.

A download is written to `NAME.part`, goes on where an earlier one stopped, and gets its name only when size and
checksum are the published ones. An archive is unpacked beside its folder, which appears by one rename: it is whole or
absent. Nothing here knows what a data set is.
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

ATTEMPTS = 3  # of a transfer that breaks off; each goes on where the one before stopped
WAIT_SECONDS = 2.0
TIMEOUT_SECONDS = 60.0
PLAIN_SECONDS = 10.0  # plain output says how far a transfer is at most this often
CHUNK = 1 << 20
MARKER = ".unpacked"  # in a folder that holds all of an archive
PAGE = re.compile(rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<(!doctype\s+html|html|head)\b", re.IGNORECASE | re.DOTALL)


class FetchError(ValueError):
    """A file that cannot be had, or an archive that is not to be unpacked; the message says what to do."""


@dataclass(frozen=True)
class Limits:
    """How much an archive may hold: a little above what the genuine one does."""

    members: int
    bytes: int


def download(
    url: str, path: Path, *, sha256: str | None = None, md5: str | None = None, size: int | None = None
) -> Path:
    """The file, fetched if it is not there, and checked in either case.

    Args:
        url: http or https.
        path: where to put it; it exists afterwards with all of its content, or not at all.
        sha256: of the whole file, in hexadecimal; None where none is published.
        md5: the same.
        size: of the whole file in bytes.

    Raises:
        FetchError: the file cannot be had or is another one; the message ends with how to put it there by hand.
        OSError: the disk is full or the folder cannot be written.
    """
    by_hand = f"Or fetch it by hand: {url}\nand put it at {path.absolute()}; then run the same command again."
    if not url.startswith(("http://", "https://")):
        raise FetchError(f"{url} is no http or https address. {by_hand}")
    published = {"sha256": sha256, "md5": md5}
    if path.exists():
        if wrong := _difference(path, published, size):
            raise FetchError(f"{path} is not the published file: {wrong}. Move it away to download it anew. {by_hand}")
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    resumed = part.exists()
    try:
        _receive(url, part, size)
        if (wrong := _difference(part, published, size)) and resumed:
            part.unlink()  # what was there before may have been the start of another file
            _receive(url, part, size)
            wrong = _difference(part, published, size)
    except FetchError as error:
        raise FetchError(f"{error} {by_hand}") from error.__cause__
    if wrong:
        kept = path.with_name(path.name + ".wrong")
        os.replace(part, kept)
        raise FetchError(f"{url} is not the published file: {wrong}. What came is kept as {kept}. {by_hand}")
    os.replace(part, path)
    return path


def _difference(path: Path, published: dict[str, str | None], size: int | None) -> str | None:
    """How a file differs from the published one; None if it does not."""
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
    """Fill `part` to its end, in several attempts if need be.

    Raises:
        FetchError: the server refuses, sends a web page or another size, or breaks off every time.
    """
    for attempt in range(ATTEMPTS):
        try:
            _receive_once(url, part, size)
            return
        except urllib.error.HTTPError as error:
            error.close()
            trouble = f"the server answers {error.code} {error.reason}"
            if error.code < 500 and error.code not in (408, 429):
                raise FetchError(f"Cannot download {url}: {trouble}.") from error
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            trouble = str(getattr(error, "reason", None) or error or type(error).__name__)
        if attempt + 1 < ATTEMPTS:
            time.sleep(WAIT_SECONDS)
    there = part.stat().st_size if part.exists() else 0
    kept = f" {there:,} bytes are kept, and the same command goes on from there." * bool(there)
    raise FetchError(f"Cannot download {url}: {trouble}, {ATTEMPTS} times.{kept}")


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
        part.unlink()  # longer than the file: the next attempt starts over
        raise ConnectionError("the part that was there does not fit") from error
    with response:
        if response.status != 206 or f"bytes {there}-" not in response.headers.get("Content-Range", ""):
            there = 0  # the server sends the whole file
        length = response.headers.get("Content-Length", "")
        total = there + int(length) if length.isdecimal() else None
        first = response.read(CHUNK)
        if response.headers.get_content_type() == "text/html" or (not there and PAGE.match(first[:1000])):
            raise FetchError(
                f"{url} sends a web page in place of {part.stem} (it ended at {response.url}): a login, an agreement "
                "or a limit on downloads is in the way."
            )
        if None not in (size, total) and size != total:
            raise FetchError(f"{url} is not the published file: it has {total:,} bytes, expected {size:,}.")
        with open(part, "ab" if there else "wb") as file, progress(part.stem, total, there) as advance:
            while first:
                file.write(first)
                advance(len(first))
                first = response.read(CHUNK)
        if total is not None and part.stat().st_size < total:
            raise ConnectionError(f"the transfer broke off after {part.stat().st_size:,} of {total:,} bytes")


@contextlib.contextmanager
def progress(what: str, total: int | None, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Say how far something is, in bytes: a bar on a terminal, a line now and then elsewhere.

    Args:
        what: is named in front.
        total: bytes at the end, None where that is unknown.
        done: bytes that were there before.

    Yields:
        what to call with the number of bytes that were added.
    """
    if sys.stdout.isatty():
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        with Progress(TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()) as bar:
            task = bar.add_task(what, total=total, completed=done)
            yield lambda amount: bar.advance(task, amount)
        return
    end, last = f" of {total / 1e6:,.1f} MB" if total else " MB", time.monotonic()

    def advance(amount: int) -> None:
        nonlocal done, last
        done += amount
        if time.monotonic() - last >= PLAIN_SECONDS:
            last = time.monotonic()
            print(f"  {what}: {done / 1e6:,.1f}{end}", flush=True)

    yield advance


# -- archives ---------------------------------------------------------------------------------------------------------

BROKEN = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, NotImplementedError,
    ValueError, OverflowError, TypeError, IndexError,
)  # fmt: skip


def unpack(archive: Path, folder: Path, *, limits: Limits) -> Path:
    """The folder with what a tar (plain, gz, bz2, xz) or zip archive holds: files and folders only.

    An unpacking that was interrupted starts over; a finished one is not done again.

    Args:
        archive: decided by its content, not by its name.
        folder: made here, beside a hidden one that it is renamed from.
        limits: more members or bytes than these stop it.

    Raises:
        FetchError: the archive is broken, too large, or has members that it must not have, or the folder is there and
            was not made here. Nothing of the archive is left then.
        OSError: the disk is full or the folder cannot be written.
    """
    if (folder / MARKER).is_file():
        return folder
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise FetchError(
            f"{folder} is in the way: {archive.name} is to be unpacked there, and it was made by somebody else. "
            "If it holds the data, something is missing in it; move it away, then run the same command again."
        )
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        members = _zip_members(archive) if zipfile.is_zipfile(archive) else _tar_members(archive)
        count = _write_members(members, partial, limits)
        (partial / MARKER).write_text(f"{count} members of {archive.name}\n", encoding="utf-8")
        os.replace(partial, folder)
    except BROKEN as error:
        what = str(error) or type(error).__name__
        raise FetchError(
            f"{archive} is not unpacked: {what}. Check where it comes from; delete it to try again."
        ) from (None if isinstance(error, FetchError) else error)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _tar_members(archive: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    """Name and content of each member in turn, None for a folder."""
    with tarfile.open(archive, "r|*") as tar:
        for member in tar:
            if not (member.isreg() or member.isdir()):
                raise FetchError(f"its member {member.name!r} is a link or a device, and only files are allowed")
            yield member.name, tar.extractfile(member) if member.isreg() else None


def _zip_members(archive: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    with zipfile.ZipFile(archive) as whole:
        for member in whole.infolist():
            kind = member.external_attr >> 28  # the upper bits of a Unix mode; 0 where it was packed elsewhere
            if kind not in (0, 0o4, 0o10):
                raise FetchError(f"its member {member.filename!r} is a link or a device, and only files are allowed")
            if member.is_dir():
                yield member.filename, None
            else:
                with whole.open(member) as content:
                    yield member.filename, content


def _write_members(members: Iterator[tuple[str, IO[bytes] | None]], folder: Path, limits: Limits) -> int:
    """Write them below a folder; the number of members."""
    count = size = 0
    with progress(f"unpacking {folder.name.strip('.').removesuffix('.partial')}", None) as advance:
        for name, content in members:
            count += 1
            if count > limits.members:
                raise FetchError(f"it has more than {limits.members:,} members, which the genuine one has not")
            target = folder.joinpath(*_safe_parts(name))
            try:
                (target if content is None else target.parent).mkdir(parents=True, exist_ok=True)
                if content is None:
                    continue
                with open(target, "wb") as file:
                    while chunk := content.read(CHUNK):
                        size += len(chunk)
                        if size > limits.bytes:
                            raise FetchError(
                                f"it holds more than {limits.bytes:,} bytes, which the genuine one does not"
                            )
                        file.write(chunk)
                        advance(len(chunk))
            except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
                raise FetchError(f"its member {name!r} is a file and a folder at once") from error
    return count


def _safe_parts(name: str) -> tuple[str, ...]:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or re.match(r"[A-Za-z]:", name):
        raise FetchError(f"its member {name!r} would lie outside of the folder")
    return path.parts
