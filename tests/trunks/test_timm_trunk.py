"""Networks of timm by name. timm's `test_*` networks are as small as their names say; oracles are timm and torch."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from benchmark.core import conf_files, invocation
from benchmark.core.conf_files import content
from benchmark.core.errors import UserError
from benchmark.core.paths import conf_dir
from benchmark.images.crops import Crops
from benchmark.study.command import command_for
from benchmark.study.data import crops
from benchmark.study.preflight import check_values
from benchmark.study.study import Study
from benchmark.study.unused import check_used
from benchmark.trunks import published, timm_trunk, weights
from benchmark.trunks.timm_trunk import TimmTrunk, image_options

VIT, CONVNEXT, RESNET = "test_vit.r160_in1k", "test_convnext.r160_in1k", "test_resnet.r160_in1k"
FILES = {name: content("trunk", name) for name in conf_files.names("trunk")}
PRESETS = {name: body for name, body in FILES.items() if body.get("network")}
State = dict[str, Tensor]
SLOW = pytest.mark.slow


def some_state(network: str, num_classes: int = 1000) -> State:
    """A state in timm's layout, with its classifier, whose tensors all differ."""
    torch.manual_seed(5)
    own = timm.create_model(network, num_classes=num_classes).state_dict()
    return {name: torch.rand(value.shape) if value.is_floating_point() else value for name, value in own.items()}


def saved(state: State, path: Path) -> str:
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return str(path)


def held(trunk: TimmTrunk) -> State:
    return trunk.network.state_dict()


# -- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "file", "num_classes"),
    [(RESNET, "net.pth", 1000), (CONVNEXT, "net.safetensors", 7), pytest.param(VIT, "net.safetensors", 0, marks=SLOW)],
)
def test_a_file_in_timms_layout_fills_every_tensor(network: str, file: str, num_classes: int, tmp_path: Path) -> None:
    state = some_state(network, num_classes)
    trunk = TimmTrunk(network=network, weights=saved(state, tmp_path / file))
    assert held(trunk) and all(torch.equal(value, state[name]) for name, value in held(trunk).items())
    assert not any(name.startswith(("head.fc.", "head.weight", "fc.")) for name in held(trunk))


@pytest.mark.parametrize("num_classes", [7, *(pytest.param(number, marks=SLOW) for number in (1000, 0))])
def test_position_embeddings_are_resampled_to_the_side_of_the_images(num_classes: int, tmp_path: Path) -> None:
    state = some_state(VIT, num_classes)
    trunk = TimmTrunk(network=VIT, weights=saved(state, tmp_path / "net.pth"), side=96)
    maps = (
        state["pos_embed"][:, 1:].reshape(1, 10, 10, -1).permute(0, 3, 1, 2)
    )  # 160 / 16 patches, after the class token
    resampled = functional.interpolate(maps, (6, 6), mode="bicubic", antialias=True).permute(0, 2, 3, 1)
    expected = torch.cat([state["pos_embed"][:, :1], resampled.reshape(1, 36, -1)], dim=1)
    torch.testing.assert_close(held(trunk)["pos_embed"], expected)
    assert all(torch.equal(value, state[name]) for name, value in held(trunk).items() if name != "pos_embed")
    assert trunk(torch.rand(2, 3, 96, 96)).shape == (2, trunk.out_features)


def test_timms_weights_are_found_under_the_name_of_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(weights.VARIABLE, str(tmp_path))
    weights._say_unverified.cache_clear()
    state = some_state(RESNET)
    saved(state, tmp_path / f"{RESNET}.safetensors")
    assert all(
        torch.equal(value, state[name]) for name, value in held(TimmTrunk(network=RESNET, weights="pretrained")).items()
    )


def test_the_address_of_the_weights_is_timms() -> None:
    hub = timm_trunk._address(VIT, timm.models.get_pretrained_cfg(VIT))
    assert hub.url == f"https://huggingface.co/timm/{VIT}/resolve/main/model.safetensors"
    old = "legacy_seresnet50.in1k"  # on no hub
    assert timm_trunk._address(old, timm.models.get_pretrained_cfg(old)).file_name == "se_resnet50-ce0d4300.pth"


