"""The check of image files, and the memo of files that need not be decoded again."""

import dataclasses
import errno
import hashlib
import json
import os
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from benchmark.core.errors import UserError
from benchmark.datasets import cub, image_check
from benchmark.datasets.image_check import Seen, check_images, inspect, memo_path, tally
from benchmark.images import decode
from benchmark.images.decode import Tally
from tests.datasets import trees
from tests.datasets.trees import find_problems

NAMES = ["a.jpg", "b/c.jpg", "d.png"]


def problem_of(path: Path, check: str) -> str | None:
    return find_problems(path.parent, [path.name], check)[0]


@pytest.mark.parametrize(
    ("name", "mode"), [("a.jpg", "L"), ("a.jpg", "CMYK"), ("a.png", "P"), ("a.gif", "P"), ("a.JPG", "RGB")]
)
def test_every_kind_of_image_is_fine(tmp_path, name, mode):
    trees.write_image(tmp_path / name, mode)
    assert problem_of(tmp_path / name, "images") is None


def test_a_truncated_jpeg_is_found_by_decoding_only(tmp_path):
    path = tmp_path / "a.jpg"
    trees.write_image(path, size=(200, 150))
    path.write_bytes(path.read_bytes()[:2_000])
    assert problem_of(path, "files") is None
    assert "cannot be decoded (OSError: image file is truncated" in problem_of(path, "images")


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\xff\xd8\xff\xe0garbage", b"<html>"])
def test_a_file_that_is_not_an_image_is_found(tmp_path, content):
    (tmp_path / "a.jpg").write_bytes(content)
    assert "cannot be decoded" in problem_of(tmp_path / "a.jpg", "images")


