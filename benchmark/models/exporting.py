"""Export a trained model: ONNX and TorchScript with normalisation inside, or the files that timm reads.

An exported network takes images (B, channels, H, W) in float32 with pixels scaled to [0, 1], cropped as `model.yaml`
says, and returns embeddings (B, F D) as retrieval compares them. timm's networks normalise nothing: its files hold mean
and standard deviation, and an embedding must still be brought to length 1.
"""

import contextlib
import copy
import importlib.util
import io
import json
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from benchmark.core import records
from benchmark.core.errors import UserError
from benchmark.core.invocation import install
from benchmark.core.records import JsonObject
from benchmark.heads.linear import Linear
from benchmark.models.loaded import Model, Network
from benchmark.study.model_files import Preprocessing
from benchmark.trunks.efficientnet_lite0 import EfficientNetLite0
from benchmark.trunks.resnet50 import ResNet50
from benchmark.trunks.vit_small import ViTSmall

FORMATS = ("onnx", "torchscript", "timm")
OPSET = 18
POOLS = {"avg": ("avg", 1.0), "max": ("max", 1.0), "avg+max": ("avgmax", 2.0)}  # timm's name; ours is so many times its


class Exported(nn.Module):
    """Maps images (B, channels, H, W) with pixels in [0, 1] to embeddings (B, F D).

    Args:
        networks: the networks whose embeddings are joined.
        unit: whether each network's embedding is brought to length 1.
    """

    def __init__(self, networks: Sequence[Network], unit: bool) -> None:
        super().__init__()
        self.trunks = nn.ModuleList(one.trunk for one in networks)
        self.heads = nn.ModuleList(one.head for one in networks)
        self.unit = unit
        for number, one in enumerate(networks):
            for name in ("mean", "std"):
                values = torch.tensor(getattr(one.trunk, name), dtype=torch.float32).view(1, -1, 1, 1)
                self.register_buffer(f"{name}_{number}", values)

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings (B, F D) of images (B, channels, H, W)."""
        found = []
        for number, (trunk, head) in enumerate(zip(self.trunks, self.heads, strict=True)):
            embeddings = head(trunk((images - getattr(self, f"mean_{number}")) / getattr(self, f"std_{number}")))
            found.append(nn.functional.normalize(embeddings, dim=1) if self.unit else embeddings)
        return torch.cat(found, dim=1)


def export(model: Model, kind: str, path: Path, *, separated: bool) -> list[Path]:
    """Write a model in another format, and return the paths of the files or folders.

    Args:
        model: the model.
        kind: one of `FORMATS`.
        path: the file, or for `timm` the folder; with several files, the number of the fold is added to their names.
        separated: whether each fold gets a file of its own; timm's networks always do.

    Raises:
        UserError: the format is unknown, its package is not installed, or it cannot hold this model.
        WriteError: a file cannot be written.
    """
    if kind not in FORMATS:
        raise UserError(f"format={kind}: allowed are {', '.join(FORMATS)}.")
    if kind == "timm":
        return [_write_timm(model, fold, _numbered(path, fold, model)) for fold in range(len(model.networks))]
    if not (separated or model.is_joinable):
        raise UserError(f"The points of {model.name} cannot be concatenated to points of one ball: folds=separated.")
    groups = [[one] for one in model.networks] if separated else [list(model.networks)]
    unit, written = model.described.distance == "cosine", []
    for fold, networks in enumerate(groups):
        target = _numbered(path, fold, model) if len(groups) > 1 else path
        module = copy.deepcopy(Exported(networks, unit)).cpu().eval()
        content = (_as_onnx if kind == "onnx" else _as_torchscript)(module, example(model.described.preprocessing))
        records.write_whole(target, content)
        written.append(target)
    return written


def has_onnx() -> bool:
    """Whether the packages are installed that writing ONNX needs."""
    return all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript"))


def example(how: Preprocessing) -> Tensor:
    """Two images (2, channels, crop, crop) with which a network is traced."""
    return torch.rand(2, how.channels, how.crop, how.crop, generator=torch.Generator().manual_seed(0))


def _numbered(path: Path, fold: int, model: Model) -> Path:
    return path if len(model.networks) == 1 else path.with_name(f"{path.stem}_fold_{fold}{path.suffix}")


def _as_torchscript(module: nn.Module, images: Tensor) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and checks of sizes become constants
        torch.jit.save(torch.jit.trace(module, images, check_trace=False), buffer)
    return buffer.getvalue()


def _as_onnx(module: nn.Module, images: Tensor) -> bytes:
    try:
        import onnx  # noqa: F401 - torch imports it, and onnxscript
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"format=onnx needs the packages onnx and onnxscript ({error}): "
            f"{install('onnx', 'onnxscript', 'onnxruntime')}\nOr give format=torchscript."
        ) from error
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad(), _readable_flags():
        warnings.simplefilter("ignore")
        program: Any = torch.onnx.export(
            module, (images,), input_names=["images"], output_names=["embeddings"], opset_version=OPSET, dynamo=True,
            dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1)}}, verbose=False,
        )  # fmt: skip
    buffer.write(program.model_proto.SerializeToString())
    return buffer.getvalue()


@contextlib.contextmanager
def _readable_flags() -> Iterator[None]:
    """Let PyTorch's exporter read its older flag of TF32, which fails after `use_precision`; nothing is computed."""
    operations: list[Any] = [torch.backends.cudnn.conv, torch.backends.cudnn.rnn]  # type: ignore[attr-defined]
    before = [operation.fp32_precision for operation in operations]
    for operation in operations:
        operation.fp32_precision = "tf32"
    try:
        yield
    finally:
        for operation, precision in zip(operations, before, strict=True):
            operation.fp32_precision = precision