@pytest.mark.parametrize(
    ("change", "said", "side"),
    [
        (
            lambda s: s | {"norm.weight": torch.full_like(s["norm.weight"], torch.nan)},
            "is refused: 1 of its tensors",
            160,
        ),
        (lambda s: {k: v for k, v in s.items() if k != "norm.weight"}, "does not fit .*norm.weight", 160),
        (lambda s: {k: v for k, v in s.items() if k != "norm.weight"}, "does not fit .*norm.weight", 96),
        pytest.param(lambda s: s | {"more": torch.ones(2)}, "does not fit .*more", 160, marks=SLOW),
        pytest.param(lambda s: s | {"norm.weight": torch.ones(3)}, "does not fit .*norm.weight", 160, marks=SLOW),
        pytest.param(lambda s: some_state(RESNET), "does not fit", 160, marks=SLOW),
        pytest.param(lambda s: {"w": torch.ones(2)}, "does not fit", 96, marks=SLOW),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    change: Callable[[State], State], said: str, side: int, tmp_path: Path
) -> None:
    file = saved(change(some_state(VIT)), tmp_path / "net.pth")
    with pytest.raises(UserError, match=rf"(?s)net\.pth {said}"):
        TimmTrunk(network=VIT, weights=file, side=side)


def test_a_negative_variance_is_refused(tmp_path: Path) -> None:
    state = some_state(RESNET)
    file = saved(state | {"bn1.running_var": -state["bn1.running_var"]}, tmp_path / "net.pth")
    with pytest.raises(UserError, match=r"bn1\.running_var"):
        TimmTrunk(network=RESNET, weights=file)


@pytest.mark.slow
def test_dinov2s_own_file_fills_every_tensor(tmp_path: Path) -> None:
    """The authors' file has timm's names except for a mask token and the scales of layers (`ls1.gamma`)."""
    network = "vit_small_patch14_dinov2.lvd142m"
    state = some_state(network, 0)
    file = saved(state | {"mask_token": torch.zeros(1, 384)}, tmp_path / "dinov2_vits14_pretrain.pth")
    trunk = TimmTrunk(network=network, weights=file, side=56)
    assert [n for n, value in held(trunk).items() if not torch.equal(value, state[n])] == ["pos_embed"]
    assert trunk(torch.rand(2, 3, 56, 56)).shape == (2, 384)


@pytest.mark.slow
def test_a_file_in_clips_layout_fills_every_tensor_and_its_projection_can_be_kept(tmp_path: Path) -> None:
    """The names of github.com/openai/CLIP, which has no bias in the last layer, for a smaller network."""
    network = "vit_xsmall_patch16_clip_224.tinyclip_yfcc15m"
    state = some_state(network, 512)
    names = {"attn.qkv.": "attn.in_proj_", "attn.proj.": "attn.out_proj.", "norm1.": "ln_1.", "norm2.": "ln_2.",
             "mlp.fc1.": "mlp.c_fc.", "mlp.fc2.": "mlp.c_proj.", "norm_pre.": "ln_pre.",
             "blocks.": "transformer.resblocks.", "patch_embed.proj.": "conv1."}  # fmt: skip
    theirs = {}
    for name, value in state.items():
        for ours, other in names.items():
            name = name.replace(ours, other)
        theirs[f"visual.{re.sub('^norm[.]', 'ln_post.', name)}"] = value
    theirs["visual.class_embedding"] = theirs.pop("visual.cls_token")[0, 0]
    theirs["visual.positional_embedding"] = theirs.pop("visual.pos_embed")[0]
    theirs["visual.proj"] = theirs.pop("visual.head.weight").T.contiguous()
    del theirs["visual.head.bias"]
    file, expected = saved(theirs, tmp_path / "clip.pth"), state | {"head.bias": torch.zeros(512)}
    for projection, width in ((False, 256), (True, 512)):
        trunk = TimmTrunk(network=network, weights=file, projection=projection)
        assert trunk.out_features == width
        assert all(torch.equal(value, expected[name]) for name, value in held(trunk).items())
        assert ("head.weight" in held(trunk)) == projection


# -- the network ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", [RESNET, *(pytest.param(one, marks=SLOW) for one in (VIT, CONVNEXT))])
def test_the_features_are_those_that_timm_passes_to_the_classifier(network: str) -> None:
    torch.manual_seed(0)
    trunk = TimmTrunk(network=network).eval()
    torch.manual_seed(0)
    theirs = timm.create_model(network, num_classes=0).eval()
    images = torch.rand(2, 3, 160, 160)
    with torch.no_grad():
        torch.testing.assert_close(trunk(images), theirs(images))
    cfg = timm.models.get_pretrained_cfg(network)
    assert (trunk.mean, trunk.std) == (cfg.mean, cfg.std)


def test_the_class_token_can_be_the_feature_of_a_network_that_averages_by_default() -> None:
    torch.manual_seed(0)
    trunk = TimmTrunk(network="vit_small_patch16_dinov3.lvd1689m", side=32, global_pool="token").eval()
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(trunk(images), trunk.network.forward_features(images)[:, 0])


@pytest.mark.parametrize("network", [VIT, CONVNEXT])
def test_a_pooling_that_timm_does_not_have_is_refused(network: str) -> None:
    with pytest.raises(UserError, match=r"global_pool=sum .*trunk\.module\.global_pool=null"):
        TimmTrunk(network=network, global_pool="sum")


def test_a_grey_image_has_the_features_of_its_rgb_version() -> None:
    made = {}
    for channels in (1, 3):
        torch.manual_seed(0)
        made[channels] = TimmTrunk(network=RESNET, in_channels=channels).eval()
    pixels = torch.rand(2, 1, 32, 32)
    of_rgb = (pixels - torch.tensor(made[3].mean).view(3, 1, 1)) / torch.tensor(made[3].std).view(3, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(made[1](pixels), made[3](of_rgb), rtol=1e-4, atol=1e-5)


def test_a_network_for_one_size_names_the_size_that_it_takes() -> None:
    trunk = TimmTrunk(network=VIT, side=64)
    with pytest.raises(UserError, match=r"got images of 32 x 32 pixels, .* trunk\.images\.crop=64"):
        trunk(torch.rand(1, 3, 32, 32))


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ("", "such as trunk.network=convnext_tiny.fb_in22k"),
        ("dinov2", r"no network 'dinov2'\. Similar ones: .*dinov2\.lvd142m.*List some"),
        ("convnext_tny.fb_in22k", r"Similar ones: convnext_tiny\.fb_in22k"),
        ("resnet50", r"the tag of its weights is missing\. Name one: resnet50\.a1_in1k; others: "),
        ("convnext_tiny.in22k", r"no such weights\. Name one: convnext_tiny\.(fb_)?in\d+k"),
        ("hf-hub:timm/resnet18", "no network"),
    ],
)
def test_a_name_that_timm_does_not_know_names_those_that_it_does(network: str, said: str) -> None:
    with pytest.raises(UserError, match=f"(?s){said}"):
        TimmTrunk(network=network)


