"""How a command's process begins, and how signals end it: at any moment with one line and a status, never a traceback.

Ctrl-C, SIGTERM, a closed terminal and a used-up limit of CPU time end the process at once with the status 128 + the
signal's number, as a shell reports it; files are complete or absent at any moment, so this needs no warning. Only
while units run, a signal is raised as `Stopped`, so that workers are ended and a cluster's jobs are cancelled first.
Elsewhere an exception would be shown as a traceback, or be swallowed by a library. This module imports next to nothing,
so that a command handles signals from its start.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator

from benchmark.core.errors import GO_ON, UserError

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGXCPU")  # not all systems have the last two
_PR_SET_PDEATHSIG = 1  # from Linux's <sys/prctl.h>
SIGNALS = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))


class Stopped(KeyboardInterrupt):
    """A signal that ends the command.

    Args:
        number: the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def begin() -> None:
    """Prepare the standard streams and the signals of a command's process; do nothing in a program that imports us.

    A stream that is closed would give its number to the next file that is opened, and everything printed would go
    there: it becomes the null device. A character that the encoding of a stream lacks is printed as an escape.
    """
    if not _runs_a_command():
        return
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    _listen(_end)


def check_folder() -> None:
    """Check that the current folder exists.

    Raises:
        UserError: it was deleted, or cannot be read.
    """
    try:
        os.getcwd()
    except OSError as error:
        raise UserError(
            f"The current folder cannot be used ({error.strerror}). Change to another one with cd, then run the same "
            "command again."
        ) from error


def check_temporary_folder() -> None:
    """Check that there is a folder for temporary files, which libraries look for when they are imported.

    Raises:
        UserError: none can be written.
    """
    import tempfile

    try:
        tempfile.gettempdir()
    except OSError as error:
        raise UserError(
            f"{error.strerror}: they cannot be written, or their disk is full. Free some space, or name another folder "
            "in the environment variable TMPDIR."
        ) from error


def memory_limit() -> int | None:
    """The limit of this process's memory in bytes, as set by `ulimit -v`; None without one."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if soft == resource.RLIM_INFINITY else soft


def begin_worker() -> None:
    """Let Ctrl-C end this process quietly, as SIGTERM does: its driver says what happened."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def end_with_parent(number: int = signal.SIGTERM) -> None:
    """Ask Linux to end this process when the thread that started it ends; elsewhere do nothing.

    Args:
        number: the signal that ends it.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


@contextlib.contextmanager
def stopped_by_exception() -> Iterator[None]:
    """Raise the first signal in this block as `Stopped`; a second one, during the clean-up, ends the process at once.

    Raises:
        Stopped: a signal arrived, even if a library turned the exception into another one.
    """
    before = {number: signal.getsignal(number) for number in SIGNALS}
    received: list[int] = []

    def stop(number: int, _: object) -> None:
        received.append(number)
        _listen(_end)
        raise Stopped(number)

    _listen(stop)
    try:
        yield
    except Exception:
        if received:
            raise Stopped(received[0]) from None
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def reason(number: int) -> str:
    """What a user reads when a signal has ended the command.

    Args:
        number: the signal.
    """
    used_up = number == getattr(signal, "SIGXCPU", None)
    return f"Stopped{': the limit of CPU time (ulimit -t) is used up' if used_up else ''}. {GO_ON}"


def _runs_a_command() -> bool:
    """Whether this process was started as `dmlbench` or as `python -m` of this package."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    name = spec.name if spec is not None else os.path.basename(sys.argv[0])
    return name.partition(".")[0] in ("benchmark", "dmlbench")


def _listen(handler: "signal._HANDLER") -> None:
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as `nohup` and a shell's `&` ask for
            signal.signal(number, handler)


def _end(number: int, _: object) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"\n{reason(number)}\n".encode())
    os._exit(128 + number)
