"""A cache of the decoded images of one half of a data set: filled once, then read.

Source: this project. The images are in shards (`shards.py`); `about.json`, written last, lists the shards that belong
together. `build` keeps every finished shard whose image files did not change, so it can be stopped at any time. Pixels
are verified before use (`verified.py`): altered pixels are never returned, and `build` decodes their images again.
Nothing here is unpickled.
"""

import contextlib
import functools
import math
import os
import shutil
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

import msgspec
import numpy as np

from benchmark.core import records
from benchmark.core.console import write
from benchmark.core.errors import DISK_FULL, UserError
from benchmark.core.invocation import arguments
from benchmark.core.pulse import beat
from benchmark.core.wording import human_size, named
from benchmark.images import shards, verified
from benchmark.images.decode import (
    AS_PUBLISHED,
    Reading,
    Tally,
    UnreadableImageError,
    describe_unusable,
    resized_shape,
    shape_of,
)
from benchmark.images.decoded_on_read import contents_of, inside

OPEN_SHARDS = 64  # number of shards kept open
HEADERS = 64  # number of images used to estimate the required space


class About(TypedDict):
    """Content of `about.json`.

    Attributes:
        num_pictures: number of images.
        short_side: length in pixels to which shorter sides were resized; None: original sizes.
        contents: see `Cache.contents`.
    """

    num_pictures: int
    short_side: int | None
    contents: str


class IncompleteCacheError(UserError):
    """The cache is missing, damaged or altered; `build` decodes the missing images."""


