"""Pictures as files: which they are, what is in them, and decoding them at each use."""

import functools
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from benchmark.images.decode import UnreadableError, decode


def inside(root: Path, paths: Iterable[str]) -> list[Path]:
    """The files that a list names; a link may lead out of the folder, a name may not.

    Raises:
        ValueError: a name does.
    """
    found = []
    for row, path in enumerate(paths):
        if not path or path.startswith("/") or ".." in path.split("/"):
            raise ValueError(f"Picture {row + 1} is named {path!r}: allowed are names below {root}, without '..'.")
        found.append(root / path)
    return found


def stamp(path: Path) -> list[int]:
    """Length in bytes and time in nanoseconds, by which a changed file is known.

    Raises:
        OSError: there is no such file.
    """
    return _stamp(path.stat())


def read(path: Path) -> tuple[bytes, list[int]]:
    """The bytes of a file, and its stamp when they were read.

    Raises:
        UnreadableError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            about = _stamp(os.fstat(file.fileno()))  # before: a change while it is read must show
            return file.read(), about
    except FileNotFoundError:
        raise UnreadableError("is missing") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise UnreadableError(f"cannot be read ({error})") from error


def _stamp(about: os.stat_result) -> list[int]:
    return [about.st_size, about.st_mtime_ns]


def contents_of(sha256: Iterable[str]) -> str:
    """One SHA-256 for many files, over the hexadecimal SHA-256 of each in their order."""
    return hashlib.sha256("".join(sha256).encode()).hexdigest()


class DecodedOnRead:
    """Pictures that are decoded whenever they are asked for: slow, and what a cache is held against.

    Args:
        root: folder that the paths start from.
        paths: of the pictures, in the order of the data set.
        short_side: pixels of their shorter side; None leaves them whole.

    Raises:
        ValueError: a path leads out of `root`.
    """

    def __init__(self, root: Path, paths: list[str], short_side: int | None) -> None:
        self.paths, self.short_side = inside(root, paths), short_side

    def __len__(self) -> int:
        return len(self.paths)

    def picture(self, index: int) -> np.ndarray:
        """One of them, uint8 (H, W, 3), read-only.

        Raises:
            UnreadableError: it cannot be decoded; the message names it.
        """
        try:
            return decode(read(self.paths[index])[0], self.short_side)
        except UnreadableError as error:
            raise UnreadableError(f"Picture {index + 1}, {self.paths[index]}, {error}.") from error

    @functools.cached_property
    def contents(self) -> str:
        """SHA-256 over the SHA-256 of every file's bytes, in order; reads them all."""
        return contents_of(hashlib.sha256(read(path)[0]).hexdigest() for path in self.paths)
