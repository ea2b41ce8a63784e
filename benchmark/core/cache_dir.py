"""The folder for files that can be recreated: rendered and decoded images, and downloaded weights."""

import os
import sys
from pathlib import Path

from benchmark.core.errors import UserError

VARIABLE = "BENCHMARK_CACHE"  # environment variable that overrides the folder
ANOTHER = f"name another folder for the cache in the environment variable {VARIABLE}"


def user_cache_dir() -> Path:
    """Return $BENCHMARK_CACHE, or this project's folder in $XDG_CACHE_HOME or the operating system's cache folder.

    Raises:
        UserError: none of them is set, and the user has no home folder.
    """
    try:
        return _folder()
    except RuntimeError as error:  # from pathlib: HOME is not set, and the system does not know the user
        what = f"{VARIABLE}={named}" if (named := os.environ.get(VARIABLE)) else "the cache"
        raise UserError(
            f"There is no home folder for {what}: HOME is not set and the system does not know the user. Name a folder "
            f"in the environment variable {VARIABLE}, such as {VARIABLE}=/tmp/cache."
        ) from error


def in_cache(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is in the cache folder, or is a folder that has to be created for it.

    Args:
        path: a file or folder, which need not exist.
    """
    try:
        cache = user_cache_dir()
    except UserError:
        return False
    return Path(path).is_relative_to(cache) or cache.is_relative_to(path)


def _folder() -> Path:
    if named := os.environ.get(VARIABLE):
        return Path(named).expanduser()
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(xdg):  # the XDG specification says to ignore a relative one
        root = Path(xdg)
    elif sys.platform == "win32":
        root = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        root = Path.home() / "Library" / "Caches"
    else:
        root = Path.home() / ".cache"
    return root / "metric-learning-benchmark"
