"""The folder for files that can be recreated: rendered and decoded images, and downloaded weights."""

import os
import sys
from pathlib import Path

VARIABLE = "BENCHMARK_CACHE"  # environment variable that overrides the folder


def user_cache_dir() -> Path:
    """Return $BENCHMARK_CACHE, or this project's folder in $XDG_CACHE_HOME or the operating system's cache folder."""
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
