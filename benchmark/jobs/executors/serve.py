"""The worker's half of `local.py` and `slurm.py`: take units, do them, answer.

By default units come from standard input and are answered on standard output until the driver ends. With the arguments
`--unit FILE` there is one unit, the JSON in that file, and the answer is appended to `answer_path(FILE)`.
"""

import ctypes
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmark.jobs.executors.messages import Report, Unit, converse

_PR_SET_PDEATHSIG = 1  # from Linux's <sys/prctl.h>


def serve(run: Callable[[Unit, Report], Unit]) -> None:
    """The worker's side: do units until standard input closes, which ends this process wherever it is; or one.

    SIGTERM ends it at once: a unit's files are whole or absent at any moment, so it needs no warning.

    Args:
        run: does one unit; gets the spec and a function to report progress with.
    """
    if sys.argv[-2:-1] == ["--unit"]:
        _serve_file(run, Path(sys.argv[-1]))
    else:
        _serve_driver(run)


def answer_path(unit: Path) -> Path:
    """The file that gets the answer to the unit in a file."""
    return unit.with_suffix(".answer.jsonl")


def _serve_file(run: Callable[[Unit, Report], Unit], path: Path) -> None:
    """Do the unit in a file; each message is visible to other machines once its line is closed."""

    def say(message: dict[str, Any]) -> None:
        line = json.dumps(message)
        with open(answer_path(path), "a", encoding="utf-8") as file:
            file.write(line + "\n")

    say({"ready": True})
    converse(run, json.loads(path.read_bytes()), say)


def _serve_driver(run: Callable[[Unit, Report], Unit]) -> None:
    """Do units from standard input.

    Standard input and output are taken for the conversation. Whatever else reads gets nothing, and whatever else prints
    goes to standard error, also from C and from child processes.
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

        def tell(said: dict[str, Any], number: int = message["id"]) -> None:
            say({"id": number} | said)

        converse(run, message["spec"], tell)


def _die_with_parent() -> None:
    """Ask Linux for a SIGKILL when the driver's thread ends; elsewhere the closed standard input has to do."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
