"""The decoded pixels of a few pictures as a file, and beside it what they were made of (a part of `cache`).

Source: this project. `00000.json` is a checked record: which files, their bytes, times and SHA-256, the sizes of the
pictures, the SHA-256 of all pixels. That checksum is part of the name of the pixels' file, raw bytes one picture after
another; so a JSON never stands beside pixels of another time, and it, written last, is what makes a shard count.
"""

import hashlib
import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import PIL
from PIL import features

from benchmark.core import records
from benchmark.images import decoded_on_read as image_dataset
from benchmark.images.decode import UnreadableError, decode

SHARD = 128  # pictures


def numbers(num_pictures: int) -> range:
    """The shards of so many pictures."""
    return range(-(-num_pictures // SHARD))


def slot(number: int) -> slice:
    """The pictures of a shard."""
    return slice(number * SHARD, (number + 1) * SHARD)


def read(folder: Path, number: int) -> dict[str, Any] | None:
    """What is noted about a shard, None if there is none.

    Raises:
        CorruptFileError: the note is damaged, or the pixels are not there in full.
    """
    try:
        note = records.read_record(note_path(folder, number)).result
    except FileNotFoundError:
        return None
    path = pixels_path(folder, number, note)
    size = path.stat().st_size if path.exists() else 0
    if size != (wanted := 3 * sum(height * width for height, width in note["sizes"])):
        raise records.CorruptFileError(f"{path} has {size:,} bytes in place of {wanted:,}.")
    return note


def is_current(note: dict[str, Any], paths: list[str], files: list[Path], short_side: int | None) -> bool:
    """Whether a shard holds these files as they are, judged by their size and time."""
    if (note["short_side"], note["paths"]) != (short_side, paths):
        return False
    try:
        return all(image_dataset.stamp(path) == before[:2] for path, before in zip(files, note["files"], strict=True))
    except OSError:
        return False


def write(
    folder: Path, number: int, paths: list[str], files: list[Path], short_side: int | None, tick: Callable[[], None]
) -> dict[int, str]:
    """Decode the pictures of a shard and write it; what is wrong with those that cannot be, and then no shard.

    Args:
        folder: of the cache.
        number: of the shard.
        paths: names of its pictures.
        files: the same as files.
        short_side: pixels of the shorter side; None keeps the size.
        tick: is called after every picture.

    Raises:
        OSError: it cannot be written.
    """
    temporary = folder / f".{number:05}.tmp"  # of one process: the cache is locked
    try:
        with open(temporary, "wb") as out:
            note, bad = _decode_into(out, files, short_side, tick)
            out.flush()
            os.fsync(out.fileno())
        if not bad:
            _put(folder, number, temporary, note | {"short_side": short_side, "paths": paths})
    finally:
        temporary.unlink(missing_ok=True)
    return bad


def _decode_into(
    out: BinaryIO, files: list[Path], short_side: int | None, tick: Callable[[], None]
) -> tuple[dict[str, Any], dict[int, str]]:
    """Write the pixels; what is to be noted of them, and what is wrong with files that cannot be decoded."""
    sizes, facts, bad, checksum = [], [], {}, hashlib.sha256()
    for i, path in enumerate(files):
        try:
            payload, stamp = image_dataset.read(path)
            picture = decode(payload, short_side)
        except UnreadableError as error:
            bad[i] = str(error)
        else:
            checksum.update(picture.data)
            out.write(picture.data)
            sizes.append(list(picture.shape[:2]))
            facts.append([*stamp, hashlib.sha256(payload).hexdigest()])
        tick()
    return {"sizes": sizes, "files": facts, "pixels": checksum.hexdigest()}, bad


def _put(folder: Path, number: int, temporary: Path, note: dict[str, Any]) -> None:
    outdated = {*folder.glob(f"{number:05}-*.bin")} - {path := pixels_path(folder, number, note)}
    os.replace(temporary, path)
    made_by = {"pillow": PIL.__version__, "libjpeg_turbo": features.version("libjpeg_turbo")}
    records.write_record(note_path(folder, number), records.Record("pictures", note, made_by))
    for other in outdated:
        other.unlink()


def set_aside(folder: Path, number: int) -> list[str]:
    """Rename the files of a damaged shard; their new names."""
    found = [*folder.glob(f"{number:05}-*.bin"), note_path(folder, number)]
    return [records.set_aside(path).name for path in found if path.exists()]


def pixels_path(folder: Path, number: int, note: dict[str, Any]) -> Path:
    """Where a shard's pixels are."""
    return folder / f"{number:05}-{note['pixels'][:16]}.bin"


def starts(sizes: Sequence[Sequence[int]]) -> np.ndarray:
    """Where each picture of a shard begins in its file, and where the last one ends."""
    return np.array([0, *itertools.accumulate(3 * height * width for height, width in sizes)], dtype=np.int64)


def note_path(folder: Path, number: int) -> Path:
    """Where the note about a shard is."""
    return folder / f"{number:05}.json"
