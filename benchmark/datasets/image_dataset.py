"""A data set of image files: its listing, and one cache of decoded pixels per half.

`trainval()` opens no file of the test half, so that a search cannot see it. The fingerprint covers the listing, the
bytes of the trainval files, and how they are read; the test files are covered by `test_contents`, which is known once
the test half is prepared.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

import numpy as np

from benchmark.core import records
from benchmark.core.cache_dir import user_cache_dir
from benchmark.core.errors import UserError
from benchmark.core.invocation import arguments
from benchmark.core.threads import usable_cores
from benchmark.core.wording import SHOWN, counted
from benchmark.datasets import HALVES, DatasetSummary, Progress, Split
from benchmark.datasets.listing import Listing
from benchmark.images import Source
from benchmark.images.cache import Cache, IncompleteCacheError, build
from benchmark.images.crops import Crops
from benchmark.images.decode import AS_PUBLISHED, Reading, Tally
from benchmark.images.decoded_on_read import DecodedOnRead

ROLES_OF = {"trainval": ("trainval",), "test": ("test", "query", "gallery")}


class ImageDataset:
    """The images of a listing, decoded once into a cache; a `Dataset`.

    Args:
        listing: the image files, with their classes and roles.
        name: name of the data set; part of the cache folder's name.
        crops: they determine the size of the cached images: if training crops are cut from original images, the
            trainval half keeps the original size.
        decode: `once`, into a cache, or `always`, at every use, which is slow but needs no disk space; the pixels are
            identical.
        reading: how pixels become RGB.

    Raises:
        UserError: `decode` is unknown.
    """

    def __init__(
        self, listing: Listing, name: str, crops: Crops, decode: str = "once", reading: Reading = AS_PUBLISHED
    ) -> None:
        if decode not in ("once", "always"):
            raise UserError(f"decode={decode!r}: allowed are once, always.")
        self.listing, self.name, self._once, self._reading = listing, name, decode == "once", reading
        self._files: dict[str, DecodedOnRead] = {}  # by half; one object, so that the fingerprint is of its pixels
        short_side = None if crops.resampling == "pil_bicubic" else crops.short_side  # caches are resized bilinearly
        self._short_sides = {"trainval": short_side if crops.resize_first else None, "test": short_side}

    @property
    def total_classes(self) -> int:
        """Number of classes in both halves."""
        return self.listing.total_classes

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the listing and of the bytes of every trainval file."""
        contents = self._open("trainval").contents
        return records.digest({"listing": self.listing.fingerprint, "trainval": contents} | self._departures)

    @property
    def test_contents(self) -> str:
        """SHA-256 of the bytes of every test file."""
        return self._open("test").contents

    def prepare(
        self, progress: Callable[[str], Progress] | None = None, *, halves: tuple[str, ...] = HALVES
    ) -> DatasetSummary:
        """Decode images that are missing, changed or damaged in the cache.

        Args:
            progress: called with "decoding" and a half; returns a callback for (images done, images to do).
            halves: the halves that will be read; files of another half are not opened.

        Raises:
            UserError: images cannot be decoded, or the disk has too little space for their pixels.
        """
        start, decoded = time.monotonic(), []
        for half in halves if self._once else ():
            shown = progress(f"decoding {half}") if progress else None

            def tick(done: int, total: int, half: str = half, shown: Progress | None = shown) -> None:
                decoded.append(half)
                if shown:
                    shown(done, total)

            self._build(half, tick)
        return DatasetSummary(
            total=self.listing.counts(),
            by_role=self.listing.counts_by_role(),
            fingerprint=self.fingerprint,
            folder=str(self.listing.root.absolute()),
            cache=str(self._folder) if self._once else "none, images are decoded whenever they are read",
            notes=(*self.listing.notes, *self._notes(halves)),
            is_new=bool(decoded),
            seconds=time.monotonic() - start,
        )

    def _notes(self, halves: tuple[str, ...]) -> Iterator[str]:
        """Say what is special about the pixels of these halves, and what becomes of it."""
        caches = {half: Cache(self._half_folder(half)) for half in halves} if self._once else {}
        tally = self.listing.tally or _sum(cache.tally for cache in caches.values())
        published = ", as in published results"
        if tally.oriented:
            what = "turned upright" if self._reading.orient else f"read as they are stored{published}"
            yield f"{_images(tally.oriented, 'is', 'are')} stored turned or mirrored (EXIF): {what}"
        if tally.transparent:
            colour = self._reading.background
            what = f"put on the background {list(colour)}" if colour else f"the transparency is dropped{published}"
            yield f"{_images(tally.transparent, 'has', 'have')} transparent pixels: {what}"
        if tally.deep:
            bits = self._reading.grey_bits
            measure = arguments({"dataset.module.check": "images"})
            need = "it needs" if tally.deep == 1 else "they need"
            wide = f" ({need} {tally.grey_bits} bits: {measure} uses that range)"
            deep = counted(tally.deep, "grey image has", "grey images have")
            yield (f"{deep} more than 8 bits: 0 to {2**bits - 1:,} becomes 0 to 255" + wide * (tally.grey_bits < bits))
        if tally.animated:
            yield f"{_images(tally.animated, 'has', 'have')} several frames or pages: the first is read"
        if not self.listing.tally and {*halves} == {*HALVES} and not self._once:
            yield "training and test images are not compared with each other, since nothing has read them yet"
        elif not self.listing.tally and len(caches) == len(HALVES):  # otherwise, the listing has compared the bytes
            yield from self._note_on_duplicates({half: cache.sha256 for half, cache in caches.items()})

    def _note_on_duplicates(self, sha256: Mapping[str, list[str]]) -> Iterator[str]:
        """Count and name the images whose bytes lie in both halves."""
        trained = dict(zip(sha256["trainval"], self._paths("trainval"), strict=True))
        pairs = [
            f"{trained[digest]} and {path}"
            for digest, path in zip(sha256["test"], self._paths("test"), strict=True)
            if digest in trained
        ]
        if pairs:
            both = counted(len(pairs), "test image is also a trainval image", "test images are also trainval images")
            yield f"{both}, byte for byte: {_first(pairs)}"

    def verify(self, halves: tuple[str, ...] = HALVES) -> None:
        """Verify the checksum of every cached pixel.

        Raises:
            IncompleteCacheError: some pixels are damaged; their files are quarantined, and `prepare` decodes them
                again.
        """
        for half in halves if self._once else ():
            Cache(self._half_folder(half)).verify()

    def trainval(self) -> Split:
        """Return the images and labels of the classes for training and validation."""
        return self._split("trainval")

    def test(self) -> Split:
        """Return the images and labels of the test classes."""
        return self._split("test")

    @property
    def _departures(self) -> dict[str, dict[str, object]]:
        """What identifies another reading than that of published results; empty for that one."""
        return {"reading": asdict(self._reading)} if self._reading != AS_PUBLISHED else {}

    @property
    def _folder(self) -> Path:
        root = str(self.listing.root.absolute())
        key = records.digest({"listing": self.listing.fingerprint, "root": root} | self._departures)
        return user_cache_dir() / "pictures" / f"{self.name}-{key[:12]}"

    def _half_folder(self, half: str) -> Path:
        return self._folder / f"{half}-{self._short_sides[half] or 'full'}"

    def _rows(self, half: str) -> np.ndarray:
        return np.flatnonzero(np.isin(self.listing.roles, ROLES_OF[half]))

    def _paths(self, half: str) -> list[str]:
        return [self.listing.paths[row] for row in self._rows(half)]

    def _build(self, half: str, progress: Progress | None = None) -> None:
        build(
            self._half_folder(half), self.listing.root, self._paths(half),
            short_side=self._short_sides[half], workers=usable_cores(), reading=self._reading, progress=progress,
        )  # fmt: skip

    def _open(self, half: str) -> Source:
        """Open the cache of a half, and fill it if it is incomplete or altered; only `prepare` sees changed images."""
        if not self._once:
            if half not in self._files:
                self._files[half] = DecodedOnRead(
                    self.listing.root, self._paths(half), self._short_sides[half], self._reading
                )
            return self._files[half]
        try:
            return Cache(self._half_folder(half), self._reading)
        except IncompleteCacheError:
            self._build(half)
            return Cache(self._half_folder(half), self._reading)

    def _split(self, half: str) -> Split:
        rows, listing = self._rows(half), self.listing
        class_ids = listing.classes(*ROLES_OF[half])
        roles = listing.roles[rows]
        return Split(
            images=self._open(half),
            labels=listing.labels[rows],
            class_ids=class_ids,
            class_names=[listing.class_names[i] for i in class_ids],
            super_labels=listing.super_labels[class_ids],
            super_names=listing.super_names,
            is_query=roles == "query" if "query" in roles else None,
        )


def _images(number: int, one: str, many: str) -> str:
    return counted(number, f"image {one}", f"images {many}")


def _sum(tallies: Iterable[Tally | None]) -> Tally:
    return sum((one for one in tallies if one), Tally())


def _first(pairs: list[str]) -> str:
    return "; ".join(pairs[:SHOWN]) + f"; and {len(pairs) - SHOWN:,} more" * (len(pairs) > SHOWN)
