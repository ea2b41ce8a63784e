"""A folder with the decoded pictures of one half of a data set: filled once, then mapped into memory.

Source: this project. The pictures are in shards (`shards.py`); `about.json`, written last, says which belong together.
`build` keeps every shard that is finished and whose files did not change, so it can be stopped at any time. Nothing
here is unpickled.
"""

import contextlib
import functools
import hashlib
import math
import mmap
import shutil
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.core import records
from benchmark.images import shards
from benchmark.images.decode import resized_shape, shape_of
from benchmark.images.decoded_on_read import contents_of, inside

MAPPED_BYTES = 128e6  # of shards that stay mapped after their use: each takes a file descriptor and counts as memory
HEADERS = 64  # pictures to estimate the space from
SHOWN = 5  # pictures that a message names
WAYS_OUT = (
    "Free some space, name a folder on another disk in the environment variable BENCHMARK_CACHE, or do without a cache "
    "and decode pictures at every use: decode=always."
)


def build(
    folder: Path,
    root: Path,
    paths: list[str],
    *,
    short_side: int | None,
    workers: int,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Fill a cache with pictures, unless it holds them already; `Cache(folder)` reads it.

    Only one process works on a folder; others wait, and find it done.

    Args:
        folder: of the cache.
        root: folder that the paths start from.
        paths: of the pictures, in the order of the data set.
        short_side: pixels of their shorter side; None keeps them whole.
        workers: threads that decode.
        progress: told of pictures done and of all that are to do, by one thread at a time.

    Raises:
        ValueError: a path leads out of `root`, pictures cannot be decoded, or the disk is too small for them.
        OSError: the folder cannot be written.
    """
    job = _Job(folder, root, paths, inside(root, paths), short_side)
    if job.is_whole():
        return
    with _explained(folder), _alone(folder):
        if not job.is_whole():
            job.do(workers, progress or (lambda done, total: None))


@dataclass(frozen=True)
class _Job:
    folder: Path
    root: Path
    paths: list[str]
    files: list[Path]
    short_side: int | None

    def note(self, number: int) -> dict[str, Any] | None:
        """What is noted about a shard, None unless it is finished and up to date."""
        note, own = shards.read(self.folder, number), shards.slot(number)
        good = note and shards.is_current(note, self.paths[own], self.files[own], self.short_side)
        return note if good else None

    def about(self, notes: list[dict[str, Any]]) -> dict[str, Any]:
        sha256 = (sha256 for note in notes for _, _, sha256 in note["files"])
        return {"num_pictures": len(self.paths), "short_side": self.short_side, "contents": contents_of(sha256)}

    def is_whole(self) -> bool:
        try:
            about = records.read_record(self.folder / "about.json").result
            notes = [note for number in shards.numbers(len(self.paths)) if (note := self.note(number))]
        except (FileNotFoundError, records.CorruptFileError):
            return False
        return len(notes) == len(shards.numbers(len(self.paths))) and about == self.about(notes)

    def do(self, workers: int, progress: Callable[[int, int], None]) -> None:
        (self.folder / "about.json").unlink(missing_ok=True)
        todo = [number for number in shards.numbers(len(self.paths)) if not self.kept(number)]
        rows = [row for number in todo for row in range(len(self.paths))[shards.slot(number)]]
        self.check_space(rows)
        lock, done = threading.Lock(), 0

        def tick() -> None:
            nonlocal done
            with lock:
                done += 1
                progress(done, len(rows))

        def make(number: int) -> dict[int, str]:
            own = shards.slot(number)
            bad = shards.write(self.folder, number, self.paths[own], self.files[own], self.short_side, tick)
            return {own.start + i: reason for i, reason in bad.items()}

        with ThreadPoolExecutor(workers, "decode") as pool:
            bad = {row: reason for part in pool.map(make, todo) for row, reason in part.items()}
        if bad:
            raise self.unreadable(bad)
        about = self.about(
            [note for number in shards.numbers(len(self.paths)) if (note := shards.read(self.folder, number))]
        )
        records.write_record(self.folder / "about.json", records.Record("pictures", about))

    def kept(self, number: int) -> bool:
        """Whether a shard stays; a damaged one is put aside."""
        try:
            return self.note(number) is not None
        except records.CorruptFileError as error:
            names = " and ".join(shards.set_aside(self.folder, number))
            warnings.warn(f"{error} It is kept as {names}; its pictures are decoded again.", stacklevel=2)
            return False

    def check_space(self, rows: list[int]) -> None:
        some = {rows[i * len(rows) // HEADERS] for i in range(HEADERS)} if rows else set()
        shapes = [shape for row in some if (shape := shape_of(self.files[row]))]
        each = [3 * math.prod(resized_shape(*shape, self.short_side)) for shape in shapes]
        need, free = sum(each) / max(1, len(each)) * len(rows), shutil.disk_usage(self.folder).free
        if need > free:
            raise ValueError(
                f"The {len(rows):,} pictures of {self.root} take about {need / 1e9:,.2f} GB when decoded, but "
                f"{self.folder} has {free / 1e9:,.2f} GB free. {WAYS_OUT}"
            )

    def unreadable(self, bad: dict[int, str]) -> ValueError:
        named = "\n  ".join(f"picture {row + 1}: {self.paths[row]} {bad[row]}" for row in sorted(bad)[:SHOWN])
        more = f"\n  and {len(bad) - SHOWN:,} more" * (len(bad) > SHOWN)
        return ValueError(
            f"{len(bad):,} of {len(self.paths):,} pictures in {self.root} cannot be used:\n  {named}{more}\n"
            "Fetch or unpack them anew; pictures of one's own can be left out and counted: "
            'ARGS="dataset.module.on_bad=leave_out dataset.module.check=images"'
        )


class Cache:
    """The pictures of a folder that `build` filled.

    Attributes:
        sizes: (N, 2), height and width of each.
        contents: SHA-256 over the SHA-256 of every file's bytes, in order: it does not depend on who decoded them.
        nbytes: of all pixels.
        short_side: pixels of their shorter side, None if they were left whole.

    Raises:
        ValueError: the folder is not whole.
    """

    def __init__(self, folder: Path) -> None:
        try:
            about = records.read_record(folder / "about.json").result
            wanted = shards.numbers(about["num_pictures"])
            notes = [note for number in wanted if (note := shards.read(folder, number))]
        except (FileNotFoundError, records.CorruptFileError) as error:
            raise ValueError(f"{_unusable(folder)} ({error})") from error
        self.contents = contents_of(sha256 for note in notes for _, _, sha256 in note["files"])
        if len(notes) != len(wanted) or self.contents != about["contents"]:
            raise ValueError(f"{_unusable(folder)} (its shards do not belong together)")
        self.folder, self._notes, self.short_side = folder, notes, about["short_side"]
        self.sizes = np.array([size for note in notes for size in note["sizes"]], dtype=np.int64).reshape(-1, 2)
        self._starts = [shards.starts(note["sizes"]) for note in notes]
        self.nbytes = sum(int(ends[-1]) for ends in self._starts)
        largest = max((int(ends[-1]) for ends in self._starts), default=1)
        self._map = functools.lru_cache(max(1, int(MAPPED_BYTES / largest)))(functools.partial(_mapped, folder, notes))

    def __len__(self) -> int:
        return len(self.sizes)

    def picture(self, index: int) -> np.ndarray:
        """One of them, uint8 (H, W, 3): a read-only view of the file.

        Raises:
            IndexError: there is no such picture.
            ValueError: the cache was changed since it was opened.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"picture {index} of {len(self)}")
        number, place = divmod(index, shards.SHARD)
        height, width = self.sizes[index].tolist()
        start = int(self._starts[number][place])
        return np.frombuffer(self._map(number), np.uint8, 3 * height * width, start).reshape(height, width, 3)

    def verify(self) -> None:
        """Read all pixels and hold them against their checksums; shards that differ are put aside.

        Raises:
            ValueError: some differ.
        """
        damaged = []
        for number, note in enumerate(self._notes):
            with open(shards.pixels_path(self.folder, number, note), "rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != note["pixels"]:
                    damaged += shards.set_aside(self.folder, number)
        if damaged:
            raise ValueError(
                f"{_unusable(self.folder)}: pixels do not match their checksums. The damaged files are kept as "
                f"{', '.join(damaged)}; run the same command again, and only their pictures are decoded again."
            )


def _unusable(folder: Path) -> str:
    return f"The cache {folder} is not whole"


def _mapped(folder: Path, notes: list[dict[str, Any]], number: int) -> mmap.mmap:
    try:
        with open(shards.pixels_path(folder, number, notes[number]), "rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError as error:
        raise ValueError(f"{_unusable(folder)}: {error.filename} went away; run the command again.") from None


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder; say so where another process does, and wait for it."""
    lock, what = folder / "lock", f"The cache {folder}"
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(records.only_one(lock, what))
        except records.LockedError as busy:
            print(f"{str(busy).partition(' Wait for it')[0]} Waiting for it to finish ...", file=sys.stderr, flush=True)
            held.enter_context(records.only_one(lock, what, wait_seconds=math.inf))
        yield


@contextlib.contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Errors of a full or read-only disk, with what can be done about them."""
    try:
        yield
    except OSError as error:
        if error.errno not in (*records.FULL, *records.READ_ONLY):
            raise
        what = "its disk is full" if error.errno in records.FULL else "the folder cannot be written"
        raise OSError(error.errno, f"Cannot fill the cache {folder}: {what}. {WAYS_OUT}") from error
