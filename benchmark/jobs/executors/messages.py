"""How a unit ended: as JSON between processes, and as an exception in the driver.

Nothing here is pickled: messages from another machine are parsed as JSON and read key by key.
"""

import traceback

from benchmark.core.errors import UserError, WorkerDiedError, is_out_of_memory, message_for_user
from benchmark.core.records import JsonObject, LockedError
from benchmark.jobs.executors import Report, RunUnit


class WorkerStartError(UserError):
    """A worker ends before it can take a unit; trying again will not help."""


class UnitFailedError(RuntimeError):
    """A unit failed through a defect in its worker; the message ends with the worker's traceback."""


_KINDS = {kind.__name__: kind for kind in (UserError, WorkerDiedError, WorkerStartError, UnitFailedError)}


def run_and_report(run: RunUnit, spec: JsonObject, send: Report) -> None:
    """Do a unit and send its progress, any number of times, and then its result or its error.

    Args:
        run: does the unit; receives the spec and a function to report progress with.
        spec: the unit.
        send: receives `{"progress": ...}`, `{"result": ...}` or `{"error": ...}`; raises `TypeError` for what is not
            JSON.
    """
    try:
        send({"result": run(spec, lambda progress: send({"progress": progress}))})
    except (Exception, SystemExit) as error:  # the driver decides what it means
        send({"error": error_to_json(error)})


def error_to_json(error: BaseException) -> JsonObject:
    """An exception as `type` and `message`.

    An error that the user can put right becomes a `UserError` with its message; a lack of memory, or a lock that
    another process keeps, a `WorkerDiedError`, so that the unit is tried again; a defect a `UnitFailedError` with its
    traceback. The exceptions of this module keep their type.
    """
    if type(error) in _KINDS.values():
        return {"type": type(error).__name__, "message": str(error)}
    if is_out_of_memory(error):
        said = f"A worker ran out of memory in the middle of a unit: {type(error).__name__}: {error}"
        return {"type": WorkerDiedError.__name__, "message": said}
    if isinstance(error, LockedError):
        return {"type": WorkerDiedError.__name__, "message": str(error)}
    if (message := message_for_user(error)) is not None:
        return {"type": UserError.__name__, "message": message}
    text = "".join(traceback.format_exception(error))
    return {"type": UnitFailedError.__name__, "message": f"{type(error).__name__}: {error}\n{text}"}


def error_from_json(body: JsonObject) -> Exception:
    """The exception that `error_to_json` has described."""
    return _KINDS[body["type"]](body["message"])


def result_of(message: JsonObject) -> JsonObject:
    """The result in a unit's last message.

    Raises:
        UserError: the unit stopped at something that the user can put right.
        WorkerDiedError: its worker died.
        WorkerStartError: no worker could be started for it.
        UnitFailedError: it failed through a defect.
    """
    if "error" in message:
        raise error_from_json(message["error"])
    result: JsonObject = message["result"]
    return result
