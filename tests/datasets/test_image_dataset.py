"""Data sets of image files: opened files, coverage of the fingerprint, and changed files."""

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmark.core import records
from benchmark.core.errors import UserError
from benchmark.core.invocation import arguments
from benchmark.datasets import manifest
from benchmark.datasets.image_dataset import ImageDataset
from benchmark.datasets.listing import Counts
from benchmark.images.crops import Crops
from benchmark.images.decode import Reading
from benchmark.images.decoded_on_read import contents_of
from tests.datasets.synthetic_images import write_small_images

CROPS = {"short_side": 32, "crop": 24, "scale": (0.2, 1.0), "ratio": (0.75, 1.33), "flip": 0.5}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENCHMARK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def image_dataset(
    folder: Path, resize_first: bool = True, decode: str = "once", resampling: str = "pil"
) -> ImageDataset:
    """Eight classes of three images, 48 x 40; the first four classes are for training."""
    path = folder / "manifest.csv"
    if not path.exists():
        write_small_images(folder, num_classes=8, per_class=3)
    crops = Crops(**CROPS, resize_first=resize_first, resampling=resampling)
    return ImageDataset(manifest.listing(str(path)), "mine", crops, decode)


def pixels_of(folder: Path, path: str, short_side: int | None) -> np.ndarray:
    with Image.open(folder / path) as image:
        if short_side is not None:
            width, height = image.size
            scale = short_side / min(image.size)
            image = image.resize((int(width * scale), int(height * scale)), Image.Resampling.BILINEAR)
        return np.asarray(image)


def test_each_half_has_its_own_images_in_the_order_of_the_listing(tmp_path: Path) -> None:
    data = image_dataset(tmp_path / "a")
    trainval, test = data.trainval(), data.test()
    assert (len(trainval.images), len(test.images)) == (12, 12)
    assert trainval.labels.tolist() == np.repeat(np.arange(4), 3).tolist() and trainval.class_ids.tolist() == [
        0,
        1,
        2,
        3,
    ]
    assert test.labels.tolist() == np.repeat(np.arange(4, 8), 3).tolist() and test.is_query is None
    for split, first in ((trainval, 0), (test, 12)):
        for row in range(12):
            expected = pixels_of(tmp_path / "a", data.listing.paths[first + row], 32)
            np.testing.assert_array_equal(split.images.pixels(row), expected)


def test_the_trainval_half_keeps_full_images_if_crops_are_cut_from_them(tmp_path: Path) -> None:
    data = image_dataset(tmp_path / "a", resize_first=False)
    assert data.trainval().images.pixels(0).shape == (40, 48, 3)
    assert data.test().images.pixels(0).shape == (32, 38, 3)
    assert data.fingerprint == image_dataset(tmp_path / "a").fingerprint


def test_both_halves_keep_full_images_if_they_are_resized_bicubically(tmp_path: Path) -> None:
    data = image_dataset(tmp_path / "a", resampling="pil_bicubic")
    assert {data.trainval().images.pixels(0).shape, data.test().images.pixels(0).shape} == {(40, 48, 3)}


def test_the_training_half_is_read_without_opening_a_file_of_the_other(tmp_path: Path) -> None:
    data = image_dataset(tmp_path / "a")
    opened: list[str] = []
    watching = True
    sys.addaudithook(lambda event, args: opened.append(str(args[0])) if watching and event == "open" else None)
    data.prepare(halves=("trainval",))
    data.trainval().images.pixels(0)
    _ = data.fingerprint
    watching = False  # an audit hook cannot be removed
    tested = {str(tmp_path / "a" / path) for path in data.listing.paths[12:]}
    assert any(path.endswith(".jpg") for path in opened) and not tested & set(opened)
    assert not any("/test-" in path for path in opened)


