"""Digests of the code that a computation runs: of Python modules and what they import, found without running them.

A digest is taken over the syntax tree. Comments, docstrings, blank lines and formatting leave it unchanged, and any
other edit changes it. It is equal on all supported versions of Python.

Not covered: modules imported by a name that is computed at run time (`importlib.import_module`, a star import that
takes submodules from `__all__`), files that are not modules, and packages that are not followed.
"""

import ast
import functools
import hashlib
import importlib.util
import json
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.machinery import BYTECODE_SUFFIXES, EXTENSION_SUFFIXES, SOURCE_SUFFIXES
from pathlib import Path
from typing import NamedTuple

from benchmark.core.errors import UserError

SUFFIXES = (*EXTENSION_SUFFIXES, *SOURCE_SUFFIXES, *BYTECODE_SUFFIXES)  # in the order in which Python looks for them


@dataclass(frozen=True)
class Code:
    """The modules that a computation can run.

    Attributes:
        modules: digest of each module, 12 hexadecimal digits, by the module's full name in alphabetical order.
    """

    modules: Mapping[str, str]

    @property
    def digest(self) -> str:
        """A hash of all modules, 16 hexadecimal digits."""
        return hashlib.sha256(json.dumps(sorted(self.modules.items())).encode()).hexdigest()[:16]

    def difference(self, other: "Code") -> list[str]:
        """The names of the modules that differ between two versions of the code, in alphabetical order.

        >>> Code({"a": "1", "b": "2", "d": "4"}).difference(Code({"a": "1", "b": "3", "c": "5"}))
        ['b', 'c (removed)', 'd (added)']

        Args:
            other: the earlier version. A module that only this version has is marked `(added)`, one that only the
                earlier version has `(removed)`.
        """
        marks = dict.fromkeys(self.modules.keys() - other.modules.keys(), " (added)")
        marks |= dict.fromkeys(other.modules.keys() - self.modules.keys(), " (removed)")
        names = sorted({*self.modules, *other.modules})
        return [f"{n}{marks.get(n, '')}" for n in names if self.modules.get(n) != other.modules.get(n)]


def code_of(roots: Iterable[str], followed: Iterable[str]) -> Code:
    """The digests of the given modules, and of all modules in `followed` that they import, directly or indirectly.

    Import statements count wherever they are, also inside functions and conditions. Nothing is imported: a package that
    is loaded already is read from where it was loaded, any other from where Python would find it. A compiled module is
    identified by its bytes. Files are read again when their size or time of modification changes.

    Args:
        roots: full names of modules.
        followed: full names of packages and modules; modules outside them count only if they are roots.

    Raises:
        UserError: a root does not exist, or a module has a syntax error.
    """
    roots = list(roots)
    included = (*(f"{name}." for name in followed), *(f"{name}." for name in roots))
    search = _Search()
    for root in roots:
        if search.find(root).file is None:
            raise UserError(
                f"Python finds no module {root!r}. Check its spelling. If it is your own, put the folder that holds "
                "its package on PYTHONPATH."
            )
    digests: dict[str, str] = {}
    todo = [name for root in roots for name in _with_parents(root)]
    while todo:
        name = todo.pop()
        if name in digests or not f"{name}.".startswith(included):
            continue
        file, folders = search.find(name)
        if file is None:  # a name inside a module, an optional dependency, or a folder without __init__.py
            continue
        stat = os.stat(file)
        module = _read(file, stat.st_size, stat.st_mtime_ns)
        digests[name] = module.digest
        todo += module.imported_names(name if folders else name.rpartition(".")[0])
    return Code(dict(sorted(digests.items())))


class _Import(NamedTuple):
    """An import statement: `from ..module import names` with `level` dots, or `import module` without names."""

    level: int
    module: str
    names: tuple[str, ...]


class _Module(NamedTuple):
    digest: str
    imports: tuple[_Import, ...]

    def imported_names(self, package: str) -> Iterator[str]:
        """Full names of everything imported, and of the packages around it; some are not modules.

        Args:
            package: full name of the package that relative imports start from.
        """
        for statement in self.imports:
            base = statement.module
            if statement.level:
                parents = package.split(".")
                base = ".".join(filter(None, [*parents[: len(parents) - statement.level + 1], base]))
            yield from _with_parents(base)
            yield from (f"{base}.{name}" for name in statement.names)


def _with_parents(name: str) -> Iterator[str]:
    """A module's full name and those of the packages around it, which Python runs before it."""
    while name:
        yield name
        name = name.rpartition(".")[0]


