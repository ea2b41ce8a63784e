"""The cache: content, changed files, damage, full disks and concurrent processes."""

import errno
import hashlib
import mmap
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from PIL import Image, ImageOps

from benchmark.core import records
from benchmark.core.errors import UserError
from benchmark.images import cache, shards, verified
from benchmark.images import decoded_on_read as image_files
from benchmark.images.cache import Cache, IncompleteCacheError, build
from benchmark.images.decode import Tally
from benchmark.images.decoded_on_read import DecodedOnRead
from tests.images.synthetic_photos import encoded, synthetic_photo, write_photos

SIZES = [(40, 60), (60, 40), (32, 32), (50, 20), (32, 80), (33, 47), (90, 64), (48, 48), (35, 36), (64, 32)]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch, no_fsync: None) -> None:
    monkeypatch.setattr(shards, "SHARD", 4)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "images"


@pytest.fixture
def paths(root: Path) -> list[str]:
    return write_photos(root, SIZES)


@pytest.fixture
def make(root: Path, paths: list[str], tmp_path: Path) -> Callable[..., Cache]:
    def build_and_open(short_side: int | None = 32, workers: int = 1, **options: object) -> Cache:
        build(tmp_path / "cache", root, paths, short_side=short_side, workers=workers, **options)  # type: ignore[arg-type]
        return Cache(tmp_path / "cache")

    return build_and_open


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return the decoded files, as bytes."""
    seen: list[bytes] = []
    real = shards.decode_with_traits
    monkeypatch.setattr(shards, "decode_with_traits", lambda payload, *how: seen.append(payload) or real(payload, *how))
    return seen


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the pixel files that were read and hashed."""
    seen: list[str] = []
    real = verified._is_intact
    monkeypatch.setattr(
        verified, "_is_intact", lambda path, sha: seen.append(os.path.basename(path)) or real(path, sha)
    )
    return seen


def another_process() -> None:
    """Forget what this process verified."""
    verified._known.clear()


def shard(folder: Path, number: int) -> Path:
    return next(folder.glob(f"{number:05}-*.bin"))


def alter(path: Path, how: str) -> None:
    """Change the first byte of a file, but not its size or modification time."""
    before, payload = path.stat(), bytearray(path.read_bytes())
    payload[0] ^= 255
    if how == "replaced":
        path.with_suffix(".new").write_bytes(payload)
        os.replace(path.with_suffix(".new"), path)
    else:
        with open(path, "r+b") as file:
            if how == "mapped":
                with mmap.mmap(file.fileno(), 0) as writable:
                    writable[0] = payload[0]
            else:
                file.write(payload[:1])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def copied(root: Path, paths: list[str]) -> None:
    """Put copies with equal modification times in the place of files."""
    for path in paths:
        shutil.copy2(root / path, root / "copy")
        os.replace(root / "copy", root / path)


def is_same(one: Cache | DecodedOnRead, other: Cache | DecodedOnRead) -> bool:
    return len(one) == len(other) and all(np.array_equal(one.pixels(i), other.pixels(i)) for i in range(len(one)))


@pytest.mark.parametrize("short_side", [32, None])
@pytest.mark.parametrize("workers", [1, 3])
def test_the_cache_has_the_content_of_the_files(
    make: Callable[..., Cache], root: Path, paths: list[str], short_side: int | None, workers: int
) -> None:
    ours, files = make(short_side, workers), DecodedOnRead(root, paths, short_side)
    assert is_same(ours, files)
    assert ours.sizes.tolist() == [list(files.pixels(i).shape[:2]) for i in range(len(files))]
    assert ours.nbytes == 3 * ours.sizes.prod(axis=1).sum()
    each = "".join(hashlib.sha256((root / path).read_bytes()).hexdigest() for path in paths)
    assert ours.contents == files.contents == hashlib.sha256(each.encode()).hexdigest()
    ours.verify()


def test_images_cannot_be_written_to(make: Callable[..., Cache]) -> None:
    with pytest.raises(ValueError, match="read-only"):
        make().pixels(0)[:] = 0


@pytest.mark.parametrize("index", [-1, len(SIZES)])
def test_there_is_no_image_beyond_the_last(make: Callable[..., Cache], index: int) -> None:
    with pytest.raises(IndexError, match=f"image {index} of 10"):
        make().pixels(index)


