"""`glyphs`: an embedded data set with a human hierarchy, drawn from fonts that matplotlib ships; nothing is downloaded.

Source: our own definition, in four parts: `glyph_outlines` (16 font faces), `glyph_characters` (which characters),
`glyph_rendering` (how they are placed and warped) and `glyph_rasteriser`. A class is a Unicode character, its images
are that character in 8 to 16 faces, and its super class is its Unicode block. Classes are sorted by code point, images
by class, then by face. Blocks 0 to 10 (Basic Latin to Georgian) are trainval and 11 to 25 test, so the halves share no
super class; splitting by the number of classes would cut through Georgian.

2,087 classes, 25,173 images: trainval 1,067 / 14,387 in 11 super classes, test 1,020 / 10,786 in 15.
"""

import hashlib
import io
import platform
import time
import unicodedata
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

from benchmark.core import records
from benchmark.core.cache_dir import VARIABLE, user_cache_dir
from benchmark.core.errors import UserError
from benchmark.core.records import JsonObject
from benchmark.datasets import HALVES, DatasetSummary, Progress, Split
from benchmark.datasets.glyph_cache import HalvesCache
from benchmark.datasets.glyph_characters import (
    BLOCK_NAMES,
    NUM_TRAINVAL_BLOCKS,
    block_of,
    choose_characters,
    is_candidate,
)
from benchmark.datasets.glyph_outlines import matplotlib_font_dir, read_outlines
from benchmark.datasets.glyph_rendering import draw, warp_numbers
from benchmark.datasets.listing import Counts, Listing

LICENCE = (
    "DejaVu fonts (Bitstream Vera licence, changes in the public domain) and STIX fonts (STIX font licence 1.0), "
    "both from the installed matplotlib; this project ships no font."
)
LAYOUT = 1  # version of the cache folder; incremented when the drawing or the format changes

# SHA-256 of images, labels and code points by (size, warp, seed, every).
KNOWN_DIGESTS = {
    (32, 0.15, 0, 1): "e40be06ed8976e86c9c47d8cbe95ca0568cdcb28ae4a01cf1486038a1362da7c",
    (64, 0.15, 0, 1): "3de164c31452a4cdb8826d1d86857146570fa923e3f5304b4ca562794979465e",
    (32, 0.15, 0, 8): "f8bf141c18c73593d8b08abf8b79abcb1247bd374e5efee001110f0ea23c99c8",
    (32, 0.0, 0, 1): "e8e9b86701bbfe86fd47f73a3fe28983efb8f956d04c12fd571616c7c5e3a3f2",
}


