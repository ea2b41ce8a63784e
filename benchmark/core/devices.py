"""Devices that a configuration may name, and which of them this machine has."""

import platform
import re
from typing import TYPE_CHECKING

from benchmark.core.errors import UserError

if TYPE_CHECKING:
    import torch

_NAMES = re.compile(r"auto|cpu|cuda(:[0-9]+)?")


def check_device_name(name: str) -> None:
    """Check that a device of this name may exist on some machine.

    Raises:
        UserError: it may not, or it lacks float64.
    """
    if not _NAMES.fullmatch(name):
        why = " Apple's GPU has no float64, which retrieval and several losses need." if name == "mps" else ""
        raise UserError(f"device={name!r}: allowed are auto, cpu, cuda, and cuda:N for the GPU with that number.{why}")


def device_here(name: str) -> "torch.device":
    """The device of this machine that a name stands for: `auto` is a GPU if there is one.

    Args:
        name: `auto`, `cpu`, `cuda`, or `cuda:N`.

    Raises:
        UserError: this machine has no such device.
    """
    import torch  # takes seconds

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name != "cpu" and name not in (gpus := gpu_names(torch.cuda.device_count())):
        allowed = ", ".join(["auto", "cpu", *gpus])
        raise UserError(f"device={name!r}: allowed on this machine ({platform.node()}) are {allowed}.")
    return torch.device(name)


def gpu_names(count: int) -> list[str]:
    """Names of the GPUs of a machine that has so many.

    >>> gpu_names(2), gpu_names(0)
    (['cuda', 'cuda:0', 'cuda:1'], [])
    """
    return ["cuda", *(f"cuda:{number}" for number in range(count))] if count else []
