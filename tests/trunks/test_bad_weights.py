"""Weight files that are damaged, of another format or hold other tensors: refused by name, and nothing is filled."""

import io
import json
import os
import pickle
import struct
import tarfile
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from benchmark.core.errors import UserError
from benchmark.trunks import weights

State = dict


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def state(**changed: object) -> State:
    """A state that fits the network; `a__b=value` replaces the tensor a.b, and None removes it."""
    whole = {name: value.clone() for name, value in network().state_dict().items()}
    whole |= {name.replace("__", ".").lstrip("_"): value for name, value in changed.items()}
    return {name: value for name, value in whole.items() if value is not None}


def saved(content: object, **options: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def load(path: Path) -> nn.Sequential:
    filled = network()
    weights.fill(filled, weights.read(path), path)
    return filled


def refused(path: Path, said: str = "") -> None:
    """Check that a file is refused by its name, and that the network stays as it was."""
    filled, before = network(), network().state_dict()
    with pytest.raises(UserError, match=rf"(?s)net\.pth.*{said}") as caught:
        weights.fill(filled, weights.read(path), path)
    assert all(torch.equal(value, before[name]) for name, value in filled.state_dict().items())
    assert len(str(caught.value)) < 1500


def test_the_genuine_one_is_filled(tmp_path: Path) -> None:
    torch.save(state(_0__bias=torch.tensor([1.0, 2.0])), tmp_path / "net.pth")
    assert load(tmp_path / "net.pth")[0].bias.tolist() == [1.0, 2.0]


def test_safetensors_are_recognised_by_their_content(tmp_path: Path) -> None:
    save_file(state(_0__bias=torch.tensor([1.0, 2.0])), tmp_path / "net.pth")
    assert load(tmp_path / "net.pth")[0].bias.tolist() == [1.0, 2.0]


# -- files ------------------------------------------------------------------------------------------------------------

GOOD, OLD = saved(state()), saved(state(), _use_new_zipfile_serialization=False)


def rezipped(method: int = zipfile.ZIP_STORED, more: dict[str, bytes] | None = None) -> bytes:
    """The genuine file, packed again."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(GOOD)) as source, zipfile.ZipFile(file, "w", method) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
        for name, content in (more or {}).items():
            target.writestr(name, content)
    return file.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


def npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, weight=np.ones(3))
    return file.getvalue()


def tarred() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("storages"), io.BytesIO())
    return file.getvalue()


SAFETENSORS = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
SAFE = struct.pack("<Q", len(SAFETENSORS)) + SAFETENSORS + b"\0" * 4
FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "an empty file"),
    "zeros": (lambda: b"\0" * 5000, "nothing but zeros"),
    "a web page": (lambda: b"<!DOCTYPE html><html>Sign in</html>", "a web page"),
    "a pointer of Git LFS": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
    "safetensors of another network": (lambda: SAFE, "1 unknown: w"),
    "safetensors, cut": (lambda: SAFE[:-1], "damaged"),
    "safetensors, cut in the header": (lambda: SAFE[:30], "damaged"),
    "safetensors that point outside": (lambda: SAFE.replace(b"[0, 4]", b"[0, 9]"), "damaged"),
    "HDF5": (lambda: b"\x89HDF\r\n\x1a\n" + b"\0" * 500, "an HDF5 file"),
    "GGUF": (lambda: b"GGUF\3\0\0\0" + b"\0" * 500, "a GGUF file"),
    "ONNX": (lambda: b"\x08\x08\x12\x07pytorch\x1a\x052.1.0:" + b"\0" * 500, "damaged"),
    "an .npz file": (npz, "an .npz file"),
    "an .npy file": (lambda: b"\x93NUMPY\1\0v\0" + b" " * 200, "a NumPy array"),
    "TorchScript": (lambda: rezipped(more={"archive/constants.pkl": b"\x80\2)."}), "TorchScript"),
    "a zip of images": (lambda: zipped({"a.jpg": b"\xff\xd8\xff"}), "another kind of zip archive"),
    "an empty zip": (lambda: zipped({}), "an empty zip archive"),
    "a tar archive": (tarred, "a tar archive"),
    "gzip": (lambda: b"\x1f\x8b\x08" + b"\0" * 500, "gzip data"),
    "a JPEG image": (lambda: b"\xff\xd8\xff\xe0\0\x10JFIF" + b"\0" * 500, "a JPEG image"),
    "text": (lambda: b"404: Not Found\n", "damaged"),
    "a pickle of arrays": (lambda: pickle.dumps({"weight": np.ones(3)}), "more than tensors"),
    "a pickle of numbers": (lambda: pickle.dumps({"weight": [1.0]}), ""),
    "a pickled network": (lambda: saved(network()), "more than tensors"),
    "cut in the middle": (lambda: GOOD[: len(GOOD) // 2], "damaged"),
    "cut at the end": (lambda: GOOD[:-30], "damaged"),
    "without its beginning": (lambda: GOOD[100:], "damaged"),
    "of the old format, cut": (lambda: OLD[:-10], "damaged"),
    "of the old format, cut in the names": (lambda: OLD[:300], "damaged"),
    "compressed records": (lambda: rezipped(zipfile.ZIP_DEFLATED), "compressed or overlap"),
    "a record of zeros, compressed": (
        lambda: rezipped(zipfile.ZIP_DEFLATED, {"archive/data/99": b"\0" * (1 << 22)}), "compressed or overlap"
    ),
    "a record that is not there": (lambda: GOOD.replace(b"archive/data/0", b"archive/data/x"), "damaged"),
    "a list": (lambda: saved([torch.ones(3)]), "no named tensors"),
    "one tensor": (lambda: saved(torch.ones(3)), "no named tensors"),
    "no tensors": (lambda: saved({}), "no named tensors"),
    "an empty state": (lambda: saved({"state_dict": {}}), "no named tensors"),
    "an optimiser": (lambda: saved({"state": {0: {"step": torch.ones(1)}}, "param_groups": []}), "no named tensors"),
    "states in states": (lambda: saved({"model": {"encoder": state()}}), "no named tensors"),
    "numbers next to tensors": (lambda: saved({**state(), "epoch": 3}), "no named tensors"),
    "None next to tensors": (lambda: saved({**state(), "more": None}), "no named tensors"),
}  # fmt: skip


@pytest.mark.bad_input("weights", "damaged or another format")
@pytest.mark.parametrize(("make", "said"), FILES.values(), ids=FILES)
def test_a_file_that_is_damaged_or_of_another_format_is_refused(
    tmp_path: Path, make: Callable[[], bytes], said: str
) -> None:
    (tmp_path / "net.pth").write_bytes(make())
    refused(tmp_path / "net.pth", said)


@pytest.mark.bad_input("weights", "damaged or another format")
@pytest.mark.parametrize("kind", ["a folder", "a named pipe", "a device"])
def test_what_is_no_file_is_refused(tmp_path: Path, kind: str) -> None:
    make = {"a folder": Path.mkdir, "a named pipe": os.mkfifo, "a device": lambda path: path.symlink_to("/dev/zero")}
    make[kind](tmp_path / "net.pth")
    refused(tmp_path / "net.pth", kind)


# -- tensors ----------------------------------------------------------------------------------------------------------


def of(kind: Callable[[Tensor], Tensor], name: str = "0.weight") -> Callable[[], State]:
    def make() -> State:
        with warnings.catch_warnings(action="ignore"):
            whole = state()
            return whole | {name: kind(whole[name])}

    return make


def with_first(value: float, name: str = "0.weight") -> Callable[[], State]:
    def make() -> State:
        whole = state()
        whole[name].view(-1)[0] = value
        return whole

    return make


class Own(Tensor):
    """A class of tensors that torch does not know."""


KINDS: dict[str, tuple[Callable[[], State], str]] = {
    "sparse": (of(Tensor.to_sparse), "1 sparse: 0.weight"),
    "sparse rows": (of(Tensor.to_sparse_csr), "1 sparse: 0.weight"),
    "quantised": (of(lambda value: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8)), "0.weight|damaged"),
    "complex": (of(lambda value: value + 1j), "1 complex: 0.weight"),
    "complex without an imaginary part": (of(lambda value: value + 0j), "1 complex: 0.weight"),
    "without values": (of(lambda value: value.to("meta")), "1 without values: 0.weight|damaged"),
    "nested": (of(lambda value: torch.nested.nested_tensor([value, value])), "0.weight|damaged"),
    "of a class of its own": (of(lambda value: value.as_subclass(Own)), "more than tensors"),
    "64-bit integers": (of(Tensor.long), "1 of the type int64, expected floats: 0.weight"),
    "8-bit integers": (of(lambda value: value.to(torch.int8)), "of the type int8"),
    "bytes": (of(lambda value: value.to(torch.uint8)), "of the type uint8"),
    "bools": (of(Tensor.bool), "of the type bool"),
    "8-bit floats": (of(lambda value: value.to(torch.float8_e4m3fn)), "float8"),
    "double precision that does not fit": (of(lambda value: value.double() / 3), "float64, which does not fit"),
    "double precision beyond single": (of(lambda value: value.double() * 1e300), "of the type float64"),
    "not a number": (with_first(float("nan")), "1 not finite: 0.weight"),
    "infinity": (with_first(float("inf")), "1 not finite: 0.weight"),
    "minus infinity": (with_first(float("-inf"), "0.bias"), "1 not finite: 0.bias"),
    "not a number in a variance": (with_first(float("nan"), "1.running_var"), "1 not finite: 1.running_var"),
    "infinity in half precision": (of(lambda value: (value * 1e9).half()), "1 not finite: 0.weight"),
    "a negative variance": (with_first(-0.1, "1.running_var"), "1 negative: 1.running_var"),
    "a negative counter": (with_first(-1, "1.num_batches_tracked"), "1 negative: 1.num_batches_tracked"),
    "a counter of floats": (of(Tensor.float, "1.num_batches_tracked"), "of the type float32, expected integers"),
    "a counter of bools": (of(Tensor.bool, "1.num_batches_tracked"), "of the type bool, expected integers"),
    "all of them complex": (lambda: {name: value + 1j for name, value in state().items()}, "7 complex: .*, \\.\\.\\."),
}  # fmt: skip


@pytest.mark.bad_input("weights", "wrong kinds of tensors")
@pytest.mark.parametrize(("make", "said"), KINDS.values(), ids=KINDS)
def test_tensors_that_no_trained_network_has_are_refused(tmp_path: Path, make: Callable[[], State], said: str) -> None:
    with warnings.catch_warnings(action="ignore"):
        torch.save(make(), tmp_path / "net.pth")
    refused(tmp_path / "net.pth", said)


TERA = torch.zeros(1).expand(1 << 38)
NAMES: dict[str, tuple[Callable[[], object], str]] = {
    "integers": (lambda: dict(enumerate(state().values())), "no named tensors"),
    "one integer": (lambda: {**state(), 0: torch.ones(1)}, "no named tensors"),
    "tuples": (lambda: {("0", "weight"): torch.ones(2, 3)}, "no named tensors"),
    "bytes": (lambda: {name.encode(): value for name, value in state().items()}, "no named tensors"),
    "None": (lambda: {**state(), None: torch.ones(1)}, "no named tensors"),
    "an empty name": (lambda: {**state(), "": torch.ones(1)}, "no named tensors"),
    "a prefix": (lambda: {f"module.{name}": value for name, value in state().items()}, "unknown: module.0.weight"),
    "upper case": (lambda: {name.upper(): value for name, value in state().items()}, "unknown: 0.WEIGHT"),
    "a blank": (lambda: {f"{name} ": value for name, value in state().items()}, "missing: 0.weight"),
    "a missing bias": (lambda: state(_0__bias=None), "1 missing: 0.bias"),
    "missing statistics": (lambda: state(_1__running_var=None, _1__running_mean=None), "2 missing: 1.running_mean"),
    "one more": (lambda: state(more=torch.ones(1)), "1 unknown: more"),
    "a name of a megabyte": (lambda: state(**{"x" * (1 << 20): torch.ones(1)}), "1 unknown: xxx"),
    "an escape sequence": (lambda: state(**{"\x1b[2J": torch.ones(1)}), "1 unknown"),
    "fifty more": (lambda: state(**{f"x{i}": torch.ones(1) for i in range(50)}), "50 unknown: x0, x1, x2, \\.\\.\\."),
    "transposed": (lambda: state(_0__weight=torch.ones(3, 2)), r"0.weight \(3, 2\), expected \(2, 3\)"),
    "flat": (lambda: state(_0__weight=torch.ones(6)), r"0.weight \(6,\), expected \(2, 3\)"),
    "a number for a vector": (lambda: state(_0__bias=torch.tensor(1.0)), r"0.bias \(\), expected \(2,\)"),
    "one number for two": (lambda: state(_0__bias=torch.ones(1)), r"0.bias \(1,\), expected \(2,\)"),
    "a vector for a number": (lambda: state(_1__num_batches_tracked=torch.ones(2).long()), "of another shape"),
    "two leading axes": (lambda: state(_0__bias=torch.ones(1, 1, 2)), r"0.bias \(1, 1, 2\), expected"),
    "a trailing axis": (lambda: state(_0__bias=torch.ones(2, 1)), r"0.bias \(2, 1\), expected"),
    "empty": (lambda: state(_0__bias=torch.ones(0)), r"0.bias \(0,\), expected"),
    "a terabyte from one number": (lambda: state(_0__bias=TERA), r"0.bias \(274877906944,\), expected"),
    "one more of a terabyte": (lambda: state(more=TERA), "1 unknown: more"),
}  # fmt: skip


@pytest.mark.bad_input("weights", "wrong names and shapes")
@pytest.mark.parametrize(("make", "said"), NAMES.values(), ids=NAMES)
def test_tensors_with_other_names_or_shapes_are_refused(tmp_path: Path, make: Callable[[], object], said: str) -> None:
    torch.save(make(), tmp_path / "net.pth")
    refused(tmp_path / "net.pth", said)


HARMLESS: dict[str, Callable[[State], object]] = {
    "half precision": lambda whole: whole | {"0.weight": whole["0.weight"].half()},
    "bfloat16": lambda whole: whole | {"0.weight": whole["0.weight"].bfloat16()},
    "double precision that fits": lambda whole: whole | {"0.weight": whole["0.weight"].double()},
    "a part of a larger storage": lambda whole: whole | {"0.weight": torch.cat([whole["0.weight"]] * 2)[2:]},
    "transposed storage": lambda whole: whole | {"0.weight": whole["0.weight"].t().contiguous().t()},
    "parameters": lambda whole: whole | {"0.weight": nn.Parameter(whole["0.weight"])},
    "a smaller counter": lambda whole: whole | {"1.num_batches_tracked": torch.tensor(0, dtype=torch.int32)},
    "an ordered state in a wrapper": lambda whole: {"epoch": 3, "state_dict": OrderedDict(whole)},
    "a variance of 0": lambda whole: whole,
}


@pytest.mark.parametrize("change", HARMLESS.values(), ids=HARMLESS)
def test_a_file_with_harmless_oddities_is_filled_right(tmp_path: Path, change: Callable[[State], object]) -> None:
    whole = state(_0__weight=torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), _1__running_var=torch.tensor([0.0, 1.0]))
    torch.save(change(whole), tmp_path / "net.pth")
    filled = load(tmp_path / "net.pth").state_dict()
    assert all(torch.equal(filled[name], value) and filled[name].dtype == value.dtype for name, value in whole.items())
