"""Which sets of images trunks were pretrained on, and which of them may hold the test classes of a data set."""

import re
from pathlib import Path
from typing import Any

import pytest
import timm
from timm.data import ImageNetInfo

from benchmark.core import conf_files
from benchmark.core.conf_files import content
from benchmark.core.errors import UserError
from benchmark.core.paths import conf_dir
from benchmark.core.pretraining import image_sets, may_have_seen, of_network, read


def files(group: str) -> dict[str, dict[str, Any]]:
    return {name: content(group, name) for name in conf_files.names(group)}


TRUNKS, DATASETS = files("trunk"), files("dataset")


@pytest.mark.parametrize("name", TRUNKS)
def test_a_trunk_with_weights_says_what_they_were_trained_on(name: str) -> None:
    body = TRUNKS[name]
    if name == "timm":  # any network
        assert body["pretrained_on"] is None
        return
    while "_target_" not in body.get("module", {}):  # it adds something to another file
        base = TRUNKS[body["defaults"][0]]
        body = base | body | {"module": base["module"] | body.get("module", {})}
    stated = body.get("pretrained_on", [])
    assert bool(stated) == ("weights" in body["module"]) and set(stated) <= set(image_sets())


@pytest.mark.parametrize("name", [name for name, body in TRUNKS.items() if body.get("network")])
def test_the_tag_of_a_preset_says_the_same_as_its_file(name: str) -> None:
    assert of_network(TRUNKS[name]["network"]) == TRUNKS[name]["pretrained_on"]


@pytest.mark.parametrize("name", DATASETS)
def test_a_data_set_names_known_sets(name: str) -> None:
    overlaps = DATASETS[name].get("overlaps", {})
    assert set(overlaps) <= set(image_sets()) and all(overlaps.values())


@pytest.mark.parametrize("name", ["cars196", "cub", "grocery", "inaturalist2019", "inshop", "sop"])
def test_a_published_set_of_photographs_says_what_it_shares_with_imagenet(name: str) -> None:
    assert may_have_seen(["imagenet21k"], DATASETS[name].get("overlaps", {}))


def test_a_class_of_imagenet_has_the_number_that_a_data_set_states() -> None:
    classes, found = ImageNetInfo("imagenet-1k"), []
    for name in DATASETS:
        text = (conf_dir() / "dataset" / f"{name}.yaml").read_text(encoding="utf-8")
        for line in re.findall(r"#\s*(?:[Cc]lasses of ImageNet-1k: |classes )?(\d{3} [a-z].*)", text):
            found += re.findall(r"(\d{3}) ([a-z ]+)", line)
    assert len(found) > 20
    wrong = [one for one in found if one[1].strip() not in classes.index_to_description(int(one[0])).split(", ")]
    assert not wrong


def test_the_sets_are_consistent() -> None:
    sets = image_sets()
    assert {"imagenet1k", "imagenet21k", "lvd142m", "lvd1689m", "webli", "wit400m", "laion", "unknown"} <= set(sets)
    assert all(part in sets and part != name for name, one in sets.items() for part in one.includes)
    tags = [tag for one in sets.values() for tag in one.tags]
    assert len(tags) == len(set(tags))


@pytest.mark.parametrize(
    ("network", "sets"),
    [
        ("resnet50.a1_in1k", ["imagenet1k"]),
        ("convnext_tiny.fb_in22k_ft_in1k", ["imagenet1k", "imagenet21k"]),
        ("convnext_tiny.dinov3_lvd1689m", ["lvd1689m"]),
        ("vit_small_patch16_224.dino", ["imagenet1k"]),
        ("vit_base_patch16_clip_224.openai_ft_in12k_in1k", ["imagenet1k", "imagenet12k", "wit400m"]),
        ("vit_base_patch16_siglip_224.v2_webli", ["webli"]),
        ("vit_large_patch16_dinov3.sat493m", ["unknown"]),
        ("eva_giant_patch14_224.clip_ft_in1k", ["imagenet1k", "laion"]),
        ("eva_giant_patch14_560.m30m_ft_in22k_in1k", ["imagenet1k", "imagenet21k", "merged30m"]),
        ("eva02_large_patch14_448.mim_m38m_ft_in1k", ["imagenet1k", "merged38m"]),
        ("hgnetv2_b0.ssld_stage2_ft_in1k", ["imagenet1k", "imagenet21k"]),
        ("hrnet_w18_ssld.paddle_in1k", ["imagenet1k", "imagenet21k"]),
        ("resnet50", ["unknown"]),
    ],
)
def test_a_tag_of_timm_names_its_sets(network: str, sets: list[str]) -> None:
    assert of_network(network) == sets


def test_every_network_of_timm_with_clips_training_or_a_merged_set_counts_as_one_of_the_web() -> None:
    networks = [name for name in timm.list_models(pretrained=True) if re.search(r"[._](clip|m\d+m)(_|$)", name)]
    assert len(networks) > 50
    assert not [name for name in networks if not any(image_sets()[one].web for one in of_network(name))]


def test_a_set_holds_what_its_parts_hold() -> None:
    assert may_have_seen(["imagenet12k"], {"imagenet1k": "birds"}) == ["ImageNet-12k, birds"]
    assert may_have_seen(["lvd142m"], {"imagenet1k": "birds"}) == ["LVD-142M, images of the web, birds"]
    assert may_have_seen(["imagenet1k"], {"imagenet21k": "birds"}) == []
    assert may_have_seen(["mine"], {}) == ["mine, images of the web"]


def test_a_damaged_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "sets.yaml"
    for text in ("a: {label: A, wbe: true}", "a: {web: true}", "a: ["):
        path.write_text(text)
        with pytest.raises(UserError, match=r"sets\.yaml"):
            read(path)