def test_images_are_decoded_once_and_again_only_when_a_file_changes(tmp_path: Path) -> None:
    data = image_dataset(tmp_path / "a")
    assert data.prepare().is_new and not image_dataset(tmp_path / "a").prepare().is_new
    before = data.fingerprint
    image = tmp_path / "a" / data.listing.paths[0]
    Image.new("RGB", (48, 40), (200, 10, 10)).save(image)
    again = image_dataset(tmp_path / "a")
    assert again.prepare().is_new and again.fingerprint != before
    assert again.trainval().images.pixels(0)[0, 0].tolist() != pytest.approx([0, 0, 0])
    assert np.ptp(again.trainval().images.pixels(0), axis=(0, 1)).max() <= 2


def test_a_changed_test_file_changes_the_test_contents_and_not_the_fingerprint(tmp_path: Path) -> None:
    data = image_dataset(tmp_path / "a")
    data.prepare()
    before = data.fingerprint, data.test_contents
    Image.new("RGB", (48, 40), (200, 10, 10)).save(tmp_path / "a" / data.listing.paths[-1])
    again = image_dataset(tmp_path / "a")
    again.prepare()
    assert again.fingerprint == before[0] and again.test_contents != before[1]


def test_the_same_images_elsewhere_have_the_same_fingerprint(tmp_path: Path) -> None:
    assert image_dataset(tmp_path / "a").fingerprint == image_dataset(tmp_path / "b").fingerprint


def test_progress_is_reported_by_half(tmp_path: Path) -> None:
    seen: dict[str, tuple[int, int]] = {}

    def progress(what: str):
        return lambda done, total: seen.__setitem__(what, (done, total))

    found = image_dataset(tmp_path / "a").prepare(progress)
    assert seen == {"decoding trainval": (12, 12), "decoding test": (12, 12)}
    assert found.total.images == 24 and found.by_role["trainval"] == Counts(12, 4, 4)


def test_a_manifest_with_queries_marks_them_in_the_test_half(tmp_path: Path) -> None:
    path = write_small_images(tmp_path, num_classes=8, per_class=3)
    lines = path.read_text().splitlines()
    roles = 12 * ["trainval"] + 4 * ["query", "gallery", "gallery"]
    (tmp_path / "roles.csv").write_text(
        "\n".join([f"{lines[0]},split", *(f"{a},{b}" for a, b in zip(lines[1:], roles, strict=True))])
    )
    data = ImageDataset(manifest.listing(str(tmp_path / "roles.csv")), "mine", Crops(**CROPS, resize_first=True))
    assert data.test().is_query.tolist() == 4 * [True, False, False] and data.trainval().is_query is None


def test_decoding_always_gives_the_same_pixels_and_fingerprint_without_a_cache(tmp_path: Path, cache: Path) -> None:
    always = image_dataset(tmp_path / "a", decode="always")
    found = always.prepare()
    always.verify()
    assert not found.is_new and not list(cache.rglob("*.bin"))
    once = image_dataset(tmp_path / "a")
    assert always.fingerprint == once.fingerprint and always.test_contents == once.test_contents
    for split, cached in ((always.trainval(), once.trainval()), (always.test(), once.test())):
        for row in range(12):
            np.testing.assert_array_equal(split.images.pixels(row), cached.images.pixels(row))


def test_images_decoded_on_every_read_are_those_of_the_fingerprint(tmp_path: Path) -> None:
    always = image_dataset(tmp_path / "a", decode="always")
    assert always.fingerprint and always.test_contents
    for row, split in ((0, always.trainval), (12, always.test)):
        Image.new("RGB", (48, 40), (200, 10, 10)).save(tmp_path / "a" / always.listing.paths[row])
        with pytest.raises(UserError, match="changed since it was first read"):
            split().images.pixels(0)


@pytest.mark.parametrize("half", ["trainval", "test"])
def test_altered_pixels_are_decoded_again_when_a_half_is_opened(tmp_path: Path, cache: Path, half: str) -> None:
    data = image_dataset(tmp_path / "a")
    data.prepare()
    expected = getattr(data, half)().images.pixels(0).copy()
    (path,) = cache.rglob(f"{half}-*/*.bin")
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.warns(UserWarning, match="was altered.*its images are decoded again"):
        split = getattr(image_dataset(tmp_path / "a"), half)()
    np.testing.assert_array_equal(split.images.pixels(0), expected)
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.warns(UserWarning, match="was altered.*its images are decoded again"):
        assert image_dataset(tmp_path / "a").prepare().is_new


