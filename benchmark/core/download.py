"""Download files; a broken connection or a server that lies causes an error message, not damage.

A download is written to `NAME.part`, resumes where an earlier one stopped, ends at the published size, and is renamed
only if its size and checksum match the published ones. This module knows nothing about data sets.
"""

import contextlib
import hashlib
import http.client
import itertools
import os
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from email.message import Message
from pathlib import Path
from typing import IO

from benchmark.core import formats
from benchmark.core.console import write
from benchmark.core.errors import UserError
from benchmark.core.escape import one_line, visible
from benchmark.core.pulse import beating

ATTEMPTS = 3  # for one download; each resumes where the previous one stopped
WAIT_SECONDS = 2.0
TIMEOUT_SECONDS = 60.0  # without a single byte
STALL_SECONDS, STALL_BYTES = 60.0, 1 << 16  # fewer bytes in that time are as good as none
PLAIN_SECONDS = 10.0  # plain output reports progress at most this often
CHUNK = 1 << 20
BY_HAND = "Or download it by hand:"  # begins the advice in the message of a failed download
PART, WRONG = ".part", ".wrong"  # suffixes of a file that is incomplete, and of one that is not the published one
AT_MOST = 8 << 30  # bytes of a file whose size is not known
HEADERS = {"User-Agent": "metric-learning-benchmark", "Accept-Encoding": "identity"}
RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")


class DownloadError(UserError):
    """A file that cannot be downloaded, or an archive that must not be unpacked; the message says what to do."""


def download(
    url: str,
    path: Path,
    *,
    sha256: str | None = None,
    md5: str | None = None,
    size: int | None = None,
    at_most: int = AT_MOST,
) -> Path:
    """Download a file unless it exists already, verify it in either case, and return its path.

    Args:
        url: an http or https address.
        path: where to put the file; afterwards it is complete or absent.
        sha256: published checksum of the whole file, in hexadecimal; None if none is published.
        md5: published MD5 checksum, in hexadecimal; None if none is published.
        size: published size of the whole file, in bytes.
        at_most: largest possible size in bytes, if none is published; a longer transfer is broken off.

    Raises:
        DownloadError: the file cannot be downloaded or is not the published one; the message ends with instructions
            for doing it by hand.
        OSError: the disk is full or the folder cannot be written.
    """
    by_hand = f"{BY_HAND} {url}\nand put it at {path.absolute()}; then run the same command again."
    if not url.startswith(("http://", "https://")):
        raise DownloadError(f"{url} is not an http or https address. {by_hand}")
    published = {"sha256": sha256, "md5": md5}
    part = part_of(path)
    for place in (path, part):
        if special := formats.kind(place):
            raise DownloadError(f"{place} is {special}, not a file. Move it away. {by_hand}")
    if path.exists():
        if wrong := _difference(path, published, size):
            raise DownloadError(
                f"{path} is not the published file: {wrong}. Move it away to download it again. {by_hand}"
            )
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    resumed = part.exists()
    try:
        _receive(url, part, size, at_most)
        if (wrong := _difference(part, published, size)) and resumed:
            part.unlink()  # the earlier part may be of another file
            _receive(url, part, size, at_most)
            wrong = _difference(part, published, size)
    except DownloadError as error:
        raise DownloadError(f"{error} {by_hand}") from error.__cause__
    if wrong:
        raise DownloadError(f"{not_the_published(url, part, path, wrong)} {by_hand}")
    os.replace(part, path)
    return path


def reason(error: DownloadError) -> str:
    """Return why a download failed, without the advice on doing it by hand, which is given once, after the last try."""
    return str(error).partition(BY_HAND)[0].strip()


def part_of(path: Path) -> Path:
    """Return where a file is kept while it is downloaded, and after an interruption."""
    return path.with_name(path.name + PART)


def not_the_published(url: str, received: Path, path: Path, wrong: str) -> str:
    """Set aside what an address sent in place of the published file, and return a message about it.

    Args:
        url: the address.
        received: the file that it sent.
        path: where the published file should be.
        wrong: how the file differs from it.
    """
    kept = path.with_name(path.name + WRONG)
    os.replace(received, kept)
    return f"{url} is not the published file: {wrong}. The download is kept as {kept}."


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


def _receive(url: str, part: Path, size: int | None, at_most: int) -> None:
    """Complete the partial file `part`, in up to `ATTEMPTS` attempts.

    Raises:
        DownloadError: the server refuses, sends a web page or a file of another size, or every attempt is interrupted.
    """
    for attempt in range(ATTEMPTS):
        try:
            _receive_once(url, part, size, at_most)
            return
        except urllib.error.HTTPError as error:
            error.close()
            failure = f"the server answers {error.code} {_short(error.reason)}"
            if error.code < 500 and error.code not in (408, 429):
                raise DownloadError(f"Cannot download {url}: {failure}.") from error
        except urllib.error.URLError as error:
            failure = _short(error.reason)
        except (http.client.HTTPException, ConnectionError, TimeoutError) as error:
            failure = _short(error) or type(error).__name__
        except ValueError as error:  # from an address that the server redirects to
            raise DownloadError(f"Cannot download {url}: {_short(error)}.") from error
        if attempt + 1 < ATTEMPTS:
            time.sleep(WAIT_SECONDS)
    there = part.stat().st_size if part.exists() else 0
    kept = f" {there:,} bytes are kept, and the same command resumes from there." * bool(there)
    raise DownloadError(f"Cannot download {url}: {failure}, {ATTEMPTS} times.{kept}")


