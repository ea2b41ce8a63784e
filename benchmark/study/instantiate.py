"""`_target_` nodes of a configuration -> objects.

`_target_` and `_partial_` mean what they mean in Hydra. Hydra's own `instantiate` is not used, because it calls what a
name leads to, short of a list of what it knows to be harmful. Here a target is a function or class of an allowed
package, so that a configuration cannot reach, say, `torch.hub.load`; an argument that it does not take is an error.
"""

import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any

LIBRARIES = ("pytorch_metric_learning", "torch.nn", "torch.optim", "torchvision.models")
OURS = ("losses", "datasets", "trunks", "heads", "samplers", "searchers")
ALLOWED = (*(f"benchmark.{part}" for part in OURS), *LIBRARIES)


def build(node: dict[str, Any], **arguments: Any) -> Any:
    """The object that a node describes.

    >>> build({"_target_": "torch.nn.Linear", "in_features": 2}, out_features=3)
    Linear(in_features=2, out_features=3, bias=True)

    Args:
        node: plain data with `_target_` and arguments, some of which may be such nodes themselves.
        arguments: more arguments, over the node's.

    Raises:
        ValueError: the target is not allowed or does not exist, or it does not take these arguments.
    """
    target = str(node.get("_target_"))
    make = find(target)
    partial = node.get("_partial_", False)
    keywords = {k: _built(v) for k, v in node.items() if k not in ("_target_", "_partial_")} | arguments
    _check_arguments(target, make, keywords, partial)
    if partial:
        return functools.partial(make, **keywords)
    try:
        return make(**keywords)
    except (TypeError, ValueError) as error:
        if target.startswith("benchmark."):
            raise
        settings = ", ".join(f"{k}={v!r}" for k, v in keywords.items() if k not in arguments)
        raise ValueError(f"{target} does not accept {settings}: {error}") from error


def find(target: str) -> Callable[..., Any]:
    """What a dotted name stands for, if it is defined in an allowed package.

    Raises:
        ValueError: it is not, or there is no such thing.
    """
    module_name, _, name = target.rpartition(".")
    if not _is_allowed(module_name):
        raise ValueError(f"_target_ {target!r} is not allowed. It must lie in one of {', '.join(ALLOWED)}.")
    try:
        found = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"_target_ {target!r} cannot be found: {error}. Check its spelling.") from error
    if not callable(found) or not _is_allowed(getattr(found, "__module__", "")):
        raise ValueError(f"_target_ {target!r} is not allowed: it is no function or class of {module_name}.")
    return found


def _is_allowed(module_name: str) -> bool:
    return any(f"{module_name}.".startswith(f"{package}.") for package in ALLOWED)


def _built(value: Any) -> Any:
    """A value with every node inside it built."""
    if isinstance(value, dict):
        return build(value) if "_target_" in value else {k: _built(v) for k, v in value.items()}
    return [_built(v) for v in value] if isinstance(value, list) else value


def _check_arguments(target: str, make: Callable[..., Any], keywords: dict[str, Any], partial: bool) -> None:
    signature = inspect.signature(make)
    try:
        (signature.bind_partial if partial else signature.bind)(**keywords)
    except TypeError as error:
        takes = ", ".join(signature.parameters)
        raise ValueError(f"{target} cannot be built: {error}. It takes {takes}.") from error
