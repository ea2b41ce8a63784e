"""The worker's side of `local.py` and `slurm.py`: receive units, do them, send the answers.

By default units arrive on standard input and answers leave on standard output until the driver ends. With the arguments
`--unit FILE` there is one unit, the JSON in that file, and the answer is appended to `answer_path(FILE)`.
"""

import json
import os
import queue
import signal
import sys
import threading
from pathlib import Path

from benchmark.core.process import end_with_parent
from benchmark.core.records import JsonObject
from benchmark.jobs.executors import RunUnit
from benchmark.jobs.executors.messages import run_and_report


def serve(run: RunUnit) -> None:
    """Do units until standard input closes, which ends this process at once; or the one of `--unit FILE`.

    SIGTERM ends it at once, too: a unit's files are complete or absent at any moment, so it needs no warning.

    Args:
        run: does one unit; receives the spec and a function to report progress with.
    """
    if sys.argv[-2:-1] == ["--unit"]:
        _serve_file(run, Path(sys.argv[-1]))
    else:
        _serve_driver(run)


def answer_path(unit: Path) -> Path:
    """The file for the answer to the unit in the file `unit`."""
    return unit.with_suffix(".answer.jsonl")


def _serve_file(run: RunUnit, path: Path) -> None:
    """Do the unit in a file; the file is closed after each line, so that other machines see the message."""

    def send(message: JsonObject) -> None:
        line = json.dumps(message)
        with open(answer_path(path), "a", encoding="utf-8") as file:
            file.write(line + "\n")

    send({"ready": True})
    run_and_report(run, json.loads(path.read_bytes()), send)


def _serve_driver(run: RunUnit) -> None:
    """Do units from standard input.

    Standard input and output are reserved for messages. Everything else that reads gets nothing, and everything else
    that prints, C code and child processes included, goes to standard error.
    """
    requests, responses = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    sys.stdout.flush()  # what was printed before goes to the log too
    sys.stdout = sys.stderr
    end_with_parent(signal.SIGKILL)  # elsewhere than on Linux, the closed standard input has to do
    lock, units = threading.Lock(), queue.SimpleQueue[str]()

    def send(message: JsonObject) -> None:
        line = json.dumps(message)
        with lock:
            responses.write(line + "\n")
            responses.flush()

    def listen() -> None:
        for line in requests:
            units.put(line)
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    responses.write("\n")  # something may have been printed without a line end
    send({"ready": True})
    while True:
        request = json.loads(units.get())

        def answer(message: JsonObject, number: int = request["id"]) -> None:
            send({"id": number} | message)

        run_and_report(run, request["spec"], answer)
