"""A data set of picture files: its listing, and the decoded pixels of each half in a cache of their own.

`trainval()` opens nothing of the other half, so that a search cannot see it. The fingerprint covers the listing and the
bytes of the trainval files; those of the test files are known once `test()` is prepared, as `test_contents`.
"""

import os
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.core import records
from benchmark.core.cache_dir import user_cache_dir
from benchmark.datasets import Split
from benchmark.datasets.listing import Listing
from benchmark.images.cache import Cache, build
from benchmark.images.crops import Crops
from benchmark.images.decoded_on_read import DecodedOnRead

HALVES = {"trainval": ("trainval",), "test": ("test", "query", "gallery")}
Progress = Callable[[int, int], None]


class ImageDataset:
    """The pictures of a listing, decoded once.

    Args:
        listing: which files, of which classes, for what.
        name: of the data set; part of the cache folder's name.
        crops: say at which size pictures are kept: where training crops are cut from full pictures, those stay whole.
        decode: `once`, into a cache, or `always` when a picture is read: slow, and no disk is needed; the pixels are
            the same.

    Raises:
        ValueError: there is no such way to decode.
    """

    def __init__(self, listing: Listing, name: str, crops: Crops, decode: str = "once") -> None:
        if decode not in ("once", "always"):
            raise ValueError(f"decode={decode!r}: allowed are once, always.")
        self.listing, self.name, self._once = listing, name, decode == "once"
        self._short_sides = {
            "trainval": crops.short_side if crops.resize_first else None,
            "test": crops.short_side,
        }

    @property
    def total_classes(self) -> int:
        """Number of classes of both halves."""
        return self.listing.total_classes

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the listing and of the bytes of every trainval file."""
        contents = self._open("trainval").contents
        return records.digest({"listing": self.listing.fingerprint, "trainval": contents})

    @property
    def test_contents(self) -> str:
        """SHA-256 of the bytes of every test file."""
        return self._open("test").contents

    def prepare(
        self, progress: Callable[[str], Progress] | None = None, *, halves: tuple[str, ...] = tuple(HALVES)
    ) -> dict[str, Any]:
        """What the data set holds, after decoding what is missing, changed or damaged in the cache.

        Args:
            progress: called with a half that has to be decoded, gives what is called with (pictures done, in all).
            halves: those that are going to be read; files of others are not opened.

        Returns:
            The listing's counts and notes, `fingerprint`, `folder`, `cache`, `drawn` (whether anything was decoded)
            and `seconds` of this call.

        Raises:
            ValueError: pictures cannot be decoded, or the disk has no room for their pixels.
        """
        start, decoded = time.monotonic(), []
        for half in halves:
            shown = progress(half) if progress else None

            def tick(done: int, total: int, half: str = half, shown: Progress | None = shown) -> None:
                decoded.append(half)
                if shown:
                    shown(done, total)

            if self._once:
                self._build(half, tick)
        return self.listing.counts() | {
            "fingerprint": self.fingerprint,
            "folder": str(self.listing.root.absolute()),
            "cache": str(self._folder) if self._once else "none, pictures are decoded whenever they are read",
            "notes": self.listing.notes,
            "drawn": bool(decoded),
            "seconds": time.monotonic() - start,
        }

    def verify(self, halves: tuple[str, ...] = tuple(HALVES)) -> None:
        """Check every cached pixel against its checksum; `prepare` decodes anew what was found damaged."""
        for half in halves if self._once else ():
            Cache(self._half_folder(half)).verify()

    def trainval(self) -> Split:
        """The half that is trained and validated on."""
        return self._split("trainval")

    def test(self) -> Split:
        """The half with unseen classes."""
        return self._split("test")

    @property
    def _folder(self) -> Path:
        key = records.digest({"listing": self.listing.fingerprint, "root": str(self.listing.root.absolute())})
        return user_cache_dir() / "pictures" / f"{self.name}-{key[:12]}"

    def _half_folder(self, half: str) -> Path:
        return self._folder / f"{half}-{self._short_sides[half] or 'full'}"

    def _rows(self, half: str) -> np.ndarray:
        return np.flatnonzero(np.isin(self.listing.roles, HALVES[half]))

    def _paths(self, half: str) -> list[str]:
        return [self.listing.paths[row] for row in self._rows(half)]

    def _build(self, half: str, progress: Progress | None = None) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        build(
            self._half_folder(half), self.listing.root, self._paths(half),
            short_side=self._short_sides[half], workers=cores, progress=progress,
        )  # fmt: skip

    def _open(self, half: str) -> Cache | DecodedOnRead:
        """The half's cache, which is built where it is missing; whether files changed is for `prepare` to look."""
        if not self._once:
            return DecodedOnRead(self.listing.root, self._paths(half), self._short_sides[half])
        try:
            return Cache(self._half_folder(half))
        except ValueError:
            self._build(half)
            return Cache(self._half_folder(half))

    def _split(self, half: str) -> Split:
        rows, listing = self._rows(half), self.listing
        class_ids = listing.classes(*HALVES[half])
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
