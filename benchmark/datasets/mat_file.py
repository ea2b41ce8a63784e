"""Read MATLAB files in a separate process: on a damaged file, scipy's reader can crash Python instead of raising.

Used by `cars196`. Run as a script, this file prints variables as JSON, one list per variable.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import TypeAlias

MAX_BYTES = 1 << 24  # the genuine files are smaller than 1 MB
MEMORY_BYTES = 8 << 30  # that a file may claim to need
SECONDS = 120.0
Scalar: TypeAlias = str | int
Value: TypeAlias = Scalar | dict[str, Scalar | None]


def read_mat(path: Path, *variables: str) -> list[list[Value]]:
    """Read variables of a MATLAB file as lists of text, whole numbers, or mappings of them.

    Args:
        path: path of the file.
        variables: name of each variable; for a struct array, followed by the fields to read, as `name:field,field`. If
            it lacks one of them, the mappings have None for every field that exists.

    Raises:
        UserError: the file is not a MATLAB file, is damaged, or lacks a variable.
    """
    from benchmark.core.errors import UserError  # imported here, since the script below runs without the package

    if path.stat().st_size > MAX_BYTES:
        raise UserError(f"{path} has {path.stat().st_size:,} bytes, but the genuine file has less than 1 MB.")
    command = [sys.executable, "-P", __file__, str(path.absolute()), *variables]
    values: list[list[Value]] | None = None
    try:
        done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
        if done.returncode == 0:
            values = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        pass  # the file made the reader hang or print invalid output
    if not isinstance(values, list):
        wanted = " and ".join(variable.partition(":")[0] for variable in variables)
        raise UserError(f"{path} is damaged, or not a MATLAB file with {wanted}. Download it again.")
    return values


def _plain(value: Scalar) -> Scalar:
    return str(value) if isinstance(value, str) else int(value)  # numpy's types are not JSON-serialisable


def _print(path: str, *variables: str) -> None:
    import numpy as np
    from scipy.io import loadmat

    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    read = loadmat(path, squeeze_me=True)
    values: list[list[Value]] = []
    for variable in variables:
        name, _, listed = variable.partition(":")
        array, fields = np.atleast_1d(read[name]), listed.split(",")
        names = array.dtype.names
        if names and set(fields) <= set(names):
            values.append([dict(zip(fields, map(_plain, row), strict=True)) for row in array[fields].tolist()])
        else:
            values.append([dict.fromkeys(names)] if names else [_plain(value) for value in array.tolist()])
    print(json.dumps(values))


if __name__ == "__main__":
    _print(*sys.argv[1:])
