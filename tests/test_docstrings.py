"""Docstrings that ruff cannot check: shapes of tensors, complete `Raises`, and `Args` that are more than a fragment."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "benchmark"
FOLDERS = {"commands": sorted(ROOT.glob("*.py"))} | {
    folder.name: sorted(folder.rglob("*.py")) for folder in sorted(ROOT.iterdir()) if (folder / "__init__.py").exists()
}


Function = ast.FunctionDef | ast.AsyncFunctionDef
SHAPE = re.compile(r"\(([\w.+*/ -]+(?:,[\w.+*/ -]+)*,?)\)")
DIMENSION = re.compile(r"\b([A-Z][a-z]?|\d+)\b")
IN_WORDS = re.compile(r"\bscalars?\b|\bany shape\b", re.IGNORECASE)
FRAGMENT = re.compile(r"(of|likewise|the same|as above|ditto|says)\b", re.IGNORECASE)
ENTRY = re.compile(r"\s+\*{0,2}(\w+)(?: \([^)]*\))?:\s*(.*)")


def names_a_shape(docstring: str) -> bool:
    """Whether it has something like `(B, D)` or `(n,)`, or says that a tensor is a scalar or of any shape."""
    tuples = [match[1] for match in SHAPE.finditer(docstring) if "," in match[1]]
    return bool(IN_WORDS.search(docstring)) or any(t.endswith(",") or DIMENSION.search(t) for t in tuples)


def section(docstring: str, *titles: str) -> list[str]:
    """The lines of the sections with these titles, of a docstring in Google style."""
    found, inside = [], False
    for line in docstring.splitlines():
        if line and not line.startswith(" "):
            inside = line.rstrip(":") in titles and line.endswith(":")
        elif inside:
            found.append(line)
    return found


def takes_or_gives_arrays(function: Function) -> bool:
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    annotations = [a.annotation for a in arguments if a.annotation] + [function.returns] * bool(function.returns)
    return any(re.search(r"\b(Tensor|ndarray)\b", ast.unparse(a)) for a in annotations if a is not None)


def raised(function: Function) -> set[str]:
    """Names of the public exceptions that the function's own body raises."""
    found, todo = set(), list[ast.AST](function.body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            continue
        if isinstance(node, ast.Raise) and node.exc is not None:
            error = ast.unparse(node.exc.func if isinstance(node.exc, ast.Call) else node.exc).rpartition(".")[2]
            if error.endswith("Error") and not error.startswith("_"):
                found.add(error)
        todo += ast.iter_child_nodes(node)
    return found


def contracts(folder: Path) -> dict[str, str]:
    """Docstrings of the methods of the Protocols in a folder's `__init__`, by name; a module's `forward` is a call."""
    tree = ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))
    classes = [n for n in tree.body if isinstance(n, ast.ClassDef) and "Protocol" in map(ast.unparse, n.bases)]
    methods = [m for c in classes for m in c.body if isinstance(m, ast.FunctionDef)]
    found = {m.name: ast.get_docstring(m) or "" for m in methods}
    return found | ({"forward": found["__call__"]} if "__call__" in found else {})


def functions(tree: ast.Module) -> Iterator[tuple[str, str, Function]]:
    """Public functions and methods with their dotted name and docstring; `__init__` has that of its class."""
    for node in tree.body:
        if isinstance(node, Function) and not node.name.startswith("_"):
            yield node.name, ast.get_docstring(node) or "", node
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for method in node.body:
                if isinstance(method, Function) and (method.name == "__init__" or not method.name.startswith("_")):
                    documented = node if method.name == "__init__" else method
                    yield f"{node.name}.{method.name}", ast.get_docstring(documented) or "", method


def offences(source: str, inherited: dict[str, str]) -> list[str]:
    """What is wrong in a module; `inherited` has the docstrings of the contracts that its methods fulfil."""
    tree, found = ast.parse(source), []
    for name, docstring, function in functions(tree):
        contract = inherited.get(function.name, "") if "." in name else ""
        if takes_or_gives_arrays(function) and not names_a_shape(docstring + contract):
            found.append(f"{function.lineno} {name}: no shape")
        told = "\n".join(section(docstring, "Raises") + section(contract, "Raises"))
        missing = [error for error in sorted(raised(function)) if error not in told]
        found += [f"{function.lineno} {name}: Raises lacks {error}" for error in missing]
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | Function):
            lines = section(ast.get_docstring(node) or "", "Args", "Attributes")
            entries = [match for line in lines if re.match(r" {4}\S", line) and (match := ENTRY.match(line))]
            found += [f"{node.body[0].lineno} {m[1]}: says only {m[2]!r}" for m in entries if is_fragment(m[2])]
    return found


def is_fragment(text: str) -> bool:
    return not text or FRAGMENT.match(text) is not None


def offences_in(paths: list[Path]) -> list[str]:
    found = []
    for path in paths:
        inherited = contracts(path.parent) if path.parent != ROOT else {}
        where = path.relative_to(ROOT)
        found += [f"{where}:{offence}" for offence in offences(path.read_text(encoding="utf-8"), inherited)]
    return found


@pytest.mark.parametrize("folder", sorted(FOLDERS))
def test_public_functions_name_shapes_and_errors_and_their_arguments_say_something(folder: str) -> None:
    assert offences_in(FOLDERS[folder]) == []


BAD = '''
def scale(vectors: Tensor, factor: float) -> Tensor:
    """Scaled vectors.

    Args:
        vectors: of the model.
        factor: likewise.
    """
    if factor < 0:
        raise ValueError("negative")
    return vectors * factor


class Loss:
    """A loss."""

    def forward(self, embeddings: Tensor) -> Tensor:
        """The loss."""
'''
GOOD = '''
def scale(vectors: Tensor, factor: float) -> Tensor:
    """Vectors (N, D) times a factor.

    Args:
        vectors: (N, D) floating point.
        factor: at least 0.

    Raises:
        ValueError: the factor is negative.
    """
    if factor < 0:
        raise ValueError("negative")
    return vectors * factor


class Loss:
    """A loss."""

    def forward(self, embeddings: Tensor) -> Tensor:
        """The loss."""
'''


def test_the_check_finds_what_it_looks_for() -> None:
    assert offences(BAD, {}) == [
        "2 scale: no shape", "2 scale: Raises lacks ValueError", "17 Loss.forward: no shape",
        "3 vectors: says only 'of the model.'", "3 factor: says only 'likewise.'",
    ]  # fmt: skip
    assert offences(GOOD, {"forward": "Scalar loss of embeddings (B, D)."}) == []


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("(B, D)", True), ("(N,)", True), ("(folds, N, D)", True), ("(Q, 2 K + 1)", True), ("a scalar", True),
        ("(see below, or not)", False), ("(B)", False), ("(ECCV 2020)", False), ("", False),
    ],
)  # fmt: skip
def test_what_counts_as_a_shape(text: str, named: bool) -> None:
    assert names_a_shape(f"The loss {text} of a batch.") is named
