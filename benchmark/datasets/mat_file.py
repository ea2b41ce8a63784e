"""MATLAB files, read in a process of their own: a damaged one makes scipy's reader crash Python, not raise.

A part of `cars196`. Run as a script, this file prints one variable as JSON: a struct array as a list of mappings, with
the values of the fields that were asked for, anything else as a list.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

MAX_BYTES = 1 << 24  # the genuine files have less than 1 MB
MEMORY_BYTES = 8 << 30  # that a file may claim to need
SECONDS = 120.0


def read_mat(path: Path, variable: str, *fields: str) -> list[Any]:
    """A variable of a MATLAB file as plain values: text and whole numbers, or mappings of them.

    Args:
        path: of the file.
        variable: its name.
        fields: of the struct array to read; where it lacks one of them, the mappings hold None for every field it has.

    Raises:
        ValueError: the file is no MATLAB file, is damaged, or lacks the variable.
    """
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes, and the genuine file less than 1 MB.")
    command = [sys.executable, "-P", __file__, str(path.absolute()), variable, *fields]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        values = json.loads(done.stdout) if done.returncode == 0 else None
    except (subprocess.TimeoutExpired, ValueError):
        values = None
    if not isinstance(values, list):
        raise ValueError(f"{path} is damaged, or no MATLAB file with {variable}. Fetch it anew.")
    return values


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, str) else int(value)


def _print(path: str, variable: str, *fields: str) -> None:
    import numpy as np
    from scipy.io import loadmat

    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    array = np.atleast_1d(loadmat(path, squeeze_me=True, variable_names=[variable])[variable])
    names = array.dtype.names
    if names and set(fields) <= set(names):
        values = [dict(zip(fields, map(_plain, row), strict=True)) for row in array[list(fields)].tolist()]
    else:
        values = [dict.fromkeys(names)] if names else [_plain(value) for value in array.tolist()]
    print(json.dumps(values))


if __name__ == "__main__":
    _print(*sys.argv[1:])
