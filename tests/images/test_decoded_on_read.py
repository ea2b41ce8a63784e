"""Images that are decoded whenever they are read."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from benchmark.core.errors import UserError
from benchmark.images.decode import UnreadableImageError, decode
from benchmark.images.decoded_on_read import DecodedOnRead
from tests.images.synthetic_photos import write_photos


def test_an_image_is_decoded_as_it_is_at_that_moment(tmp_path: Path) -> None:
    paths = write_photos(tmp_path, [(40, 60), (60, 40)])
    files = DecodedOnRead(tmp_path, paths, 32)
    payload = (tmp_path / paths[1]).read_bytes()
    assert np.array_equal(files.pixels(1), decode(payload, 32))
    (tmp_path / paths[0]).write_bytes(payload)
    assert np.array_equal(files.pixels(0), files.pixels(1))
    assert len(files) == 2


def test_contents_depend_on_the_bytes_and_their_order_alone(tmp_path: Path) -> None:
    paths = write_photos(tmp_path, [(40, 60), (60, 40)])
    forth, back = DecodedOnRead(tmp_path, paths, 32).contents, DecodedOnRead(tmp_path, paths[::-1], None).contents
    each = [hashlib.sha256((tmp_path / path).read_bytes()).hexdigest() for path in paths]
    assert [forth, back] == [hashlib.sha256("".join(order).encode()).hexdigest() for order in (each, each[::-1])]


@pytest.mark.parametrize("first", ["pixels", "contents"])
def test_a_file_that_changes_after_it_was_first_read_is_refused(tmp_path: Path, first: str) -> None:
    paths = write_photos(tmp_path, [(40, 60), (60, 40)])
    files, image = DecodedOnRead(tmp_path, paths, 32), tmp_path / paths[1]
    shown = files.contents if first == "contents" else files.pixels(1)
    assert len(shown)
    before, payload = image.stat(), image.read_bytes()
    image.write_bytes(payload[:-10] + bytes(10))
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    said = f"Image 2, {image}, changed since it was first read; run the same command again"
    with pytest.raises(UnreadableImageError, match=said):
        files.pixels(1)
    if first == "pixels":
        with pytest.raises(UnreadableImageError, match=said):
            _ = files.contents
    image.write_bytes(payload)
    assert files.pixels(1).any() and files.contents == DecodedOnRead(tmp_path, paths, None).contents


@pytest.mark.parametrize(
    ("name", "reason"), [("gone.jpg", "is missing"), ("", "is not a file"), ("a\0b", "is missing")]
)
def test_an_image_that_cannot_be_read_is_named(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "folder").mkdir()
    files = DecodedOnRead(tmp_path, ["a.jpg", name or "folder"], None)
    with pytest.raises(UnreadableImageError, match=f"^Image 2, {tmp_path}.*{reason}"):
        files.pixels(1)


@pytest.mark.parametrize("path", ["../elsewhere.jpg", "/etc/passwd", "a/../../b.jpg", ""])
def test_a_path_that_leaves_the_folder_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(UserError, match=f"Image 1 is named '{path}': allowed are names below {tmp_path}"):
        DecodedOnRead(tmp_path, [path], None)
