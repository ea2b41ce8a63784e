"""The log of a unit: its output, and a line whenever it starts, resumes, scores an epoch or ends.

Every worker that runs the unit appends to the file. Logging is best effort: if the log cannot be written, the unit
continues, and a disk error is raised only when the record cannot be written.
"""

import contextlib
import os
import socket
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from benchmark.core.records import JsonObject, not_a_link

NAME = "log"
TAIL_CHARACTERS = 2000


def this_worker() -> JsonObject:
    """This process: `host`, `pid` and `worker`, the name that the executor gave it in `BENCHMARK_WORKER`."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "worker": os.environ.get("BENCHMARK_WORKER", "driver")}


def note(unit: Path, text: str) -> None:
    """Append a line with the time to the log in the folder `unit`."""
    with contextlib.suppress(OSError), open(unit / NAME, "a", encoding="utf-8", opener=not_a_link) as log:
        log.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {text}\n")


def tail(path: Path) -> str:
    """The end of a log; an empty string if there is none."""
    try:
        with open(path, "rb") as log:
            log.seek(max(0, path.stat().st_size - TAIL_CHARACTERS))
            return log.read().decode("utf-8", errors="replace").strip()
    except OSError:
        return ""


@contextlib.contextmanager
def recording(unit: Path, capture: bool) -> Iterator[None]:
    """Log who runs the unit, how it ends (with the traceback of an exception), and what is printed in between.

    Args:
        unit: folder of the unit.
        capture: whether to redirect this process's output into the log; True for a worker that runs one unit at a time,
            False for the driver.
    """
    here = this_worker()
    with contextlib.suppress(OSError):
        unit.mkdir(parents=True, exist_ok=True)
    note(unit, f"start: {here['worker']} on {here['host']}, process {here['pid']}")
    with contextlib.ExitStack() as stack:
        if capture:
            with contextlib.suppress(OSError):
                stack.enter_context(_redirected_output(unit / NAME))
        try:
            yield
        except (Exception, SystemExit):  # a plug-in's sys.exit is a defect, too
            note(unit, f"failed\n{traceback.format_exc()}")
            raise
        except BaseException as stop:
            note(unit, f"stopped: {type(stop).__name__}")
            raise
    note(unit, "end")


@contextlib.contextmanager
def _redirected_output(path: Path) -> Iterator[None]:
    """Redirect standard output and error to a file, including what C code and child processes print."""
    with open(path, "ab", buffering=0, opener=not_a_link) as log:
        _flush()
        originals = [os.dup(1), os.dup(2)]
        for descriptor in (1, 2):
            os.dup2(log.fileno(), descriptor)
    try:
        yield
    finally:
        _flush()
        for descriptor, original in zip((1, 2), originals, strict=True):
            os.dup2(original, descriptor)
            os.close(original)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # a closed stream raises ValueError
            stream.flush()
