"""MATLAB files that are damaged, of another format or hold other values: refused with a sentence.

The script that reads them runs in this process here, except where a file could fill the memory.
"""

import contextlib
import io
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from benchmark.core.errors import UserError
from benchmark.datasets import mat_file
from benchmark.datasets.mat_file import read_mat
from tests.datasets.trees import cell, structs

VARIABLES = ("annotations:fname,class", "class_names")


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the script in this process, without its limit on memory."""

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            try:
                mat_file._print(*command[3:])
            except Exception:  # the script would end with a traceback
                return subprocess.CompletedProcess(command, 1, b"", b"")
        return subprocess.CompletedProcess(command, 0, out.getvalue().encode(), b"")

    if sys.platform == "linux":
        monkeypatch.setattr("resource.setrlimit", lambda *_: None)
    monkeypatch.setattr(mat_file.subprocess, "run", run)


def genuine(
    files: object = ("a.jpg", "b.jpg"), classes: object = (1, 2), names: object = ("AM General", "Audi")
) -> dict:
    rows = structs(fname=list(files), **{"class": list(classes)})
    return {"annotations": rows, "class_names": cell(list(names))}


def saved(path: Path, content: dict, **options: object) -> bytes:
    savemat(path, content, **options)
    return path.read_bytes()


def refused(path: Path, said: str) -> None:
    with pytest.raises(UserError, match=rf"cars_annos\.mat .*{said}") as caught:
        read_mat(path, *VARIABLES)
    assert len(str(caught.value)) < 1000


def test_the_genuine_one_is_read(tmp_path: Path, in_process: None) -> None:
    savemat(tmp_path / "cars_annos.mat", genuine(classes=(np.uint8(1), 2.0)))
    rows = [{"fname": "a.jpg", "class": 1}, {"fname": "b.jpg", "class": 2}]
    assert read_mat(tmp_path / "cars_annos.mat", *VARIABLES) == [rows, ["AM General", "Audi"]]


def header(version: bytes = b"\0\1IM", text: bytes = b"MATLAB 5.0 MAT-file") -> bytes:
    return text.ljust(124) + version


FORMATS: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "empty": (lambda path: b"", "an empty file"),
    "zeros": (lambda path: b"\0" * 500, "nothing but zeros"),
    "a web page": (lambda path: b"<html>Sign in</html>" * 20, "a web page"),
    "version 7.3": (
        lambda path: header(text=b"MATLAB 7.3 MAT-file").ljust(512, b"\0") + b"\x89HDF\r\n\x1a\n", "version 7.3"
    ),
    "HDF5": (lambda path: b"\x89HDF\r\n\x1a\n" + b"\0" * 500, "an HDF5 file"),
    "version 4": (lambda path: saved(path, {"class_names": np.ones(3)}, format="4"), "another file"),
    "a zip archive": (lambda path: b"PK\x03\x04" + b"\0" * 500, "a zip archive"),
    "NumPy": (lambda path: b"\x93NUMPY\1\0" + b"\0" * 500, "a NumPy array"),
    "text": (lambda path: b"a.jpg,1\n" * 50, "another file"),
    "a pickle": (lambda path: b"\x80\4\x95" + b"\0" * 500, "another file"),
    "noise": (lambda path: bytes(range(250, 0, -1)) * 3, "another file"),
    "only a header": (lambda path: header(), "damaged"),
    "half a header": (lambda path: header()[:100], "damaged"),
    "an unknown version": (lambda path: header(b"\0\7IM") + b"\0" * 200, "damaged"),
    "an unknown byte order": (lambda path: header(b"\0\1XX") + b"\0" * 200, "damaged"),
    "cut in the middle": (lambda path: saved(path, genuine())[:-200], "damaged"),
    "cut in the middle, compressed": (lambda path: saved(path, genuine(), do_compression=True)[:-50], "damaged"),
    "a compressed part with flipped bytes": (
        lambda path: (b := saved(path, genuine(), do_compression=True))[:200] + b"\xff\xff\xff" + b[203:], "damaged"
    ),
    "an unknown type of a part": (lambda path: header() + struct.pack("<2L", 99, 8) + b"\0" * 8, "damaged"),
    "a part of 4 GB": (lambda path: header() + struct.pack("<2L", 14, 0xFFFFFFF8) + b"\0" * 64, "damaged"),
    "compressed noise": (lambda path: header() + struct.pack("<2L", 15, 64) + b"\x55" * 64, "damaged"),
    "compressed nothing": (
        lambda path: header() + struct.pack("<2L", 15, len(zlib.compress(b""))) + zlib.compress(b""), "damaged"
    ),
    "other variables": (lambda path: saved(path, {"x": np.ones(3)}), "damaged"),
}  # fmt: skip


@pytest.mark.bad_input("MATLAB file", "damaged or another format")
@pytest.mark.parametrize(("make", "said"), FORMATS.values(), ids=FORMATS)
def test_a_file_that_is_damaged_or_of_another_format_is_refused(
    tmp_path: Path, in_process: None, make: Callable[[Path], bytes], said: str
) -> None:
    path = tmp_path / "cars_annos.mat"
    path.write_bytes(make(tmp_path / "made.mat"))
    refused(path, said)


@pytest.mark.bad_input("MATLAB file", "damaged or another format")
@pytest.mark.parametrize("size", [20_000_000, 10**12])
def test_a_file_that_is_too_large_is_refused(tmp_path: Path, in_process: None, size: int) -> None:
    savemat(tmp_path / "cars_annos.mat", genuine())
    os.truncate(tmp_path / "cars_annos.mat", size)
    refused(tmp_path / "cars_annos.mat", f"{size:,} bytes")


@pytest.mark.bad_input("MATLAB file", "damaged or another format")
@pytest.mark.parametrize("kind", ["a folder", "a named pipe", "a device"])
def test_what_is_no_file_is_refused(tmp_path: Path, in_process: None, kind: str) -> None:
    path = tmp_path / "cars_annos.mat"
    make = {"a folder": Path.mkdir, "a named pipe": os.mkfifo, "a device": lambda path: path.symlink_to("/dev/zero")}
    make[kind](path)
    refused(path, f"{kind}")


def objects(*values: object) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


VALUES: dict[str, Callable[[], dict]] = {
    "a class of 10^9": lambda: genuine(classes=(1, 10**9)),
    "a class of 10^30": lambda: genuine(classes=(1, 1e30)),
    "a class below 0": lambda: genuine(classes=(1, -1)),
    "a class of 1.5": lambda: genuine(classes=(1, 1.5)),
    "a class that is no number": lambda: genuine(classes=(1, float("nan"))),
    "an infinite class": lambda: genuine(classes=(1, float("inf"))),
    "a complex class": lambda: genuine(classes=(1, 2 + 1j)),
    "a class that is a list": lambda: genuine(classes=(1, [1, 2])),
    "a class that is empty": lambda: genuine(classes=(1, [])),
    "a class that is a struct": lambda: genuine(classes=(1, {"id": 2})),
    "a class that is a cell": lambda: genuine(classes=(1, cell(["1", "2"]))),
    "a file that is a list": lambda: genuine(files=("a.jpg", [1.0, 2.0])),
    "a file that is empty": lambda: genuine(files=("a.jpg", "")),
    "a file with a tab": lambda: genuine(files=("a.jpg", "b\t.jpg")),
    "a file with a line break": lambda: genuine(files=("a.jpg", "b\n.jpg")),
    "a file with an escape sequence": lambda: genuine(files=("a.jpg", "\x1b[2J.jpg")),
    "a name that is empty": lambda: genuine(names=("Audi", "")),
    "a name with a line break": lambda: genuine(names=("Audi", "B\nMW")),
    "names in cells in cells": lambda: genuine() | {"class_names": objects("Audi", objects("BMW", "Mini"))},
    "no names": lambda: genuine() | {"class_names": np.empty(0, dtype=object)},
    "an empty array for names": lambda: genuine() | {"class_names": np.empty((0, 0))},
    "names that are a table": lambda: genuine() | {"class_names": np.ones((3, 3))},
    "names that are a sparse matrix": lambda: genuine() | {"class_names": __import__("scipy").sparse.eye(3).tocsc()},
    "annotations that are empty": lambda: genuine() | {"annotations": np.empty((0, 0))},
    "annotations that are a text": lambda: genuine() | {"annotations": ""},
    "annotations that are not there": lambda: {"class_names": cell(["Audi"])},
    "names that are not there": lambda: {"annotations": genuine()["annotations"]},
}  # fmt: skip


@pytest.mark.bad_input("MATLAB file", "wrong values")
@pytest.mark.parametrize("make", VALUES.values(), ids=VALUES)
def test_values_that_no_genuine_file_has_are_refused(
    tmp_path: Path, in_process: None, make: Callable[[], dict]
) -> None:
    savemat(tmp_path / "cars_annos.mat", make())
    refused(tmp_path / "cars_annos.mat", "")


@pytest.mark.slow
def test_a_small_file_that_needs_gigabytes_is_refused(tmp_path: Path) -> None:
    big = struct.pack("<6L", 14, (1 << 31) + 64, 6, 8, 6, 0) + struct.pack("<4L", 5, 8, 1, 1 << 28)
    stream = zlib.compressobj()
    parts = [stream.compress(big), *(stream.compress(b"\0" * (1 << 20)) for _ in range(1 << 11)), stream.flush()]
    body = b"".join(parts)
    (tmp_path / "cars_annos.mat").write_bytes(header() + struct.pack("<2L", 15, len(body)) + body)
    refused(tmp_path / "cars_annos.mat", "damaged")
