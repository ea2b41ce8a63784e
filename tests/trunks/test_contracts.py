"""The contract of every `conf/trunk/*.yaml`: it builds, has `out_features`, and accepts grey and RGB images."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from benchmark.core.errors import UserError
from benchmark.core.paths import conf_dir
from benchmark.images.batches import to_batch
from benchmark.study.study import Study
from benchmark.training.loop import set_train_mode
from benchmark.trunks import vit_small

pytestmark = pytest.mark.slow

FILES = sorted((conf_dir() / "trunk").glob("*.yaml"))
NAMES = [path.stem for path in FILES if "\nnetwork:" not in path.read_text(encoding="utf-8")]  # see test_timm_trunk.py
PUBLISHED = [name for name in NAMES if name != "small_conv"]
SAME_NETWORK = {"deit_small": "vit_small", "dino_vit_small": "vit_small"}  # these files differ only in their weights
NETWORKS = [name for name in NAMES if name not in SAME_NETWORK]
Make = Callable[..., torch.nn.Module]


@pytest.fixture(scope="module")
def make(compose_study_in: Callable[..., Study], tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Return a factory of trunks with random weights: `make(name, in_channels)`."""
    folder = tmp_path_factory.mktemp("results")

    def trunk(name: str, in_channels: int = 3, *overrides: str) -> torch.nn.Module:
        random = ["trunk.module.weights=null"] if name in PUBLISHED else []
        study = compose_study_in(folder, f"trunk={name}", *random, *overrides)
        return study.make_trunk(in_channels, seed=1)

    return trunk


def some_images(name: str, channels: int) -> torch.Tensor:
    side = 224 if "vit" in name or "deit" in name else 64
    return torch.randint(
        0, 256, (2, channels, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(3)
    )


def features(trunk: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return trunk.eval()(to_batch(images, trunk.mean, trunk.std))  # type: ignore[arg-type]


def test_the_trunks_are_found() -> None:
    assert {"small_conv", "bn_inception", "resnet50", "vit_small", "efficientnet_lite0"} <= set(NAMES)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name in PUBLISHED])
def test_a_grey_image_has_the_features_of_its_rgb_version(name: str, make: Make) -> None:
    grey = some_images(name, 1)
    trunks = {channels: make(name, channels) for channels in (1, 3)}
    of_grey, of_rgb = (features(trunk, grey.expand(-1, n, -1, -1)) for n, trunk in trunks.items())
    assert of_grey.shape == (2, trunks[1].out_features) and of_grey.std() > 0
    torch.testing.assert_close(of_grey, of_rgb, rtol=1e-4, atol=1e-4 * float(of_rgb.abs().max()))


@pytest.mark.parametrize("name", NETWORKS)
def test_frozen_batch_norm_keeps_the_statistics_of_every_layer_that_has_some(name: str, make: Make) -> None:
    trunk = make(name)
    set_train_mode(SimpleNamespace(trunk=trunk, modules={"trunk": trunk}), True)  # type: ignore[arg-type]
    before = {key: value.clone() for key, value in trunk.named_buffers()}
    images = some_images(name, 3)
    trunk(to_batch(images, trunk.mean, trunk.std)).sum().backward()  # type: ignore[arg-type]
    assert trunk.training and all(torch.equal(value, before[key]) for key, value in trunk.named_buffers())
    assert all(p.grad is not None for p in trunk.parameters())


@pytest.mark.parametrize(("name", "network"), SAME_NETWORK.items())
def test_files_that_differ_by_their_weights_name_the_same_network(
    name: str, network: str, compose_study: Callable[..., Study]
) -> None:
    nodes = [compose_study(f"trunk={n}").config.trunk.module for n in (name, network)]
    assert nodes[0]["_target_"] == nodes[1]["_target_"] and nodes[0]["weights"] != nodes[1]["weights"]
    assert {nodes[0]["weights"], nodes[1]["weights"]} <= set(vit_small.PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_an_unsupported_number_of_channels_is_named(name: str, make: Make) -> None:
    with pytest.raises(UserError, match="in_channels=4; allowed are 3"):
        make(name, 4)


@pytest.mark.parametrize("name", ["bn_inception", "resnet50", "efficientnet_lite0"])
def test_the_sum_of_average_and_maximum_is_the_sum_of_both_poolings(name: str, make: Make) -> None:
    images = some_images(name, 3)
    avg, most, both = (features(make(name, 3, f"trunk.module.pool={p}"), images) for p in ("avg", "max", "avg+max"))
    assert bool((most > avg).any())
    torch.testing.assert_close(avg + most, both)


@pytest.mark.parametrize("name", ["bn_inception", "resnet50", "efficientnet_lite0"])
def test_an_unknown_pooling_is_named(name: str, make: Make) -> None:
    with pytest.raises(UserError, match=f"{name} has pool='gem'"):
        make(name, 3, "trunk.module.pool=gem")