def test_an_unknown_check_is_refused(tmp_path):
    assert problem_of(tmp_path / "a.jpg", "lists") is None
    assert problem_of(tmp_path / "a.jpg", "files") == "is missing"
    with pytest.raises(UserError, match="check='all': allowed are lists, files, images"):
        problem_of(tmp_path, "all")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for seed, name in enumerate(NAMES):
        trees.write_image(tmp_path / "root" / name, seed=seed)
    return tmp_path / "root"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of decoded images, in order."""
    names: list[str] = []
    real = image_check._decode

    def counted(path: str) -> image_check.Seen:
        names.append(Path(path).name)
        return real(path)

    monkeypatch.setattr(image_check, "_decode", counted)
    return names


def test_a_readable_image_is_decoded_once(root: Path, decoded: list[str]) -> None:
    assert find_problems(root, NAMES, "images") == [None] * 3
    assert sorted(decoded) == ["a.jpg", "c.jpg", "d.png"]
    assert find_problems(root, [*NAMES[::-1], "lost.jpg"], "images") == [None] * 3 + ["is missing"]
    assert len(decoded) == 3


def test_an_image_with_another_size_or_time_is_decoded_again(root: Path, decoded: list[str]) -> None:
    find_problems(root, NAMES, "images")
    del decoded[:]
    facts = os.stat(root / "a.jpg")
    os.utime(root / "a.jpg", ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))
    time = os.stat(root / "d.png").st_mtime_ns
    (root / "d.png").write_bytes((root / "d.png").read_bytes()[:-60])
    os.utime(root / "d.png", ns=(time, time))
    assert [bool(said) for said in find_problems(root, NAMES, "images")] == [False, False, True]
    assert sorted(decoded) == ["a.jpg", "d.png"]


def test_other_bytes_of_equal_size_and_modification_time_are_decoded_again(root: Path, decoded: list[str]) -> None:
    first = inspect(root, NAMES, "images")
    del decoded[:]
    before = os.stat(root / "d.png")
    (root / "d.png").write_bytes((root / "d.png").read_bytes()[:-1] + b"!")
    os.utime(root / "d.png", ns=(before.st_atime_ns, before.st_mtime_ns))
    again = inspect(root, NAMES, "images")
    assert decoded == ["d.png"] and again[:2] == first[:2]
    assert again[2].sha256 == hashlib.sha256((root / "d.png").read_bytes()).hexdigest() != first[2].sha256


def test_an_unreadable_image_is_tried_again(root: Path, decoded: list[str]) -> None:
    (root / "a.jpg").write_bytes(b"damaged")
    assert find_problems(root, NAMES, "images") == find_problems(root, NAMES, "images")
    assert decoded.count("a.jpg") == 2 and decoded.count("c.jpg") == 1


def test_a_moved_folder_or_another_decoder_has_its_images_decoded_again(
    root: Path, decoded: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_problems(root, NAMES, "images")
    root.rename(tmp_path / "moved")
    find_problems(tmp_path / "moved", NAMES, "images")
    assert len(decoded) == 6
    monkeypatch.setattr("PIL.__version__", "99.0")
    find_problems(tmp_path / "moved", NAMES, "images")
    assert len(decoded) == 9


def test_two_lists_of_one_folder_share_the_memo(root: Path, decoded: list[str]) -> None:
    for names in (NAMES[:2], NAMES[1:], NAMES[:2], NAMES[1:]):
        find_problems(root, names, "images")
    assert len(decoded) == 3


def test_a_second_process_waits_and_decodes_only_what_the_first_did_not(
    root: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    decode_all, begun, go_on = image_check._decode_all, threading.Event(), threading.Event()

    def held(paths: list[str]) -> list[image_check.Seen]:
        begun.set()
        assert go_on.wait(10)
        return decode_all(paths)

    monkeypatch.setattr(image_check, "_decode_all", held)
    checks = [threading.Thread(target=find_problems, args=(root, names, "images")) for names in (NAMES[:2], NAMES)]
    checks[0].start()
    assert begun.wait(10)
    checks[1].start()
    said = ""
    while "Waiting for it to finish" not in said:
        said += capfd.readouterr().err
        time.sleep(0.01)
    go_on.set()
    for check in checks:
        check.join()
    assert len(decoded) == 3 and find_problems(root, NAMES, "images") == [None] * 3 and len(decoded) == 3


def test_without_a_folder_for_the_memo_images_are_still_checked(
    root: Path, decoded: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(image_check, "user_cache_dir", lambda: tmp_path / "file")  # not a folder
    assert find_problems(root, NAMES, "images") == [None] * 3 and len(decoded) == 3


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"null", b'{"decoder": 1}', b"[" * 100_000])
def test_a_damaged_memo_is_ignored_and_written_again(root: Path, decoded: list[str], damage: bytes) -> None:
    find_problems(root, NAMES, "images")
    memo_path(root).write_bytes(damage)
    for _ in range(2):
        assert find_problems(root, NAMES, "images") == [None] * 3
        assert len(decoded) == 6


def test_malformed_entries_are_ignored(root: Path, decoded: list[str]) -> None:
    find_problems(root, NAMES, "images")
    memo = json.loads(memo_path(root).read_bytes())
    for images in (dict.fromkeys(NAMES, "well"), []):
        memo_path(root).write_text(json.dumps(memo | {"pictures": images}))
        assert find_problems(root, NAMES, "images") == [None] * 3
    assert len(decoded) == 9


def test_a_cache_that_cannot_be_written_only_costs_time(
    root: Path, decoded: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(image_check, "user_cache_dir", lambda: tmp_path / "file" / "cache")
    for times in (1, 2):
        assert find_problems(root, NAMES, "images") == [None] * 3
        assert len(decoded) == 3 * times


def test_images_are_decoded_in_parallel(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2, timeout=20)  # breaks unless two images are decoded concurrently
    monkeypatch.setattr(image_check, "_decode", lambda path: image_check.Seen(f"{both.wait() * 0}"))
    monkeypatch.setattr(image_check, "usable_cores", lambda: 2)
    assert find_problems(root, NAMES[:2], "images") == ["0", "0"]


@pytest.mark.parametrize(("limit", "error"), [(100, ""), (50, "has more than")])
def test_an_image_of_too_many_pixels_is_refused_without_a_warning(
    limit: int, error: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)  # it has 108; PIL warns above, refuses above twice that
    said = find_problems(root, ["a.jpg"], "images")[0]
    assert error in str(said) and bool(said) == bool(error)


def test_an_interruption_does_not_wait_for_the_rest(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []

    def interrupted(path: str) -> None:
        started.append(path)
        raise KeyboardInterrupt

    monkeypatch.setattr(image_check, "_decode", interrupted)
    monkeypatch.setattr(image_check, "usable_cores", lambda: 1)
    names = [f"{i}.jpg" for i in range(2_000)]
    for name in names:
        (root / name).write_bytes(b"x")
    with pytest.raises(KeyboardInterrupt):
        find_problems(root, names, "images")
    assert len(started) < 2_000


def test_files_that_the_cache_would_not_read_are_refused_by_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.eps")  # a PostScript program, which PIL would run in another program
    Image.new("RGB", (40, 30)).save(tmp_path / "b.png")
    monkeypatch.setattr(decode, "MAX_PIXELS", 1000)
    eps, large = find_problems(tmp_path, ["a.eps", "b.png"], "images")
    assert eps is not None and "cannot be decoded" in eps
    assert large == "has 1,200 pixels; at most 1,000 are read"


def test_unusable_images_are_counted_and_the_first_are_named(tmp_path):
    found = cub.listing(str(trees.cub(tmp_path)))
    for path in found.paths[1:8]:
        (found.root / path).unlink()
    with pytest.raises(UserError) as caught:
        check_images(found, "files")
    said = str(caught.value).splitlines()
    assert said[0].startswith("7 of 10 images in") and len(said) == 8
    assert said[1] == f"  image 2: {found.paths[1]} is missing"
    assert said[6] == "  and 2 more"
    assert check_images(found, "lists") is found
    assert check_images(dataclasses.replace(found, root=Path("nowhere")), "lists").paths == found.paths


def test_an_image_in_an_unreadable_folder_is_not_reported_as_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(os, "stat", refuse)
    assert find_problems(tmp_path, ["a.jpg"], "files") == ["cannot be read (Permission denied)"]


def test_the_check_reports_what_is_special_and_remembers_it(root: Path, decoded: list[str]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (4, 3)).save(root / "turned.jpg", exif=exif)
    Image.new("RGBA", (4, 3)).save(root / "clear.png")
    Image.new("I;16", (4, 3), 4000).save(root / "deep.png")
    Image.new("RGB", (4, 3)).save(root / "pages.tiff", save_all=True, append_images=[Image.new("RGB", (4, 3))])
    names = ["turned.jpg", "clear.png", "deep.png", "pages.tiff", "lost.jpg"]
    found = inspect(root, names, "images")
    assert found == inspect(root, names, "images") and len(decoded) == 4
    bytes_of = [(root / name).read_bytes() for name in names[:4]]
    assert [one.sha256 for one in found[:4]] == [hashlib.sha256(payload).hexdigest() for payload in bytes_of]
    assert [one.oriented for one in found] == [True, False, False, False, False]
    assert [one.transparent for one in found] == [False, True, False, False, False]
    assert [one.grey_bits for one in found] == [0, 0, 12, 0, 0]
    assert [one.frames for one in found] == [1, 1, 1, 2, 1]
    assert found[4] == Seen("is missing")
    assert tally(found) == Tally(oriented=1, transparent=1, deep=1, grey_bits=12, animated=1)
    assert tally(inspect(root, names[:4], "files")) is None


def test_a_memo_with_other_entries_is_ignored(root: Path, decoded: list[str]) -> None:
    find_problems(root, NAMES, "images")
    memo = json.loads(memo_path(root).read_bytes())
    memo["pictures"]["a.jpg"] = memo["pictures"]["a.jpg"][:2]
    memo_path(root).write_text(json.dumps(memo))
    assert find_problems(root, NAMES, "images") == [None] * 3 and len(decoded) == 6


@pytest.mark.parametrize("content", ["pipe", "huge"])
def test_a_pipe_and_a_file_that_is_too_large_are_not_read(root: Path, content: str) -> None:
    path = root / "a.jpg"
    if content == "pipe":
        path.unlink()
        os.mkfifo(path)
        assert problem_of(path, "images") == "is missing"
    else:
        os.truncate(path, 2**31)  # sparse
        assert problem_of(path, "images") == "has 2,147,483,648 bytes; at most 1,073,741,824 are read"
