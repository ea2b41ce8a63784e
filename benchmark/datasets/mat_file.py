"""MATLAB files, read in a process of their own: a damaged one makes scipy's reader crash Python, not raise.

A part of `cars196`. Run as a script, this file prints variables as JSON, a list for each.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

MAX_BYTES = 1 << 24  # the genuine files have less than 1 MB
MEMORY_BYTES = 8 << 30  # that a file may claim to need
SECONDS = 120.0


def read_mat(path: Path, *variables: str) -> list[list[Any]]:
    """Variables of a MATLAB file as plain values: text and whole numbers, or mappings of them.

    Args:
        path: of the file.
        variables: their names; of a struct array with the fields to read, as `name:field,field`. Where it lacks one of
            them, the mappings hold None for every field that it has.

    Raises:
        ValueError: the file is no MATLAB file, is damaged, or lacks a variable.
    """
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes, and the genuine file less than 1 MB.")
    command = [sys.executable, "-P", __file__, str(path.absolute()), *variables]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        values = json.loads(done.stdout) if done.returncode == 0 else None
    except (subprocess.TimeoutExpired, ValueError):
        values = None
    if not isinstance(values, list):
        wanted = " and ".join(variable.partition(":")[0] for variable in variables)
        raise ValueError(f"{path} is damaged, or no MATLAB file with {wanted}. Fetch it anew.")
    return values


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, str) else int(value)


def _print(path: str, *variables: str) -> None:
    import numpy as np
    from scipy.io import loadmat

    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    read, values = loadmat(path, squeeze_me=True), []
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
