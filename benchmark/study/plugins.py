"""Plug-ins of the user: packages and modules outside this repository, named by `plugins=[my_package]`.

A class of such a package can be the `_target_` of a node, and the YAML files in its folder `conf/` can be selected like
those of this project: `loss=my_loss` selects `my_package/conf/loss/my_loss.yaml`. Importing a package runs its code, so
only the command line can name plug-ins, never a file in a results folder.
"""

import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path

from benchmark.core import invocation
from benchmark.core.errors import UserError
from benchmark.core.paths import conf_dir

KEY = "plugins"  # of the configuration
RESERVED = {"benchmark", "torch", "pytorch_metric_learning", *sys.stdlib_module_names}


def plugins_option(*names: str) -> str:
    """The option that names some plug-ins, as the user types it on the command line."""
    return invocation.arguments({}, overrides=[f"{KEY}=[{','.join(names)}]"])


def check_names(names: object) -> None:
    """Check the names of plug-ins, without importing any.

    Raises:
        UserError: they are not a list of dotted names, or one of them is private, or is part of Python, this project
            or one of its libraries.
    """
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{KEY}={names}: give a list of packages, as in {plugins_option('my_package')}")
    for name in names:
        if not all(part.isidentifier() and not part.startswith("_") for part in name.split(".")):
            raise UserError(
                f"{KEY}=[{name}]: a plug-in is named as Python imports it, not by a path, and its name does not start "
                f"with an underscore: {plugins_option('my_package')}"
            )
        if (top := name.partition(".")[0]) in RESERVED:
            raise UserError(f"{KEY}=[{name}]: {top} is a package of Python or of this project. Rename your own.")


def folders(names: Sequence[str]) -> list[str]:
    """The folders from which plug-ins are imported, so that workers can import them from there too.

    Raises:
        UserError: a plug-in cannot be found.
    """
    found = [_spec(name.partition(".")[0], name) for name in names]
    return [str(Path(_location(spec)).absolute().parent) for spec in found]


def neighbours(names: Sequence[str]) -> list[str]:
    """The modules and packages next to plug-ins, which they may import; none for installed plug-ins.

    Raises:
        UserError: a plug-in cannot be found.
    """
    found: set[str] = set()
    for folder in {*folders(names)}:
        if {"site-packages", "dist-packages"} & {*Path(folder).parts}:  # installed: their versions are recorded
            continue
        modules = {path.stem for path in Path(folder).glob("*.py")}
        modules |= {path.parent.name for path in Path(folder).glob("*/__init__.py")}
        found |= {name for name in modules - RESERVED if name.isidentifier() and _is_imported_from(folder, name)}
    return sorted(found)


def _is_imported_from(folder: str, name: str) -> bool:
    """Whether Python imports a module of this name from a folder, and not from elsewhere."""
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # a loaded module without a spec
        return False
    return spec is not None and bool(spec.origin) and Path(str(spec.origin)).absolute().is_relative_to(folder)


def add_to_path(*folders: str) -> None:
    """Append folders to this process's module path; at its end, nothing in them shadows another package."""
    sys.path += [folder for folder in dict.fromkeys(folders) if folder not in sys.path]


def conf_dirs(names: Sequence[str]) -> list[Path]:
    """This project's `conf/` folder, then that of each plug-in that has one.

    Raises:
        UserError: a plug-in cannot be found, or one of its files has the name of an earlier one.
    """
    folders = [conf_dir()]
    for name in names:
        folder = Path(_location(_spec(name, name))).absolute() / "conf"
        if not folder.is_dir() or folder in folders:
            continue
        for path in sorted(folder.rglob("*.yaml")):
            if taken := [same for other in folders if (same := other / path.relative_to(folder)).exists()]:
                raise UserError(f"{KEY}=[{name}]: {path} has the same name as {taken[0]}. Rename it.")
        folders.append(folder)
    return folders


def _spec(module: str, plugin: str) -> ModuleSpec:
    """The import spec of a module, found without importing it; the working directory is searched last.

    Args:
        module: full name of the module.
        plugin: the plug-in that it belongs to, for messages.

    Raises:
        UserError: it cannot be found.
    """
    add_to_path(os.getcwd())
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:  # its package does not exist
        spec = None
    if spec is None or not (spec.origin or spec.submodule_search_locations):
        raise UserError(
            f"{KEY}=[{plugin}]: there is no package or module {module}. Install it, run this in the folder that holds "
            "it, or name that folder in the environment variable PYTHONPATH."
        )
    return spec


def _location(spec: ModuleSpec) -> str:
    """The folder of a package, or the file of a module."""
    return next(iter(spec.submodule_search_locations or []), spec.origin or "")
