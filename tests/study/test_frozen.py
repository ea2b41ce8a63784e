"""Studies with a frozen trunk, and studies without any training: what they compute, and what they share."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from benchmark.bo import bo
from benchmark.core import provenance
from benchmark.core.errors import UserError
from benchmark.datasets import manifest
from benchmark.datasets.image_dataset import ImageDataset
from benchmark.experiment.measure import measure
from benchmark.experiment.plan import trained_images
from benchmark.final_eval import final_eval
from benchmark.images import shards
from benchmark.images.decode import Reading
from benchmark.images.features import FeatureImages
from benchmark.models.loaded import load
from benchmark.study.data import crops
from benchmark.study.frozen import feature_images, frozen_trunk
from benchmark.study.study import Study
from benchmark.trunks import weights
from benchmark.trunks.precomputed import Precomputed
from benchmark.trunks.small_conv import SmallConv
from tests.command_line import tiny
from tests.datasets.synthetic_images import write_small_images

Compose = Callable[..., Study]
PIXELS = np.random.default_rng(0).integers(0, 256, (12, 32, 32), dtype=np.uint8)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmark.study.frozen.user_cache_dir", lambda: tmp_path / "cache")


def folder(study: Study, pixels: np.ndarray = PIXELS) -> Path:
    return feature_images(study, pixels).views.folder


def test_features_are_those_of_the_trunk_in_evaluation_mode(compose_study: Compose) -> None:
    study = compose_study("training=frozen")
    images = study.make_images(PIXELS)
    assert isinstance(images, FeatureImages)
    trunk = frozen_trunk(study, 1).eval()
    batch = (torch.from_numpy(PIXELS)[:, None].float() / 255 - 0.1) / 0.27
    with torch.no_grad():
        expected = trunk(batch)
    torch.testing.assert_close(images.plain(np.arange(12)).float(), expected, rtol=2e-3, atol=2e-3)
    assert isinstance(study.make_trained_trunk(images, 0), Precomputed)
    assert not isinstance(compose_study().make_images(PIXELS), FeatureImages)


def test_folders_depend_on_what_features_depend_on_and_on_nothing_else(compose_study: Compose) -> None:
    base = folder(compose_study("training=frozen"))
    same = ("loss=triplet", "trials=3", "protocol.batch_size=64", "training.optimizers.head.lr=0.1")
    assert {folder(compose_study("training=frozen", one)) for one in same} == {base}
    other = ("trunk.width=32", "seed=1", "training.shift=1", "precision=bf16")
    folders = [folder(compose_study("training=frozen", one)) for one in other]
    folders.append(folder(compose_study("training=frozen"), PIXELS[::-1].copy()))
    assert len({base, *folders}) == 1 + len(folders)


@pytest.mark.parametrize("decode", ["once", "always"])
def test_features_of_images_that_are_read_in_another_way_have_a_folder_of_their_own(
    decode: str, tmp_path: Path, compose_study: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCHMARK_CACHE", str(tmp_path / "pixels"))
    write_small_images(tmp_path / "a", num_classes=4, per_class=3)
    listing, study = manifest.listing(str(tmp_path / "a" / "manifest.csv")), compose_study("dataset=grocery")
    folders = [
        feature_images(
            study, ImageDataset(listing, "mine", crops(study.config), decode, one).trainval().images
        ).views.folder
        for one in (Reading(), Reading(grey_bits=12), Reading(grey_bits=14))
    ]
    other = compose_study("dataset=grocery", "+dataset.images.orient=true")
    source = ImageDataset(listing, "mine", crops(other.config), decode).trainval().images
    folders.append(feature_images(other, source).views.folder)
    of_pixels = folder(study)
    monkeypatch.setattr(shards.PIL, "__version__", "0")
    folders.append(feature_images(other, source).views.folder)
    assert len({*folders}) == 5 and folder(study) == of_pixels


@pytest.mark.parametrize(
    ("trunk", "file"),
    [
        (("trunk=timm", "trunk.network=test_resnet.r160_in1k"), "test_resnet.r160_in1k.safetensors"),
        (("trunk=dino_vit_small",), "dino_deitsmall16_pretrain.pth"),
    ],
)
def test_features_of_weights_without_a_published_checksum_belong_to_their_content_and_to_the_version_of_timm(
    trunk: tuple[str, ...], file: str, tmp_path: Path, compose_study: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(weights.VARIABLE, str(tmp_path))
    study, folders = compose_study("dataset=cub", *trunk, "training=frozen"), []
    pixels = np.zeros((4, 32, 32, 3), np.uint8)
    for content in (b"once", b"replaced"):
        (tmp_path / file).write_bytes(content)
        folders.append(folder(study, pixels))
    monkeypatch.setattr(timm, "__version__", "0")
    folders.append(folder(study, pixels))
    assert len({*folders}) == 3


def test_the_version_of_timm_is_among_those_that_records_hold() -> None:
    assert provenance.versions()["timm"] == timm.__version__


@pytest.mark.slow
def test_a_study_without_training_has_one_run_and_needs_no_search(tmp_path: Path, compose_study: Compose) -> None:
    done = tiny(final_eval, tmp_path, "loss=none", "training=frozen")
    assert done.status == 0, done
    (run,) = tmp_path.rglob("run_*.json")
    result = json.loads(run.read_text())["result"]
    assert result["concatenated"] == result["separated"]  # of equal models
    assert [fold["best_epoch"] for fold in result["folds"]] == [0] * len(result["folds"])
    assert tiny(bo, tmp_path, "loss=none", "training=frozen").status == 2
    (home,) = (path.parent for path in tmp_path.rglob("model.yaml"))
    model = load(str(home), compose_study())
    found = model.embed(torch.from_numpy(PIXELS)[:, None]).shape[2]  # the number of features, not the protocol's length
    assert found == model.networks[0].trunk.out_features == model.described.embedding_dim != 128


@pytest.mark.slow
def test_a_kept_model_has_the_frozen_trunk_once_and_embeds_images(tmp_path: Path, compose_study: Compose) -> None:
    done = tiny(final_eval, tmp_path, "loss=none_pca", "training=frozen", "protocol.embedding_dim=4")
    assert done.status == 0, done
    (home,) = (path.parent for path in tmp_path.rglob("model.yaml"))
    assert len([*home.rglob("trunk.safetensors")]) == 1
    model = load(str(home), compose_study())
    (trunk, head), batch = (model.networks[1].trunk, model.networks[1].head), torch.from_numpy(PIXELS)[:, None]
    with torch.no_grad():
        expected = head(
            frozen_trunk(compose_study("training=frozen", "dataset=glyphs_small", "trunk.width=8"), 1).eval()(
                (batch.float() / 255 - 0.1) / 0.27
            )
        )
    found = model.embed(batch)
    assert found.shape[1:] == (12, 4) and isinstance(trunk, SmallConv)
    torch.testing.assert_close(found[1], torch.nn.functional.normalize(expected, dim=1), rtol=1e-4, atol=1e-5)


def test_a_plan_computes_no_features_and_counts_no_training_for_a_loss_that_has_none(compose_study: Compose) -> None:
    with pytest.raises(UserError, match="not in the cache yet"):
        measure(compose_study("training=frozen", "dataset=glyphs_small"))
    assert trained_images(compose_study("training=frozen", "loss=none").config, 1000) == (0, 0)


@pytest.mark.slow
def test_no_features_are_computed_for_a_study_that_is_refused(tmp_path: Path) -> None:
    refused = tiny(bo, tmp_path, "training=frozen", "protocol.num_folds=70")
    assert refused.status == 2 and "protocol.num_folds=70" in refused.err
    assert not [*tmp_path.rglob("view_*")]
    assert tiny(bo, tmp_path, "training=frozen", "training.views=2", "trials=1").status == 0
    assert len([*tmp_path.rglob("view_*.bin")]) == 2
