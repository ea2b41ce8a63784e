"""Where the package, its configuration and its experiments are, in a checkout and in a wheel; which paths are safe."""

import functools
from pathlib import Path

PACKAGE_DIR = Path(__file__).resolve().parent.parent
CHECKOUT_DIR = PACKAGE_DIR.parent  # root of a checkout; for a wheel, the site-packages folder
_RUN = (
    "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); del sys.argv[0]; "
    "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
)


@functools.cache
def is_installed() -> bool:
    """Return whether the package is an installed wheel, which holds its configuration."""
    return (PACKAGE_DIR / "conf").is_dir()


def conf_dir() -> Path:
    """Return the folder of the YAML files: next to the package in a checkout, inside it in an installed wheel."""
    return (PACKAGE_DIR if is_installed() else CHECKOUT_DIR) / "conf"


def experiments_dir() -> Path:
    """Return the folder of the experiments: next to the package in a checkout, inside it in an installed wheel."""
    return PACKAGE_DIR / "experiment" / "files" if is_installed() else CHECKOUT_DIR / "experiments"


def stays_inside(path: str) -> bool:
    """Return whether a path with forward slashes stays in the folder that it is relative to.

    >>> stays_inside("a/b.jpg"), stays_inside("../b.jpg"), stays_inside("a/../../b.jpg"), stays_inside("/b.jpg")
    (True, False, False, False)
    """
    return not path.startswith("/") and ".." not in path.split("/")


def module_arguments(module: list[str]) -> list[str]:
    """Return the arguments for Python to run a module of this package from any working directory.

    `-P` keeps the working directory off the module path, where a folder `benchmark/` would shadow the package. An
    installed package is found without it; a checkout, which is not installed, is put on the path by its own location.

    Args:
        module: full name of the module, then its arguments.
    """
    return ["-P", "-m", *module] if is_installed() else ["-P", "-c", _RUN, str(CHECKOUT_DIR), *module]
