"""The folders and files that a user names on the command line, in the environment or in a configuration."""

import errno
import os
import re
import stat
from pathlib import Path

from benchmark.core import formats
from benchmark.core.errors import UserError
from benchmark.core.escape import shown
from benchmark.core.invocation import arguments

ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")  # https://..., s3://...; pathlib drops the second slash
LONGEST_BELOW = 512  # characters that are kept free for paths below a folder
MOST_BYTES = 255  # of one part of a path, on all common file systems


def usable_path(key: str, value: object, what: str = "a file or folder") -> Path:
    """A path that the user named, with `~` replaced; nothing needs to be there.

    Args:
        key: the configuration key or environment variable that holds it.
        value: the path, absolute or relative to the working directory.
        what: what it should be the path of.

    Raises:
        UserError: the value is no text, is empty or an address, names no user, is too long, or its links lead in a
            circle.
    """
    if not isinstance(value, str):
        raise UserError(f"{key}={'null' if value is None else value}: give the path of {what}.")
    if not value.strip():
        raise UserError(f"{key} is empty: name {what}, or leave it out.")
    if any(ord(char) < 32 or ord(char) == 127 or 0xD800 <= ord(char) < 0xE000 for char in value):
        raise UserError(f"{key}={shown(value)} contains a character that cannot be printed. {_another(key)}")
    if ADDRESS.match(value):
        raise UserError(f"{key}={shown(value)} is an address: name {what} on this machine.")
    try:
        path = Path(value).expanduser()
    except RuntimeError:  # the user has no home directory
        raise UserError(
            f"{key}={shown(value)}: there is no home directory for {value.partition('/')[0]} here. Write the path "
            "itself, or ./~ for a folder with that name."
        ) from None
    if (longest := max((len(os.fsencode(part)) for part in path.parts), default=0)) > MOST_BYTES:
        raise UserError(f"{key}={shown(value)}: a part of it has {longest} bytes; at most {MOST_BYTES} are possible.")
    if len(os.fsencode(path.absolute())) + LONGEST_BELOW > 4096:
        raise UserError(f"{key}={shown(value)} is too long for a path. {_another(key)}")
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass
    except OSError as error:
        raise _unusable(key, value, error) from error
    return path


def usable_folder(key: str, value: str) -> str:
    """A folder that the user named, with `~` replaced; it need not exist.

    Args:
        key: the configuration key or environment variable that holds it.
        value: the folder, absolute or relative to the working directory.

    Raises:
        UserError: the value is empty or an address, names no user, is too long, or is something other than a folder.
    """
    path = usable_path(key, value, "a folder")
    try:
        above = next(folder for folder in (path, *path.absolute().parents) if os.path.lexists(folder))
        mode = above.stat().st_mode
    except (FileNotFoundError, StopIteration):  # a dangling link
        raise UserError(f"{key}={shown(value)}: {above} is a link to what does not exist. {_another(key)}") from None
    except OSError as error:
        raise _unusable(key, value, error) from error
    if not stat.S_ISDIR(mode):
        it, what = "it" if above == path else above, formats.kind_of(mode) or "a file"
        raise UserError(f"{key}={shown(value)}: {it} is {what}, not a folder. {_another(key)}")
    return str(path)


def usable_file(key: str, value: str) -> str:
    """A file that the user named, with `~` replaced; if it does not exist, its reader says so.

    Args:
        key: the configuration key that holds it.
        value: the file, absolute or relative to the working directory.

    Raises:
        UserError: the value is empty or an address, names no user, is too long, or is something other than a file.
    """
    path = usable_path(key, value, "a file")
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return str(path)
    except OSError as error:
        raise _unusable(key, value, error) from error
    if special := formats.kind_of(mode):
        raise UserError(f"{key}={shown(value)}: it is {special}, not a file. {_another(key, 'FILE')}")
    return str(path)


def _unusable(key: str, value: str, error: OSError) -> UserError:
    reason = "its links lead in a circle" if error.errno == errno.ELOOP else error.strerror
    return UserError(f"{key}={shown(value)} cannot be used: {reason}. {_another(key)}")


def _another(key: str, what: str = "FOLDER") -> str:
    return f"Name another one: {key}={what}" if key.isupper() else f"Name another one: {arguments({key: what})}"