def test_few_shards_stay_open(make: Callable[..., Cache], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "OPEN_SHARDS", 1)
    ours = make()
    before = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    images = [ours.pixels(i).sum() for i in range(len(ours))]
    assert len(images) == len(SIZES)
    if sys.platform == "linux":
        assert len(os.listdir("/proc/self/fd")) <= before + 2


def test_a_finished_cache_is_not_touched_again(make: Callable[..., Cache], decoded: list[bytes]) -> None:
    seen: list[tuple[int, int]] = []
    make(progress=lambda *numbers: seen.append(numbers))
    assert seen == [(i + 1, 10) for i in range(10)]
    make(progress=lambda *_: pytest.fail("decoded again"))
    assert len(decoded) == 10


def test_an_interrupted_build_resumes_where_it_stopped(
    make: Callable[..., Cache], root: Path, paths: list[str], decoded: list[bytes], tmp_path: Path
) -> None:
    def stop(done: int, _: int) -> None:
        if done == 7:  # the first shard is finished, the second is not
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(progress=stop)
    assert not list((tmp_path / "cache").glob(".*"))
    done = {*decoded[:4]}
    del decoded[:]
    seen: list[tuple[int, int]] = []
    ours = make(progress=lambda *numbers: seen.append(numbers))
    assert not done & {*decoded}
    assert seen[-1] == (len(decoded), len(decoded))
    assert is_same(ours, DecodedOnRead(root, paths, 32))


def test_only_the_shard_of_a_changed_file_is_rebuilt(
    make: Callable[..., Cache], root: Path, paths: list[str], decoded: list[bytes], tmp_path: Path
) -> None:
    before = make()
    shown = before.pixels(5).copy()
    (root / paths[5]).write_bytes(encoded(synthetic_photo(70, 50, seed=99)))
    del decoded[:]
    after = make()
    assert len(decoded) == 4
    assert is_same(after, DecodedOnRead(root, paths, 32))
    assert after.contents != before.contents
    assert len(list((tmp_path / "cache").glob("*.bin"))) == 3  # the outdated pixels were deleted
    assert np.array_equal(before.pixels(5), shown)  # a reader that had mapped them keeps them


@pytest.mark.parametrize("how", ["written", "replaced", "mapped"])
def test_other_bytes_of_equal_size_and_modification_time_are_read_again(
    how: str, make: Callable[..., Cache], root: Path, paths: list[str], decoded: list[bytes]
) -> None:
    for path in paths:  # files without compression, whose sizes do not depend on their pixels
        with Image.open(root / path) as image:
            image.save(root / path, "BMP")
    before = make()
    at = os.stat(root / paths[5]).st_mtime_ns
    with Image.open(root / paths[5]) as image:
        ImageOps.invert(image).save(root / "inverted", "BMP")
    if how == "replaced":
        os.replace(root / "inverted", root / paths[5])
    else:
        (root / paths[5]).write_bytes((root / "inverted").read_bytes())
    os.utime(root / paths[5], ns=(at, at))
    del decoded[:]
    after = make()
    assert len(decoded) == 4 and is_same(after, DecodedOnRead(root, paths, 32)) and after.contents != before.contents


