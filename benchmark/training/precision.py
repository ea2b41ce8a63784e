"""The arithmetic of a training: the precision of convolutions and matrix products, and whether it is repeatable.

- `ieee`: float32 throughout. This is not PyTorch's default, which computes float32 convolutions in TF32 on NVIDIA GPUs
  since Ampere.
- `tf32`: trunk and head with operands rounded to 10 bits of mantissa, products accumulated in float32; NVIDIA GPUs
  since Ampere only. A loss and its gradient are computed in float32 (`training.loop.backward`).
- `bf16`: trunk and head under autocast to bfloat16, in training and in evaluation; weights, losses and optimisers stay
  in float32, and embeddings are returned in float32.

- `fast`: the fastest of these that the device computes in hardware; it is replaced by that one before a study starts.

The metrics do not depend on it: their exact search sets its own precision (`protocol.nearest`).

On a GPU, some sums are computed in an order that changes from run to run, so that equal trainings differ in their last
digits. `deterministic` excludes these algorithms.

Source: PyTorch's notes on CUDA semantics (TensorFloat-32) and `torch.backends`. PyTorch's older flags, `allow_tf32`,
must not be mixed with the ones used here.
"""

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmark.core.errors import UserError
from benchmark.core.records import JsonObject

_backends: Any = torch.backends  # `Any`, because its type stubs lack these attributes
# The operations whose precision can be set, by kind of device: convolutions, matrix products, recurrent layers. These
# settings take precedence over those of a whole backend.
OPERATIONS: dict[str, tuple[Any, Any, Any]] = {
    "cuda": (_backends.cudnn.conv, _backends.cuda.matmul, _backends.cudnn.rnn),
    "cpu": (_backends.mkldnn.conv, _backends.mkldnn.matmul, _backends.mkldnn.rnn),
}
# In PyTorch's message about an operation that has only algorithms whose sums are computed in changing order.
NOT_DETERMINISTIC = "does not have a deterministic implementation"
# Environment variables that make a library ignore the requested precision, and the value that agrees with `ieee`.
OVERRIDES = {
    "cuda": {"NVIDIA_TF32_OVERRIDE": "0"},
    "cpu": {"ONEDNN_DEFAULT_FPMATH_MODE": "STRICT", "DNNL_DEFAULT_FPMATH_MODE": "STRICT"},
}


def use_precision(precision: str, device: torch.device, deterministic: bool = False) -> None:
    """Set the precision of all convolutions and products of this process, whatever an earlier unit set.

    Args:
        precision: `ieee`, `tf32` or `bf16`.
        device: the device that trains.
        deterministic: whether equal trainings on equal hardware must give equal bits. An operation that cannot then
            raises a `RuntimeError` whose message contains `NOT_DETERMINISTIC`.

    Raises:
        UserError: the device cannot compute in this precision, or an environment variable overrides it.
    """
    check_precision(precision, device)
    for kind, operations in OPERATIONS.items():
        for operation in operations:
            operation.fp32_precision = "tf32" if (precision, kind) == ("tf32", "cuda") else "ieee"
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the first product is computed
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = False


def fastest(device: torch.device) -> str:
    """The name of the fastest precision that a device of this machine computes in hardware.

    Args:
        device: the device that trains.
    """
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16"
        return "tf32" if _has_tf32(device) else "ieee"
    return "bf16" if device.type == "cpu" and _cpu_has_bf16() else "ieee"


def _cpu_has_bf16() -> bool:
    return any(torch.cpu.get_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))  # the last: ARM


def check_precision(precision: str, device: torch.device) -> None:
    """Check that a device of this machine can compute in a precision.

    Args:
        precision: `ieee`, `tf32` or `bf16`.
        device: the device that trains.

    Raises:
        UserError: it cannot, or an environment variable overrides the precision.
    """
    if precision not in ("ieee", "tf32", "bf16"):
        raise UserError(f"precision={precision}: allowed are ieee, tf32 and bf16.")
    if precision == "tf32" and not _has_tf32(device):
        raise UserError(
            f"precision=tf32: device={device} on this machine cannot compute in TF32, which needs an NVIDIA GPU of the "
            "Ampere generation or later. Give ieee or bf16, or run on such a GPU (device=cuda)."
        )
    for variable, agreeing in OVERRIDES.get(device.type, {}).items():
        allowed = "1" if precision == "tf32" else agreeing
        if (value := os.environ.get(variable, allowed)).upper() != allowed:
            raise UserError(
                f"precision={precision}: {variable}={value} in the environment makes device={device} compute in "
                f"another precision. Run `unset {variable}`, or set it to {allowed}."
            )


def _has_tf32(device: torch.device) -> bool:
    return device.type == "cuda" and torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 0)


def forward(
    trunk: Callable[[Tensor], Tensor], head: Callable[[Tensor], Tensor], images: Tensor, precision: str
) -> Tensor:
    """Embeddings (B, D) of normalised images (B, Ch, H, W), in float32.

    Autocast is entered for each forward pass, because it caches converted weights until it ends.

    Args:
        trunk: maps images to features (B, F).
        head: maps features to embeddings.
        images: the images, on the device of trunk and head.
        precision: the value that `use_precision` was called with.
    """
    if precision != "bf16":
        return head(trunk(images))
    with torch.autocast(images.device.type, torch.bfloat16):
        embeddings = head(trunk(images))
    return embeddings.float()


def effective_precision(precision: str, device: torch.device) -> JsonObject:
    """The precision in effect in this process after `use_precision`, as PyTorch reports it.

    Args:
        precision: the configured precision.
        device: the device that trains.

    Returns:
        `convolutions` and `products`, the precision of float32 convolutions and matrix products; and `autocast`, the
        type to which trunk and head convert their operands, None without autocast.
    """
    cast: list[torch.dtype | None] = []

    def observe(images: Tensor) -> Tensor:
        kind = device.type
        cast.append(torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None)
        return images

    forward(observe, observe, torch.empty(0, device=device), precision)
    operations = OPERATIONS.get(device.type)
    convolutions, products = [o.fp32_precision for o in operations[:2]] if operations else ["ieee", "ieee"]
    autocast = None if cast[0] is None else str(cast[0]).removeprefix("torch.")
    return {"convolutions": convolutions, "products": products, "autocast": autocast}