# -- timm -------------------------------------------------------------------------------------------------------------


def _write_timm(model: Model, fold: int, folder: Path) -> Path:
    """Write what `timm.create_model("local-dir:FOLDER", pretrained=True)` reads: `model.safetensors`, `config.json`.

    Raises:
        UserError: timm has no network like this one.
    """
    from safetensors.torch import save

    network, how = model.networks[fold], model.described.preprocessing
    architecture, classifier, pool, times = _in_timm(network, how)
    linear = cast(nn.Linear, network.head.linear)
    tensors = dict(network.trunk.network.state_dict())  # type: ignore[union-attr]
    tensors |= {f"{classifier}.weight": linear.weight * times, f"{classifier}.bias": linear.bias}
    content = save({name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
                    for name, tensor in tensors.items()}, {"format": "pt"})  # fmt: skip
    config: JsonObject = {
        "architecture": architecture, "num_classes": model.described.embedding_dim, "global_pool": pool,
        "pretrained_cfg": {
            "num_classes": model.described.embedding_dim, "input_size": [3, how.crop, how.crop],
            "crop_pct": how.crop / how.short_side, "crop_mode": "center", "fixed_input_size": False,
            "interpolation": "bicubic" if how.resampling == "pil_bicubic" else "bilinear",
            "mean": [*how.mean], "std": [*how.std], "classifier": classifier, "first_conv": None,
        },
        "model_args": {"global_pool": pool},
    }  # fmt: skip
    records.write_whole(folder / "model.safetensors", content)
    records.write_whole(folder / "config.json", f"{json.dumps(config, indent=1)}\n".encode())
    return folder


def _in_timm(network: Network, how: Preprocessing) -> tuple[str, str, str, float]:
    """Name of timm's network, of its last layer, of its pooling, and how many times its feature ours is.

    Raises:
        UserError: timm has no network like this one.
    """
    trunk, head = network.trunk, network.head
    plain = isinstance(head, Linear) and all(isinstance(n, nn.Identity) for n in (head.feature_norm, head.norm))
    if how.channels == 3 and plain:
        if isinstance(trunk, ViTSmall) and not trunk.distilled:
            return "vit_small_patch16_224", "head", "token", 1.0
        if isinstance(trunk, EfficientNetLite0):
            return "tf_efficientnet_lite0", "classifier", *POOLS[trunk.pool]
        if isinstance(trunk, ResNet50):
            return "resnet50", "fc", *POOLS[trunk.pool]
    what = f"{type(trunk).__name__} with the head {type(head).__name__}"
    raise UserError(
        f"format=timm: timm has no network that equals {what} (of {how.channels} channels). It has resnet50, "
        "efficientnet_lite0 and the transformers without a distillation token, with a plain linear head, for RGB. Give "
        "format=onnx or torchscript."
    )
