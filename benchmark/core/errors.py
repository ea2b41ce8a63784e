"""How a command fails; the type of the exception decides what the user sees.

A `UserError` is something the user can put right, and its message is printed alone. So is an `OSError` that says that a
file or a disk cannot be used. Any other exception is a defect and is shown with its traceback.
"""

import errno

GO_ON = "Nothing finished is lost: the same command resumes from here."
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
NO_ACCESS = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)


class UserError(Exception):
    """Something that the user of a command can put right; the message names it, what is allowed and what to run next.

    Derived from `Exception` alone, so that no `except ValueError` takes it for a defect, nor the other way round.
    """


class IncompleteError(Exception):
    """A command finished what it could, but some results are missing through no mistake of the user's."""


class WorkerDiedError(RuntimeError):
    """A worker ended in the middle of a unit: killed, cancelled, out of memory or time, or its machine was lost.

    The unit can be tried again: it resumes from its checkpoint.
    """


def message_for_user(error: BaseException) -> str | None:
    """The message to print for an error that the user can put right; None for a defect, which needs its traceback."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, WorkerDiedError):
        return f"{error}\nIf memory ran out, use fewer workers (executor.workers=1). {GO_ON}"
    return _environment_message(error) if isinstance(error, OSError) else None


def _environment_message(error: OSError) -> str | None:
    """The message for a full disk or a file that may not be used; None for any other error of the operating system.

    Without a file name, only a full disk can be acted on; for the rest the traceback says more.
    """
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    what = ": ".join(filter(None, [error.strerror, " -> ".join(names)]))
    if error.errno in DISK_FULL:
        return f"The disk is full ({what}). Free some space. {GO_ON}"
    if error.errno in NO_ACCESS and names:
        return (
            f"A file or folder cannot be used ({what}). Change its permissions, or name another one: "
            "results_dir=FOLDER for results, dataset.module.root=FOLDER for data."
        )
    return None
