"""Where images come from: sizes, channels and threads, and where they are cropped."""

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from benchmark.core.errors import UserError
from benchmark.core.threads import WORKERS_HERE
from benchmark.images import Source
from benchmark.images.cache import Cache, build
from benchmark.images.cropped import CroppedImages
from benchmark.images.decode import Reading, Tally
from benchmark.images.decoded_on_read import DecodedOnRead
from benchmark.images.resident import DevicePixels, ResidentImages
from benchmark.study import data
from benchmark.study.config import Config, ExecutorConfig
from benchmark.study.study import Study
from tests.images.synthetic_photos import write_photos

Compose = Callable[..., Study]
Configured = Callable[[str], Config]


@pytest.mark.parametrize(
    ("overrides", "crop"),
    [
        (["dataset=cub"], 227),
        (["dataset=cub", "trunk=vit_small"], 224),
        (["dataset=cub", "trunk=vit_small", "trunk.crop=null"], 227),
        (["dataset=cub", "protocol.images.crop=256"], 256),
        (["dataset=cub", "protocol=traditional"], 224),
    ],
)
def test_the_crop_is_the_protocol_s_unless_the_trunk_takes_one_size_only(
    overrides: list[str], crop: int, compose_study: Compose
) -> None:
    assert data.crops(compose_study(*overrides).config).crop == crop


def test_only_the_traditional_protocol_cuts_from_full_images(compose_study: Compose) -> None:
    first = [data.crops(compose_study("dataset=cub", f"protocol={p}").config).resize_first
             for p in ("hpl", "mlrc_2020", "traditional")]  # fmt: skip
    assert first == [True, True, False]


@pytest.mark.parametrize(
    ("asked", "device", "workers", "threads"),
    [("auto", "cpu", 1, 0), ("auto", "cpu", 2, 0), ("auto", "cuda", 2, 4), ("auto", "cuda", 1, 8), ("3", "cpu", 9, 3),
     ("auto", "cuda", 10, 1)],
)  # fmt: skip
def test_images_are_read_by_a_worker_s_share_of_the_cores_and_on_the_cpu_by_the_job_itself(
    asked: str, device: str, workers: int, threads: int, compose_study: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(9))
    monkeypatch.setenv(WORKERS_HERE, str(workers))
    config = compose_study("dataset=cub", f"image_threads={asked}").config
    assert data.num_threads(config, torch.device(device)) == threads


def test_grey_pixels_have_one_channel_and_everything_else_three() -> None:
    assert data.num_channels(np.zeros((2, 4, 4), np.uint8)) == 1
    assert data.num_channels(np.zeros((2, 4, 4, 3), np.uint8)) == data.num_channels(object()) == 3


@pytest.mark.parametrize(
    ("overrides", "orient", "background"),
    [
        (["dataset=folder"], True, (255, 255, 255)),
        (["dataset=csv"], True, (255, 255, 255)),
        (["dataset=folder", "dataset.images.orient=false", "dataset.images.background=null"], False, None),
        (["dataset=folder", "dataset.images.background=[0,0,0]"], True, (0, 0, 0)),
        (["dataset=cub"], False, None),
        (["dataset=cub", "+protocol.images.orient=true"], True, None),
    ],
)
def test_images_of_one_s_own_are_turned_and_put_on_white_and_published_ones_are_not(
    overrides: list[str], orient: bool, background: tuple[int, ...] | None, compose_study: Compose
) -> None:
    found = data.reading(compose_study(*overrides).config, None)
    assert found == Reading(orient, background)  # type: ignore[arg-type]


def test_images_of_one_s_own_are_cropped_as_the_protocol_says(compose_study: Compose) -> None:
    for protocol in ("hpl", "mlrc_2020", "traditional"):
        ours, published = (data.crops(compose_study(f"dataset={d}", f"protocol={protocol}").config)
                           for d in ("folder", "cub"))  # fmt: skip
        assert ours == published
    options = compose_study("dataset=csv", "protocol.images.crop=200", "dataset.images.flip=0.25").config
    assert (data.crops(options).crop, data.crops(options).flip) == (200, 0.25)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("dataset.images.orient=1", "dataset.images.orient=1: allowed are true, false"),
        ("dataset.images.background=white", "dataset.images.background=white: allowed are a colour"),
        ("dataset.images.background=[0,0]", "allowed are a colour"),
        ("dataset.images.background=[0,0,256]", "allowed are a colour"),
        ("dataset.images.background=[0,0,true]", "allowed are a colour"),
    ],
)
def test_an_unknown_way_to_read_images_is_refused(override: str, said: str, compose_study: Compose) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        data.reading(compose_study("dataset=folder", override).config, None)


def test_deep_grey_images_are_scaled_by_the_range_of_their_data_set(compose_study: Compose) -> None:
    config = compose_study("dataset=folder").config
    found = [data.reading(config, tally) for tally in (None, Tally(), Tally(deep=1, grey_bits=12))]
    assert [one.grey_bits for one in found] == [16, 16, 12]


