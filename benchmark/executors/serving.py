"""The worker's half of `local.py`: take units from standard input, answer on standard output, end with the driver."""

import ctypes
import errno
import json
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

Unit = dict[str, Any]
Report = Callable[[Unit], None]

_PR_SET_PDEATHSIG = 1  # from Linux's <sys/prctl.h>


def serve(run: Callable[[Unit, Report], Unit]) -> None:
    """The worker's side: do units from standard input until it closes, which ends this process wherever it is.

    Standard input and output are taken for the conversation. Whatever else reads gets nothing, and whatever else prints
    goes to standard error, also from C and from child processes.

    Args:
        run: does one unit; gets the spec and a function to report progress with.
    """
    ears, mouth = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    sys.stdout.flush()  # what was printed before goes to the log too
    sys.stdout = sys.stderr
    _die_with_parent()
    lock, units = threading.Lock(), queue.SimpleQueue[str]()

    def say(message: dict[str, Any]) -> None:
        line = json.dumps(message)
        with lock:
            mouth.write(line + "\n")
            mouth.flush()

    def listen() -> None:
        for line in ears:
            units.put(line)
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    mouth.write("\n")  # something may have been printed without a line end
    say({"ready": True})
    while True:
        message = json.loads(units.get())
        number = message["id"]

        def report(progress: Unit, number: int = number) -> None:
            say({"id": number, "progress": progress})

        try:
            say({"id": number, "result": run(message["spec"], report)})
        except Exception as error:  # the driver decides what it means
            say({"id": number, "error": _described(error)})


def _described(error: Exception) -> dict[str, Any]:
    """An exception as JSON.

    `for_people` marks a sentence: a `ValueError` or `OSError` raised by the package that this file is in, which raises
    them for nothing else, or a full disk. Any other exception is a defect, and needs its traceback.
    """
    kind = next((t.__name__ for t in (OSError, ValueError) if isinstance(error, t)), None)
    frames = traceback.extract_tb(error.__traceback__)
    by_package = Path(frames[-1].filename).resolve().is_relative_to(Path(__file__).resolve().parent.parent)
    number = getattr(error, "errno", None)
    return {
        "type": kind or type(error).__name__,
        "message": str(getattr(error, "strerror", None) or error),
        "traceback": "".join(traceback.format_exception(error)),
        "errno": number,
        "for_people": kind is not None and (by_package or number in (errno.ENOSPC, errno.EDQUOT)),
    }


def _die_with_parent() -> None:
    """Ask Linux for a SIGKILL when the driver's thread ends; elsewhere the closed standard input has to do."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
