"""Turn the paths of a user's list into paths below a folder, in the one spelling by which a data set names its files.

One rule: once `.`, `..` and doubled slashes are resolved in its text, a path must lie below the root, or below the
folder to which the root leads through symbolic links; if it does not, the links in its own folder are resolved too. A
symbolic link may lead out of the root, a name may not. Other paths are refused before any image is opened.
"""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

from benchmark.core.errors import UserError
from benchmark.core.invocation import arguments
from benchmark.core.wording import counted, first_lines

_PLAIN = re.compile(r"[!-~](?:[ -~]*[!-~])?")  # ASCII without blanks around it
_SPECIAL = re.compile(r"[\\%:]|^[~$/]|(?:^|/)\.{0,2}(?:/|$)")  # the last one: an empty part, `.` or `..`
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/|data:")
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")
_VARIABLE = re.compile(r"~[^/]*/|\$\{?\w|%\w+%")


def below(root: Path, home: Path, listed: Sequence[tuple[str, str]]) -> tuple[list[str], tuple[str, ...]]:
    """Return the paths of a list as paths below the root.

    Relative paths are relative to the root. All of them are taken to be relative to the list's own folder instead if
    one would leave the root (`../images/1.jpg`), or if the first one is on disk there and not below the root.

    Args:
        root: folder of the data set, below which all files must lie.
        home: folder of the list.
        listed: where each path was given, and the path itself.

    Returns:
        The paths without `.`, `..` and doubled slashes, and notes on how they were read.

    Raises:
        UserError: a path is an address or is spelled for another system, or paths lead out of the root; the message
            names the first few, and the root with which they would fit.
    """
    special = [not _PLAIN.fullmatch(path) or _SPECIAL.search(path) is not None for _, path in listed]
    from_home = _from_home(root, home, [path for (_, path), odd in zip(listed, special, strict=True) if odd], listed)
    places = _Places(root, home if from_home else root)
    found: list[str] = []
    outside: list[tuple[str, str]] = []
    converted: Counter[str] = Counter()
    for odd, (where, path) in zip(special, listed, strict=True):
        spelled = path
        if odd:
            spelled, how = _as_on_disk(places.base, where, path)
            converted[how] += 1
        inner = spelled if not odd and not from_home else places.relative(spelled)
        if inner is None:
            outside.append((where, spelled))
        else:
            found.append(inner)
    if outside:
        raise UserError(_leads_out(places, len(listed), outside))
    notes = [f"{counted(count, 'path is', 'paths are')} read with {how}" for how, count in converted.items() if how]
    if from_home:
        notes.append(f"relative paths are taken to be relative to the list's folder, {places.base}")
    return found, tuple(notes)


class _Places:
    """Where paths are relative to, and where they must stay.

    Args:
        root: folder of the data set.
        base: folder that relative paths are relative to.
    """

    def __init__(self, root: Path, base: Path) -> None:
        self.root, self.base = os.path.abspath(root), os.path.abspath(base)
        self._roots = [f"{folder.rstrip('/')}/" for folder in dict.fromkeys((self.root, os.path.realpath(root)))]
        self._resolved: dict[str, str] = {}

    def relative(self, path: str) -> str | None:
        """Return a path as one below the root; None if it leads elsewhere or to the root itself."""
        whole = os.path.join(self.base, path)
        full = "/" + os.path.normpath(whole).lstrip("/")
        folder, name = os.path.split(full)
        if ".." in path.split("/") and os.path.realpath(os.path.dirname(whole)) != os.path.realpath(folder):
            return None  # the folder before `..` is a symbolic link, and its parent is elsewhere
        if (inner := self._inner(full)) is not None:
            return inner
        if folder not in self._resolved:
            self._resolved[folder] = os.path.realpath(folder)
        return self._inner(os.path.join(self._resolved[folder], name))

    def _inner(self, full: str) -> str | None:
        return next((full.removeprefix(root) for root in self._roots if full.startswith(root) and full != root), None)


def _from_home(root: Path, home: Path, odd: Sequence[str], listed: Sequence[tuple[str, str]]) -> bool:
    """Whether relative paths are relative to the list's folder rather than to the root."""
    if os.path.abspath(root) == os.path.abspath(home):
        return False
    if any(os.path.normpath(path.replace("\\", "/")).split("/")[0] == ".." for path in odd):
        return True
    first = next((path for _, path in listed if not path.startswith("/")), None)
    return first is not None and not os.path.lexists(root / first) and os.path.lexists(home / first)


def _as_on_disk(base: str, where: str, path: str) -> tuple[str, str]:
    """Return the path if there is such a file, else its one other spelling under which there is, and what differs.

    Raises:
        UserError: there is no such file, and the path is an address or is spelled for another system.
    """
    if os.path.lexists(os.path.join(base, path)):
        return path, ""
    stripped = path.strip()
    slashed = stripped.replace("\\", "/")
    for other, how in (
        (stripped, ""),
        (slashed, "/ in place of \\"),
        (unicodedata.normalize("NFC", slashed), "accents as the disk has them"),
        (unicodedata.normalize("NFD", slashed), "accents as the disk has them"),
    ):
        if other != path and os.path.lexists(os.path.join(base, other)):
            return other, how
    shown = repr(path[:200])
    if "%" in path and os.path.lexists(os.path.join(base, decoded := unquote(path))):
        raise UserError(
            f"{where}: {shown} is percent-encoded, as in a web address; the file is named {decoded!r}. Write the "
            "paths as they are on disk: urllib.parse.unquote(path)"
        )
    if _ADDRESS.match(stripped):
        raise UserError(f"{where}: {shown} is an address. Images are read from files: download them, and list these.")
    if _WINDOWS.match(stripped):
        raise UserError(
            f"{where}: {shown} is a path of Windows. Write it as it is here, below the data set's folder and with "
            f"forward slashes{_as_in(base, slashed)}."
        )
    if _VARIABLE.match(stripped):
        raise UserError(f"{where}: {shown} begins with a variable, which is not replaced in a list. Write it out.")
    return stripped, ""


def _as_in(base: str, path: str) -> str:
    """Say which end of a path from another machine is on disk; empty if none is."""
    steps = path.split("/")
    ends = ("/".join(steps[start:]) for start in range(1, len(steps)))
    found = next((end for end in ends if end and os.path.lexists(os.path.join(base, end))), None)
    return f", as in {found}" if found else ""


def _leads_out(places: _Places, num_paths: int, outside: Sequence[tuple[str, str]]) -> str:
    """Write the message about paths that do not lie below the root."""
    lines = first_lines([f"{where}: {path}" for where, path in outside])
    if not any(os.path.lexists(os.path.join(places.base, path)) for _, path in outside):
        raise UserError(
            f"{counted(len(outside), 'path is', 'paths are')} neither below {places.root} nor anywhere else on this "
            f"machine:{lines}\nWrite them as they are here{_as_in(places.root, outside[0][1])}."
        )
    folders = {os.path.dirname(os.path.realpath(os.path.join(places.base, path))) for _, path in outside}
    common = os.path.commonpath([os.path.realpath(places.base), *folders])
    return (
        f"{len(outside):,} of {counted(num_paths, 'path does', 'paths do')} not lie below {places.root}:{lines}\n"
        f"Name a folder that holds all of them: {arguments({'dataset.module.root': common})}"
    )