def test_a_projection_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UserError, match="no last layer to keep"):
        TimmTrunk(network="vit_small_patch14_dinov2.lvd142m", projection=True)


def test_without_timm_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(UserError, match="pip install timm"):
        published.import_timm("resnet50.a1_in1k")


# -- the images -------------------------------------------------------------------------------------------------------


def test_images_are_resized_and_cropped_as_timm_does() -> None:
    for network, given in ((VIT, {}), ("convnext_tiny.fb_in22k", {"crop": 112}), ("resnet50.tv_in1k", {"crop": None})):
        cfg = timm.models.get_pretrained_cfg(network)
        crop = given.get("crop") or cfg.input_size[1]
        theirs = timm.data.create_transform(
            (3, crop, crop), interpolation=cfg.interpolation, crop_pct=cfg.crop_pct
        ).transforms
        made = Crops(scale=(1, 1), ratio=(1, 1), flip=0, resize_first=True, **image_options(network, given))
        assert (made.short_side, made.crop) == (theirs[0].size, max(theirs[1].size))
        assert made.resampling == {"bicubic": "pil_bicubic", "bilinear": "pil"}[theirs[0].interpolation.value]


def test_a_study_takes_the_images_of_the_network_and_its_name_without_dots(compose_study: Callable[..., Study]) -> None:
    study = compose_study("dataset=grocery", "trunk=timm", "trunk.network=resnet18.a1_in1k", "trunk.images.crop=112")
    assert (crops(study.config).short_side, crops(study.config).crop) == (117, 112)  # 112 / 0.95
    assert study.directory.parent.name == "grocery-resnet18_a1_in1k-hpl"
    assert Study.of(study.raw) == study and study.config.trunk.module["side"] == 112


