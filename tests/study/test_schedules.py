"""Schedules of losses: values per data set, their scaling to passes, and a warning about what never starts."""

from collections.abc import Callable

import pytest

from benchmark.core.paths import conf_dir
from benchmark.study.passes import in_passes
from benchmark.study.schedules import starts_late
from benchmark.study.study import Study
from tests.cases import slow_except

Compose = Callable[..., Study]
DATASETS = sorted(path.stem for path in (conf_dir() / "dataset").glob("*.yaml"))
EACH = slow_except(["cub", "glyphs", "grocery"], DATASETS)  # photographs, images in memory, few photographs
FILES = {"csv": ("dataset.module.path=x.csv",)}


@pytest.mark.parametrize("dataset", EACH)
def test_the_values_of_every_data_set_lie_in_their_bounds(dataset: str, compose_study: Compose) -> None:
    schedule = compose_study(f"dataset={dataset}", *FILES.get(dataset, ()), "loss=hpl_pa").config.loss.schedule
    for name in ("num_coarse", "update_every"):
        low, high = schedule[f"{name}_bounds"]
        assert low <= schedule[name] <= high


def test_a_file_for_a_data_set_is_named_as_the_data_set() -> None:
    files = list((conf_dir() / "loss" / "schedule").glob("*/*.yaml"))
    assert files and {path.stem for path in files} <= set(DATASETS)


def test_a_data_set_without_a_file_takes_the_defaults_and_the_command_line_wins(compose_study: Compose) -> None:
    def values(*overrides: str) -> tuple[int, int]:
        schedule = compose_study("loss=hpl_nca", *overrides).config.loss.schedule
        return schedule["num_coarse"], schedule["warmup_iterations"]

    assert values("dataset=folder", "dataset.name=mine") == (10, 300)
    assert values("dataset=glyphs_small") == (10, 15)
    assert values("dataset=glyphs_small", "loss.schedule.num_coarse=4") == (4, 15)


def test_settings_bounds_and_arguments_refer_to_the_schedule(compose_study: Compose) -> None:
    study = compose_study("dataset=glyphs_small", "loss=hpl_nca", "loss.schedule.update_every=7")
    assert study.config.loss.setting["update_every"] == study.config.loss.module["update_every"] == 7
    assert study.make_space()["num_coarse"].bounds == (3.0, 40.0)
    assert compose_study("loss=xbm").config.loss.module["start_iteration"] == 100


@pytest.mark.slow
def test_under_the_traditional_protocol_it_follows_the_length_of_a_pass(compose_study: Compose) -> None:
    """1,000 images in batches of 128 are 7 batches; 300 and 100 iterations of epochs of 100 become 21 and 7."""
    study = compose_study("protocol=traditional", "dataset=inaturalist2019", "loss=hpl_nca", "trunk=resnet50")
    loss = in_passes(study, 1000).config.loss
    assert (loss.module["warmup_iterations"], loss.setting["update_every"]) == (21, 7)
    assert (study.config.loss.setting["num_coarse"], loss.setting["num_coarse"]) == (48, 500)
    memory = compose_study("protocol=traditional", "dataset=cub", "loss=xbm", "trunk=resnet50")
    assert in_passes(memory, 1000).config.loss.module["start_iteration"] == 1000  # counts steps, not epochs


@pytest.mark.parametrize("trunk", [(), ("training=frozen", "trunk=efficientnet_lite0")], ids=["trained", "frozen"])
@pytest.mark.parametrize("dataset", EACH)
def test_a_loss_is_whole_before_patience_can_end_a_training(
    dataset: str, trunk: tuple[str, ...], compose_study: Compose
) -> None:
    options = (f"dataset={dataset}", *FILES.get(dataset, ()), *trunk)
    assert starts_late(compose_study(*options, "loss=xbm").config) == []
    study = compose_study(*options, "loss=hpl_pa")
    assert starts_late(study.config) == []
    schedule = study.config.loss.schedule
    latest_update = schedule["warmup_iterations"] + schedule["update_every_bounds"][1]  # of those that a search tries
    as_warmup = f"loss.schedule.warmup_iterations={latest_update - 1}"
    assert starts_late(compose_study(*options, "loss=hpl_pa", as_warmup).config) == []


def test_a_part_that_starts_when_patience_may_have_ended_the_training_is_named(compose_study: Compose) -> None:
    options = ("dataset=cub", "dataset.patience=3", "loss=hpl_pa")  # evaluated after 2 and 4 epochs of 100 iterations
    (line,) = starts_late(compose_study(*options, "loss.schedule.warmup_iterations=401").config)
    assert "loss.schedule.warmup_iterations=401 is late" in line and "after 400 iterations" in line
    assert starts_late(compose_study(*options, "loss.schedule.warmup_iterations=400").config) == []


def test_a_part_that_starts_after_the_longest_training_is_named(compose_study: Compose) -> None:
    short = ("dataset=glyphs_small", "dataset.max_epochs=4", "dataset.iterations_per_epoch=15")
    (line,) = starts_late(compose_study(*short, "loss=xbm", "loss.schedule.start_iteration=60").config)
    assert "loss.schedule.start_iteration=60" in line and "at most 60 iterations" in line
    assert not starts_late(compose_study(*short, "loss=xbm", "loss.schedule.start_iteration=45").config)
    assert not starts_late(compose_study(*short, "loss=proxy_nca").config)