CUDA, GB = torch.device("cuda", 0), 1e9
SMALL = ("dataset=cub", "protocol.images.short_side=40", "protocol.images.crop=35")


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    build(folder, folder, write_photos(folder, [(40, 50), (60, 40)]), short_side=40, workers=1)
    return folder


class OnDevice(NamedTuple):
    """The arguments of `DevicePixels`."""

    source: Cache
    short_side: int | None
    device: torch.device
    keep: bool
    threads: int


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """The memory of a pretended GPU, whose crops are exact."""
    memory = {"free": 80 * GB, "total": 80 * GB}
    monkeypatch.setattr(data, "DevicePixels", OnDevice)
    monkeypatch.setattr(data, "is_exact", lambda device, crops: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (memory["free"], memory["total"]))
    return memory


@pytest.fixture
def configured(compose_study: Compose) -> Configured:
    """A configuration with the given `image_memory`."""
    config = compose_study(*SMALL).config
    return lambda place: replace(config, image_memory=place)


def on_device(config: Config, images: Source) -> DevicePixels | None:
    return data.device_pixels(config, images, data.crops(config), CUDA, threads=3)


def test_the_cpu_crops_by_itself_unless_it_is_told_otherwise(cached: Path, configured: Configured) -> None:
    made = {}
    for place in ("auto", "host", "device", "pinned"):
        made[place] = data.make_images(configured(place), Cache(cached), torch.device("cpu"))
    assert [type(images) for images in made.values()] == 2 * [CroppedImages] + 2 * [ResidentImages]
    batches = [images.augmented(np.arange(2), torch.Generator().manual_seed(0)) for images in made.values()]
    assert all(torch.equal(batch, batches[0]) for batch in batches)


@pytest.mark.parametrize(
    ("place", "fits", "keep", "said"),
    [("auto", True, True, "are kept on cuda:0"), ("auto", False, False, "are sent to cuda:0 batch by batch"),
     ("device", True, True, "are kept on cuda:0"), ("pinned", True, False, "are sent to cuda:0 batch by batch")],
)  # fmt: skip
def test_a_gpu_keeps_the_images_that_fit_and_says_so(
    place: str, fits: bool, keep: bool, said: str, cached: Path, gpu: dict[str, float], configured: Configured,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    size = 3 * (40 * 50 + 60 * 40)
    gpu["free"] = 2.0 * size if fits else 2.0 * size - 1
    made = on_device(configured(place), images := Cache(cached))
    assert made == OnDevice(images, 40, CUDA, keep, 3)
    assert f"2 images of {cached} {said}" in capsys.readouterr().err


def test_the_folds_of_a_worker_share_the_images(cached: Path, gpu: dict[str, float], configured: Configured) -> None:
    config, images = configured("auto"), Cache(cached)
    assert on_device(config, images) is on_device(config, images)


def test_images_that_do_not_fit_are_refused_if_the_device_was_asked_for(
    cached: Path, gpu: dict[str, float], configured: Configured
) -> None:
    gpu["free"] = 9000.0
    with pytest.raises(UserError, match=r"image_memory=device: 2 images .* at most .* Use image_memory=pinned"):
        on_device(configured("device"), Cache(cached))


def test_a_gpu_whose_crops_differ_leaves_them_to_the_host_or_is_refused(
    cached: Path, gpu: dict[str, float], configured: Configured, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(data, "is_exact", lambda device, crops: False)
    assert on_device(configured("auto"), Cache(cached)) is None
    assert "are cropped by the host, because cuda:0 would resize them to other bytes" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"image_memory=pinned: 2 images .* Use auto or host"):
        on_device(configured("pinned"), Cache(cached))


def test_images_without_a_cache_are_cropped_by_the_host(gpu: dict[str, float], configured: Configured) -> None:
    images = DecodedOnRead(Path("anywhere"), ["a.jpg"], 40)
    assert on_device(configured("auto"), images) is None
    with pytest.raises(UserError, match=r"image_memory=device: only images in the cache.*decode=always"):
        on_device(configured("device"), images)


@pytest.mark.parametrize(
    ("workers", "options", "free", "allowed"),
    [("auto", {"workers_per_gpu": 1}, 60, 30), ("auto", {"workers_per_gpu": 4}, 60, 10),
     ("auto", {"workers_per_gpu": 4}, 12, 6), ("auto", {"workers_per_gpu": "auto"}, 60, 5),
     (8, {"workers_per_gpu": 1}, 60, 10), (1, {"workers_per_gpu": 1}, 60, 30), ("auto", {}, 60, 30), (8, {}, 60, 30),
     (8, {"gpus_per_worker": 0.25}, 60, 10), (8, {"gpus_per_worker": "auto"}, 60, 30),
     (8, {"gpus_per_worker": 2}, 60, 30)],
)  # fmt: skip
def test_images_take_half_of_the_free_memory_or_of_a_job_s_share(
    workers: int | str, options: dict[str, object], free: int, allowed: int, gpu: dict[str, float],
    configured: Configured, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    gpu["free"], executor = free * GB, ExecutorConfig("any", workers, 0)
    vars(executor).update(options)
    assert data.free_memory(CUDA, data.jobs_per_gpu(replace(configured("auto"), executor=executor))) == allowed * GB