def test_the_command_for_a_named_network_selects_the_trunk_timm(
    compose_study: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invocation, "other_overrides", lambda _: ["trunk.network=resnet18.a1_in1k"])
    study = compose_study("dataset=cub", "trunk=timm", "trunk.network=resnet18.a1_in1k")
    shown = command_for(study.config, "bo")
    assert re.search(r"(TRUNK|trunk)=timm", shown) and "trunk.network=resnet18.a1_in1k" in shown


def test_an_option_of_the_protocols_images_that_the_trunk_replaces_is_refused(
    compose_study: Callable[..., Study],
) -> None:
    def check(*overrides: str) -> None:
        check_used(
            compose_study("dataset=cub", *overrides), overrides, lambda more: compose_study("dataset=cub", *more)
        )

    check("trunk=dinov2_small", "trunk.images.crop=112", "protocol.images.flip=0.1")
    with pytest.raises(UserError, match=r"trunk\.images\.crop"):
        check("trunk=dinov2_small", "protocol.images.crop=112")


# -- presets ----------------------------------------------------------------------------------------------------------


def test_the_presets_are_found() -> None:
    expected = {
        "dinov2_small",
        "dinov2_base",
        "dinov3_small",
        "dinov3_base",
        "siglip_base",
        "clip_base",
        "convnext_tiny",
    }
    assert expected == set(PRESETS)


def licence_of(cfg: Any) -> str:
    return "the DINOv3 License" if cfg.license == "dinov3-license" else str(cfg.license)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_states_timms_facts(name: str) -> None:
    body = PRESETS[name]
    cfg = timm.models.get_pretrained_cfg(body["network"])
    assert body["network"] in timm.list_models(pretrained=True)
    assert body["licence"].lower().startswith(licence_of(cfg).lower())
    mit = name in ("clip_base", "convnext_tiny")  # github.com/openai/CLIP and facebookresearch/ConvNeXt
    assert body["licence"].endswith("repository is MIT") == mit
    if not name.startswith("dinov2"):  # whose sizes are those of the authors' evaluations
        assert body["images"] == image_options(body["network"], {})
    assert image_options(body["network"], body["images"]) == body["images"]


@pytest.mark.parametrize("name", [name for name, body in PRESETS.items() if body["network"].startswith("vit_")])
def test_a_transformer_has_the_pooling_that_its_authors_evaluate(
    name: str, compose_study: Callable[..., Study]
) -> None:
    """DINOv2 (section 7.1), DINOv3 and CLIP: the class token; SigLIP: attention pooling, which timm calls a map."""
    with torch.device("meta"):
        trunk = compose_study(f"trunk={name}", "dataset=cub", "trunk.module.weights=null").make_trunk(3, 0)
    assert trunk.network.global_pool == ("map" if name.startswith("siglip") else "token")


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_states_the_number_of_its_features_and_takes_its_images(name: str) -> None:
    side = PRESETS[name]["images"]["crop"]
    text = (conf_dir() / "trunk" / f"{name}.yaml").read_text(encoding="utf-8")
    with torch.device("meta"):
        trunk = TimmTrunk(network=PRESETS[name]["network"], side=side)
        assert trunk(torch.empty(2, 3, side, side)).shape == (2, trunk.out_features)
    assert f": {trunk.out_features} features" in text


def test_a_set_of_images_that_is_not_known_is_refused(compose_study: Callable[..., Study]) -> None:
    with pytest.raises(UserError, match=r"trunk\.pretrained_on has imagenet; allowed are imagenet1k, "):
        check_values(compose_study("dataset=cub", "trunk.pretrained_on=[imagenet]"))
