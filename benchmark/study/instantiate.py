"""Build objects from the `_target_` nodes of a configuration.

`_target_` and `_partial_` mean what they mean in Hydra. Hydra's own `instantiate` is not used because it calls whatever
a name refers to, except for a list of functions known to be harmful. Here a target must be a function or class of an
allowed package, so that a configuration cannot reach, say, `torch.hub.load`. An argument that the target does not take
is an error.
"""

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from benchmark.core.errors import UserError

LIBRARIES = ("pytorch_metric_learning", "torch.nn", "torch.optim", "torchvision.models")
OURS = ("losses", "datasets", "trunks", "heads", "samplers", "searchers")
ALLOWED = (*(f"benchmark.{part}" for part in OURS), *LIBRARIES)


def build(node: Mapping[str, Any], **arguments: object) -> Any:
    """Build the object that a node describes.

    >>> build({"_target_": "torch.nn.Linear", "in_features": 2}, out_features=3)
    Linear(in_features=2, out_features=3, bias=True)

    A constructor of `benchmark` refuses a setting with a `UserError`; any other exception in it is a defect and passes
    through. A library does not raise `UserError`, so its `TypeError` and `ValueError` count as a refusal of the
    settings.

    Args:
        node: plain data with `_target_` and arguments, which may be nodes themselves.
        arguments: additional arguments, which override the node's.

    Raises:
        UserError: the target is not allowed or does not exist, does not take these arguments, or refuses them.
    """
    target = str(node.get("_target_"))
    make = find(target)
    partial = bool(node.get("_partial_", False))
    keywords = {k: _built(v) for k, v in node.items() if k not in ("_target_", "_partial_")} | arguments
    _check_arguments(target, make, keywords, partial)
    if partial:
        return functools.partial(make, **keywords)
    if target.startswith("benchmark."):
        return make(**keywords)
    try:
        return make(**keywords)
    except (TypeError, ValueError) as error:
        settings = ", ".join(f"{k}={v!r}" for k, v in keywords.items() if k not in arguments)
        raise UserError(f"{target} does not accept {settings}: {error}") from error


def find(target: str) -> Callable[..., Any]:
    """Import the function or class with a dotted name, if an allowed package defines it.

    Raises:
        UserError: no allowed package defines it, or it does not exist.
    """
    module_name, _, name = target.rpartition(".")
    if not _is_allowed(module_name):
        raise UserError(f"_target_ {target!r} is not allowed. It must be in one of {', '.join(ALLOWED)}.")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module exists, but imports something that does not
        raise UserError(f"_target_ {target!r} cannot be found: {error}. Check its spelling.") from error
    found: Callable[..., Any] | None = getattr(module, name, None)
    if found is None:
        raise UserError(f"_target_ {target!r} cannot be found: {module_name} has no {name}. Check its spelling.")
    if not callable(found) or not _is_allowed(getattr(found, "__module__", "")):
        raise UserError(f"_target_ {target!r} is not allowed: it is not a function or class of {module_name}.")
    return found


def _is_allowed(module_name: str) -> bool:
    return any(f"{module_name}.".startswith(f"{package}.") for package in ALLOWED)


def _built(value: object) -> object:
    """Replace every node inside a value by the object that it describes."""
    if isinstance(value, dict):
        return build(value) if "_target_" in value else {k: _built(v) for k, v in value.items()}
    return [_built(v) for v in value] if isinstance(value, list) else value


def _check_arguments(target: str, make: Callable[..., Any], keywords: Mapping[str, object], partial: bool) -> None:
    signature = inspect.signature(make)
    try:
        (signature.bind_partial if partial else signature.bind)(**keywords)
    except TypeError as error:
        takes = ", ".join(signature.parameters)
        raise UserError(f"{target} cannot be built: {error}. It takes {takes}.") from error
