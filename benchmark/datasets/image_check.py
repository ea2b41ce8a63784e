"""Whether the pictures of a data set are there and can be decoded, and a memo of those that could be.

Decoding all pictures takes minutes, and every worker makes the data set. So the pictures that were well are kept in the
user's cache, a file for each root, with size and time of change: while these are the same they are not decoded again.
Pictures that were not well are always tried again, since what was wrong may be elsewhere (permissions, a lost disk).
"""

import hashlib
import json
import os
import stat
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from benchmark.core import records
from benchmark.core.cache_dir import user_cache_dir
from benchmark.images.decode import FORMATS, MAX_PIXELS

CHECKS = ("lists", "files", "images")
MAX_THREADS = 16  # decoders let other threads run
Facts = list[int]  # size in bytes and time of change in ns


def complaints(root: Path, paths: Sequence[str], check: str) -> list[str | None]:
    """What is wrong with each picture, None if nothing is.

    Args:
        root: folder that the paths start from.
        paths: of the pictures.
        check: `lists` looks at nothing, `files` whether they are there, `images` decodes them (at low resolution where
            the format allows; PIL's own `verify` would pass a JPEG that breaks off).

    Raises:
        ValueError: there is no such check.
    """
    if check not in CHECKS:
        raise ValueError(f"check={check!r}: allowed are {', '.join(CHECKS)}.")
    if check == "lists":
        return [None] * len(paths)
    facts = [_facts(os.path.join(root, path)) for path in paths]
    wrong = [None if fact else "is missing" for fact in facts]
    if check == "files":
        return wrong
    memo = memo_path(root)
    known = _read(memo)
    new = [i for i, fact in enumerate(facts) if fact and known.get(paths[i]) != fact]
    for i, said in zip(new, _decode_all([os.path.join(root, paths[i]) for i in new]), strict=True):
        wrong[i] = said
    well = {paths[i]: fact for i in new if (fact := facts[i]) and not wrong[i]}
    if well:
        with suppress(OSError):  # without the memo the next check only takes longer
            _write(memo, _read(memo) | well)  # read again: another process may have checked other pictures meanwhile
    return wrong


def memo_path(root: Path) -> Path:
    """Where the pictures of a folder that were well are kept."""
    name = hashlib.sha256(os.fsencode(os.path.abspath(root))).hexdigest()[:32]
    return user_cache_dir() / "checked_pictures" / f"{name}.json"


def _facts(path: str) -> Facts | None:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return [found.st_size, found.st_mtime_ns] if stat.S_ISREG(found.st_mode) else None


def _decode_all(paths: Sequence[str]) -> list[str | None]:
    if not paths:
        return []
    threads = min(MAX_THREADS, os.cpu_count() or 1)  # within which warnings cannot be caught
    with warnings.catch_warnings(action="ignore"), ThreadPoolExecutor(threads) as pool:
        return list(pool.map(_decode, paths))  # which cancels the rest where it is interrupted


def _decode(path: str) -> str | None:
    """What is wrong with a file that is there."""
    from PIL import Image

    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                return f"has {image.width * image.height:,} pixels; at most {MAX_PIXELS:,} are read"
            image.draft("RGB", (64, 64))
            image.load()
    except Exception as error:  # a hostile file makes the decoders raise nearly anything
        return f"cannot be decoded ({type(error).__name__}: {str(error)[:80]})"
    return None


def _decoder() -> str:
    """What decides, besides the file, whether it can be decoded."""
    import PIL

    return f"Pillow {PIL.__version__}"


def _read(path: Path) -> dict[str, Facts]:
    """The pictures that were well; none if the file is missing, damaged or from another decoder."""
    try:
        memo = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(memo, dict) or memo.get("decoder") != _decoder() or not isinstance(memo.get("pictures"), dict):
        return {}
    pictures: dict[str, Facts] = memo["pictures"]
    return pictures


def _write(path: Path, pictures: dict[str, Facts]) -> None:
    records.write_whole(path, json.dumps({"decoder": _decoder(), "pictures": pictures}).encode())
