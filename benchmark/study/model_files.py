"""The files of a trained model: `weights.safetensors` for each fold with its checksum beside, and `model.yaml`.

`model.yaml` holds all that is needed to use the weights elsewhere: the network's description, how an image becomes its
input, the classes that it was trained on, the setting, and the digests of data and code. Runs of earlier versions have
`best.pt` or `weights.pt`, which `torch.save` wrote and `read_weights` reads, too.

These files are read as untrusted data: nothing in them is unpickled, checksums are compared, and the network is built
only from what `instantiate` allows.
"""

import copy
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Literal, cast

import msgspec
import numpy as np
import torch
from msgspec import Meta
from torch import Tensor

from benchmark.core import plain_yaml, records, typed
from benchmark.core.paths import stays_inside
from benchmark.core.provenance import commit, versions
from benchmark.core.records import CorruptFileError, JsonObject
from benchmark.core.typed import AtLeastOne, Count, Finite, Text
from benchmark.study import data
from benchmark.study.config import Node
from benchmark.study.frozen import frozen_trunk
from benchmark.study.instantiate import build
from benchmark.study.study import Study
from benchmark.training.checkpoint import read_state

NAME = "model.yaml"
VERSION = 1
WEIGHTS = "weights.safetensors"
FROZEN = "trunk.safetensors"
HELD_OUT = "weights_held_out.safetensors"
SUFFIX = ".sha256"  # of the checksum beside a file, in the format of `sha256sum`
PARTS = ("trunk", "head", "loss")
WHITE = (255, 255, 255)
Mismatch = Callable[[JsonObject | None], str]  # how the identity in a file differs from the expected one
State = dict[str, dict[str, Tensor]]  # the tensors of trunk, head and loss by name


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How an image file becomes the input of the network: (pixel / 255 - mean) / std of its central crop.

    Attributes:
        channels: 3 for RGB, 1 for grey.
        short_side: length in pixels to which the shorter side is resized.
        crop: side of the central crop, in pixels.
        resampling: how pixels are interpolated, see `images.crops.Crops`.
        orient: whether images stored turned or mirrored (EXIF) are turned upright.
        background: colour behind transparent pixels; None drops the transparency.
        grey_bits: bits of the grey values that become 0 to 255, for images of more than 8 bits.
        mean: mean of the pixels scaled to [0, 1], one number per channel; three numbers for a network that takes grey
            images as RGB.
        std: standard deviation of these pixels, likewise.
    """

    channels: Literal[1, 3]
    short_side: AtLeastOne
    crop: AtLeastOne
    resampling: Literal["pil", "pil_bicubic", "torch"]
    orient: bool
    background: list[Annotated[int, Meta(ge=0, le=255)]] | None
    grey_bits: Annotated[int, Meta(ge=8, le=31)]
    mean: list[Finite]
    std: list[Annotated[float, Meta(gt=0, le=typed.LARGEST)]]

    def __post_init__(self) -> None:
        if self.crop > self.short_side:
            raise ValueError(f"crop {self.crop} is larger than short_side {self.short_side}")
        if self.background is not None and len(self.background) != 3:
            raise ValueError("background is not three numbers")
        if not {len(self.mean), len(self.std)} <= {1, 3}:
            raise ValueError("mean and std are not one or three numbers each")


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """The weights of one network.

    Attributes:
        file: path relative to `model.yaml`.
        sha256: its checksum.
        not_trained_on: ids of the classes, positions in `class_names`, that it was not trained on. The others, in
            ascending order, are the classes of its loss.
    """

    file: Text
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z", description="64 hexadecimal digits")]
    not_trained_on: list[Count]

    def __post_init__(self) -> None:
        if not stays_inside(self.file):
            raise ValueError(f"file {self.file!r} leads outside the folder")


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """The content of `model.yaml`.

    Attributes:
        version: version of the file's layout.
        loss: name of the loss.
        dataset: name of the data set.
        data_root: folder of its image files; empty without one.
        protocol: name of the protocol.
        run: number of the run.
        setting: hyper-parameters of the loss.
        trunk: `_target_` node of the trunk, without the weights that it started from.
        head: `_target_` node of the head.
        embedding_dim: D, the length of an embedding of one network.
        precision: precision of the training.
        distance: distance by which embeddings are compared.
        distance_options: options of that distance.
        preprocessing: how an image becomes the input.
        weights: the networks, one per fold.
        class_names: names of the training classes by id; empty if there are too many for this file.
        study: identity of the study.
        data: fingerprint of the data set.
        code: digests of the code that trained it.
        commit: commit of the checkout.
        versions: package versions.
        plugins: names of the plug-ins that it needs.
        reproduces: false if the run was trained once more for its weights, and its validation scores differ from the
            run's record.
        frozen: the trunk that all networks share if it was not trained; their own files then lack it.
    """

    version: AtLeastOne
    loss: Text
    dataset: Text
    data_root: str
    protocol: Text
    run: Count
    setting: JsonObject
    trunk: JsonObject
    head: JsonObject
    embedding_dim: AtLeastOne
    precision: Literal["ieee", "tf32", "bf16"]
    distance: Literal["cosine", "l2", "hyperbolic"]
    distance_options: JsonObject
    preprocessing: Preprocessing
    weights: list[WeightsFile]
    class_names: list[str]
    study: str
    data: str
    code: list[str]
    commit: str
    versions: dict[str, str]
    plugins: list[str] = field(default_factory=list)
    reproduces: bool = True
    frozen: WeightsFile | None = None

    def __post_init__(self) -> None:
        if not self.weights:
            raise ValueError("weights is empty")


# -- weights ----------------------------------------------------------------------------------------------------------


def write_weights(path: Path, state: Mapping[str, Mapping[str, Tensor]], identity: JsonObject) -> str:
    """Write the tensors of trunk, head and loss as safetensors, and their checksum beside; return the checksum.

    Args:
        path: the file to write.
        state: the `state_dict` of each part, tensors of any shape.
        identity: the training's identity.

    Raises:
        WriteError: a file cannot be written.
    """
    from safetensors.torch import save

    tensors = {
        f"{part}.{name}": tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for part in PARTS
        for name, tensor in state[part].items()
    }
    content = save(tensors, {"format": "pt", "identity": json.dumps(identity)})
    sha256 = hashlib.sha256(content).hexdigest()
    records.write_whole(path, content)
    records.write_whole(checksum_path(path), f"{sha256}  {path.name}\n".encode())
    return sha256


def checksum_path(path: Path) -> Path:
    """The file with the checksum of a weights file."""
    return path.with_name(f"{path.name}{SUFFIX}")


def read_weights(path: Path, device: torch.device, mismatch: Mismatch, sha256: str | None = None) -> State:
    """The tensors of a weights file by part, whose checksum and identity agree.

    Args:
        path: `.safetensors`, or `.pt` of an earlier version.
        device: where the tensors are placed.
        mismatch: describes how the identity in the file differs from the expected one.
        sha256: the checksum that it must have, in addition to the one beside it.

    Raises:
        CorruptFileError: the file is damaged, altered, or holds anything but tensors of the three parts.
        ForeignFileError: the identity is not the expected one.
        FileNotFoundError: the file or its checksum is missing.
    """
    if path.suffix == ".pt":
        return cast(State, read_state(path, device, mismatch))
    from safetensors import SafetensorError
    from safetensors.torch import load

    content = records.read_file(path)
    beside = records.read_file(checksum_path(path), 4096).decode(errors="replace").split()
    found = hashlib.sha256(content).hexdigest()
    if [found] != beside[:1] or found != (sha256 or found):
        raise CorruptFileError(f"{path} is damaged or altered: its checksum does not match.")
    state: State = {part: {} for part in PARTS}
    try:
        for key, tensor in load(content).items():
            part, _, name = key.partition(".")
            state[part][name] = tensor.to(device)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        identity = json.loads(header["__metadata__"]["identity"])
    except (SafetensorError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise CorruptFileError(f"{path} is damaged: it holds no weights ({type(error).__name__}).") from error
    if difference := mismatch(identity if isinstance(identity, dict) else None):
        raise records.ForeignFileError(f"{path} does not belong here: {difference}.")
    return state


def is_there(path: Path) -> bool:
    """Whether a weights file was written completely, with its checksum."""
    return path.is_file() and (path.suffix == ".pt" or checksum_path(path).is_file())


# -- description ------------------------------------------------------------------------------------------------------


def describe(
    study: Study, *, run: int, identity: str, fingerprint: str, code: Sequence[str], weights: Sequence[WeightsFile],
    reproduces: bool = True, frozen: WeightsFile | None = None,
) -> ModelFile:  # fmt: skip
    """Describe the networks of a run.

    Args:
        study: the study, with the setting that was trained.
        run: number of the run.
        identity: identity of the study.
        fingerprint: identifies the data.
        code: digests of the code that trained it.
        weights: the networks' files.
        reproduces: whether the scores in the run's record are those of these weights.
        frozen: the file of a trunk that was not trained.
    """
    config, dataset = study.config, study.make_dataset()
    split = dataset.trainval()
    channels = data.num_channels(split.images)
    trunk = study.make_trunk(channels, seed=0)
    grey = channels == 1 and hasattr(trunk, "grey_mean")
    mean, std = (
        [cast(Tensor, getattr(trunk, f"grey_{key}")).flatten().tolist() for key in ("mean", "std")]
        if grey
        else [list(trunk.mean), list(trunk.std)]
    )
    if isinstance(split.images, np.ndarray):
        side = min(split.images.shape[1:3])
        how: JsonObject = {"short_side": side, "crop": side, "resampling": "pil", "orient": True,
                           "background": [*WHITE], "grey_bits": 16}  # fmt: skip
    else:
        crops, reading = data.crops(config), data.reading(config, dataset.listing.tally if dataset.listing else None)
        background = None if reading.background is None else [*reading.background]
        how = {"short_side": crops.short_side, "crop": crops.crop, "resampling": crops.resampling,
               "orient": reading.orient, "background": background, "grey_bits": reading.grey_bits}  # fmt: skip
    asked = config.loss.head
    return ModelFile(
        version=VERSION, loss=config.loss.name, dataset=config.dataset.name,
        data_root="" if dataset.listing is None else str(dataset.listing.root),
        protocol=config.protocol.name, run=run, setting=dict(study.setting),
        trunk=dict(untrained(config.trunk.module)),
        head=dict(asked if "_target_" in asked else config.head.module | asked),
        embedding_dim=cast(int, study.make_head(trunk.out_features, seed=0).out_features),
        precision=cast(Literal["ieee", "tf32", "bf16"], config.precision),
        distance=cast(Literal["cosine", "l2", "hyperbolic"], config.loss.retrieval),
        distance_options=dict(config.loss.retrieval_options),
        preprocessing=Preprocessing(channels=cast(Literal[1, 3], channels), mean=mean, std=std, **how),
        weights=[*weights], class_names=[*split.class_names], study=identity, data=fingerprint,
        code=sorted(code), commit=commit(), versions=versions(), plugins=[*config.plugins], reproduces=reproduces,
        frozen=frozen,
    )  # fmt: skip


def write_description(folder: Path, described: ModelFile) -> None:
    """Write `model.yaml` into the folder of a run; names of classes that would make it too large to read are left out.

    Raises:
        WriteError: the file cannot be written.
    """
    body: JsonObject = msgspec.to_builtins(described)
    content = plain_yaml.with_checksum(body)
    if len(content) > plain_yaml.MOST_BYTES:
        body["class_names"] = []
        body["weights"] = [asdict(one) | {"not_trained_on": []} for one in described.weights]
        content = plain_yaml.with_checksum(body)
    records.write_whole(folder / NAME, content)


def read_description(folder: Path) -> ModelFile:
    """The checked content of a folder's `model.yaml`.

    Raises:
        CorruptFileError: it is damaged, or a field is missing, unknown or not allowed; the message names it.
        NewerFileError: a newer version wrote it.
        FileNotFoundError: there is none.
    """
    path = folder / NAME
    body = plain_yaml.load_checked(records.read_file(path, plain_yaml.MOST_BYTES), path, VERSION)
    found = typed.convert(body, ModelFile, path)
    if strange := [name for name in found.plugins if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", name)]:
        raise CorruptFileError(f"{path}: plugins has {strange[0]!r}, which is no name of a package.")
    return copy.deepcopy(found)


# -- keeping ----------------------------------------------------------------------------------------------------------


def keep(
    study: Study, folder: Path, files: Mapping[str, tuple[Path, Mismatch]],
    not_trained_on: Sequence[Sequence[int]], *, run: int, identity: str, fingerprint: str, code: Sequence[str],
    reproduces: bool = True,
) -> None:  # fmt: skip
    """Convert the weights of a run's networks to the kept form, describe them, then delete what they came from.

    Args:
        study: the study, with the setting that was trained.
        folder: the run's folder.
        files: for each file to write, relative to the folder: the file that training wrote, and a function that
            describes how the identity in it differs from that of the training.
        not_trained_on: for each network, the ids of the training half's classes that it was not trained on.
        run: number of the run.
        identity: identity of the study.
        fingerprint: identifies the data.
        code: digests of the code that trained it.
        reproduces: whether the scores in the run's record are those of these weights.

    Raises:
        CorruptFileError: a weights file is damaged, or belongs to another training.
        FileNotFoundError: a weights file is missing.
        WriteError: a file cannot be written.
    """
    written: list[WeightsFile] = []
    for (name, (source, mismatch)), held_out in zip(files.items(), not_trained_on, strict=True):
        own: JsonObject = {}

        def noted(found: JsonObject | None, mismatch: Mismatch = mismatch, own: JsonObject = own) -> str:
            own.update(found or {})
            return mismatch(found)

        state = read_weights(source, torch.device("cpu"), noted)
        sha256 = write_weights(folder / name, state, own)
        written.append(WeightsFile(file=name, sha256=sha256, not_trained_on=[*held_out]))
    described = describe(
        study, run=run, identity=identity, fingerprint=fingerprint, code=code, weights=written, reproduces=reproduces,
        frozen=frozen_weights(study, folder),
    )  # fmt: skip
    write_description(folder, described)
    for source, _ in files.values():
        source.unlink()


def frozen_weights(study: Study, folder: Path) -> WeightsFile | None:
    """Write the trunk that a study did not train into the folder of a run; None if it trained its trunk."""
    if study.config.training.views is None:
        return None
    trunk = frozen_trunk(study, data.num_channels(study.make_dataset().trainval().images))
    state = {"trunk": trunk.state_dict(), "head": {}, "loss": {}}
    return WeightsFile(file=FROZEN, sha256=write_weights(folder / FROZEN, state, {}), not_trained_on=[])


def keeps(choice: str, run: int) -> bool:
    """Whether the weights of a run are kept once it is scored.

    Args:
        choice: the value of `keep`.
        run: number of the run.
    """
    return choice == "best" or (choice == "first" and run == 0)


def expected_bytes(study: Study) -> int:
    """Size of the weights of a run's networks, without those of their losses; a frozen trunk is kept once."""
    channels = data.num_channels(study.make_dataset().trainval().images)
    trunk = build(untrained(study.config.trunk.module), "trunk", plugins=study.config.plugins, in_channels=channels)
    head = study.make_head(trunk.out_features, seed=0)
    of_head, of_trunk = (sum(int(t.nbytes) for t in part.state_dict().values()) for part in (head, trunk))
    folds: int = study.config.protocol.num_folds
    return folds * of_head + (folds if study.config.training.views is None else 1) * of_trunk


def untrained(trunk: Node) -> Node:
    """A trunk's node without the weights that its training starts from."""
    return trunk | {"weights": None} if "weights" in trunk else trunk
