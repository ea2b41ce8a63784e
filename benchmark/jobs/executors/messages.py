"""How a unit ended, as JSON between machines and as an exception for the driver.

Nothing here is pickled: what another machine could have written is read as JSON and taken apart by key.
"""

import errno
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmark.core.errors import UserError

Unit = dict[str, Any]
Report = Callable[[Unit], None]


class WorkerDied(RuntimeError):  # noqa: N818 - reads as what happened
    """A worker ended in the middle of a unit: killed, cancelled, out of memory or time, its machine lost. Try again."""

    worker_died = True


class WorkerCannotStart(ChildProcessError):  # noqa: N818
    """A worker ends before it can take a unit. Trying again will not help."""


class UnitFailed(RuntimeError):  # noqa: N818
    """A unit raised an exception in its worker; the message holds the worker's traceback."""


_OURS = {kind.__name__: kind for kind in (UserError, WorkerDied, WorkerCannotStart, UnitFailed)}


def converse(run: Callable[[Unit, Report], Unit], spec: Unit, say: Report) -> None:
    """Do a unit and say what there is: its progress, any number of times, then its result or its error.

    Args:
        run: does it; gets the spec and a function to report progress with.
        spec: of the unit.
        say: takes `{"progress": ...}`, `{"result": ...}` or `{"error": ...}`, and raises for what is no JSON.
    """
    try:
        say({"result": run(spec, lambda progress: say({"progress": progress}))})
    except Exception as error:  # the driver decides what it means
        say({"error": described(error)})


def described(error: Exception) -> dict[str, Any]:
    """An exception as JSON.

    `for_people` marks a sentence: a `ValueError` or `OSError` raised by the package that this file is in, which raises
    them for nothing else, or a full disk. Any other exception is a defect, and needs its traceback.
    """
    if type(error) in _OURS.values():
        return {"type": type(error).__name__, "message": str(error)}
    if isinstance(error, UserError):
        return {"type": "UserError", "message": str(error)}
    kind = next((t.__name__ for t in (OSError, ValueError) if isinstance(error, t)), None)
    frames = traceback.extract_tb(error.__traceback__)
    by_package = Path(frames[-1].filename).resolve().is_relative_to(Path(__file__).resolve().parents[2])
    number = getattr(error, "errno", None)
    return {
        "type": kind or type(error).__name__,
        "message": str(getattr(error, "strerror", None) or error),
        "traceback": "".join(traceback.format_exception(error)),
        "errno": number,
        "for_people": kind is not None and (by_package or number in (errno.ENOSPC, errno.EDQUOT)),
    }


def result_of(answer: dict[str, Any]) -> Unit:
    """The result in a unit's last message.

    Raises:
        Exception: the one that `described` has described: one of this file's, an `OSError` or `ValueError` with a
            sentence for people, and for anything else `UnitFailed`.
    """
    if "result" in answer:
        return dict(answer["result"])
    error = answer["error"]
    if error["type"] in _OURS:
        raise _OURS[error["type"]](error["message"])
    if error["for_people"]:
        raise OSError(error["errno"], error["message"]) if error["type"] == "OSError" else ValueError(error["message"])
    raise UnitFailed(f"{error['type']}: {error['message']}\n{error['traceback']}")
