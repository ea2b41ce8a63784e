"""How a record was made: versions, commit and hardware; none of it is part of a result."""

import functools
import hashlib
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from benchmark.core.errors import UserError
from benchmark.core.paths import CHECKOUT_DIR, PACKAGE_DIR
from benchmark.core.records import JsonObject

PACKAGES = ("torch", "torchvision", "numpy", "pytorch-metric-learning", "ax-platform", "botorch", "faiss-gpu",
            "faiss-cpu", "scikit-learn", "pillow")  # fmt: skip


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


@functools.cache
def software() -> dict[str, str]:
    """What all machines that work on a study must share: `versions`, and a hash of this package's code."""
    code = hashlib.sha256()
    for path in sorted(PACKAGE_DIR.rglob("*.py")):
        code.update(f"{path.relative_to(PACKAGE_DIR)}\n".encode() + path.read_bytes() + b"\0")
    return versions() | {"benchmark": f"code {code.hexdigest()[:12]}"}


def check_software(driver: dict[str, str]) -> None:
    """Compare this process's software with the driver's.

    Raises:
        UserError: they differ, so that results could differ too.
    """
    here = software()
    names = sorted(name for name in here.keys() | driver.keys() if here.get(name) != driver.get(name))
    if names:
        differing = "; ".join(f"{n} is {here.get(n, 'absent')} there, {driver.get(n, 'absent')} here" for n in names)
        raise UserError(
            f"{platform.node()} runs different software from this command: {differing}. Install the same versions on "
            "both. If the code was changed while this ran, the same command resumes from here with the new code."
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
def hardware() -> dict[str, str | None]:
    """Operating system, machine type, name of the processor, and name of the GPU (None without one)."""
    import torch

    name = platform.processor() or platform.machine()
    if sys.platform == "linux":
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    return {"system": platform.system(), "machine": platform.machine(), "cpu": name, "gpu": gpu}


def provenance(**more: object) -> JsonObject:
    """Versions, commit and hardware, plus the caller's entries (seed, seconds, ...)."""
    return {"versions": versions(), "commit": commit(), "hardware": hardware()} | more
