"""Lengths of the trainings on a frozen trunk: where they apply, what wins over them, and what a study stores."""

from collections.abc import Callable

import pytest

from benchmark.study.config import Config
from benchmark.study.study import Study
from tests import command_line

Compose = Callable[..., Study]
FROZEN = ("training=frozen", "trunk=efficientnet_lite0")
SHORT = ("cub", "cars196", "folder", "csv")  # data sets with few classes, or of unknown size
FILES = {"csv": ("dataset.module.path=x.csv",)}


def lengths(config: Config) -> tuple[int, int, int]:
    assert config.protocol.iterations_per_epoch == config.dataset.iterations_per_epoch
    return config.dataset.evaluate_every, config.dataset.patience, config.dataset.iterations_per_epoch


@pytest.mark.parametrize("dataset", SHORT)
def test_a_head_on_a_frozen_trunk_is_scored_every_20_iterations(dataset: str, compose_study: Compose) -> None:
    options = (f"dataset={dataset}", *FILES.get(dataset, ()), *FROZEN)
    hpl, xbm = (compose_study(*options, f"loss={loss}") for loss in ("hpl_pa", "xbm"))
    assert lengths(hpl.config) == lengths(xbm.config) == (1, 6, 20)
    schedule = hpl.config.loss.schedule
    assert (schedule["warmup_iterations"], schedule["update_every"]) == (20, 10)
    assert hpl.make_space()["update_every"].bounds == (5, 50)
    assert xbm.config.loss.module["start_iteration"] == 20


@pytest.mark.slow
@pytest.mark.parametrize("options", [
    ("dataset=cub",), ("dataset=sop", *FROZEN), ("dataset=cub", "protocol=traditional", "trunk=resnet50"),
    ("dataset=cub", "protocol=traditional", "trunk=resnet50", "+training.views=2"),
])  # fmt: skip
def test_other_trainings_and_data_sets_keep_their_own(options: tuple[str, ...], compose_study: Compose) -> None:
    config = compose_study(*options, "loss=hpl_pa").config
    assert lengths(config)[2] == 100
    assert config.loss.schedule["usual"]["warmup_iterations"] == 300


def test_what_the_command_line_gives_wins(compose_study: Compose) -> None:
    given = ("dataset.patience=9", "loss.schedule.update_every_bounds=[7,8]", "loss.schedule.usual.update_every=7")
    study = compose_study("dataset=cub", *FROZEN, "loss=hpl_pa", *given)
    assert lengths(study.config) == (1, 9, 20)
    assert study.make_space()["update_every"].bounds == (7, 8)
    assert study.config.loss.setting["update_every"] == 7 and study.config.loss.schedule["warmup_iterations"] == 20


@pytest.mark.parametrize("options", [("dataset=cub", *FROZEN), ("dataset=cub",), ("dataset=glyphs",)])
def test_a_study_stores_only_the_lengths_that_are_used(options: tuple[str, ...], compose_study: Compose) -> None:
    raw = compose_study(*options, "loss=hpl_pa").raw
    assert "frozen" not in raw["dataset"] and "frozen" not in raw["loss"]["schedule"]


@pytest.mark.parametrize("trunk", [(), FROZEN], ids=["trained", "frozen"])
def test_the_values_of_the_files_cannot_be_given(trunk: tuple[str, ...]) -> None:
    ended = command_line.commanded("bo", "dataset=cub", *trunk, "loss=hpl_pa", "dataset.frozen.patience=3")
    assert ended.status == 2 and "Give the value that it would replace: dataset.patience=VALUE." in ended.err