def test_copies_of_the_files_are_hashed_once_and_not_decoded(
    make: Callable[..., Cache], root: Path, paths: list[str], decoded: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = make()
    copied(root, paths)
    read: list[Path] = []
    real = image_files.read
    monkeypatch.setattr(image_files, "read", lambda path: read.append(path) or real(path))
    del decoded[:]
    for _ in range(2):
        assert make().contents == before.contents
        assert read == [root / path for path in paths] and decoded == []


@pytest.mark.parametrize("error", [records.WriteError("a full disk"), records.LockedError("another process")])
def test_copies_of_the_files_are_used_with_a_cache_that_cannot_be_written(
    error: Exception, make: Callable[..., Cache], root: Path, paths: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*given: object) -> NoReturn:
        raise error

    before = make()
    copied(root, paths)
    monkeypatch.setattr(records, "only_one", refused)
    assert make().contents == before.contents


def test_a_file_of_equal_size_with_another_modification_time_is_read_again(
    make: Callable[..., Cache], root: Path, paths: list[str], decoded: list[bytes]
) -> None:
    make()
    os.utime(root / paths[9], ns=(0, 0))
    del decoded[:]
    make()
    assert len(decoded) == 2  # the last shard has two images


@pytest.mark.parametrize("library", ["pillow", "libjpeg_turbo"])
def test_images_are_decoded_again_by_another_version_of_the_decoder(
    library: str, make: Callable[..., Cache], decoded: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    make()
    if library == "pillow":
        monkeypatch.setattr(shards.PIL, "__version__", "1.0")
    else:
        monkeypatch.setattr(shards.features, "version", lambda _: "1.0")
    for _ in range(2):
        make()
        assert len(decoded) == 2 * len(SIZES)


def test_another_list_or_size_needs_another_cache(make: Callable[..., Cache], paths: list[str], root: Path) -> None:
    make()
    paths.reverse()
    assert is_same(make(), DecodedOnRead(root, paths, 32))
    assert is_same(make(40), DecodedOnRead(root, paths, 40))
    for count in (8, 5, 3):  # the first list fills two whole shards
        del paths[count:]
        assert is_same(make(40), DecodedOnRead(root, paths, 40))


def test_a_partially_rebuilt_cache_is_not_read(make: Callable[..., Cache], tmp_path: Path) -> None:
    def stop(done: int, _: int) -> None:
        if done == 7:
            raise KeyboardInterrupt

    make()
    with pytest.raises(KeyboardInterrupt):
        make(40, progress=stop)
    with pytest.raises(UserError, match="is incomplete"):
        Cache(tmp_path / "cache")


def test_a_reader_of_a_cache_that_was_replaced_is_refused(make: Callable[..., Cache], paths: list[str]) -> None:
    before = make()
    paths.reverse()
    make()
    with pytest.raises(UserError, match="was deleted while it was in use; run the command again"):
        before.pixels(0)


@pytest.mark.parametrize("damage", ["short", "gone", "note"])
def test_a_damaged_shard_is_quarantined_and_rebuilt(
    make: Callable[..., Cache], root: Path, paths: list[str], decoded: list[bytes], tmp_path: Path, damage: str
) -> None:
    make()
    pixels, note = next((tmp_path / "cache").glob("00001-*.bin")), tmp_path / "cache" / "00001.json"
    if damage == "gone":
        pixels.unlink()
    elif damage == "short":
        os.truncate(pixels, 100)
    else:
        note.write_text(note.read_text().replace("class_0", "class_9"))
    with pytest.raises(UserError, match="is incomplete"):
        Cache(tmp_path / "cache")
    del decoded[:]
    with pytest.warns(UserWarning, match="kept as .*damaged"):
        ours = make()
    assert len(decoded) == 4
    assert is_same(ours, DecodedOnRead(root, paths, 32))
    assert list((tmp_path / "cache").glob("00001*damaged*"))


@pytest.mark.parametrize("how", ["overwritten", "mapped", "replaced"])
@pytest.mark.parametrize("later", [False, True])
def test_altered_pixels_are_refused_and_their_images_decoded_again(
    make: Callable[..., Cache],
    root: Path,
    paths: list[str],
    decoded: list[bytes],
    tmp_path: Path,
    how: str,
    later: bool,
) -> None:
    make()
    if later:
        another_process()
    alter(shard(tmp_path / "cache", 1), how)
    with pytest.raises(IncompleteCacheError, match=r"altered.*pixels in 00001-\w+\.bin do not.*Run the same command"):
        Cache(tmp_path / "cache")
    del decoded[:]
    with pytest.warns(UserWarning, match=r"00001-\w+\.bin was altered.*kept as 00001-.*damaged.*decoded again"):
        ours = make()
    assert len(decoded) == 4
    assert is_same(ours, DecodedOnRead(root, paths, 32))


def test_swapped_pixels_are_refused(make: Callable[..., Cache], root: Path, paths: list[str], tmp_path: Path) -> None:
    paths[:] = write_photos(root, 8 * [(32, 32)])
    make()
    one, other = (shard(tmp_path / "cache", number) for number in (0, 1))
    assert one.stat().st_size == other.stat().st_size
    one.rename(tmp_path / "one")
    other.rename(one)
    (tmp_path / "one").rename(other)
    with pytest.raises(IncompleteCacheError, match=r"pixels in 00000-.*, 00001-"):
        Cache(tmp_path / "cache")


@pytest.mark.parametrize("how", ["overwritten", "mapped", "truncated"])
def test_pixels_that_are_altered_while_in_use_are_not_returned(
    make: Callable[..., Cache], root: Path, paths: list[str], tmp_path: Path, how: str
) -> None:
    ours, path = make(), shard(tmp_path / "cache", 1)
    ours.pixels(5)
    if how == "truncated":
        os.truncate(path, 0)
    else:
        alter(path, how)
    for _ in range(2):
        with pytest.raises(IncompleteCacheError, match=f"the pixels in {path.name} do not match"):
            ours.pixels(6)
    assert ours.pixels(3).any()  # of another shard
    with pytest.warns(UserWarning, match="decoded again"):
        make()
    assert is_same(ours, DecodedOnRead(root, paths, 32))


def test_unchanged_pixels_are_never_verified_twice(
    make: Callable[..., Cache], hashed: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(verified, "LARGE", 0)
    for _ in range(2):
        ours = make()
        assert [ours.pixels(i).shape for i in range(len(ours))]
        another_process()
    assert not hashed and not capfd.readouterr().err  # what was written is known
    shutil.copytree(tmp_path / "cache", tmp_path / "copy")
    for _ in range(2):
        assert is_same(Cache(tmp_path / "copy"), ours)
        another_process()
    assert len(hashed) == 3
    assert capfd.readouterr().err == f"Verifying 0.0 MB of decoded images in {tmp_path / 'copy'} ...\n"


@pytest.mark.parametrize("memo", ["", "{", "null", "list", "foreign", "absent"])
def test_a_damaged_memo_costs_one_verification(
    make: Callable[..., Cache], hashed: list[str], tmp_path: Path, memo: str
) -> None:
    make()
    path = tmp_path / "cache" / "verified.json"
    known = records.read_record(path).result
    foreign = {name: [sha256, size, inode + 1, changed] for name, (sha256, size, inode, changed) in known.items()}
    if memo in ("list", "foreign"):
        records.write_record(path, records.Record("verified", foreign if memo == "foreign" else [*known]))
    elif memo == "absent":
        path.unlink()
    else:
        path.write_text(memo)
    for _ in range(2):
        another_process()
        Cache(tmp_path / "cache")
    assert len(hashed) == 3 and records.read_record(path).result == known


def test_a_cache_that_cannot_be_written_is_verified_once_in_each_process(
    make: Callable[..., Cache], hashed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = make()
    (tmp_path / "cache" / "verified.json").unlink()

    def fail(*_: object) -> None:
        raise OSError(errno.EROFS, "no")

    monkeypatch.setattr(os, "replace", fail)
    for processes in (1, 2):
        another_process()
        assert is_same(make(), ours) and is_same(Cache(tmp_path / "cache"), ours)
        assert len(hashed) == 3 * processes
    alter(shard(tmp_path / "cache", 1), "overwritten")
    with pytest.raises(IncompleteCacheError, match="pixels in 00001-"):
        Cache(tmp_path / "cache")
    with pytest.raises(
        UserError, match=r"cannot be written.*because the pixels in 00001-.*do not match.*BENCHMARK_CACHE"
    ):
        make()


def test_a_change_of_a_file_that_is_not_one_of_its_pixels_is_tolerated(
    make: Callable[..., Cache], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, path = make(), shard(tmp_path / "cache", 1)
    before = ours.pixels(5).copy()
    path.chmod(0o400)
    os.link(path, tmp_path / "backup")
    assert np.array_equal(ours.pixels(5), before)
    monkeypatch.setattr(verified.hashlib, "sha256", lambda _: pytest.fail("hashed again"))
    ours._shard.cache_clear()
    assert np.array_equal(ours.pixels(5), before)
    monkeypatch.undo()
    for _ in range(2):
        another_process()
        verified.altered(tmp_path / "cache", ours._checksums)
    record = records.read_record(tmp_path / "cache" / "verified.json").result[path.name]
    found = path.stat()
    assert record[1:] == [found.st_size, found.st_ino, found.st_ctime_ns]


def test_a_file_that_changes_while_it_is_hashed_is_hashed_again(
    make: Callable[..., Cache], hashed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make()
    path, digest = shard(tmp_path / "cache", 1), hashlib.file_digest
    path.chmod(0o600)

    def changed_afterwards(*args: str) -> object:
        found = digest(*args)  # type: ignore[call-overload]
        monkeypatch.setattr(hashlib, "file_digest", digest)
        alter(path, "overwritten")
        return found

    monkeypatch.setattr(hashlib, "file_digest", changed_afterwards)
    Cache(tmp_path / "cache")
    with pytest.raises(IncompleteCacheError, match="pixels in 00001-"):
        Cache(tmp_path / "cache")


def test_a_file_is_only_hashed_when_a_later_write_would_get_another_time(
    make: Callable[..., Cache], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make()
    slept: list[float] = []
    changed = shard(tmp_path / "cache", 1).stat().st_ctime_ns
    monkeypatch.setattr(time, "sleep", slept.append)
    for passed, expected in ((verified.TICK_NS, 0), (verified.TICK_NS - 1, 1)):
        monkeypatch.setattr(time, "time_ns", lambda passed=passed: changed + passed)
        verified.altered(tmp_path / "cache", {shard(tmp_path / "cache", 1).name: "0"})
        assert slept == pytest.approx(expected * [1e-9])


def test_damage_without_a_trace_in_the_file_system_is_found_by_a_full_verification(
    make: Callable[..., Cache], root: Path, paths: list[str], tmp_path: Path
) -> None:
    ours, path = make(), shard(tmp_path / "cache", 2)
    alter(path, "overwritten")
    sha256, _ = verified._known[str(path)]
    verified.remember(path, sha256)  # as if the disk had lost the byte by itself
    assert len(Cache(tmp_path / "cache")) == 10
    with pytest.raises(IncompleteCacheError, match=r"00002-.*checksums.*Run the same command again"):
        ours.verify()
    assert list((tmp_path / "cache").glob("00002-*damaged*"))
    assert is_same(make(), DecodedOnRead(root, paths, 32))


@pytest.mark.parametrize("name", ["about.json", "00001.json"])
@pytest.mark.parametrize("value", [None, "x", [[0, 1]]])
def test_metadata_of_another_type_are_damage(
    make: Callable[..., Cache], root: Path, paths: list[str], tmp_path: Path, name: str, value: object
) -> None:
    make()
    good = records.read_record(tmp_path / "cache" / name).result
    key = "contents" if name == "about.json" else "sizes"
    for result in (value, good | {key: value}):
        records.write_record(tmp_path / "cache" / name, records.Record("pictures", result))  # type: ignore[arg-type]
        with pytest.raises(IncompleteCacheError, match="incomplete"):
            Cache(tmp_path / "cache")
    with warnings.catch_warnings(action="ignore"):
        assert len(make()) == 10


def test_a_folder_that_was_not_filled_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere is incomplete"):
        Cache(tmp_path / "nowhere")


def test_shards_of_two_lists_are_not_mixed(make: Callable[..., Cache], paths: list[str], tmp_path: Path) -> None:
    make()
    shutil.copytree(tmp_path / "cache", tmp_path / "other")
    paths.reverse()
    make()
    for path in (tmp_path / "other").glob("00000*"):
        path.unlink()
    for path in (tmp_path / "cache").glob("00000*"):
        shutil.copy(path, tmp_path / "other")
    with pytest.raises(UserError, match="do not belong together"):
        Cache(tmp_path / "other")


def test_shards_of_two_sizes_are_not_mixed(make: Callable[..., Cache], tmp_path: Path) -> None:
    make(40)
    shutil.copytree(tmp_path / "cache", tmp_path / "other")
    make(32)
    for path in (tmp_path / "cache").glob("00000*"):
        path.unlink()
    for path in (tmp_path / "other").glob("00000*"):
        shutil.copy(path, tmp_path / "cache")
    with pytest.raises(UserError, match="do not belong together"):
        Cache(tmp_path / "cache")


def test_unreadable_images_are_named_after_all_were_tried(
    make: Callable[..., Cache], root: Path, paths: list[str], decoded: list[bytes], tmp_path: Path
) -> None:
    payloads = [(root / path).read_bytes() for path in paths]
    for row in (0, 1, 2, 3, 8):
        (root / paths[row]).write_bytes(b"not an image")
    (root / paths[9]).unlink()
    with pytest.raises(UserError, match="6 of 10 images") as caught:
        make(workers=2)
    message = str(caught.value)
    assert f"image 1: {paths[0]} cannot be decoded (it is a text file" in message
    assert f"image 9: {paths[8]}" in message
    assert paths[9] not in message
    assert "and 1 more" in message
    assert "dataset.module.on_bad=leave_out" in message
    assert not list((tmp_path / "cache").glob(".*"))
    for row in (0, 1, 2, 3, 8, 9):
        (root / paths[row]).write_bytes(payloads[row])
    del decoded[:]
    assert is_same(make(), DecodedOnRead(root, paths, 32))
    assert sorted(decoded) == sorted(payloads[:4] + payloads[8:])  # the shard between them was complete


def test_a_missing_file_is_reported_as_missing(make: Callable[..., Cache], root: Path, paths: list[str]) -> None:
    (root / paths[9]).unlink()
    with pytest.raises(UserError, match=f"1 of 10 images.*\n  image 10: {paths[9]} is missing\n"):
        make()


@pytest.mark.parametrize("path", ["../elsewhere.jpg", "/etc/passwd", "a/../../b.jpg", ""])
def test_a_path_that_leaves_the_folder_is_refused(make: Callable[..., Cache], paths: list[str], path: str) -> None:
    paths[2] = path
    with pytest.raises(UserError, match=f"Image 3 is named '{path}'"):
        make()


def test_a_link_may_lead_out_of_the_folder(
    make: Callable[..., Cache], root: Path, paths: list[str], tmp_path: Path
) -> None:
    (root / paths[0]).rename(tmp_path / "elsewhere.jpg")
    (root / paths[0]).symlink_to(tmp_path / "elsewhere.jpg")
    assert is_same(make(), DecodedOnRead(root, paths, 32))


def test_a_disk_that_is_too_small_is_detected_in_advance(
    make: Callable[..., Cache], decoded: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    need = make().nbytes
    shutil.rmtree(make().folder)
    del decoded[:]
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=need - 1))
    with pytest.raises(UserError, match=r"10 images.*MB when decoded.*MB free.*BENCHMARK_CACHE.*decode=always"):
        make()
    assert not decoded
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=need))
    assert len(make()) == 10


@pytest.mark.parametrize(("number", "said"), [(errno.ENOSPC, "disk is full"), (errno.EROFS, "cannot be written")])
def test_a_failing_disk_is_explained(
    make: Callable[..., Cache], monkeypatch: pytest.MonkeyPatch, number: int, said: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(UserError, match=f"{said}.*BENCHMARK_CACHE"):
        make()


def test_a_second_builder_waits_for_the_first_and_has_nothing_to_do(
    make: Callable[..., Cache], decoded: list[bytes], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    builders: list[cache._Job] = []
    real = cache._Job.run
    monkeypatch.setattr(cache._Job, "run", lambda job, *args: builders.append(job) or real(job, *args))
    half_way, go_on = threading.Event(), threading.Event()

    def hold(done: int, _: int) -> None:
        if done == 5:
            half_way.set()
            assert go_on.wait(10)

    first = threading.Thread(target=make, kwargs={"progress": hold})
    second = threading.Thread(target=make, kwargs={"progress": lambda *_: pytest.fail("decoded again")})
    first.start()
    assert half_way.wait(10)
    second.start()
    said = ""
    while "Waiting" not in said:
        said += capfd.readouterr().err
        time.sleep(0.01)
    go_on.set()
    first.join()
    second.join()
    assert f"by process {os.getpid()}" in said
    assert len(decoded) == 10
    assert len(builders) == 1


CHILD = """
import os, sys
from pathlib import Path
from benchmark.images import cache, shards
shards.SHARD = 4
folder, root, *paths = sys.argv[1:]
def tell(done, total):
    print(done, flush=True)
    if done == 7:
        sys.stdin.read()
cache.build(Path(folder), Path(root), paths, short_side=32, workers=1, progress=tell)
"""


@pytest.mark.slow
def test_a_build_that_was_killed_keeps_its_finished_shards(
    make: Callable[..., Cache], root: Path, paths: list[str], decoded: list[bytes], tmp_path: Path
) -> None:
    command = [sys.executable, "-c", CHILD, str(tmp_path / "cache"), str(root), *paths]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        while child.stdout.readline() != "7\n":
            assert child.poll() is None
        child.send_signal(signal.SIGKILL)
    (tmp_path / "cache" / ".about.json.7.tmp").write_bytes(b"half")
    ours = make()
    assert len(decoded) == 6 and not list((tmp_path / "cache").glob("*.tmp"))
    assert is_same(ours, DecodedOnRead(root, paths, 32))


KILLED = """
import os, shutil, signal, sys
from pathlib import Path
from benchmark.images import cache, shards
shards.SHARD = 4
root, folder, *paths = map(str, sys.argv[1:])
whole, killed = Path(folder, "whole"), Path(folder, "killed")
calls = 0

def fill(target, last=None):
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    for name in ("replace", "fsync", "unlink"):
        def call(*args, real=getattr(os, name), **options):
            global calls
            calls += 1
            if calls == last:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **options)
        setattr(os, name, call)
    cache.build(target, Path(root), paths, short_side=32, workers=1)
    os._exit(0)

def content(target):
    return {path.name: path.read_bytes() for path in target.iterdir() if path.suffix == ".bin"}

fill(whole)
for last in range(1, 100):
    shutil.rmtree(killed, ignore_errors=True)
    survived = fill(killed, last) == 0
    assert fill(killed) == 0
    assert content(killed) == content(whole), last
    assert not [*killed.glob("*.tmp"), *killed.glob(".*.tmp")], last
    assert cache.Cache(killed).contents == cache.Cache(whole).contents
    if survived:
        break
print(last)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_build_killed_before_any_of_its_writes_is_resumed_to_the_same_cache(
    root: Path, paths: list[str], tmp_path: Path
) -> None:
    command = [sys.executable, "-c", KILLED, str(root), str(tmp_path), *paths]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 12  # three shards with their metadata, and what belongs to all


TRUNCATED = """
import os, sys
from pathlib import Path
from benchmark.images import cache, shards
shards.SHARD = 4
ours = cache.Cache(Path(sys.argv[1]))
image, before = ours.pixels(0), ours.pixels(0).sum()
os.truncate(next(Path(sys.argv[1]).glob("00000-*.bin")), 0)
assert image.sum() == before
try:
    ours.pixels(1)
except cache.IncompleteCacheError:
    print("refused")
"""


@pytest.mark.slow
def test_a_shard_that_is_truncated_does_not_end_the_process_that_reads_it(
    make: Callable[..., Cache], tmp_path: Path
) -> None:
    make()
    command = [sys.executable, "-c", TRUNCATED, str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, "refused\n"), done.stderr


@pytest.mark.parametrize("size", [0, 5000])
def test_a_shard_truncated_while_it_is_read_is_refused(
    make: Callable[..., Cache], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    ours, path, real = make(), shard(tmp_path / "cache", 1), os.preadv

    def after_truncation(*args: Any) -> int:
        os.truncate(path, size)
        return real(*args)

    ours.pixels(4)
    monkeypatch.setattr(os, "preadv", after_truncation)
    for index in (4, 7):
        with pytest.raises(IncompleteCacheError, match=f"the pixels in {path.name} do not match"):
            ours.pixels(index)


def test_special_images_are_counted_in_the_cache(root: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    paths = write_photos(root, SIZES[:5])
    (root / "turned.jpg").write_bytes(encoded(synthetic_photo(20, 30), exif=exif))
    (root / "clear.png").write_bytes(encoded(np.zeros((9, 9, 4), np.uint8), "PNG"))
    (root / "deep.png").write_bytes(encoded(np.full((9, 9), 4000, np.uint16), "PNG"))
    build(tmp_path / "cache", root, [*paths, "turned.jpg", "clear.png", "deep.png"], short_side=32, workers=1)
    assert Cache(tmp_path / "cache").tally == Tally(oriented=1, transparent=1, deep=1, grey_bits=12)


def test_a_cache_filled_by_an_earlier_version_has_no_counts_and_is_still_read(
    make: Callable[..., Cache], tmp_path: Path
) -> None:
    make()
    for path in (tmp_path / "cache").glob("0*.json"):
        record = records.read_record(path)
        assert isinstance(record.result, dict)
        record.result.pop("tally")
        records.write_record(path, record)
    ours = make(progress=lambda *_: pytest.fail("decoded again"))
    assert ours.tally is None and ours.pixels(0).any()
