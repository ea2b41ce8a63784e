"""What identifies a study: options that change no result, or that are switched off, are not part of it."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark.core.errors import UserError
from benchmark.study.code import training_code
from benchmark.study.identity import short_digest
from benchmark.study.study import Study
from benchmark.study.version_1 import record_defaults, upgrade
from tests.cases import slow_except
from tests.study.version_1 import as_version_1

Compose = Callable[..., Study]

# A node that stored studies have for `flavour: pml`; today's file leaves that loss to XBM.
LIBRARY_LOSS = (
    "+loss.module.loss={_target_: pytorch_metric_learning.losses.ContrastiveLoss, "
    "distance: {_target_: benchmark.losses.distances.Euclidean}, "
    "pos_margin: ${loss.setting.pos_margin}, neg_margin: ${loss.setting.neg_margin}}"
)
# The search that trainings had before they adapted search spaces and tried the default first.
PUBLISHED_SPACE = ["training.space_scales=published", "~training.space", "training.defaults_first=false"]


# What stored studies have on glyphs, which is the default data set.
GLYPHS = ["dataset.max_epochs=4", "trunk.width=128", "trunk.module.strides=[2,2,2,1,2]"]


# How class vectors started and learned under the traditional protocol before Proxy-Anchor's way.
FIXED_VECTORS = ["loss.authors.lr_multiplier=1.0", "~loss.authors.usual", "loss.module.proxy_init=normal"]


def as_stored(overrides: Sequence[str]) -> list[str]:
    """Overrides that give the configuration of a stored study."""
    datasets = [override for override in overrides if override.startswith("dataset=")]
    on_glyphs = not datasets or datasets[0].startswith("dataset=glyphs")
    searched = [] if "protocol=traditional" in overrides else PUBLISHED_SPACE
    library = [LIBRARY_LOSS] if "loss=xbm" in overrides else []
    softmax = {"loss=arcface", "loss=cosface", "loss=normalized_softmax"} & {*overrides}
    vectors = FIXED_VECTORS if softmax and "protocol=traditional" in overrides else []
    return [*overrides, *(GLYPHS if on_glyphs else []), *searched, *library, *vectors]


def version_1(study: Study) -> dict[str, Any]:
    """What identified a study with the data `f` under version 1."""
    return as_version_1(study.science("f"), study.config)


@pytest.mark.parametrize("part", ["loss=xbm protocol=hpl dataset=glyphs", pytest.param("", marks=pytest.mark.slow)])
def test_identities_are_those_that_version_1_gave(part: str, compose_study: Compose) -> None:
    """Losses whose settings are as they were, on glyphs and other data sets, and options; computed under version 1."""
    stored = json.loads((Path(__file__).parent / "identities.json").read_text())
    chosen = {overrides: known for overrides, known in stored.items() if part in overrides}
    studies = {overrides: compose_study(*as_stored(overrides.split(" "))) for overrides in chosen}
    assert {overrides: short_digest(version_1(study)) for overrides, study in studies.items()} == chosen
    assert len(chosen) >= 2


def test_a_configuration_of_version_1_becomes_todays_and_keeps_its_identity(compose_study: Compose) -> None:
    """A loss that refers to `dataset.hpl`, by hand: its values move to the loss, other losses only keep the blocks."""
    old = compose_study("loss=hpl_nca", "protocol=traditional").raw
    blocks = {"hpl": {"warmup_iterations": 7, "num_coarse": 3, "num_coarse_bounds": [2, 4], "update_every": 5,
                      "update_every_bounds": [1, 9]}, "xbm": {"start_iteration": 100}}  # fmt: skip
    text = json.dumps(old["loss"]).replace("${loss.schedule.", "${dataset.hpl.")
    loss = {key: value for key, value in json.loads(text).items() if key != "schedule"}
    dataset = {key: value for key, value in old["dataset"].items() if key != "version_1"} | blocks
    old |= {"loss": loss, "dataset": dataset, "training": old["training"] | {"name": "customary"}}
    study = Study.of(old)
    assert study.config.loss.module["warmup_iterations"] == 7 and study.config.loss.setting["num_coarse"] == 3
    assert study.config.loss.schedule["counts"] == ["warmup_iterations", "update_every"]
    assert study.config.training.name == "traditional"
    science = version_1(study)
    assert {key: science["dataset"][key] for key in blocks} == blocks
    assert "schedule" not in science["loss"] and science["training"]["name"] == "customary"
    assert Study.of(study.raw).identity("f") == study.identity("f")  # a worker reads it again


def test_a_block_of_version_1_for_another_loss_stays_in_the_identity_of_version_1_only(compose_study: Compose) -> None:
    plain = compose_study("loss=proxy_nca")
    blocks = {"hpl": {"warmup_iterations": 7}, "xbm": {"start_iteration": 8}}
    dataset = {key: value for key, value in plain.raw["dataset"].items() if key != "version_1"}
    study = Study.of(plain.raw | {"dataset": dataset | blocks})
    assert study.config.loss == plain.config.loss and version_1(study) != version_1(plain)
    assert {key: version_1(study)["dataset"][key] for key in blocks} == blocks
    assert study.identity("f") == plain.identity("f")


@pytest.mark.parametrize("flavour", ["authors", "pml"])
def test_a_stored_study_builds_the_librarys_loss_that_its_configuration_names(
    flavour: str, compose_study: Compose
) -> None:
    stored = compose_study(*as_stored(["loss=xbm", f"loss.module.flavour={flavour}", "loss.setting.pos_margin=0.125"]))
    study = Study.of(stored.raw)
    loss = study.make_loss(6, 0, np.zeros(6, int), num_images=20)
    assert (loss.loss.pos_margin, type(loss.loss).__name__) == (0.125, "ContrastiveLoss")  # type: ignore[attr-defined]
    assert {"benchmark.losses.xbm", "benchmark.losses.distances"} <= training_code(study).modules.keys()


def test_a_block_of_version_1_is_refused_where_the_loss_has_a_schedule(compose_study: Compose) -> None:
    raw = compose_study("loss=xbm").raw
    with pytest.raises(UserError, match=r"dataset\.xbm.*Move.*conf/loss/schedule/xbm/glyphs\.yaml"):
        upgrade(raw | {"dataset": raw["dataset"] | {"xbm": {"start_iteration": 3}}})


def test_a_record_of_version_1_has_two_fields_whatever_its_loss() -> None:
    assert record_defaults(True) == {"best_epoch_in_warmup": False, "coarse_updates": None}
    assert record_defaults(False) == {"best_epoch_in_warmup": None, "coarse_updates": None}


def test_what_changes_no_result_on_pixels_in_memory_is_not_part_of_it(compose_study: Compose) -> None:
    overrides = ["decode=always", "image_threads=3", "image_memory=pinned", "checkpoint_seconds=5", "trials=99",
                 "executor=inline",
                 "protocol.images.crop=64", "keep=best", "protocol.num_runs=3", "accept_code=true",
                 "variant=other"]  # fmt: skip
    changed, plain = compose_study(*overrides), compose_study()
    plain_elsewhere = Study.of(plain.raw | {"results_dir": "elsewhere"})
    assert changed.science("f") == plain_elsewhere.science("f") == plain.science("f")
    assert changed.identity("f") == plain_elsewhere.identity("f") == plain.identity("f")


@pytest.mark.parametrize(
    "override",
    slow_except(["seed=1", "loss=proxy_nca", "precision=bf16"],
                ["seed=1", "loss=proxy_nca", "protocol.batch_size=7", "+training.clip={value: 1.0}",
                 "+training.decay={kind: cosine}", "+trunk.crop=64", "+protocol.held_out=0.1", "precision=bf16"]),
)  # fmt: skip
def test_what_can_change_a_result_is(override: str, compose_study: Compose) -> None:
    plain = compose_study()
    assert compose_study(override).identity("f") != plain.identity("f")
    assert plain.identity("g") != plain.identity("f")


@pytest.mark.parametrize("override", ["+training.batch_size=9", "+training.epochs=7"])
def test_a_search_has_the_batches_and_epochs_of_its_protocol_even_if_a_recipe_has_others(
    override: str, compose_study: Compose
) -> None:
    assert compose_study(override).identity("f") == compose_study().identity("f")


def test_a_traditional_study_names_no_learning_rate_that_its_authors_replace(compose_study: Compose) -> None:
    search, traditional = compose_study("loss=hist"), compose_study("loss=hist", "protocol=traditional")
    assert [*search.setting] == ["distribution_lr", "hgnn_lr", "tau", "alpha"]
    assert [*traditional.setting] == ["tau", "alpha"]
    of_loss = traditional.science("f")["loss"]
    assert of_loss["setting"] == traditional.setting and "optimizer" not in of_loss and "authors" in of_loss


@pytest.mark.parametrize("choice", ["error", "drop"])
@pytest.mark.parametrize("name", ["csv", "folder"])
def test_what_is_done_about_copies_is_not_since_the_fingerprint_covers_it(
    name: str, choice: str, compose_study: Compose
) -> None:
    own = [f"dataset={name}", "trunk=small_conv"]
    chosen = compose_study(*own, f"dataset.module.on_duplicates={choice}")
    assert chosen.identity("f") == compose_study(*own).identity("f")


@pytest.mark.parametrize("override", ["protocol.images.crop=64", "trunk=vit_small", "protocol.images.resampling=torch"])
def test_how_image_files_are_cropped_is(override: str, compose_study: Compose) -> None:
    assert compose_study("dataset=cub", override).identity("f") != compose_study("dataset=cub").identity("f")


def test_weights_in_a_file_are_identified_by_its_content(compose_study: Compose, tmp_path: Path) -> None:
    def identity(name: str, content: bytes) -> str:
        (tmp_path / name).write_bytes(content)
        return compose_study("dataset=cub", f"trunk.module.weights={tmp_path / name}").identity("f")

    assert identity("a.pth", b"one") == identity("b.pth", b"one") != identity("a.pth", b"two")


@pytest.mark.slow
def test_a_data_set_of_image_files_chooses_its_trunk_and_a_pretrained_trunk_its_training(
    compose_study: Compose,
) -> None:
    def names(*overrides: str) -> tuple[str, str]:
        config = compose_study(*overrides).config
        return config.trunk.name, config.training.name

    assert names() == ("small_conv", "from_scratch")
    assert names("dataset=cub") == ("bn_inception", "finetune")
    assert names("dataset=csv", "trunk=resnet50") == ("resnet50", "finetune")
    assert names("trunk=efficientnet_lite0") == ("efficientnet_lite0", "finetune")
    assert names("dataset=cub", "trunk=small_conv") == ("small_conv", "from_scratch")
    assert names("dataset=cub", "training=from_scratch") == ("bn_inception", "from_scratch")


@pytest.mark.parametrize(
    ("overrides", "identity"),
    [
        (("loss=hist", "searcher=sobol"), "2c9815510dd04e3f"),
        (("dataset=cub", "searcher=sobol"), "365a7cfd3a0a7e24"),
        (("loss=hpl_pa", "protocol=traditional"), "312918d438bb0925"),
        (("loss=xbm", "dataset=sop", "protocol=traditional"), "75fcdb927b03c430"),
    ],
)
def test_a_study_whose_searcher_sees_no_failures_keeps_the_identity_that_it_had_before_that_option(
    overrides: tuple[str, ...], identity: str, compose_study: Callable[..., Study]
) -> None:
    assert compose_study(*as_stored(overrides)).identity("f" * 64) == identity


def test_what_the_searcher_sees_of_failures_is_part_of_a_search_by_ax(compose_study: Callable[..., Study]) -> None:
    found = {compose_study(f"protocol.failed={value}").identity("f" * 64) for value in ("worst", "zero", "null")}
    assert len(found) == 3
