"""Build objects from the `_target_` nodes of a configuration.

`_target_` and `_partial_` have Hydra's meaning. Hydra's own `instantiate` is not used because it calls whatever a name
refers to, and a configuration may come from someone else's results folder. Here the table `KINDS` lists what a node of
each kind may build. The whole node (names, keys, and the arguments that each constructor takes) is checked before any
part of it is built.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any, Literal

from benchmark.core.errors import UserError
from benchmark.study.plugins import RESERVED, plugins_option

NodeKind = Literal["dataset", "trunk", "head", "loss", "sampler", "searcher", "optimizer"]
MODULE = "torch.nn.Module"
BASE_FUNCTION = ("embeddings", "labels", "proxies")  # the first parameters of a base of `losses.proxies.ProxyLoss`,
BASE_FUNCTION_OF_CENTRES = ("embeddings", "labels", "centres")  # with one or several proxies per class
LISTING = "listing"  # name of the functions that list the image files of a data set
DEPTH = 12  # limit of nested nodes, mappings and lists
FEW = 8  # most names that a message lists


@dataclass(frozen=True)
class Allowed:
    """What a node of one kind may build: public classes, and for data sets and losses certain functions.

    Attributes:
        folder: package whose modules define the plug-ins of this kind; empty if a library defines all of them.
        base: class from which every class must derive, as `module.Class`; empty for any class with `methods`.
        methods: methods that a class must have if there is no `base`.
        functions: whether functions named `LISTING` are allowed, which return the listing of a data set.
        base_functions: whether inner nodes may be functions whose parameters start with `BASE_FUNCTION`; they need
            `_partial_: true`.
        library: library module that exports further classes.
        inner: library modules that export further classes for inner nodes; None if inner nodes are not allowed.
    """

    folder: str = ""
    base: str = ""
    methods: tuple[str, ...] = ()
    functions: bool = False
    base_functions: bool = False
    library: str = ""
    inner: tuple[str, ...] | None = None


KINDS: dict[NodeKind, Allowed] = {
    "dataset": Allowed("benchmark.datasets", methods=("trainval", "test", "prepare", "verify"), functions=True),
    "trunk": Allowed("benchmark.trunks", MODULE, inner=("torch.nn",)),
    "head": Allowed("benchmark.heads", MODULE, inner=("torch.nn",)),
    "loss": Allowed(
        "benchmark.losses",
        MODULE,
        base_functions=True,
        library="pytorch_metric_learning.losses",
        inner=(
            "pytorch_metric_learning.miners",
            "pytorch_metric_learning.distances",
            "pytorch_metric_learning.reducers",
            "pytorch_metric_learning.regularizers",
            "torch.nn",
        ),
    ),
    "sampler": Allowed("benchmark.samplers", methods=("batch",)),
    "searcher": Allowed("benchmark.searchers", methods=("ask", "best")),
    "optimizer": Allowed(base="torch.optim.Optimizer", library="torch.optim"),
}


def build(node: Mapping[str, Any], kind: NodeKind, /, *, plugins: Sequence[str] = (), **arguments: object) -> Any:
    """Build the object that a node describes.

    >>> node = {"_target_": "benchmark.samplers.random.Random"}
    >>> build(node, "sampler", labels=[0, 1], batch_size=2, seed=0).batch(0).shape
    (2,)

    A constructor of `benchmark` or of a user's plug-in refuses a setting by a `UserError`; any other exception in it is
    a defect and is not caught. Libraries do not raise `UserError`, so their `TypeError`, `ValueError` and
    `AssertionError` count as a refusal of the settings.

    Args:
        node: plain data with `_target_` and arguments, which may be nodes themselves.
        kind: what the node must build, a key of `KINDS`.
        plugins: the user's packages and modules whose classes are allowed too, see `study.plugins`.
        arguments: additional arguments, which override the node's.

    Raises:
        UserError: a target is not allowed for this kind, does not exist, or does not take these arguments, in which
            case nothing is built; or its constructor refuses their values.
    """
    return _Planner(kind, tuple(plugins)).plan(node, arguments).build()


@dataclass(frozen=True)
class _Plan:
    """A checked node that can be built.

    Attributes:
        target: the node's `_target_`.
        make: the class or function of that name.
        keywords: the arguments, in which inner nodes are plans.
        partial: whether it is built with `functools.partial`.
        given: names of the arguments that are not part of the configuration.
    """

    target: str
    make: Callable[..., Any]
    keywords: Mapping[str, object]
    partial: bool
    given: frozenset[str]

    def build(self) -> Any:
        """Build the inner nodes, then this one."""
        keywords = {key: _built(value) for key, value in self.keywords.items()}
        if self.partial:
            return functools.partial(self.make, **keywords)
        if self.make.__module__.partition(".")[0] not in ("torch", "pytorch_metric_learning"):
            return self.make(**keywords)
        try:
            return self.make(**keywords)
        except (TypeError, ValueError, AssertionError) as error:
            settings = ", ".join(f"{k}={v!r}" for k, v in keywords.items() if k not in self.given)
            raise UserError(f"{self.target} does not accept {settings}: {error}") from error


def _built(value: object) -> object:
    """Replace every plan inside a value by the object that it builds."""
    if isinstance(value, dict):
        return {key: _built(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_built(inner) for inner in value]
    return value.build() if isinstance(value, _Plan) else value


@dataclass(frozen=True)
class _Planner:
    """Checks a node and all nodes inside it, without building any.

    Attributes:
        kind: the kind of the outer node.
        plugins: names of the user's packages and modules.
    """

    kind: NodeKind
    plugins: tuple[str, ...]

    @property
    def _a_kind(self) -> str:
        return f"{'an' if self.kind[0] in 'aeiou' else 'a'} {self.kind}"

    def plan(self, node: Mapping[str, Any], arguments: Mapping[str, object], depth: int = 0) -> _Plan:
        """Check one node.

        Args:
            node: the node.
            arguments: additional arguments, which override the node's.
            depth: number of nodes, mappings and lists around it; 0 for the outer node.
        """
        target, partial = node.get("_target_"), node.get("_partial_", False)
        if not isinstance(target, str):
            raise UserError(f"_target_={target!r}: give the dotted name of a class that {self._a_kind} may use.")
        if not isinstance(partial, bool):
            raise UserError(f"_partial_={partial!r} of {target}: give true or false.")
        if partial and not depth:
            raise UserError(f"_partial_=true of {target}: only a node inside another one may be partial.")
        own = {key: value for key, value in node.items() if key not in ("_target_", "_partial_")}
        make = self.find(target, inner=depth > 0)
        if isinstance(make, FunctionType) and depth and not partial:
            raise UserError(f"_target_ {target!r} is a function that the loss calls. Add _partial_: true to the node.")
        keywords = self._inside(own, depth + 1) | dict(arguments)
        _check_arguments(target, make, keywords, partial)
        return _Plan(target, make, keywords, partial, frozenset(arguments))

    def _inside(self, values: Mapping[str, object], depth: int) -> dict[str, object]:
        """Check the values of a node or mapping, and replace the nodes among them by plans."""
        for key in values:
            if str(key).startswith("_"):
                raise UserError(
                    f"{self._a_kind.capitalize()} has no key {key}. Allowed are _target_, _partial_ and its arguments."
                )
        return {key: self._value(value, depth) for key, value in values.items()}

    def _value(self, value: object, depth: int) -> object:
        if isinstance(value, dict | list) and depth > DEPTH:
            raise UserError(f"The module of the {self.kind} is nested more than {DEPTH} levels deep. Flatten it.")
        if isinstance(value, list):
            return [self._value(inner, depth + 1) for inner in value]
        if not isinstance(value, dict):
            return value
        return self.plan(value, {}, depth) if "_target_" in value else self._inside(value, depth + 1)

    def find(self, target: str, *, inner: bool = False) -> Callable[..., Any]:
        """Import the class or function with a dotted name, if this kind of node may build it.

        Args:
            target: the name.
            inner: whether the node is inside another one.

        Raises:
            UserError: it is not allowed, or does not exist.
        """
        module_name, _, name = target.rpartition(".")
        if not self._may_import(module_name, inner) or not _is_public(target):
            raise UserError(f"_target_ {target!r} is not allowed for {self._a_kind}. {self._advice(target, inner)}")
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                raise  # the module exists, but imports something that does not
            raise UserError(f"_target_ {target!r} cannot be found: {error}. Check its spelling.") from error
        found: Callable[..., Any] | None = getattr(module, name, None)
        if found is None:
            near = difflib.get_close_matches(name, self.names_in(module, inner), n=1)
            meant = f" Did you mean {near[0]!r}?" if near else " Check its spelling."
            raise UserError(f"_target_ {target!r} cannot be found: {module_name} has no {name}.{meant}")
        if not self._may_build(module, name, inner):
            if isinstance(found, FunctionType) and KINDS[self.kind].base_functions and inner:
                raise UserError(
                    f"_target_ {target!r} is not allowed for {self._a_kind}. A function there is called with "
                    f"{', '.join(BASE_FUNCTION)}, and its first parameters have these names."
                )
            raise UserError(f"_target_ {target!r} is not allowed for {self._a_kind}. {self._advice(target, inner)}")
        return found

    def libraries(self, inner: bool) -> tuple[str, ...]:
        """Modules of libraries that export what a node may build."""
        allowed = KINDS[self.kind]
        return (*filter(None, [allowed.library]), *((allowed.inner or ()) if inner else ()))

    def _may_import(self, module_name: str, inner: bool) -> bool:
        """Whether a module of this name may define targets of this kind."""
        allowed = KINDS[self.kind]
        if inner and allowed.inner is None:
            return False
        package, _, _ = module_name.rpartition(".")
        return (
            (package != "" and package == allowed.folder)
            or module_name in self.libraries(inner)
            or any(f"{module_name}.".startswith(f"{plugin}.") for plugin in self.plugins)
        )

    def _may_build(self, module: ModuleType, name: str, inner: bool) -> bool:
        """Whether a name in an allowed module is a class or function that this kind of node may build.

        In `benchmark`, it must be defined in the module itself; a library or a plug-in may re-export what another of
        its modules defines.
        """
        found, allowed, top = getattr(module, name), KINDS[self.kind], module.__name__.partition(".")[0]
        home = str(getattr(found, "__module__", ""))
        if name.startswith("_") or (home != module.__name__ if top == "benchmark" else home.partition(".")[0] != top):
            return False
        if isinstance(found, FunctionType) and module.__name__ not in self.libraries(inner):
            first = tuple(inspect.signature(found).parameters)[:3]
            is_base = inner and first in (BASE_FUNCTION, BASE_FUNCTION_OF_CENTRES)
            return (allowed.base_functions and is_base) or (allowed.functions and name == LISTING)
        if not isinstance(found, type):
            return False
        if not allowed.base:
            return all(callable(getattr(found, method, None)) for method in allowed.methods)
        base_module, _, base = allowed.base.rpartition(".")
        wanted = getattr(importlib.import_module(base_module), base)
        return issubclass(found, wanted) and found is not wanted

    def names_in(self, module: ModuleType, inner: bool) -> list[str]:
        """Names in a module that a node may build."""
        return [name for name in vars(module) if self._may_build(module, name, inner)]

    def _advice(self, target: str, inner: bool) -> str:
        """Say what a node of this kind may build instead: all names if there are few, else the closest one."""
        if inner and KINDS[self.kind].inner is None:
            return f"The module of {self._a_kind} cannot contain other nodes."
        names = _names(self.kind, inner)
        if len(names) <= FEW:
            choice = f"Allowed: {', '.join(names)}."
        else:
            by_last_part = {name.rpartition(".")[2]: name for name in names}
            near = difflib.get_close_matches(target.rpartition(".")[2], by_last_part, n=1)
            places = ", ".join(filter(None, [KINDS[self.kind].folder, *self.libraries(inner), *self.plugins]))
            meant = f"Did you mean {by_last_part[near[0]]!r}? " if near else ""
            choice = f"{meant}It must be a public class of this kind in {places}."
        package = target.partition(".")[0]
        if package in (*RESERVED, *self.plugins) or not _is_public(package):
            return choice
        return f"{choice} If {package} is a package of your own, name it: {plugins_option(package)}"


@functools.cache
def _names(kind: NodeKind, inner: bool) -> list[str]:
    """The full names of all that a node of a kind may build, in this project and in libraries."""
    planner, folder = _Planner(kind, ()), KINDS[kind].folder
    own = pkgutil.iter_modules(importlib.import_module(folder).__path__) if folder else []
    modules = [*(f"{folder}.{found.name}" for found in own), *planner.libraries(inner)]
    return [f"{name}.{part}" for name in modules for part in planner.names_in(importlib.import_module(name), inner)]


def _is_public(target: str) -> bool:
    return all(part.isidentifier() and not part.startswith("_") for part in target.split("."))


def _check_arguments(target: str, make: Callable[..., Any], keywords: Mapping[str, object], partial: bool) -> None:
    signature = inspect.signature(make)
    try:
        (signature.bind_partial if partial else signature.bind)(**keywords)
    except TypeError as error:
        takes = ", ".join(signature.parameters)
        raise UserError(f"{target} cannot be built: {error}. It takes {takes}.") from error