class Drawn(NamedTuple):
    """All images and their classes.

    Attributes:
        images: uint8 (N, size, size).
        labels: int64 (N,), class of each image.
        code_points: int64 (C,), code point of each class.
    """

    images: np.ndarray
    labels: np.ndarray
    code_points: np.ndarray

    def digest(self) -> str:
        """SHA-256 of the pixels, then labels and code points as little-endian 32-bit integers."""
        whole = hashlib.sha256(self.images.tobytes())
        whole.update(self.labels.astype("<i4").tobytes())
        whole.update(self.code_points.astype("<i4").tobytes())
        return whole.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Glyphs:
    """The glyphs data set, drawn once into a cache folder and read from there; a `Dataset`.

    Each half is a separate file: `trainval()` never opens the file of the test half. Every file is checked against
    its SHA-256 whenever it is read; a damaged file causes a warning, is quarantined and drawn again.

    Args:
        size: width and height of an image in pixels, 8 to 128.
        every: 1 for all classes; 8 keeps every 8th (261 classes, 3,159 images, the small preset) with identical images
            and class ids from 0 on; 1 to 100.
        cache_dir: folder for the drawn images, by default the user's cache folder; not for configurations, which may
            be another person's and cannot hold a `Path`.
        warp: strength of the affine map of each image, 0 to 0.5.
        seed: seed of the affine maps, 0 to 2**32 - 1.

    Raises:
        UserError: an argument is out of range.
    """

    listing: ClassVar[Listing | None] = None  # None, like `test_contents`: there are no image files
    test_contents: ClassVar[str | None] = None

    size: int = 32
    every: int = 1
    cache_dir: Path | None = None
    warp: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        whole_numbers = {"size": (8, 128), "every": (1, 100), "seed": (0, 2**32 - 1)}
        for name, (low, high) in whole_numbers.items():
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise UserError(f"glyphs: {name} is {value!r}; give a whole number from {low} to {high}.")
        if type(self.warp) not in (int, float) or not 0 <= self.warp <= 0.5:
            raise UserError(f"glyphs: warp is {self.warp!r}; give a number from 0 to 0.5.")
        if self.cache_dir is not None and not isinstance(self.cache_dir, Path):
            raise UserError(
                f"glyphs: cache_dir is {self.cache_dir!r}; a configuration cannot choose the cache. Name it in the "
                f"environment variable {VARIABLE}."
            )

    @property
    def folder(self) -> Path:
        """Folder of the images for these settings."""
        root = user_cache_dir() if self.cache_dir is None else self.cache_dir
        key = f"{self.size}px-warp{float(self.warp)}-seed{self.seed}-every{self.every}-layout{LAYOUT}"
        return root / "glyphs" / key

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the settings and of every pixel, label and code point of both halves, read from `about.json`."""
        return str(self._about()["fingerprint"])

    @property
    def total_classes(self) -> int:
        """Number of classes in both halves."""
        return int(self._about()["classes"])

    @property
    def digest(self) -> str:
        """SHA-256 of the pixels, labels and code points of both halves; see `KNOWN_DIGESTS`."""
        return str(self._about()["digest"])

    def trainval(self) -> Split:
        """Return the images and labels of the classes for training and validation."""
        return self._split("trainval")

    def test(self) -> Split:
        """Return the images and labels of the test classes."""
        return self._split("test")

    def prepare(
        self, progress: Callable[[str], Progress] | None = None, *, halves: tuple[str, ...] = HALVES
    ) -> DatasetSummary:
        """Draw missing or damaged halves into the cache.

        Args:
            progress: called with "drawing" if anything has to be drawn; returns a callback for (images drawn, images to
                draw).
            halves: the halves that will be read; files of another half are not opened.

        Raises:
            UserError: a font file or the images differ from the expected ones.
        """
        start = time.monotonic()
        is_new = self._cache().ensure(halves, lambda: self._make(progress("drawing") if progress else None))
        about = self._about()
        return DatasetSummary(
            total=_counts_in(about),
            by_role={half: _counts_in(about[half]) for half in HALVES},
            fingerprint=self.fingerprint,
            folder=str(self.folder),
            licence=LICENCE,
            is_new=is_new,
            seconds=time.monotonic() - start,
        )

    def verify(self, halves: tuple[str, ...] = HALVES) -> None:
        """Verify the checksum of each half's file.

        Raises:
            UserError: a file is missing or damaged; `prepare` draws it again.
        """
        if not self._cache().is_whole(halves):
            raise UserError(f"{self.folder} is damaged. Run the same command again, which draws it again.")

    def _cache(self) -> HalvesCache:
        parameters = {"size": self.size, "warp": float(self.warp), "seed": self.seed, "every": self.every}
        return HalvesCache(self.folder, parameters)

    def _about(self) -> JsonObject:
        """Read `about.json`; without it, the halves are drawn first."""
        cache = self._cache()
        cache.ensure((), self._make)
        about = cache.about()
        if about is None:
            raise UserError(f"{self.folder} was filled and cannot be read back. Check the disk, or set {VARIABLE}.")
        return about

    def _split(self, half: str) -> Split:
        cache = self._cache()
        payload = cache.read(half)
        if payload is None:
            cache.ensure((half,), self._make)
            payload = cache.read(half)
        if payload is None:
            raise UserError(f"{cache.path(half)} was drawn and is damaged again. Check the disk, or set {VARIABLE}.")
        with np.load(io.BytesIO(payload), allow_pickle=False) as arrays:
            code_points = arrays["code_points"].tolist()
            return Split(
                images=arrays["images"],
                labels=arrays["labels"],
                class_ids=arrays["class_ids"],
                class_names=[f"U+{code_point:04X} {unicodedata.name(chr(code_point))}" for code_point in code_points],
                super_labels=_super_labels(code_points),
                super_names=list(BLOCK_NAMES),
            )

    def _make(self, progress: Progress | None = None) -> tuple[dict[str, bytes], JsonObject]:
        """Draw the files of both halves, and return them with the facts for `about.json`.

        Raises:
            UserError: a font file, or the images of settings in `KNOWN_DIGESTS`, differ from the expected ones.
        """
        drawn = self._draw(progress)
        digest = drawn.digest()
        expected = KNOWN_DIGESTS.get((self.size, float(self.warp), self.seed, self.every), digest)
        if digest != expected:
            raise UserError(
                f"The glyphs drawn here have the digest {digest}, expected {expected}. The font files are the known "
                f"ones, so the arithmetic differs (numpy {np.__version__}, {platform.machine()}) and results would not "
                "be comparable. Nothing was kept; please report it with both digests."
            )
        super_labels = _super_labels(drawn.code_points)
        in_trainval = super_labels < NUM_TRAINVAL_BLOCKS
        payloads: dict[str, bytes] = {}
        facts: JsonObject = asdict(_counts(drawn.labels, super_labels)) | {"digest": digest}
        facts["fingerprint"] = records.digest({"dataset": "glyphs", "digest": digest} | self._cache().parameters)
        for half, chosen in zip(HALVES, (in_trainval, ~in_trainval), strict=True):
            images = chosen[drawn.labels]
            facts[half] = asdict(_counts(drawn.labels[images], super_labels))
            payloads[half] = _npz(drawn, images, np.flatnonzero(chosen))
        return payloads, facts

    def _draw(self, progress: Progress | None) -> Drawn:
        outlines = read_outlines(matplotlib_font_dir(), wanted=is_candidate)
        characters = choose_characters(outlines)
        keys = [(code_point, face) for code_point, faces in characters.items() for face in faces]
        place = np.repeat(np.arange(len(characters)), [len(faces) for faces in characters.values()])
        kept = np.flatnonzero(place % self.every == 0)
        numbers = warp_numbers(len(keys), self.seed)[kept]  # for all images, so that none depends on `every`
        chosen = [outlines[keys[i]] for i in kept]
        images = draw(chosen, numbers, size=self.size, warp=self.warp, progress=progress)
        return Drawn(images, place[kept] // self.every, np.array(list(characters)[:: self.every]))


def _npz(drawn: Drawn, images: np.ndarray, class_ids: np.ndarray) -> bytes:
    """Return the bytes of an .npz file with the images (bool (N,)) and the classes (int64 (C,)) of one half."""
    file = io.BytesIO()
    np.savez(
        file,
        images=drawn.images[images],
        labels=drawn.labels[images].astype(np.int64),
        class_ids=class_ids.astype(np.int64),
        code_points=drawn.code_points[class_ids].astype(np.int64),
    )
    return file.getvalue()


def _super_labels(code_points: np.ndarray | list[int]) -> np.ndarray:
    """Return the super class ids, int64 (C,), of C characters, all within the blocks."""
    return np.array([block_of(int(code_point)) for code_point in code_points], dtype=np.int64)


def _counts(labels: np.ndarray, super_labels: np.ndarray) -> Counts:
    classes = np.unique(labels)
    return Counts(len(labels), len(classes), len(np.unique(super_labels[classes])))


def _counts_in(about: JsonObject) -> Counts:
    return Counts(about["images"], about["classes"], about["super_classes"])
