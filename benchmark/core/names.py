r"""What a name that becomes part of a path may be.

A name consists of at most 64 ASCII letters, digits and underscores, so that it means the same on every file system, in
every shell and in every output format, and so that names can be joined by dashes. The names of Windows' devices are
excluded, since a results folder may be copied there.

>>> re.fullmatch(PATTERN, "my_birds_2") is not None, re.fullmatch(PATTERN, "con"), re.fullmatch(PATTERN, "a-b")
(True, None, None)
"""

import os
import re
import unicodedata
from pathlib import Path

from benchmark.core.errors import UserError
from benchmark.core.escape import shown
from benchmark.core.invocation import arguments

LONGEST = 64  # characters of a name
PATTERN = r"(?!(?i:con|prn|aux|nul|com[0-9]|lpt[0-9])\Z)[A-Za-z0-9][A-Za-z0-9_]{0,63}"


def check_name(key: str, name: str) -> None:
    """Check a name before it becomes part of a path.

    Args:
        key: the configuration key that holds it.
        name: the name.

    Raises:
        UserError: it is not allowed; the message says what is, and suggests a similar name that is.
    """
    if re.fullmatch(PATTERN, name):
        return
    allowed = f"use up to {LONGEST} letters, digits and underscores (ASCII), a letter or digit first"
    if re.fullmatch(PATTERN, f"{name}_"):
        allowed = "Windows reserves this name for a device"
    similar = similar_name(name)
    advice = f" For example: {arguments({key: similar})}" if similar else ""
    raise UserError(f"{key}={shown(name)} becomes part of a path: {allowed}.{advice}")


def similar_name(name: str) -> str:
    """The allowed name that resembles another text most; empty if there is none.

    >>> similar_name("my-data"), similar_name("../../Müller 2"), similar_name("NUL"), similar_name("鳥")
    ('my_data', 'Muller_2', 'NUL_', '')

    Args:
        name: any text.
    """
    ascii_only = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    words = re.sub(r"[^A-Za-z0-9]+", "_", ascii_only).strip("_")[:LONGEST]
    return words if not words or re.fullmatch(PATTERN, words) else f"{words}_"


def joined_names(*names: str) -> str:
    """The allowed names that resemble others most, joined by dashes; dashes within a name stay.

    >>> joined_names("glyphs-small_conv-hpl", "my birds", "run_01")
    'glyphs-small_conv-hpl-my_birds-run_01'

    Args:
        names: any texts; one that resembles no allowed name is left out.
    """
    return "-".join(filter(None, (similar_name(word) for name in names for word in name.split("-"))))


def check_case(path: Path) -> None:
    """Check that no other entry of a folder differs from a path only in upper and lower case.

    Two such folders are one on macOS and Windows, and could not be copied there.

    Args:
        path: a folder that is about to be created; its own existence is no fault.

    Raises:
        UserError: there is such an entry.
    """
    try:
        siblings = os.listdir(path.parent)
    except OSError:  # there is no parent yet, or it cannot be read, which its writer reports
        return
    for other in siblings:
        if other != path.name and other.casefold() == path.name.casefold():
            raise UserError(
                f"{path.parent / other} exists, and {path.name} differs from it only in upper and lower case: on macOS "
                "and Windows, both are one folder. Use the name as it exists, or another one."
            )
