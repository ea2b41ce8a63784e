"""The shards of a cache: files with the decoded pixels of some images, and their metadata (used by `cache`).

Source: this project. `00000.json`, the metadata, is a record with a checksum: the image files with their sizes,
modification times and SHA-256, the shapes of the images, and the SHA-256 of all pixels. That hash is part of the name
of the pixel file (raw bytes, one image after another), so metadata never refers to pixels of another version. Metadata
is written last; a shard without it does not count.
"""

import hashlib
import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO, NotRequired, TypedDict

import msgspec
import numpy as np
import PIL
from PIL import features

from benchmark.core import records
from benchmark.core.pulse import beat
from benchmark.images import decoded_on_read as image_files
from benchmark.images import verified
from benchmark.images.decode import Reading, Tally, Traits, UnreadableImageError, decode_with_traits

SHARD = 128  # images
Pixels = Annotated[int, msgspec.Meta(ge=1)]


class Metadata(TypedDict):
    """Metadata of a shard.

    Attributes:
        sizes: height and width of each image in pixels.
        files: size in bytes, modification time in nanoseconds and SHA-256 of each image file.
        checked: the `check_time` of these; caches of earlier versions have none.
        pixels: SHA-256 of the pixel file.
        short_side: length in pixels to which shorter sides were resized; None: original sizes.
        paths: names of the image files.
        tally: numbers of images with special pixels; caches of earlier versions have none.
        decoder: versions of the libraries that decoded and resized the images; it is stored as the record's provenance.
    """

    sizes: list[tuple[Pixels, Pixels]]
    files: list[tuple[int, int, str]]
    checked: NotRequired[int]
    pixels: str
    short_side: int | None
    paths: list[str]
    tally: NotRequired[Tally]
    decoder: NotRequired[dict[str, str | None]]


@dataclass(frozen=True)
class ImageFiles:
    """The image files that a shard is made of.

    Attributes:
        paths: names of the files in the data set.
        files: location of each file.
        short_side: length in pixels to which shorter sides are resized; None keeps the size.
        reading: how pixels become RGB.
    """

    paths: list[str]
    files: list[Path]
    short_side: int | None
    reading: Reading


