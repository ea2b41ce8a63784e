"""Let a test hold units in mid-training and move the clock. Python imports this module at the start of each process.

The environment variable `INJECTED` names a folder whose files a test changes while processes run:

- `hold`: the epoch after which units wait, before they write their next checkpoint, until the file changes or is gone.
- `clock`: seconds by which `time.time` is ahead; only heeded by processes at whose start the file exists.
- `waited`: seconds by which `time.monotonic` is ahead in such processes, so that a test need not wait for them to pass.
"""

import builtins
import math
import os
import re
import time
from typing import Any

FOLDER = os.environ.get("INJECTED", "")
true_open, true_time, true_monotonic = builtins.open, time.time, time.monotonic


def number_in(name: str, default: float) -> float:
    try:
        with true_open(os.path.join(FOLDER, name), encoding="utf-8") as file:
            return float(file.read())
    except FileNotFoundError:
        return default


def last_epoch(checkpoint: str) -> int:
    """The last epoch that the unit of a checkpoint has scored in its current attempt; -1 before the first one."""
    with true_open(os.path.join(os.path.dirname(checkpoint), "log"), encoding="utf-8") as file:
        attempt = file.read().rpartition("start: ")[2]
    return max(map(int, re.findall(r"epoch (\d+)", attempt)), default=-1)


def patient_open(file: Any, *arguments: Any, **options: Any) -> Any:
    if os.path.basename(name := str(file)).startswith(".checkpoint.pt."):
        while last_epoch(name) >= number_in("hold", math.inf):
            time.sleep(0.02)
    return true_open(file, *arguments, **options)


def shifted_time() -> float:
    return true_time() + number_in("clock", 0.0)


def later_monotonic() -> float:
    return true_monotonic() + number_in("waited", 0.0)


if FOLDER:
    builtins.open = patient_open
    if os.path.exists(os.path.join(FOLDER, "clock")):
        time.time, time.monotonic = shifted_time, later_monotonic
