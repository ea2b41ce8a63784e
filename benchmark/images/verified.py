"""Verification of a cache's files by SHA-256, which hashes a file again only if it may have changed (used by `cache`).

Source: this project. An unchanged file is recognised by its size, inode and change time (ctime). The system sets the
change time at every write and, unlike the modification time, no program can set it back; a copied or replaced file has
another inode. An unchanged file therefore costs one call of `stat`, every other file is hashed. Verified files are
remembered in this process, and in `verified.json` in their folder if that can be written. If `verified.json` is missing
or damaged, all files are hashed once.

Damage that leaves no trace in the file system, such as that of a failing disk, is found only by hashing everything
(`altered` with `everything`), as `make data` does.
"""

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmark.core import records
from benchmark.core.console import write
from benchmark.core.pulse import beating
from benchmark.core.threads import usable_cores
from benchmark.core.wording import human_size
from benchmark.images.decoded_on_read import TICK_NS

MEMO = "verified.json"
LARGE = 2e9  # bytes; hashing more is announced
CHUNK = 2**20  # bytes
MOST_THREADS = 8  # more only make a hard disk seek
Stamp = tuple[int, int, int]  # size in bytes, inode, change time in ns

_known: dict[str, tuple[str, Stamp]] = {}  # by path: SHA-256, and the stamp that the file had when it was verified


class VerifiedFile:
    """An open file whose bytes are verified whenever they are read.

    Bytes are copied, since a memory-mapped file that is truncated ends the process that reads it (SIGBUS).

    Args:
        path: the file.
        sha256: SHA-256 that its bytes should have.

    Raises:
        FileNotFoundError: there is no such file.
    """

    def __init__(self, path: str, sha256: str) -> None:
        self._path, self._sha256 = path, sha256
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._intact: tuple[str, Stamp] | None = None  # as in `_known`, where the path can mean a newer file

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # an argument, since at exit `os` goes first
        if hasattr(self, "_descriptor"):
            close(self._descriptor)

    def read(self, start: int, size: int) -> np.ndarray | None:
        """Return some of the file's bytes, read-only uint8 (size,); None if the file was altered.

        Args:
            start: offset of the first byte.
            size: number of bytes.
        """
        found = np.empty(size, np.uint8)
        if os.preadv(self._descriptor, [found.data], start) != size:
            return None
        found.flags.writeable = False
        return found if self._is_intact() else None  # after reading, so that it covers what was read

    def _is_intact(self) -> bool:
        """Return whether the file has the expected SHA-256; it is hashed only if it may have changed."""
        now = self._sha256, _stamp(os.fstat(self._descriptor))
        if now == self._intact:
            return True
        if now != _known.get(self._path):
            if self._hash() != self._sha256:
                return False
            _known[self._path] = now
        self._intact = now
        return True

    def _hash(self) -> str:
        digest, offset = hashlib.sha256(), 0
        while part := os.pread(self._descriptor, CHUNK, offset):  # without moving the position, which threads share
            digest.update(part)
            offset += len(part)
        return digest.hexdigest()


def remember(path: Path, sha256: str) -> None:
    """Remember that a file, just written by this process, has bytes with this SHA-256."""
    _known[str(path)] = sha256, _stamp(os.stat(path))


def altered(folder: Path, files: Mapping[str, str], *, everything: bool = False) -> list[str]:
    """Return the names of the files that do not have the expected SHA-256 or cannot be read.

    Args:
        folder: folder of the files and of `verified.json`.
        files: expected SHA-256 of each file by name; `verified.json` forgets all other files.
        everything: hash all files, including those that did not change since they were verified.
    """
    memo, new = _read(folder), []
    for name, sha256 in files.items():
        path = os.path.join(folder, name)
        stamp = _settled_stamp(path)
        if stamp and not everything and memo.get(name) == [sha256, *stamp]:
            _known[path] = sha256, stamp
        elif not stamp or everything or _known.get(path) != (sha256, stamp):
            _known.pop(path, None)
            new.append(name)
    try:
        wrong = _hash(folder, {name: files[name] for name in new})
    finally:  # what was verified before an interruption stays verified
        verified = {name: found for name in files if (found := _known.get(os.path.join(folder, name)))}
        memorised = {name: [sha256, *stamp] for name, (sha256, stamp) in verified.items()}
        if memorised != memo:
            with contextlib.suppress(OSError):  # the folder is read-only, or its disk full
                records.write_record(folder / MEMO, records.Record("verified", memorised))
    return wrong


def _hash(folder: Path, files: Mapping[str, str]) -> list[str]:
    """Hash files, remember those that have the expected SHA-256, and return the names of the others."""
    if not files:
        return []
    paths = [os.path.join(folder, name) for name in files]
    size = sum(os.stat(path).st_size for path in paths if os.path.exists(path))
    if size > LARGE:
        write(f"Verifying {human_size(size)} of decoded images in {folder} ...", error=True)
    with ThreadPoolExecutor(min(MOST_THREADS, usable_cores()), "verify") as pool:  # hashing releases the GIL
        intact = [*beating(pool.map(_is_intact, paths, files.values()))]
    return [name for name, good in zip(files, intact, strict=True) if not good]


def _is_intact(path: str, sha256: str) -> bool:
    try:
        with open(path, "rb") as file:
            before = _stamp(os.fstat(file.fileno()))  # so that a file that changes meanwhile is hashed again
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                return False
    except OSError:
        return False
    _known[path] = sha256, before
    return True


def _settled_stamp(path: str) -> Stamp | None:
    """Return a file's stamp, None without a file; waits until any later write gets another change time."""
    try:
        found = os.stat(path)
        if 0 <= (age := time.time_ns() - found.st_ctime_ns) < TICK_NS:
            time.sleep((TICK_NS - age) / 1e9)
            found = os.stat(path)
    except OSError:
        return None
    return _stamp(found)


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_size, status.st_ino, status.st_ctime_ns


def _read(folder: Path) -> dict[str, object]:
    """Read `verified.json`: SHA-256 and stamp of each verified file, by name; empty if it is missing or damaged."""
    try:
        memo = records.read_record(folder / MEMO).result
    except (OSError, records.CorruptFileError):
        return {}
    return memo if isinstance(memo, dict) else {}
