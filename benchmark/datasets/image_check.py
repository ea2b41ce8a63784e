"""Check that the images of a data set exist and can be decoded, and remember those that passed.

Decoding all images takes minutes, and every worker creates the data set. Images that decoded without error are
therefore recorded in the user's cache, one file per root, with size and modification time, and are not decoded again
while these are unchanged. Images with an error are always tried again, since the cause may be elsewhere (permissions,
an unmounted disk).
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
from benchmark.core.errors import UserError
from benchmark.core.threads import usable_cores
from benchmark.datasets.listing import Listing
from benchmark.images.decode import FORMATS, MAX_PIXELS, describe_unusable

CHECKS = ("lists", "files", "images")
MAX_THREADS = 16  # decoders release the global interpreter lock
Facts = list[int]  # size in bytes and modification time in ns


def check_images(listing: Listing, check: str) -> Listing:
    """Return the listing if all of its images can be used.

    Args:
        listing: a published data set.
        check: `lists`, `files` or `images`, see `find_problems`.

    Raises:
        UserError: some images cannot be used; the message names the first few and their positions.
    """
    problems = enumerate(find_problems(listing.root, listing.paths, check))
    bad = [f"image {row + 1}: {listing.paths[row]} {problem}" for row, problem in problems if problem]
    if bad:
        remedy = "The copy is incomplete; download it again, or unpack it again."
        raise UserError(describe_unusable(listing.root, len(listing.paths), bad, remedy))
    return listing


def find_problems(root: Path, paths: Sequence[str], check: str) -> list[str | None]:
    """Return the problem of each image, None if it has none.

    Args:
        root: folder that the paths are relative to.
        paths: paths of the images.
        check: `lists` checks nothing, `files` that the files exist, `images` that they can be decoded (at
            low resolution if the format allows it; PIL's own `verify` would accept a truncated JPEG).

    Raises:
        UserError: `check` is unknown.
    """
    if check not in CHECKS:
        raise UserError(f"check={check!r}: allowed are {', '.join(CHECKS)}.")
    if check == "lists":
        return [None] * len(paths)
    facts = [_facts(os.path.join(root, path)) for path in paths]
    problems = [fact if isinstance(fact, str) else None for fact in facts]
    if check == "files":
        return problems
    memo = memo_path(root)
    known = _read(memo)
    new = [i for i, fact in enumerate(facts) if not isinstance(fact, str) and known.get(paths[i]) != fact]
    for i, problem in zip(new, _decode_all([os.path.join(root, paths[i]) for i in new]), strict=True):
        problems[i] = problem
    decoded = {paths[i]: fact for i in new if not isinstance(fact := facts[i], str) and not problems[i]}
    if decoded:
        with suppress(OSError):  # without the memo, the next check only takes longer
            _write(memo, _read(memo) | decoded)  # read again: another process may have checked images in the meantime
    return problems


def memo_path(root: Path) -> Path:
    """Return the path of the memo of images in a folder that decoded without error."""
    name = hashlib.sha256(os.fsencode(os.path.abspath(root))).hexdigest()[:32]
    return user_cache_dir() / "checked_pictures" / f"{name}.json"


def _facts(path: str) -> Facts | str:
    """Return size and modification time of a file, or why it cannot be used."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a null byte in the name
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return [found.st_size, found.st_mtime_ns] if stat.S_ISREG(found.st_mode) else "is missing"


def _decode_all(paths: Sequence[str]) -> list[str | None]:
    if not paths:
        return []
    threads = min(MAX_THREADS, usable_cores())  # within which warnings cannot be caught
    with warnings.catch_warnings(action="ignore"), ThreadPoolExecutor(threads) as pool:
        return list(pool.map(_decode, paths))  # an interruption cancels the rest


def _decode(path: str) -> str | None:
    """Return the problem of an existing file; None if it can be decoded."""
    from PIL import Image

    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                return f"has {image.width * image.height:,} pixels; at most {MAX_PIXELS:,} are read"
            image.draft("RGB", (64, 64))
            image.load()
    except Exception as error:  # on a malicious file, PIL's decoders can raise nearly anything
        return f"cannot be decoded ({type(error).__name__}: {str(error)[:80]})"
    return None


def _decoder() -> str:
    """Identify the decoder, on which the result of the check depends too."""
    import PIL

    return f"Pillow {PIL.__version__}"


def _read(path: Path) -> dict[str, Facts]:
    """Read the memo; empty if it is missing, damaged or from another decoder."""
    try:
        memo = json.loads(path.read_bytes())
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        return {}
    if not isinstance(memo, dict) or memo.get("decoder") != _decoder() or not isinstance(memo.get("pictures"), dict):
        return {}
    images: dict[str, Facts] = memo["pictures"]
    return images


def _write(path: Path, images: dict[str, Facts]) -> None:
    records.write_whole(path, json.dumps({"decoder": _decoder(), "pictures": images}).encode())