def numbers(num_images: int) -> range:
    """Return the numbers of the shards that hold `num_images` images."""
    return range(-(-num_images // SHARD))


def slot(number: int) -> slice:
    """Return the indices of the images in one shard."""
    return slice(number * SHARD, (number + 1) * SHARD)


def read(folder: Path, number: int) -> Metadata | None:
    """Read a shard's metadata; None if there is no such shard.

    Raises:
        CorruptFileError: the metadata is damaged, or the pixel file is incomplete.
    """
    try:
        record = records.read_record(metadata_path(folder, number))
        metadata = msgspec.convert(record.result | {"decoder": record.provenance}, Metadata)
    except FileNotFoundError:
        return None
    except msgspec.ValidationError as error:
        raise records.CorruptFileError(
            f"{metadata_path(folder, number)} does not describe a shard: {error}."
        ) from error
    path = pixels_path(folder, number, metadata["pixels"])
    size = path.stat().st_size if path.exists() else 0
    if size != (expected := 3 * sum(height * width for height, width in metadata["sizes"])):
        raise records.CorruptFileError(f"{path} has {size:,} bytes instead of {expected:,}.")
    return metadata


def confirmed(metadata: Metadata, images: ImageFiles) -> Metadata | None:
    """Return the metadata of a shard that is up to date with these image files; None if it is outdated.

    A file is outdated by another size or modification time. One that has the same and was changed since it was checked,
    as a copy was, is hashed; the returned metadata has the time of that check. The pixels of another version of Pillow
    or libjpeg are outdated: they can differ in the last bit.
    """
    if (metadata["short_side"], metadata["paths"]) != (images.short_side, images.paths):
        return None
    if metadata.get("decoder") != decoder():
        return None
    checked = 0
    for path, (size, modified, sha256) in zip(images.files, metadata["files"], strict=True):
        try:
            found = image_files.stamp(path)
            if (found.size, found.modified) != (size, modified):
                return None
            if found.changed >= metadata.get("checked", 0):
                checked = checked or image_files.check_time()
                payload, _ = image_files.read(path)
                if hashlib.sha256(payload).hexdigest() != sha256:
                    return None
                beat()
        except (OSError, UnreadableImageError):
            return None  # a missing file; decoding it will report that
    return {**metadata, "checked": checked} if checked else metadata


def renew(folder: Path, number: int, metadata: Metadata) -> None:
    """Write the time of the last check into the metadata of a shard, unless that is another shard by now.

    Args:
        folder: folder of the cache, which is locked.
        number: number of the shard.
        metadata: returned by `confirmed`.

    Raises:
        OSError: the metadata cannot be written.
        CorruptFileError: the shard is damaged.
    """
    stored = read(folder, number)
    if stored and {**stored, "checked": metadata["checked"]} == metadata:
        _write_metadata(folder, number, metadata)


def write(folder: Path, number: int, images: ImageFiles, tick: Callable[[], None]) -> dict[int, str]:
    """Decode and write one shard; nothing is written if any image cannot be decoded.

    Args:
        folder: folder of the cache.
        number: number of the shard.
        images: image files of the shard.
        tick: called after every image.

    Returns:
        The reason for each image that cannot be decoded, by position in the shard.

    Raises:
        OSError: the shard cannot be written.
    """
    temporary = folder / f".{number:05}.tmp"  # private to this process, since the cache is locked
    try:
        with open(temporary, "wb") as out:
            metadata, bad = _decode_into(out, images, tick)
            out.flush()
            os.fsync(out.fileno())
        if not bad:
            _publish(folder, number, temporary, metadata)
    finally:
        temporary.unlink(missing_ok=True)
    return bad


def _decode_into(out: BinaryIO, images: ImageFiles, tick: Callable[[], None]) -> tuple[Metadata, dict[int, str]]:
    """Write the pixels of all decodable images; return their metadata, and the reasons for the others by position."""
    sizes: list[tuple[int, int]] = []
    facts: list[tuple[int, int, str]] = []
    traits: list[Traits] = []
    bad: dict[int, str] = {}
    checksum = hashlib.sha256()
    checked = image_files.check_time()
    for i, path in enumerate(images.files):
        try:
            payload, found = image_files.read(path)
            pixels, special = decode_with_traits(payload, images.short_side, images.reading)
        except UnreadableImageError as error:
            bad[i] = str(error)
        else:
            checksum.update(pixels.data)
            out.write(pixels.data)
            sizes.append((pixels.shape[0], pixels.shape[1]))
            facts.append((found.size, found.modified, hashlib.sha256(payload).hexdigest()))
            traits.append(special)
        tick()
    metadata: Metadata = {
        "sizes": sizes, "files": facts, "checked": checked, "pixels": checksum.hexdigest(),
        "short_side": images.short_side, "paths": images.paths, "tally": Tally.of(traits),
    }  # fmt: skip
    return metadata, bad


def _publish(folder: Path, number: int, temporary: Path, metadata: Metadata) -> None:
    """Rename the pixel file to its final name, write the metadata, and delete the files that they replace."""
    outdated = {*folder.glob(f"{number:05}-*.bin")} - {path := pixels_path(folder, number, metadata["pixels"])}
    os.replace(temporary, path)
    verified.remember(path, metadata["pixels"])
    _write_metadata(folder, number, metadata)
    for other in outdated:
        other.unlink()


def _write_metadata(folder: Path, number: int, metadata: Metadata) -> None:
    content = {name: value for name, value in msgspec.to_builtins(metadata).items() if name != "decoder"}
    records.write_record(metadata_path(folder, number), records.Record("pictures", content, decoder()))


def decoder() -> dict[str, str | None]:
    """The versions of the libraries on which decoded and resized pixels depend."""
    return {"pillow": PIL.__version__, "libjpeg_turbo": features.version("libjpeg_turbo")}


def quarantine(folder: Path, number: int) -> list[str]:
    """Rename the files of a damaged shard so that they are no longer used; return their new names."""
    found = [*folder.glob(f"{number:05}-*.bin"), metadata_path(folder, number)]
    return [records.quarantine(path).name for path in found if path.exists()]


def pixels_path(folder: Path, number: int, sha256: str) -> Path:
    """Return the path of a shard's pixel file.

    Args:
        folder: folder of the cache.
        number: number of the shard.
        sha256: SHA-256 of the pixels.
    """
    return folder / f"{number:05}-{sha256[:16]}.bin"


def checksums(found: Mapping[int, Metadata]) -> dict[str, str]:
    """Return the SHA-256 of each shard's pixel file by its name, in the order of the shards.

    Args:
        found: metadata by number of the shard.
    """
    folder = Path()
    return {pixels_path(folder, number, one["pixels"]).name: one["pixels"] for number, one in found.items()}


def metadata_path(folder: Path, number: int) -> Path:
    """Return the path of a shard's metadata."""
    return folder / f"{number:05}.json"


def starts(sizes: Sequence[Sequence[int]]) -> np.ndarray:
    """Return the byte offsets of N images in a shard's pixel file, and its end: int64 (N + 1,).

    Args:
        sizes: height and width of each image in pixels.
    """
    return np.array([0, *itertools.accumulate(3 * height * width for height, width in sizes)], dtype=np.int64)