def _short(reason: object) -> str:
    return one_line(str(reason)[:200])


def _receive_once(url: str, part: Path, size: int | None, at_most: int) -> None:
    there = part.stat().st_size if part.exists() else 0
    if size is not None and there == size:
        return
    if there > (at_most if size is None else size):
        there = 0
    request = urllib.request.Request(url, headers=HEADERS | ({"Range": f"bytes={there}-"} if there else {}))
    opener = urllib.request.build_opener(_Redirects)
    try:
        response = opener.open(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not there:
            raise
        error.close()
        part.unlink()  # longer than the file, so the next attempt starts from scratch
        raise ConnectionError("the existing part is longer than the file") from error
    with response:
        there, total = _place(response, there, part)
        chunks = _chunks(response)
        first = b""
        while len(first) < formats.HEAD and (chunk := next(chunks, b"")):
            first += chunk
        _check_answer(response, url, part.stem, there, first)
        if None not in (size, total) and size != total:
            raise DownloadError(f"{url} is not the published file: it has {total:,} bytes, expected {size:,}.")
        if size is None and total is not None and total > at_most:
            raise DownloadError(f"{url} is not the genuine file: it has {total:,} bytes, expected at most {at_most:,}.")
        _write(part, first, chunks, there, total, at_most if size is None else size)
        if total is not None and part.stat().st_size < total:
            raise ConnectionError(f"the transfer was interrupted after {part.stat().st_size:,} of {total:,} bytes")


def _place(response: http.client.HTTPResponse, there: int, part: Path) -> tuple[int, int | None]:
    """Return where the answer begins within the file, and the size of the file, or None if the server does not tell.

    Raises:
        ConnectionError: the server sends another range than the one asked for; the part is removed.
        DownloadError: the answer is not a file.
    """
    if response.status == 206:
        found = RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if not there or not found or int(found[1]) != there:
            part.unlink(missing_ok=True)
            raise ConnectionError("the server sends another part of the file than the one asked for")
        return there, None if found[3] == "*" else int(found[3])
    if response.status != 200:
        raise DownloadError(f"Cannot download {response.url}: the server answers {response.status}, without a file.")
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if re.fullmatch("[0-9]{1,18}", length) else None  # if a range was asked for, it is ignored


def _check_answer(response: http.client.HTTPResponse, url: str, name: str, there: int, first: bytes) -> None:
    """Check that an answer is a file.

    Raises:
        DownloadError: it is a web page, empty, or compressed on the way.
    """
    if response.headers.get_content_type() == "text/html" or (not there and formats.PAGE.match(first)):
        raise DownloadError(
            f"{url} sends a web page instead of {name} (final address: {_short(response.url)}): the "
            "server wants a login or an agreement, or limits downloads."
        )
    if not there and not first:
        raise DownloadError(f"{url} sends an empty file instead of {name}.")
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    gzipped = encoding in ("gzip", "x-gzip") and name.endswith((".gz", ".tgz"))  # some servers say so of every .tgz
    if encoding != "identity" and not gzipped:
        raise DownloadError(f"{url} sends {name} encoded as {_short(encoding)}, though asked not to.")


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """Yield what arrives.

    Raises:
        ConnectionError: the connection breaks, or is too slow.
    """
    since, received = time.monotonic(), 0
    while True:
        try:
            chunk = response.read1(CHUNK)
        except OSError as error:
            raise ConnectionError(str(error) or type(error).__name__) from error
        if not chunk:
            return
        yield chunk
        received += len(chunk)
        if time.monotonic() - since >= STALL_SECONDS:
            if received < STALL_BYTES:
                raise ConnectionError(f"only {received:,} bytes came in {STALL_SECONDS:.0f} seconds")
            since, received = time.monotonic(), 0


def _write(part: Path, first: bytes, chunks: Iterator[bytes], there: int, total: int | None, most: int) -> None:
    """Append what arrives to the part, or replace it if `there` is 0.

    Raises:
        DownloadError: more than `most` bytes arrive; the part is removed.
    """
    with open(part, "ab" if there else "wb") as file, progress(part.stem, total, there) as advance:
        for chunk in beating(itertools.chain([first], chunks)):
            there += len(chunk)
            if there > most:
                break
            file.write(chunk)
            advance(len(chunk))
        else:
            return
    part.unlink()
    raise DownloadError(f"The server sends more than {most:,} bytes for {part.stem}, which is not the genuine file.")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to https, and from http to http."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        if not newurl.startswith(("https://", f"{req.type}://")):
            raise ValueError(f"the server redirects to {newurl}, which is no https address")
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]

    def http_error_302(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message
    ) -> IO[bytes] | None:
        try:
            return super().http_error_302(req, fp, code, msg, headers)  # type: ignore
        except ValueError:
            fp.close()
            raise

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


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
