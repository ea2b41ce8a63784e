"""What a study is known by: options that change no result, or are switched off, are not part of it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmark.study.study import Study

Compose = Callable[..., Study]


@pytest.mark.parametrize(
    "override",
    ["decode=always", "image_threads=3", "trials=99", "executor=inline", "protocol.images.crop=64", "keep=best"],
)
def test_what_changes_no_result_on_pixels_in_memory_is_not_part_of_it(override: str, compose_study: Compose) -> None:
    assert compose_study(override).identity("f") == compose_study().identity("f")


@pytest.mark.parametrize(
    "override",
    ["seed=1", "loss=proxy_nca", "protocol.batch_size=7", "+training.clip={value: 1.0}", "+training.batch_size=9",
     "+training.decay={kind: cosine}", "+trunk.crop=64", "+protocol.held_out=0.1"],
)  # fmt: skip
def test_what_can_change_a_result_is(override: str, compose_study: Compose) -> None:
    assert compose_study(override).identity("f") != compose_study().identity("f")
    assert compose_study().identity("g") != compose_study().identity("f")


@pytest.mark.parametrize("override", ["protocol.images.crop=64", "trunk=vit_small", "protocol.images.resampling=torch"])
def test_how_picture_files_are_cropped_is(override: str, compose_study: Compose) -> None:
    assert compose_study("dataset=cub", override).identity("f") != compose_study("dataset=cub").identity("f")


def test_weights_in_a_file_are_known_by_what_it_holds(compose_study: Compose, tmp_path: Path) -> None:
    def identity(name: str, content: bytes) -> str:
        (tmp_path / name).write_bytes(content)
        return compose_study("dataset=cub", f"trunk.module.weights={tmp_path / name}").identity("f")

    assert identity("a.pth", b"one") == identity("b.pth", b"one") != identity("a.pth", b"two")


def test_a_data_set_of_pictures_brings_its_trunk_and_a_pretrained_trunk_its_training(compose_study: Compose) -> None:
    def names(*overrides: str) -> tuple[str, str]:
        config = compose_study(*overrides).config
        return config.trunk.name, config.training.name

    assert names() == ("small_conv", "from_scratch")
    assert names("dataset=cub") == ("bn_inception", "finetune")
    assert names("dataset=csv", "trunk=resnet50") == ("resnet50", "finetune")
    assert names("trunk=efficientnet_lite0") == ("efficientnet_lite0", "finetune")
    assert names("dataset=cub", "trunk=small_conv") == ("small_conv", "from_scratch")
    assert names("dataset=cub", "training=from_scratch") == ("bn_inception", "from_scratch")
