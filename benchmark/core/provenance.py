"""How a record was made: versions, commit, machine and device; none of it is part of a result."""

import functools
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.core.errors import UserError
from benchmark.core.paths import CHECKOUT_DIR
from benchmark.core.records import JsonObject, Record

if TYPE_CHECKING:
    import torch

UNKNOWN = "unknown"  # stands for the kind of device where a record names no device
PACKAGES = ("torch", "torchvision", "numpy", "pytorch-metric-learning", "ax-platform", "botorch", "faiss-gpu",
            "faiss-cpu", "scikit-learn", "pillow", "timm")  # fmt: skip


@functools.cache
def versions() -> dict[str, str]:
    """Installed versions of Python and of the packages that can change a number."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def check_versions(driver: dict[str, str]) -> None:
    """Compare this process's package versions with the driver's.

    Raises:
        UserError: they differ, so that results could differ too.
    """
    here = versions()
    names = sorted(name for name in here.keys() | driver.keys() if here.get(name) != driver.get(name))
    if names:
        differing = "; ".join(f"{n} is {here.get(n, 'absent')} there, {driver.get(n, 'absent')} here" for n in names)
        raise UserError(
            f"{platform.node()} runs other software than this command: {differing}. Install the same versions on both."
        )


@functools.cache
def commit() -> str:
    """The checkout's commit, with `+changes` if files differ from it; `unknown` outside a checkout."""
    root = CHECKOUT_DIR
    if not (root / ".git").exists():
        return "unknown"
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True)
        changed = subprocess.run(
            ["git", "--no-optional-locks", "status", "--porcelain", "benchmark", "conf"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+changes" if changed.stdout.strip() else "")


@functools.cache
def hardware() -> dict[str, str]:
    """Operating system, machine type and name of the processor."""
    name = platform.processor() or platform.machine()
    if sys.platform == "linux":
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    return {"system": platform.system(), "machine": platform.machine(), "cpu": name or UNKNOWN}


def device_facts(device: "torch.device", precision: JsonObject, earlier: Sequence[str] = ()) -> JsonObject:
    """The device on which this process trains or scores, and the library settings that affect the last digits.

    Args:
        device: the device that trains or scores.
        precision: the precision in effect, see `training.precision.effective_precision`.
        earlier: kinds of the devices that trained the epochs before this process resumed the training.
    """
    import torch

    gpu = device.type == "cuda"
    return {
        "kind": device.type,
        "name": torch.cuda.get_device_name(device) if gpu else hardware()["cpu"],
        "earlier": sorted({*earlier} - {device.type}),
        "cuda": (torch.version.cuda or torch.version.hip) if gpu else None,
        "cudnn": torch.backends.cudnn.version() if gpu else None,
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "threads": torch.get_num_threads(),
        "precision": precision,
    }


def devices_of(provenances: Iterable[Mapping[str, JsonObject]]) -> list[JsonObject | None]:
    """Kind and name of each fold's device, and `earlier` kinds; None for a fold whose provenance names no device."""
    found = [provenance.get("device") for provenance in provenances]
    return [facts and {key: facts[key] for key in ("kind", "name", "earlier")} for facts in found]


def costs_of(provenances: Iterable[Mapping[str, Any]]) -> JsonObject:
    """What the folds of a trial or run cost: mean seconds per iteration, and the highest peak of memory.

    Args:
        provenances: those of the folds. A quantity that one of them lacks, as older records do, is None.
    """
    each = list(provenances)

    def all_of(key: str) -> list[float]:
        found = [one[key] for one in each if one.get(key) is not None]
        return found if len(found) == len(each) else []

    seconds, peaks = all_of("seconds_per_iteration"), all_of("peak_memory_bytes")
    return {
        "seconds_per_iteration": sum(seconds) / len(seconds) if seconds else None,
        "peak_memory_bytes": max(peaks, default=None),
    }


def kinds_of(records: Iterable[Record]) -> set[str]:
    """The kinds of device (cpu, cuda, mps, `UNKNOWN`) that computed some records of folds, trials or runs.

    >>> cpu, gpu = ({"kind": kind, "name": "", "earlier": []} for kind in ("cpu", "cuda"))
    >>> sorted(kinds_of([Record("trial", {}, {"devices": [cpu, gpu]}), Record("trial", {})]))
    ['cpu', 'cuda', 'unknown']
    """
    kinds: set[str] = set()
    for record in records:
        origin = record.provenance
        facts = [*([origin["device"]] if "device" in origin else []), *origin.get("devices", [])]
        kinds |= {kind for one in facts or [None] for kind in ([one["kind"], *one["earlier"]] if one else [UNKNOWN])}
    return kinds


def provenance(**more: object) -> JsonObject:
    """Versions, commit and hardware, plus the caller's entries (seed, seconds, ...)."""
    return {"versions": versions(), "commit": commit(), "hardware": hardware()} | more
