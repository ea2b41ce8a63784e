"""Oracle: the same crops by the host, which other tests compare with torchvision's."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmark.images import resident
from benchmark.images.cache import Cache, build
from benchmark.images.cropped import CroppedImages
from benchmark.images.crops import Crops
from benchmark.images.resident import DevicePixels, ResidentImages, is_exact
from benchmark.losses import pretended_device
from benchmark.losses.pretended_device import PretendedDevice
from tests.images.synthetic_photos import write_photos

CPU = torch.device("cpu")
SIZES = [(75, 100), (100, 67), (48, 32), (40, 40), (40, 63), (30, 90)]
ROWS = np.array([4, 0, 2, 2, 5, 1, 3])  # one of them twice
MLRC = Crops(40, 35, (0.16, 1.0), (0.75, 1.33), 0.5, resize_first=True)
TRADITIONAL = Crops(40, 35, (0.08, 1.0), (3 / 4, 4 / 3), 0.5, resize_first=False)
PATHS = {  # crops, and the short side of the images in the cache
    "MLRC": (MLRC, 40), "MLRC, torch": (replace(MLRC, resampling="torch"), 40), "MLRC, full images": (MLRC, None),
    "traditional": (TRADITIONAL, None), "traditional, torch": (replace(TRADITIONAL, resampling="torch"), None),
    "whole images": (replace(MLRC, crop=40), 40),
}  # fmt: skip


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> dict[int | None, Cache]:
    root = tmp_path_factory.mktemp("photos")
    paths, found = write_photos(root, SIZES), {}
    for short_side in (40, None):
        folder = tmp_path_factory.mktemp("cache")
        build(folder, root, paths, short_side=short_side, workers=1)
        found[short_side] = Cache(folder)
    return found


def resident_images(
    cache: Cache, crops: Crops, *, keep: bool, threads: int = 0, device: torch.device = CPU
) -> ResidentImages:
    short_side = crops.short_side if crops.resize_first else None
    return ResidentImages(DevicePixels(cache, short_side, device, keep, threads), np.arange(len(cache)), crops, threads)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("keep", [True, False], ids=["kept", "sent"])
@pytest.mark.parametrize("path", PATHS)
def test_a_batch_has_the_bytes_and_layout_of_the_host_s(path: str, keep: bool, caches: dict[int | None, Cache]) -> None:
    crops, short_side = PATHS[path]
    threads = 2 * keep
    device = resident_images(caches[short_side], crops, keep=keep, threads=threads)
    host = CroppedImages(caches[short_side], np.arange(6), crops, CPU)
    for rows in (ROWS, ROWS[::-1].copy(), ROWS[:1], ROWS[:0]):  # what is kept is read for the first batch alone
        for ours, theirs in (
            (device.plain(rows), host.plain(rows)),
            (device.augmented(rows, seeded(len(rows))), host.augmented(rows, seeded(len(rows)))),
        ):
            assert ours.dtype == torch.uint8 and torch.equal(ours, theirs)
            assert ours.stride() == theirs.stride() or not len(rows)
    assert (device.channels, device.eval_batch_size, device.threads) == (3, host.eval_batch_size, threads)


@pytest.mark.parametrize("keep", [True, False], ids=["kept", "sent"])
@pytest.mark.parametrize("path", ["MLRC", "MLRC, torch", "traditional"])
def test_on_cuda_the_host_waits_for_nothing(
    path: str, keep: bool, caches: dict[int | None, Cache], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretended_device, "SMALL", 1000)  # bytes, for small batches
    crops, short_side = PATHS[path]
    crops = replace(crops, ratio=(0.1, 10.0))  # tall boxes are resized along the other axis first
    host = CroppedImages(caches[short_side], np.arange(6), crops, CPU)
    expected = host.augmented(ROWS, seeded()), host.plain(ROWS)
    with PretendedDevice() as cuda:
        images = resident_images(caches[short_side], crops, keep=keep, device=torch.device("cuda", 0))
        found = images.augmented(ROWS, seeded()), images.plain(ROWS)
    assert not cuda.events
    assert {batch.device.type for batch in found} == {"cuda"}
    assert all(torch.equal(ours.inner, theirs) for ours, theirs in zip(found, expected, strict=True))


def test_both_ways_consume_the_same_random_numbers(caches: dict[int | None, Cache]) -> None:
    one, other = seeded(), seeded()
    resident_images(caches[40], MLRC, keep=True).augmented(ROWS, one)
    CroppedImages(caches[40], np.arange(6), MLRC, CPU).augmented(ROWS, other)
    assert torch.equal(one.get_state(), other.get_state())


@pytest.mark.parametrize(("keep", "expected"), [(True, [0, 1, 2, 4]), (False, [0, 1, 1, 2, 4, 4, 4])])
def test_kept_images_are_read_once_whichever_part_asks(
    keep: bool, expected: list[int], caches: dict[int | None, Cache], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    pixels = Cache.pixels
    monkeypatch.setattr(Cache, "pixels", lambda self, index: (read.append(index), pixels(self, index))[1])
    whole = resident_images(caches[40], MLRC, keep=keep)
    part = whole.part(np.array([4, 1, 2])).part(np.array([0, 1]))
    assert len(part) == 2
    part.plain(np.array([0, 1, 0]))
    whole.augmented(np.array([1, 4, 0, 2]), seeded())
    assert sorted(read) == expected


def test_rows_refer_to_the_part(caches: dict[int | None, Cache]) -> None:
    whole = resident_images(caches[40], MLRC, keep=True)
    part = whole.part(np.array([4, 1, 2])).part(np.array([2, 0]))
    assert torch.equal(part.plain(np.array([0, 1, 0])), whole.plain(np.array([2, 4, 2])))


def test_images_of_another_size_than_the_crops_are_cut_from_are_refused(caches: dict[int | None, Cache]) -> None:
    with pytest.raises(ValueError, match=r"resized to short_side=40; the crops need None \(resize_first=False\)"):
        resident_images(caches[40], TRADITIONAL, keep=True)


@pytest.mark.parametrize("how", ["pil", "torch"])
@pytest.mark.parametrize("side", [1, 2, 35])
def test_this_device_makes_the_host_s_bytes(side: int, how: str) -> None:
    assert is_exact(CPU, replace(MLRC, crop=side, resampling=how))


def test_a_device_that_makes_other_bytes_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    cut = resident.cut
    monkeypatch.setattr(resident, "cut", lambda *given: cut(*given) ^ (given[3] is True))
    assert not is_exact(CPU, MLRC)
