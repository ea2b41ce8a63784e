"""A unit's own log: what it prints and logs, and a line when it starts, goes on, is scored and ends.

The file only grows, over every worker that works on the unit. It is a courtesy: where it cannot be written, the unit
goes on, and the record that cannot be written either says so.
"""

import contextlib
import os
import socket
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAME = "log"
TAIL_CHARACTERS = 2000


def me() -> dict[str, Any]:
    """Who works here: host, process, and the name that the executor gave the worker in `BENCHMARK_WORKER`."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "worker": os.environ.get("BENCHMARK_WORKER", "driver")}


def note(unit: Path, text: str) -> None:
    """Append a line with the time to a unit's log."""
    with contextlib.suppress(OSError), open(unit / NAME, "a", encoding="utf-8") as log:
        log.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {text}\n")


def tail(path: Path) -> str:
    """The end of a log; nothing where there is none."""
    try:
        with open(path, "rb") as log:
            log.seek(max(0, path.stat().st_size - TAIL_CHARACTERS))
            return log.read().decode("utf-8", errors="replace").strip()
    except OSError:
        return ""


@contextlib.contextmanager
def kept(unit: Path, capture: bool) -> Iterator[None]:
    """Keep the log for the time of the block: who starts, how it ends, and what is said in between.

    Args:
        unit: its folder.
        capture: whether what this process prints belongs to the unit; it does where a worker does one at a time.
    """
    here = me()
    with contextlib.suppress(OSError):
        unit.mkdir(parents=True, exist_ok=True)
    note(unit, f"start: {here['worker']} on {here['host']}, process {here['pid']}")
    with contextlib.ExitStack() as stack:
        if capture:
            with contextlib.suppress(OSError):
                stack.enter_context(_captured(unit / NAME))
        try:
            yield
        except Exception:
            note(unit, f"failed\n{traceback.format_exc()}")
            raise
        except BaseException as stop:
            note(unit, f"stopped: {type(stop).__name__}")
            raise
    note(unit, "end")


@contextlib.contextmanager
def _captured(path: Path) -> Iterator[None]:
    """Lead standard output and error into a file, also what C and child processes print."""
    with open(path, "ab", buffering=0) as log:
        _flush()
        before = [os.dup(1), os.dup(2)]
        for descriptor in (1, 2):
            os.dup2(log.fileno(), descriptor)
    try:
        yield
    finally:
        _flush()
        for descriptor, kept_open in zip((1, 2), before, strict=True):
            os.dup2(kept_open, descriptor)
            os.close(kept_open)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
