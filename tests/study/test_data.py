"""Where images come from: sizes, channels and threads."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

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
