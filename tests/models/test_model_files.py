"""Files of trained models: what is written is read back, and what is altered or foreign is refused."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from benchmark.core import plain_yaml
from benchmark.core.errors import UserError
from benchmark.core.records import CorruptFileError, ForeignFileError, NewerFileError
from benchmark.models.loaded import load
from benchmark.study import model_files
from benchmark.study.study import Study
from tests.models.conftest import OPTIONS, write_model

CPU = torch.device("cpu")


def rewrite(folder: Path, **changes: object) -> None:
    """Change fields of `model.yaml`, with a checksum that fits."""
    body = plain_yaml.load((folder / "model.yaml").read_bytes())
    del body["sha256"]
    (folder / "model.yaml").write_bytes(plain_yaml.with_checksum(body | changes))


def test_weights_and_description_are_read_back_as_they_were_written(
    model_folder: Path, compose_study: Callable[..., Study]
) -> None:
    study = compose_study(*OPTIONS)
    trunk = study.make_trunk(1, seed=1)
    state = model_files.read_weights(model_folder / "fold_1/weights.safetensors", CPU, lambda _: "")
    assert all(torch.equal(state["trunk"][name], tensor) for name, tensor in trunk.state_dict().items())
    found = model_files.read_description(model_folder)
    assert (found.loss, found.dataset, found.run, found.distance) == ("proxy_nca", "glyphs_small", 0, "cosine")
    split = study.make_dataset().trainval()
    assert found.class_names == split.class_names and found.weights[1].not_trained_on == [1]
    assert (found.preprocessing.short_side, found.preprocessing.crop, found.preprocessing.channels) == (32, 32, 1)


def test_the_checksum_beside_the_weights_is_one_for_sha256sum(model_folder: Path) -> None:
    path = model_folder / "fold_0" / "weights.safetensors"
    line = path.with_name("weights.safetensors.sha256").read_text()
    assert line == f"{hashlib.sha256(path.read_bytes()).hexdigest()}  weights.safetensors\n"


def test_an_altered_weights_file_is_refused(model_folder: Path, compose_study: Callable[..., Study]) -> None:
    path = model_folder / "fold_0" / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptFileError, match="checksum does not match"):
        load(str(model_folder), compose_study())
    path.with_name("weights.safetensors.sha256").write_text(hashlib.sha256(content).hexdigest())
    with pytest.raises(CorruptFileError, match="checksum does not match"):  # that in model.yaml
        load(str(model_folder), compose_study())


@pytest.mark.parametrize("content", [b"", b"\x08" + bytes(7) + b"{}", b"\xff" * 64, b"PK\x03\x04pickle"])
def test_what_is_no_safetensors_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    path.with_name("weights.safetensors.sha256").write_text(hashlib.sha256(content).hexdigest())
    with pytest.raises(CorruptFileError, match="is damaged"):
        model_files.read_weights(path, CPU, lambda _: "")


def test_weights_of_another_training_or_with_other_parts_are_refused(model_folder: Path, tmp_path: Path) -> None:
    path = model_folder / "fold_0" / "weights.safetensors"
    with pytest.raises(ForeignFileError, match="fold is 0"):
        model_files.read_weights(path, CPU, lambda identity: f"fold is {identity and identity['fold']}")
    other = tmp_path / "weights.safetensors"
    content = save({"optimizer.x": torch.zeros(1)}, {"identity": json.dumps({})})
    other.write_bytes(content)
    other.with_name("weights.safetensors.sha256").write_text(hashlib.sha256(content).hexdigest())
    with pytest.raises(CorruptFileError, match="holds no weights"):
        model_files.read_weights(other, CPU, lambda _: "")


def test_weights_with_other_names_or_shapes_than_the_network_are_refused(
    model_folder: Path, compose_study: Callable[..., Study]
) -> None:
    trunk = model_files.read_description(model_folder).trunk
    rewrite(model_folder, trunk=trunk | {"width": 16})
    with pytest.raises(CorruptFileError, match="does not fit its model"):
        load(str(model_folder), compose_study())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trunk": {"_target_": "os.system", "command": "true"}}, "os.system"),
        ({"head": {"_target_": "torch.load", "f": "x"}}, "torch.load"),
        ({"weights": [{"file": "../x", "sha256": "0" * 64, "not_trained_on": []}]}, "outside"),
        ({"weights": []}, "weights is empty"),
        ({"embedding_dim": 0}, "embedding_dim"),
        ({"distance": "dot"}, "distance"),
        ({"plugins": ["os; import x"]}, "no name of a package"),
        ({"plugins": ["my_package"]}, "needs the plug-ins my_package"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_hostile_description_is_refused(
    changes: dict[str, object], said: str, model_folder: Path, compose_study: Callable[..., Study]
) -> None:
    rewrite(model_folder, **changes)
    with pytest.raises(UserError, match=said):
        load(str(model_folder), compose_study())


def test_a_description_that_was_edited_or_is_newer_is_refused(model_folder: Path) -> None:
    path = model_folder / "model.yaml"
    body = path.read_bytes()
    path.write_bytes(body.replace(b"run: 0", b"run: 1"))
    with pytest.raises(CorruptFileError, match="own checksum"):
        model_files.read_description(model_folder)
    path.write_bytes(body)
    rewrite(model_folder, version=2)
    with pytest.raises(NewerFileError, match="version 2"):
        model_files.read_description(model_folder)


def test_a_folder_without_a_model_is_refused_with_the_command_that_makes_one(
    tmp_path: Path, compose_study: Callable[..., Study]
) -> None:
    with pytest.raises(UserError, match=r"no such folder|neither study.yaml nor model.yaml.*status"):
        load(str(tmp_path), compose_study())


@pytest.mark.slow
def test_a_model_of_grey_images_on_published_weights_keeps_its_mean_and_deviation(
    tmp_path: Path, compose_study: Callable[..., Study]
) -> None:
    pytest.importorskip("timm")
    study = compose_study(
        "dataset=glyphs_small", "loss=proxy_nca", "trunk=efficientnet_lite0", "trunk.module.weights=null"
    )
    folder = write_model(tmp_path / "grey", study, folds=1)
    how = model_files.read_description(folder).preprocessing
    assert (how.channels, how.mean) == (1, [0.5, 0.5, 0.5])
    rewrite(folder, preprocessing={**vars(how), "mean": [0.1, 0.2, 0.3]})
    (network,) = load(str(folder), compose_study()).networks
    assert network.trunk.grey_mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