class _Location(NamedTuple):
    """Where a module is: its file, None if it has none, and for a package the folders of its modules."""

    file: str | None
    folders: tuple[str, ...]


NOWHERE = _Location(None, ())


class _Search:
    """Finds modules on disk as Python would; each folder is listed once."""

    def __init__(self) -> None:
        self._found: dict[str, _Location] = {}
        self._listed: dict[str, frozenset[str]] = {}

    def find(self, name: str) -> _Location:
        if name not in self._found:
            parent, _, last = name.rpartition(".")
            self._found[name] = self._inside(self.find(parent).folders, last) if parent else _top_level(name)
        return self._found[name]

    def _inside(self, folders: tuple[str, ...], name: str) -> _Location:
        for folder in folders:
            inner = os.path.join(folder, name)
            if self._has(folder, name):
                for suffix in SUFFIXES:
                    if self._has(inner, f"__init__{suffix}"):
                        return _Location(os.path.join(inner, f"__init__{suffix}"), (inner,))
            for suffix in SUFFIXES:
                if self._has(folder, f"{name}{suffix}"):
                    return _Location(f"{inner}{suffix}", ())
        inside = tuple(os.path.join(folder, name) for folder in folders if self._has(folder, name))
        return _Location(None, inside)

    def _has(self, folder: str, name: str) -> bool:
        """Whether a folder has an entry; upper and lower case count, on every file system."""
        if folder not in self._listed:
            self._listed[folder] = frozenset(os.listdir(folder) if os.path.isdir(folder) else ())
        return name in self._listed[folder]


def _top_level(name: str) -> _Location:
    try:
        spec = importlib.util.find_spec(name)  # imports nothing, since the module has no parent
    except ValueError:  # a loaded module without a spec, such as __main__
        return NOWHERE
    if spec is None:
        return NOWHERE
    return _Location(spec.origin if spec.has_location else None, tuple(spec.submodule_search_locations or ()))


@functools.lru_cache(maxsize=4096)
def _read(path: str, size: int, mtime_ns: int) -> _Module:
    """The digest and imports of a file; `size` and `mtime_ns` are only keys of the cache."""
    data = Path(path).read_bytes()
    if not path.endswith(tuple(SOURCE_SUFFIXES)):
        return _Module(_short_hash(data), ())
    try:
        with warnings.catch_warnings(action="ignore"):  # such as an invalid escape, which Python reports on import
            tree = ast.parse(data, path)
    except SyntaxError as error:
        raise UserError(
            f"{path}:{error.lineno or 1}: {error.msg}. Correct this line, then run the same command again."
        ) from error
    text, imports = _normal_form(tree)
    return _Module(_short_hash(text.encode()), tuple(imports))


def _short_hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]


def _normal_form(tree: ast.Module) -> tuple[str, list[_Import]]:
    """A syntax tree as ASCII text, one line per node with its children below it, and its import statements.

    Docstrings are left out, as are the context of a name (`ctx`), which follows from its place, and the prefix of `u""`
    (`kind`).

    The text does not depend on the version of Python: a field that only some versions have is absent unless it is used,
    and non-ASCII characters are escaped, since versions differ in which of them `repr` escapes. A stack replaces
    recursion, because a long sum nests deeper than Python's limit.
    """
    lines: list[str] = []
    imports: list[_Import] = []
    todo: list[object] = [tree]
    while todo:
        node = todo.pop()
        if not isinstance(node, ast.AST):  # an entry of a list, such as a name in `global a, b`
            lines.append(ascii(node))
            continue
        line, children = [type(node).__name__], list[object]()
        for name in node._fields:
            value = getattr(node, name, None)
            if value is None or name in ("ctx", "kind"):
                continue
            if isinstance(value, list):
                kept = [entry for entry in value if not _is_without_effect(entry, node)]
                line += [f"{name}*{len(kept)}"] * bool(kept)
                children += kept
            elif isinstance(value, ast.AST):
                line.append(name)
                children.append(value)
            else:
                line.append(f"{name}={value!a}")
        lines.append(" ".join(line))
        todo += reversed(children)
        if isinstance(node, ast.Import):
            imports += [_Import(0, alias.name, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imports.append(_Import(node.level, node.module or "", tuple(alias.name for alias in node.names)))
    return "\n".join(lines), imports


def _is_without_effect(entry: object, parent: ast.AST) -> bool:
    """Whether it is a statement that is only a constant, or an empty string that some versions add to an f-string."""
    if isinstance(parent, ast.JoinedStr):
        return isinstance(entry, ast.Constant) and entry.value == ""
    return isinstance(entry, ast.Expr) and isinstance(entry.value, ast.Constant)