def test_an_unknown_value_of_decode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="decode='twice': allowed are once, always"):
        image_dataset(tmp_path / "a", decode="twice")


def special(folder: Path) -> Path:
    """Two classes of two images, of which one is turned, one transparent, one deep; the last equals the first."""
    exif = Image.Exif()
    exif[0x0112] = 6
    folder.mkdir()
    pixels = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
    Image.fromarray(pixels).save(folder / "0.png", exif=exif)
    Image.fromarray(np.dstack([pixels] * 4)).save(folder / "1.png")
    Image.fromarray(pixels.astype(np.uint16) * 16).save(folder / "2.png")
    (folder / "3.png").write_bytes((folder / "0.png").read_bytes())
    rows = "".join(f"{i}.png,{'ab'[i // 2]}\n" for i in range(4))
    (folder / "list.csv").write_text("path,label\n" + rows)
    return folder / "list.csv"


def special_dataset(path: Path, check: str, reading: Reading, decode: str = "once") -> ImageDataset:
    found = manifest.listing(str(path), check=check)
    return ImageDataset(found, "mine", Crops(**CROPS, resize_first=False), decode, reading)


@pytest.mark.parametrize("decode", ["once", "always"])
def test_special_images_are_counted_with_what_becomes_of_them(tmp_path: Path, decode: str) -> None:
    path = special(tmp_path / "a")
    ours = special_dataset(path, "images", Reading(True, (255, 0, 0), 12), decode).prepare().notes
    assert "2 images are stored turned or mirrored (EXIF): turned upright" in ours
    assert "1 image has transparent pixels: put on the background [255, 0, 0]" in ours
    assert "1 grey image has more than 8 bits: 0 to 4,095 becomes 0 to 255" in ours


def test_the_reading_of_published_results_is_counted_from_the_cache(tmp_path: Path) -> None:
    path = special(tmp_path / "a")
    data = special_dataset(path, "files", Reading())
    notes = data.prepare().notes[len(data.listing.notes) :]
    assert notes[:3] == (
        "2 images are stored turned or mirrored (EXIF): read as they are stored, as in published results",
        "1 image has transparent pixels: the transparency is dropped, as in published results",
        "1 grey image has more than 8 bits: 0 to 65,535 becomes 0 to 255 (it needs 12 bits: "
        f"{arguments({'dataset.module.check': 'images'})} uses that range)",
    )
    assert notes[3] == "1 test image is also a trainval image, byte for byte: 0.png and 3.png"


def test_a_search_compares_no_bytes_across_the_halves(tmp_path: Path) -> None:
    data = special_dataset(special(tmp_path / "a"), "files", Reading())
    notes = data.prepare(halves=("trainval",)).notes[len(data.listing.notes) :]
    assert not any("byte for byte" in note for note in notes)
    assert "1 image is stored turned" in notes[0]  # and not 2


def test_another_reading_has_another_fingerprint_and_cache(tmp_path: Path) -> None:
    path = special(tmp_path / "a")
    readings = [Reading(), Reading(orient=True), Reading(background=(0, 0, 0)), Reading(grey_bits=12)]
    found = [special_dataset(path, "files", reading).prepare() for reading in readings]
    assert len({one.fingerprint for one in found}) == len({one.cache for one in found}) == 4
    assert special_dataset(path, "files", Reading(orient=True)).trainval().images.pixels(0).shape == (8, 6, 3)


def test_the_reading_of_published_results_leaves_the_fingerprint_as_it_was(tmp_path: Path) -> None:
    data = special_dataset(special(tmp_path / "a"), "files", Reading())
    contents = contents_of(hashlib.sha256((tmp_path / "a" / f"{i}.png").read_bytes()).hexdigest() for i in (0, 1))
    assert data.fingerprint == records.digest({"listing": data.listing.fingerprint, "trainval": contents})
