"""Image files on disk: paths, bytes and checksums, and a source that decodes images at each use."""

import contextlib
import functools
import hashlib
import os
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmark.core.errors import UserError
from benchmark.core.paths import stays_inside
from benchmark.core.pulse import beating
from benchmark.images.decode import AS_PUBLISHED, Reading, UnreadableImageError, decode

MAX_BYTES = 2**30  # of an image file; more than the largest image that is decoded takes without compression
TICK_NS = 10_000_000  # on Linux, the clock of change times advances in steps of 10 ms at most


def inside(root: Path, paths: Iterable[str]) -> list[Path]:
    """Resolve listed names to files below `root`; a symbolic link may leave the folder, a name may not.

    Raises:
        UserError: a name leads outside the folder.
    """
    found = []
    for row, path in enumerate(paths):
        if not path or not stays_inside(path):
            raise UserError(f"Image {row + 1} is named {path!r}: allowed are names below {root}, without '..'.")
        found.append(root / path)
    return found


class Stamp(NamedTuple):
    """What the file system says about a file's last change.

    Attributes:
        size: in bytes.
        modified: modification time in nanoseconds. Programs that copy or unpack files set it, so that a file with other
            bytes may have the same.
        changed: change time in nanoseconds. The system sets it at every write, rename and change of a modification
            time, so that copies of a file differ in it.
    """

    size: int
    modified: int
    changed: int

    @classmethod
    def of(cls, status: os.stat_result) -> "Stamp":
        """Return the stamp of a file with this status."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def check_time() -> int:
    """Return a time in nanoseconds that is after the change times of present files, but not after later ones."""
    found = time.time_ns()
    time.sleep(TICK_NS / 1e9)
    return found + 1


def stamp(path: Path) -> Stamp:
    """Return the stamp of a file, which reveals a change.

    Raises:
        OSError: there is no such file.
    """
    return Stamp.of(path.stat())


def read(path: Path) -> tuple[bytes, Stamp]:
    """Read a file and the stamp that it had before reading.

    Raises:
        UnreadableImageError: the file cannot be read.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # reading a pipe could wait forever
            raise UnreadableImageError("is not a file")
        with open(path, "rb") as file:
            found = Stamp.of(os.fstat(file.fileno()))  # before reading, so that a concurrent change is noticed
            if found.size > MAX_BYTES:
                raise UnreadableImageError(f"has {found.size:,} bytes; at most {MAX_BYTES:,} are read")
            return file.read(), found
    except (FileNotFoundError, NotADirectoryError):
        raise UnreadableImageError("is missing") from None
    except OSError as error:
        raise UnreadableImageError(f"cannot be read ({error.strerror})") from error
    except ValueError:  # a null byte in the name
        raise UnreadableImageError("is missing") from None


def contents_of(sha256: Iterable[str]) -> str:
    """Combine the hexadecimal SHA-256 of many files, in order, into one SHA-256."""
    return hashlib.sha256("".join(sha256).encode()).hexdigest()


class DecodedOnRead:
    """Image files that are decoded at every use: slow, but without a cache on disk; a `Source`.

    A file that changes after it was first read, by `pixels` or `contents`, is refused, so that all pixels belong to
    `contents`.

    Args:
        root: folder that the paths are relative to.
        paths: paths of the image files, in the order of the data set.
        short_side: length in pixels to which the shorter side is resized; None keeps the size.
        reading: how pixels become RGB.

    Raises:
        UserError: a path leads outside `root`.
    """

    def __init__(self, root: Path, paths: list[str], short_side: int | None, reading: Reading = AS_PUBLISHED) -> None:
        self.paths, self.short_side, self.reading = inside(root, paths), short_side, reading
        self._sha256: list[str | None] = [None] * len(paths)  # of each file that was read

    def __len__(self) -> int:
        return len(self.paths)

    def pixels(self, index: int) -> np.ndarray:
        """Decode one image, uint8 (H, W, 3), read-only.

        Raises:
            UnreadableImageError: the image cannot be decoded, or its file changed since it was first read; the message
                names the file.
        """
        with self._naming_file(index):
            return decode(self._read(index), self.short_side, self.reading)

    @functools.cached_property
    def contents(self) -> str:
        """SHA-256 over the SHA-256 of every file's bytes, in order; this reads all files.

        Raises:
            UnreadableImageError: a file cannot be read, or changed since it was first read; the message names it.
        """
        for index in beating(range(len(self))):
            with self._naming_file(index):
                self._read(index)
        return contents_of(sha256 for sha256 in self._sha256 if sha256)

    def _read(self, index: int) -> bytes:
        payload = read(self.paths[index])[0]
        sha256 = hashlib.sha256(payload).hexdigest()
        if (self._sha256[index] or sha256) != sha256:
            raise UnreadableImageError("changed since it was first read; run the same command again")
        self._sha256[index] = sha256
        return payload

    @contextlib.contextmanager
    def _naming_file(self, index: int) -> Iterator[None]:
        try:
            yield
        except UnreadableImageError as error:
            raise UnreadableImageError(f"Image {index + 1}, {self.paths[index]}, {error}.") from error
