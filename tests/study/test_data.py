"""Where images come from: sizes, channels and threads."""

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch

from benchmark.core.errors import UserError
from benchmark.images.decode import Reading, Tally
from benchmark.study import data
from benchmark.study.study import Study

Compose = Callable[..., Study]


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
    ("asked", "device", "gpus", "threads"),
    [("auto", "cpu", 0, 0), ("auto", "cpu", 2, 0), ("auto", "cuda", 2, 4), ("auto", "cuda", 1, 8), ("3", "cpu", 0, 3)],
)
def test_images_are_read_by_a_gpu_s_share_of_the_cores_and_on_the_cpu_by_the_job_itself(
    asked: str, device: str, gpus: int, threads: int, compose_study: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "usable_cores", lambda: 9)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
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
