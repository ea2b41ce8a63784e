"""How commands fail, by type: what the user can put right, and what is incomplete. Any other exception is a defect."""

import errno
import traceback
from pathlib import Path

GO_ON = "Nothing finished is lost: the same command goes on from here."


class UserError(Exception):
    """Something that the user of a command can put right; the message names it, what is allowed and what to run next.

    Derived from `Exception` alone, so that no `except ValueError` takes it for a defect, nor the other way round.
    """


class IncompleteError(Exception):
    """A story did what it could, and something is missing that no user's mistake explains; it says what."""


def message_for_user(error: BaseException) -> str | None:
    """What an error says to people; None for a defect, which deserves its traceback.

    Our own code raises `ValueError` and `OSError` on purpose only, and with a message for people.
    """
    if isinstance(error, BrokenPipeError):
        return None
    if isinstance(error, UserError):
        return str(error)
    if getattr(error, "worker_died", False):
        return f"{error}\nIf memory ran out, take fewer workers (executor.workers=1). {GO_ON}"
    if isinstance(error, OSError | ValueError) and _is_ours(error):
        return str(getattr(error, "strerror", None) or error)
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT):
        return f"The disk is full: {error}. Free some space. {GO_ON}"
    if number in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR):
        return f"A folder cannot be used: {error}. Make it writable, or name another one with results_dir=FOLDER."
    return None


def _is_ours(error: Exception) -> bool:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return Path(last.filename).resolve().is_relative_to(Path(__file__).resolve().parent.parent)
