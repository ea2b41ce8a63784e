"""Check that the images of a data set exist and can be decoded, and remember those that passed.

Decoding all images takes minutes, and every worker creates the data set. Images that decoded without error are
therefore recorded in the user's cache, one file per root, and are not decoded again while their sizes and modification
times are the same and the system has noted no change since then. Images with an error are always tried again, since the
cause may be elsewhere (permissions, an unmounted disk).
"""

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import cast

import msgspec

from benchmark.core import records
from benchmark.core.cache_dir import user_cache_dir
from benchmark.core.errors import UserError
from benchmark.core.pulse import beating
from benchmark.core.threads import usable_cores
from benchmark.datasets.listing import Listing
from benchmark.images.cache import locked
from benchmark.images.decode import Tally, Traits, UnreadableImageError, describe_unusable, examine
from benchmark.images.decoded_on_read import Stamp, check_time, read
from benchmark.images.depth import is_cut

CHECKS = ("lists", "files", "images")
MAX_THREADS = 16  # decoders release the global interpreter lock
RULES = 3  # counts the changes of what `examine` refuses or reports
Entry = tuple[
    int, int, int, str, bool, bool, int, int, bool
]  # of the memo: size, modification time and `check_time`, and the fields of `Seen` from `sha256` on


def check_images(listing: Listing, check: str) -> Listing:
    """Return the listing if all of its images can be used.

    Args:
        listing: a published data set.
        check: `lists`, `files` or `images`, see `inspect`.

    Raises:
        UserError: some images cannot be used; the message names the first few and their positions.
    """
    seen = enumerate(inspect(listing.root, listing.paths, check))
    bad = [f"image {row + 1}: {listing.paths[row]} {one.problem}" for row, one in seen if one.problem]
    if bad:
        remedy = "The copy is incomplete; download it again, or unpack it again."
        raise UserError(describe_unusable(listing.root, len(listing.paths), bad, remedy))
    return listing


@dataclass(frozen=True)
class Seen:
    """What the check found out about an image file.

    Attributes:
        problem: why it cannot be used, as a predicate ("is missing"); None if it can.
        sha256: SHA-256 of its bytes; None unless it was read (`check=images`) and can be used.
        oriented: see `decode.Traits`.
        transparent: see `decode.Traits`.
        grey_bits: see `decode.Traits`.
        frames: see `decode.Traits`.
        cut: see `depth.is_cut`.
    """

    problem: str | None = None
    sha256: str | None = None
    oriented: bool = False
    transparent: bool = False
    grey_bits: int = 0
    frames: int = 1
    cut: bool = False


def inspect(root: Path, paths: Sequence[str], check: str) -> list[Seen]:
    """Return what the check finds out about each image.

    Args:
        root: folder that the paths are relative to.
        paths: paths of the images.
        check: `lists` checks nothing, `files` that the files exist, `images` that they can be decoded, by the same
            rules as the cache. (PIL's own `verify` would accept a truncated JPEG.)

    Raises:
        UserError: `check` is unknown.
    """
    if check not in CHECKS:
        raise UserError(f"check={check!r}: allowed are {', '.join(CHECKS)}.")
    if check == "lists":
        return [Seen()] * len(paths)
    facts = [_facts(os.path.join(root, path)) for path in paths]
    seen = [Seen(fact if isinstance(fact, str) else None) for fact in facts]
    if check == "files":
        return seen
    memo = memo_path(root)

    def look_up() -> list[int]:
        """Take what the memo knows about unchanged images, and return the positions of the others."""
        known = _read(memo)
        for i, (path, fact) in enumerate(zip(paths, facts, strict=True)):
            if isinstance(fact, Stamp) and path in known:
                size, modified, checked = known[path][:3]
                if (fact.size, fact.modified) == (size, modified) and fact.changed < checked:
                    seen[i] = Seen(None, *known[path][3:])
        return [i for i, one in enumerate(seen) if not one.problem and not one.sha256]

    if not look_up():
        return seen
    with _alone(memo, root):
        new, now = look_up(), check_time()  # again: another process may have checked them meanwhile
        for i, one in zip(new, _decode_all([os.path.join(root, paths[i]) for i in new]), strict=True):
            seen[i] = one
        if fresh := {paths[i]: _entry(facts[i], now, seen[i]) for i in new if not seen[i].problem}:
            with suppress(OSError):  # without the memo, the next check only takes longer
                _write(memo, _read(memo) | fresh)
    return seen


@contextmanager
def _alone(memo: Path, root: Path) -> Iterator[None]:
    """Check the images of a folder one process at a time, where a lock can be written."""
    with ExitStack() as held:
        with suppress(records.WriteError):
            held.enter_context(locked(memo.with_suffix(".lock"), f"The check of the images in {root}"))
        yield


def tally(seen: Iterable[Seen]) -> Tally | None:
    """Count the images with special traits, for `Listing.tally`; None if no image was read.

    Args:
        seen: what `inspect` found out about the images that are used.
    """
    read = [one for one in seen if one.sha256]
    return Tally.of(Traits(one.oriented, one.transparent, one.grey_bits, one.frames) for one in read) if read else None


def memo_path(root: Path) -> Path:
    """Return the path of the memo of images in a folder that decoded without error."""
    name = hashlib.sha256(os.fsencode(os.path.abspath(root))).hexdigest()[:32]
    return user_cache_dir() / "checked_pictures" / f"{name}.json"


def _facts(path: str) -> Stamp | str:
    """Return the stamp of a file, or why it cannot be used."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a null byte in the name
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return Stamp.of(found) if stat.S_ISREG(found.st_mode) else "is missing"


def _entry(facts: Stamp | str, checked: int, seen: Seen) -> Entry:
    return cast(Entry, (*facts[:2], checked, *astuple(seen)[1:]))


def _decode_all(paths: Sequence[str]) -> list[Seen]:
    if not paths:
        return []
    with ThreadPoolExecutor(min(MAX_THREADS, usable_cores())) as pool:
        return [*beating(pool.map(_decode, paths))]  # an interruption cancels the rest


def _decode(path: str) -> Seen:
    """Decode an existing file."""
    try:
        payload, _ = read(Path(path))
        traits, cut = examine(payload), is_cut(payload)
    except UnreadableImageError as error:
        return Seen(str(error))
    return Seen(None, hashlib.sha256(payload).hexdigest(), **asdict(traits), cut=cut)


def _decoder() -> str:
    """Identify the decoder and its rules, on which the result of the check depends too."""
    import PIL

    return f"Pillow {PIL.__version__}, rules {RULES}"


def _read(path: Path) -> dict[str, Entry]:
    """Read the memo; empty if it is missing, damaged or from another decoder."""
    try:
        memo = json.loads(path.read_bytes())
        if not isinstance(memo, dict) or memo.get("decoder") != _decoder():
            return {}
        return msgspec.convert(memo.get("pictures"), dict[str, Entry])
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, RecursionError, msgspec.ValidationError):
        return {}


def _write(path: Path, images: Mapping[str, Entry]) -> None:
    records.write_whole(path, json.dumps({"decoder": _decoder(), "pictures": images}).encode())