def build(
    folder: Path,
    root: Path,
    paths: list[str],
    *,
    short_side: int | None,
    workers: int,
    reading: Reading = AS_PUBLISHED,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Fill a cache with images unless it already holds them; `Cache(folder)` reads it.

    Only one process fills a folder at a time; the others wait until it is filled.

    Args:
        folder: folder of the cache.
        root: folder that the paths are relative to.
        paths: paths of the image files, in the order of the data set.
        short_side: length in pixels to which shorter sides are resized; None keeps the size.
        workers: number of threads that decode.
        reading: how pixels become RGB; one folder holds the pixels of one reading.
        progress: called with (images done, images to do), by one thread at a time.

    Raises:
        UserError: a path leads outside `root`, the disk is too small or full, or the folder cannot be written.
        UnreadableImageError: images cannot be decoded; the message names the first few.
        OSError: any other disk error.
    """
    job = _Job(folder, root, paths, inside(root, paths), short_side, reading)
    if not (missing := job.missing()):
        job.renew()
        return
    with _advising_on_a_failing_disk(folder, missing), _locked(folder):
        if job.missing():
            job.run(workers, progress or (lambda done, total: None))


@dataclass(frozen=True)
class _Job:
    folder: Path
    root: Path
    paths: list[str]
    files: list[Path]
    short_side: int | None
    reading: Reading
    renewed: dict[int, shards.Metadata] = field(default_factory=dict)  # of shards whose files had to be hashed

    def images(self, number: int) -> shards.ImageFiles:
        """Return the image files of a shard."""
        own = shards.slot(number)
        return shards.ImageFiles(self.paths[own], self.files[own], self.short_side, self.reading)

    def metadata(self, number: int) -> shards.Metadata | None:
        """Return the metadata of a shard; None unless it is finished and up to date."""
        stored = shards.read(self.folder, number)
        metadata = shards.confirmed(stored, self.images(number)) if stored else None
        if metadata and metadata is not stored:
            self.renewed[number] = metadata
        return metadata

    def renew(self) -> None:
        """Note which files were hashed, so that the next process need not hash them, unless another one fills it."""
        if self.renewed:
            with (
                contextlib.suppress(OSError, records.LockedError, records.CorruptFileError),
                records.only_one(self.folder / "lock", f"The cache {self.folder}"),
            ):
                for number, metadata in self.renewed.items():
                    shards.renew(self.folder, number, metadata)

    def about(self, finished: list[shards.Metadata]) -> About:
        """Return the content of `about.json`."""
        sha256 = (sha256 for metadata in finished for _, _, sha256 in metadata["files"])
        return {"num_pictures": len(self.paths), "short_side": self.short_side, "contents": contents_of(sha256)}

    def missing(self) -> str:
        """Describe why the cache has to be filled; an empty string if it is complete, up to date and unaltered."""
        numbers = shards.numbers(len(self.paths))
        try:
            about = records.read_record(self.folder / "about.json").result
            finished = {number: metadata for number in numbers if (metadata := self.metadata(number))}
        except FileNotFoundError:
            return "it was never filled to the end"
        except records.CorruptFileError as error:
            return str(error).rstrip(".")
        if len(finished) != len(numbers) or about != self.about([*finished.values()]):
            return "images are missing, or their files changed since they were decoded"
        names = verified.altered(self.folder, shards.checksums(finished))
        return f"the pixels in {named(names)} do not match their checksums" * bool(names)

    def run(self, workers: int, progress: Callable[[int, int], None]) -> None:
        """Decode missing images, and write `about.json` once every shard exists.

        Raises:
            UnreadableImageError: images cannot be decoded.
            UserError: the disk has too little space.
        """
        (self.folder / "about.json").unlink(missing_ok=True)
        kept = self.kept()
        todo = [number for number in shards.numbers(len(self.paths)) if number not in kept]
        rows = [row for number in todo for row in range(len(self.paths))[shards.slot(number)]]
        self.check_space(rows)
        lock, done = threading.Lock(), 0

        def tick() -> None:
            nonlocal done
            with lock:
                done += 1
                beat()
                progress(done, len(rows))

        def make(number: int) -> dict[int, str]:
            first = shards.slot(number).start
            bad = shards.write(self.folder, number, self.images(number), tick)
            return {first + i: reason for i, reason in bad.items()}

        with ThreadPoolExecutor(workers, "decode") as pool:
            bad = {row: reason for part in pool.map(make, todo) for row, reason in part.items()}
        if bad:
            raise UnreadableImageError(
                describe_unusable(
                    self.root,
                    len(self.paths),
                    [f"image {row + 1}: {self.paths[row]} {bad[row]}" for row in sorted(bad)],
                    "Download or unpack them again. Images of your own can be skipped and counted: "
                    + arguments({"dataset.module.on_bad": "leave_out", "dataset.module.check": "images"}),
                )
            )
        read = (shards.read(self.folder, number) for number in shards.numbers(len(self.paths)))
        written = [metadata for metadata in read if metadata]
        verified.altered(self.folder, shards.checksums(dict(enumerate(written))))  # remembers what was written
        records.write_record(self.folder / "about.json", records.Record("pictures", dict(self.about(written))))

    def kept(self) -> set[int]:
        """Return the numbers of the shards that can be kept; damaged and altered ones are quarantined."""
        found, damaged = {}, {}
        for number in shards.numbers(len(self.paths)):
            try:
                if metadata := self.metadata(number):
                    found[number] = metadata
            except records.CorruptFileError as error:
                damaged[number] = str(error)
        names = verified.altered(self.folder, shards.checksums(found))
        for number, metadata in found.items():
            if (path := shards.pixels_path(self.folder, number, metadata["pixels"])).name in names:
                damaged[number] = f"{path} was altered after it was written: its pixels do not match their checksum."
        for number in sorted(damaged):
            kept_as = " and ".join(shards.quarantine(self.folder, number))
            warnings.warn(f"{damaged[number]} It is kept as {kept_as}; its images are decoded again.", stacklevel=2)
        return found.keys() - damaged.keys()

    def check_space(self, rows: list[int]) -> None:
        """Check the disk space for the images of these rows, estimated from a sample of their headers.

        Raises:
            UserError: the disk has too little space.
        """
        sample = {rows[i * len(rows) // HEADERS] for i in range(HEADERS)} if rows else set()
        shapes = [shape for row in sample if (shape := shape_of(self.files[row]))]
        sizes = [3 * math.prod(resized_shape(*shape, self.short_side)) for shape in shapes]
        need, free = sum(sizes) / max(1, len(sizes)) * len(rows), shutil.disk_usage(self.folder).free
        if need > free:
            raise UserError(
                f"The {len(rows):,} images of {self.root} take about {human_size(need)} when decoded, but "
                f"{self.folder} has {human_size(free)} free. {_ways_out()}"
            )


class Cache:
    """The images of a folder filled by `build`; a `Source`.

    Args:
        folder: folder of the cache.
        reading: how its pixels became RGB.

    Attributes:
        sizes: int64 (N, 2), height and width of each image in pixels.
        contents: SHA-256 over the SHA-256 of every file's bytes, in order: independent of the decoder.
        nbytes: bytes of all pixels.
        short_side: length in pixels to which shorter sides were resized; None: original sizes.
        sha256: SHA-256 of each image file, in order.
        tally: numbers of images with special pixels; None if an earlier version filled the cache.

    Raises:
        IncompleteCacheError: the cache was never filled, is damaged, or has altered pixels.
    """

    def __init__(self, folder: Path, reading: Reading = AS_PUBLISHED) -> None:
        try:
            about = msgspec.convert(records.read_record(folder / "about.json").result, About)
            wanted = shards.numbers(about["num_pictures"])
            found = [metadata for number in wanted if (metadata := shards.read(folder, number))]
        except (FileNotFoundError, records.CorruptFileError, msgspec.ValidationError) as error:
            raise IncompleteCacheError(f"{_incomplete(folder)} ({error})") from error
        self.sha256 = [sha256 for metadata in found for _, _, sha256 in metadata["files"]]
        self.contents = contents_of(self.sha256)
        tallies = [metadata.get("tally") for metadata in found]
        self.tally = None if None in tallies else sum((one for one in tallies if one), Tally())
        sides = {about["short_side"], *(metadata["short_side"] for metadata in found)}
        if len(found) != len(wanted) or self.contents != about["contents"] or len(sides) > 1:
            raise IncompleteCacheError(f"{_incomplete(folder)} (its shards do not belong together)")
        self._checksums = shards.checksums(dict(enumerate(found)))
        files = [(os.path.join(folder, name), sha256) for name, sha256 in self._checksums.items()]
        if names := verified.altered(folder, self._checksums):
            raise IncompleteCacheError(_altered(folder, names))
        self.folder, self.reading = folder, reading
        self.short_side: int | None = about["short_side"]
        self.sizes = np.array([size for shard in found for size in shard["sizes"]], dtype=np.int64).reshape(-1, 2)
        self._starts = [shards.starts(shard["sizes"]) for shard in found]
        self.nbytes = sum(int(ends[-1]) for ends in self._starts)
        self._shard = functools.lru_cache(OPEN_SHARDS)(functools.partial(_opened, files))

    def __len__(self) -> int:
        return len(self.sizes)

    def pixels(self, index: int) -> np.ndarray:
        """Return one image, uint8 (H, W, 3), read-only.

        Raises:
            IndexError: there is no such image.
            IncompleteCacheError: the image's shard was altered or deleted since the cache was opened.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        number, place = divmod(index, shards.SHARD)
        height, width = self.sizes[index].tolist()
        start = int(self._starts[number][place])
        pixels = self._shard(number).read(start, 3 * height * width)
        if pixels is None:
            self._shard.cache_clear()
            raise IncompleteCacheError(_altered(self.folder, [[*self._checksums][number]]))
        return pixels.reshape(height, width, 3)

    def verify(self) -> None:
        """Read all pixels and verify their checksums, whether or not the files changed; damaged shards are quarantined.

        Raises:
            IncompleteCacheError: a checksum does not match.
            UserError: damaged shards cannot be quarantined, because the folder cannot be written.
        """
        if not (names := verified.altered(self.folder, self._checksums, everything=True)):
            return
        why = f"the pixels in {named(names)} do not match their checksums"
        with _advising_on_a_failing_disk(self.folder, why), _locked(self.folder):
            names = verified.altered(self.folder, self._checksums, everything=True)  # some may have been rebuilt
            for number, name in enumerate(self._checksums):
                if name in names:
                    shards.quarantine(self.folder, number)
        if names:
            raise IncompleteCacheError(_altered(self.folder, names))


def _ways_out() -> str:
    return (
        "Free some space, name a folder on another disk in the environment variable BENCHMARK_CACHE, or do without a "
        f"cache and decode images at every use: {arguments({'decode': 'always'})}"
    )


def _incomplete(folder: Path) -> str:
    return f"The cache {folder} is incomplete"


def _altered(folder: Path, names: list[str]) -> str:
    return (
        f"The cache {folder} was altered after it was filled: the pixels in {named(names)} do not match their "
        "checksums. Run the same command again: it decodes their images again, and only these."
    )


def _opened(files: list[tuple[str, str]], number: int) -> verified.VerifiedFile:
    path, sha256 = files[number]
    try:
        return verified.VerifiedFile(path, sha256)
    except FileNotFoundError:
        raise IncompleteCacheError(
            f"{_incomplete(Path(path).parent)}: {path} was deleted while it was in use; run the command again."
        ) from None


@contextlib.contextmanager
def locked(lock: Path, what: str) -> Iterator[None]:
    """Hold a lock file during the block; if another process holds it, print a message and wait.

    Args:
        lock: the lock file.
        what: name of the locked resource for messages, such as "The cache FOLDER".

    Raises:
        WriteError: the lock file cannot be created.
    """
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(records.only_one(lock, what))
        except records.LockedError as busy:
            write(f"{str(busy).partition(' Wait for it')[0]} Waiting for it to finish ...", error=True)
            held.enter_context(records.only_one(lock, what, wait_seconds=math.inf))
        yield


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with locked(folder / "lock", f"The cache {folder}"):
        records.remove_unfinished(folder)
        yield


@contextlib.contextmanager
def _advising_on_a_failing_disk(folder: Path, why: str) -> Iterator[None]:
    """Convert errors of a full or read-only disk to a `UserError` that says what to do.

    Args:
        folder: folder of the cache.
        why: why it has to be filled, as a clause for the message.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (*DISK_FULL, *records.READ_ONLY):
            raise
        what = "its disk is full" if error.errno in DISK_FULL else "the folder cannot be written"
        raise UserError(
            f"Cannot fill the cache {folder}: {what} ({str(error).rstrip('.')}). It has to be filled because {why}. "
            f"{_ways_out()}"
        ) from error
