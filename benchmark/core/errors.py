"""Errors of a command; the type of the exception decides what the user sees.

A `UserError` is a problem that the user can fix, and only its message is printed. The same holds for an `OSError` about
a file or a disk that cannot be used. Any other exception is a defect and is shown with its traceback.
"""

import errno

GO_ON = "Nothing finished is lost: the same command resumes from here."
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
LIMITS = {errno.EMFILE: "-n", errno.EFBIG: "-f"}  # open files of a process, size of a file
IN_THE_WAY = (errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY)  # a folder in place of a file, or the other way round
NO_ACCESS = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)


class UserError(Exception):
    """A problem that the user of a command can fix; the message names it, the allowed values and the next command.

    It derives from `Exception` alone, so that an `except ValueError` does not catch it by mistake.
    """


class IncompleteError(Exception):
    """A command did all it could, but some results are missing through no fault of the user."""


class WorkerDiedError(RuntimeError):
    """A worker ended in the middle of a unit: killed, cancelled, out of memory or time, or its machine was lost.

    The unit can be tried again: it resumes from its checkpoint.
    """


def message_for_user(error: BaseException) -> str | None:
    """The message to print for an error that the user can fix; None for a defect, which needs its traceback."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, WorkerDiedError):
        return f"{error}\nIf memory ran out, use fewer workers (executor.workers=1). {GO_ON}"
    if is_out_of_memory(error):
        return f"Memory ran out ({error}). Use fewer workers (executor.workers=1) or a smaller batch. {GO_ON}"
    return _environment_message(error) if isinstance(error, OSError) else None


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether Python or PyTorch could not allocate memory.

    Args:
        error: any exception.
    """
    on_gpu = type(error).__name__ == "OutOfMemoryError"  # PyTorch's, which is not imported here
    return isinstance(error, MemoryError) or on_gpu or "DefaultCPUAllocator: " in str(error)  # which has no type


def _environment_message(error: OSError) -> str | None:
    """The message for a full disk, a limit, or a file that cannot be accessed; None for any other error of the system.

    If the error names no file, only a full disk gets a message; otherwise the traceback says more.
    """
    from benchmark.core.cache_dir import ANOTHER, in_cache  # here, since it has an error for the user itself

    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    what = ": ".join(filter(None, [error.strerror, " -> ".join(names)]))
    if error.errno in DISK_FULL:
        cache = f", or {ANOTHER}" if names and in_cache(names[0]) else ""
        return f"The disk is full ({what}). Free some space{cache}. {GO_ON}"
    if error.errno in LIMITS:
        return f"A limit of this session is reached ({what}): raise it with ulimit {LIMITS[error.errno]}. {GO_ON}"
    if names and in_cache(names[0]):
        return f"The cache cannot be used ({what}). Make its folder readable and writable, or {ANOTHER}."
    if error.errno in (*NO_ACCESS, *IN_THE_WAY, errno.ENAMETOOLONG) and names:
        return (
            f"A file or folder cannot be used ({what}). Change its permissions, or name another one: "
            "results_dir=FOLDER for results, dataset.module.root=FOLDER for data."
        )
    return None
