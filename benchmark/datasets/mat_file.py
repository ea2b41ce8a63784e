"""Read MATLAB files in a separate process: on a damaged file, scipy's reader can crash Python instead of raising.

Used by `cars196`. Run as a script, this file prints variables as JSON, one list per variable.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TypeAlias

MAX_BYTES = 1 << 24  # of a file, and of the values in it; the genuine ones have less than 1 MB
MEMORY_BYTES = 1 << 30  # that reading a file may take
SECONDS = 60.0
LARGEST = 10_000_000  # class or bounding box
MAGIC = b"MATLAB 5.0 MAT-file"
Scalar: TypeAlias = str | int
Value: TypeAlias = Scalar | dict[str, Scalar | None]


def read_mat(path: Path, *variables: str) -> list[list[Value]]:
    """Read variables of a MATLAB file as lists of text, whole numbers, or mappings of them.

    Args:
        path: path of the file.
        variables: name of each variable; for a struct array, followed by the fields to read, as `name:field,field`. If
            it lacks one of them, the mappings have None for every field that exists.

    Raises:
        UserError: the file is not a MATLAB file, is damaged, lacks a variable, or has values other than text that can
            be printed and whole numbers from 0 to `LARGEST`.
    """
    # imported here, since the script below runs without the package
    from benchmark.core import formats
    from benchmark.core.errors import UserError

    if special := formats.kind(path):
        raise UserError(f"{path} is {special}, not a MATLAB file. Move it away, or get the file again.")
    try:
        with open(path, "rb") as file:
            head, size = file.read(formats.HEAD), path.stat().st_size
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}. Make it readable, or get it again.") from error
    if size > MAX_BYTES:
        raise UserError(f"{path} has {size:,} bytes, but the genuine file has less than 1 MB.")
    if not head.startswith(MAGIC):
        found = formats.name(head) or "another file"
        raise UserError(f"{path} is not a MATLAB file of version 5, but {found}. Download it again.")
    command = [sys.executable, "-P", __file__, str(path.absolute()), *variables]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # threads need memory
    answer: object = None
    try:
        done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False, env=environment)
        if done.returncode == 0:
            answer = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        pass  # the file made the reader hang or print invalid output
    if isinstance(answer, str):
        raise UserError(f"{path} is not the genuine file: {answer}. Download it again.")
    if not isinstance(answer, list):
        wanted = " and ".join(variable.partition(":")[0] for variable in variables)
        raise UserError(f"{path} is damaged, or not a MATLAB file with {wanted}. Download it again.")
    return answer


class _WrongValueError(Exception):
    """A value that no genuine file has."""


def _plain(value: object) -> Scalar:
    """Convert a value of numpy's to one that JSON has, if it is printable text or a whole number that is small enough.

    MATLAB's usual type of numbers is floating point.
    """
    if isinstance(value, str):
        if not (value and value.isprintable()):
            raise _WrongValueError(f"it holds the text {value[:40]!r}")
        return str(value)
    number = value.item() if hasattr(value, "item") and getattr(value, "size", 1) == 1 else value
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise _WrongValueError(f"it holds a {type(value).__name__} in place of a text or a number")
    if not 0 <= number <= LARGEST or number != int(number):
        raise _WrongValueError(f"it holds the number {number}, which is not a whole one from 0 to {LARGEST:,}")
    return int(number)


def _values(path: str, *variables: str) -> list[list[Value]]:
    import numpy as np
    from scipy.io import loadmat

    read = loadmat(path, squeeze_me=True, appendmat=False, variable_names=[v.partition(":")[0] for v in variables])
    values: list[list[Value]] = []
    for variable in variables:
        name, _, listed = variable.partition(":")
        array, fields = np.atleast_1d(read[name]), listed.split(",")
        if array.size == 0 or array.ndim > 1:
            raise _WrongValueError(f"{name} is not a list, but has the shape {array.shape}")
        names = array.dtype.names
        if names and set(fields) <= set(names):
            values.append([dict(zip(fields, map(_plain, row), strict=True)) for row in array[fields].tolist()])
        else:
            values.append([dict.fromkeys(names)] if names else [_plain(value) for value in array.tolist()])
    return values


def _print(path: str, *variables: str) -> None:
    import scipy.io  # noqa: F401  # before memory is limited

    if sys.platform == "linux":
        import resource

        with open("/proc/self/statm", encoding="ascii") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, used + MEMORY_BYTES))
    try:
        text = json.dumps(_values(path, *variables))
    except _WrongValueError as error:
        text = json.dumps(str(error))
    if len(text) > MAX_BYTES:
        text = json.dumps(f"it holds more than {MAX_BYTES:,} bytes")
    print(text)


if __name__ == "__main__":
    _print(*sys.argv[1:])
