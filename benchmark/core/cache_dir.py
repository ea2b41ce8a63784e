"""Where this project keeps what can be made again: drawn and decoded pictures, downloaded weights."""

import os
import sys
from pathlib import Path

VARIABLE = "BENCHMARK_CACHE"  # environment variable with another folder


def user_cache_dir() -> Path:
    """$BENCHMARK_CACHE, else this project's folder in $XDG_CACHE_HOME or in what the operating system has for it."""
    if named := os.environ.get(VARIABLE):
        return Path(named).expanduser()
    asked = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(asked):  # the XDG specification says to ignore a relative one
        root = Path(asked)
    elif sys.platform == "win32":
        root = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        root = Path.home() / "Library" / "Caches"
    else:
        root = Path.home() / ".cache"
    return root / "metric-learning-benchmark"
