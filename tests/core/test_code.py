"""Digests of code: what changes them, what does not, and which modules they cover."""

import itertools
import sys
from collections.abc import Callable
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from textwrap import dedent
from types import ModuleType

import pytest

from benchmark.core.code import Code, code_of
from benchmark.core.errors import UserError

Write = Callable[..., str]
SOURCE = '''
"""Losses."""
import math

SCALE = 64.0


@property
def loss(ap: float, scale: float = 2.0) -> float:
    """Return the loss."""
    total = 1 - ap
    return f"{total:.{3}f}"
'''
names = itertools.count()


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a package under a new name, `write({"a.py": source})`, or change the last one; returns its name."""
    monkeypatch.syspath_prepend(str(tmp_path))
    package = f"package_for_digests_{next(names)}"

    def written(files: dict[str, str], init: bool = True) -> str:
        for name, text in (({"__init__.py": ""} if init and not (tmp_path / package).exists() else {}) | files).items():
            path = tmp_path / package / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(dedent(text).replace("PACKAGE", package), encoding="utf-8")
        return package

    return written


def found(package: str, *roots: str) -> set[str]:
    """The modules of the package that the roots reach, without the package's name."""
    modules = code_of([f"{package}.{root}" for root in roots], [package]).modules
    return {name.removeprefix(package).removeprefix(".") for name in modules}


# -- which edits count -------------------------------------------------------------------------------------------------


def digest(write: Write, source: str) -> str:
    file = f"a{next(names)}"  # a new one, since the clock of a file system may not tell two writes apart
    package = write({f"{file}.py": source})
    return code_of([f"{package}.{file}"], [package]).modules[f"{package}.{file}"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""Losses."""', '"""Losses of this project.\n\nLonger.\n"""'),
        ('"""Losses."""', ""),
        ('    """Return the loss."""\n', ""),
        ("SCALE = 64.0", 'SCALE = 64.0\n"""The scale."""'),
        ("SCALE = 64.0", "SCALE = 64.0  # a scale"),
        ("SCALE = 64.0", "\n\n\nSCALE   =   64.0"),
        ("1 - ap", "(1\n        -    ap)"),
        ("(ap: float, scale: float = 2.0)", "(\n    ap: float,\n    scale: float = 2.0,\n)"),
        ('f"{total:.{3}f}"', "f'{total:.{3}f}'"),
        ('f"{total:.{3}f}"', "f'' f'{total:.{3}f}'"),
        ("    ", "\t"),
        ("\n", "\r\n"),
    ],
)
def test_comments_docstrings_and_formatting_do_not_count(write: Write, old: str, new: str) -> None:
    assert old in SOURCE
    assert digest(write, SOURCE.replace(old, new)) == digest(write, SOURCE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("1 - ap", "2 * (1 - ap)"),
        ("1 - ap", "ap - 1"),
        ("scale: float = 2.0", "scale: float = 2.5"),
        ("scale: float = 2.0", "scale: int = 2.0"),
        ("-> float", "-> int"),
        ("64.0", "64"),
        ("64.0", "True"),
        ("64.0", "-64.0"),
        ("64.0", "'64.0'"),
        ("64.0", "b'64.0'"),
        ("64.0", "'64.0',"),
        ("SCALE", "Scale"),
        ("@property\n", ""),
        ("import math", "import cmath"),
        ("import math", "import math as m"),
        ("import math", "from math import *"),
        ("total = 1 - ap\n", "total = 1 - ap\n    pass\n"),
        ("total =", "total +="),
        ("return", "yield"),
        (".{3}f", ".{4}f"),
        ("def loss", "async def loss"),
        ("(ap: float,", "(ap: float, *,"),
    ],
)
def test_any_other_edit_counts(write: Write, old: str, new: str) -> None:
    assert old in SOURCE
    assert digest(write, SOURCE.replace(old, new)) != digest(write, SOURCE)


def test_a_docstring_in_an_empty_file_does_not_count(write: Write) -> None:
    assert digest(write, '"""A package."""\n') == digest(write, "")


def test_a_string_argument_is_not_a_docstring(write: Write) -> None:
    assert len({digest(write, f"f({argument})") for argument in ("", "''", "'a'", "f''", "None", "[None]")}) == 6


def test_the_digest_is_the_same_on_every_version_of_python(write: Write) -> None:
    """Stored digests stay valid; if these values change, every unfinished study must be started anew."""
    new_in_unicode_15 = "\U0001fae8"
    source = f"x = u'é{new_in_unicode_15}', f'{{a!r:>{{b}}}}c', 1e400, 1j, ...\nglobal é\n"
    source += "def f(*, a, b=0): return {**a}[1:, ::2]"
    assert digest(write, source) == "0d60fd9c48c2"
    assert Code({"a": "1", "b": "2"}).digest == "ddc7523b594d0dff"


def test_a_sum_that_nests_deeper_than_pythons_recursion_limit_has_a_digest(write: Write) -> None:
    long_sum = " + ".join(["1"] * (2 * sys.getrecursionlimit()))
    assert digest(write, f"x = {long_sum}") != digest(write, f"x = {long_sum} + 1")


def test_a_syntax_error_names_file_and_line(write: Write, tmp_path: Path) -> None:
    package = write({"a.py": "from PACKAGE import b", "b.py": "x = 1\ndef f(:\n"})
    with pytest.raises(UserError, match=rf"{tmp_path}/{package}/b\.py:2: .*run the same command again"):
        found(package, "a")


def test_an_invalid_escape_is_left_to_python_to_report(write: Write) -> None:
    assert digest(write, r"x = '\d'") == digest(write, r"x = r'\d'")


def test_a_null_byte_is_a_syntax_error(write: Write) -> None:
    package = write({"a.py": "x = 1\0"})
    with pytest.raises(UserError, match=r"a\.py:1: .*null byte"):
        found(package, "a")


# -- which modules count -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "import PACKAGE.sub.b",
        "import PACKAGE.sub.b as c",
        "from PACKAGE.sub import b",
        "from PACKAGE.sub import b as c",
        "from PACKAGE.sub.b import x",
        "from PACKAGE.sub.b import *",
        "from .sub import b",
        "from . import sub\nfrom .sub.b import x",
        "from .sub.b import x",
        "def f():\n    from .sub.b import x",
        "class A:\n    def f(self):\n        if self:\n            import PACKAGE.sub.b",
        "try:\n    import PACKAGE.sub.b\nexcept ImportError:\n    pass",
    ],
)
def test_every_form_of_import_is_followed_wherever_it_is(write: Write, statement: str) -> None:
    files = {"a.py": statement, "sub/__init__.py": "", "sub/b.py": "from ..c import y", "c.py": "y = 1", "d.py": ""}
    assert found(write(files), "a") == {"", "a", "sub", "sub.b", "c"}


def test_relative_imports_start_at_the_package(write: Write) -> None:
    files = {"sub/__init__.py": "from . import b\nfrom .. import d", "sub/b.py": "", "b.py": "", "d.py": ""}
    assert found(write(files), "sub") == {"", "sub", "sub.b", "d"}


def test_a_relative_import_beyond_the_top_is_left_to_python(write: Write) -> None:
    assert found(write({"a.py": "from ....b import c\nfrom ... import b", "b.py": ""}), "a") == {"", "a"}


def test_the_packages_around_a_root_count(write: Write) -> None:
    files = {"__init__.py": "from .c import y", "sub/__init__.py": "", "sub/b.py": "", "c.py": "y = 1"}
    assert found(write(files), "sub.b") == {"", "sub", "sub.b", "c"}


def test_a_folder_without_init_is_a_package_too(write: Write) -> None:
    files = {"a.py": "from .sub import b", "sub/b.py": "import PACKAGE.other.c", "other/c.py": ""}
    assert found(write(files, init=False), "a") == {"a", "sub.b", "other.c"}


def test_import_cycles_end(write: Write) -> None:
    assert found(write({"a.py": "from . import b", "b.py": "from . import a, b"}), "a") == {"", "a", "b"}


def test_imported_names_and_missing_modules_are_not_modules(write: Write) -> None:
    write({"x": "a file without a suffix"})
    assert found(write({"a.py": "import PACKAGE.gone\nfrom .b import B\nfrom . import x", "b.py": ""}), "a") == {
        "", "a", "b"
    }  # fmt: skip


def test_a_name_in_other_case_is_not_a_module_even_on_a_case_insensitive_file_system(write: Write) -> None:
    assert found(write({"a.py": "from . import B", "b.py": ""}), "a") == {"", "a"}


def test_only_followed_packages_and_roots_count(write: Write) -> None:
    files = {"a.py": "from .sub import b\nfrom .subway import c\nimport json", "sub/__init__.py": "from . import b"}
    package = write(files | {"sub/b.py": "", "subway/__init__.py": "", "subway/c.py": ""})
    code = code_of([f"{package}.a"], [f"{package}.sub"])
    assert list(code.modules) == [f"{package}.a", f"{package}.sub", f"{package}.sub.b"]


def test_nothing_is_imported(write: Write) -> None:
    package = write({"__init__.py": "raise SystemExit", "a.py": "from . import b", "b.py": "raise SystemExit"})
    assert found(package, "a") == {"", "a", "b"}
    assert not [name for name in sys.modules if name.startswith(package)]


def test_a_compiled_module_is_identified_by_its_bytes(write: Write, tmp_path: Path) -> None:
    package = write({"a.py": "from . import b"})
    file = tmp_path / package / f"b{EXTENSION_SUFFIXES[0]}"
    file.write_bytes(b"\0compiled")
    before = code_of([f"{package}.a"], [package])
    file.write_bytes(b"\0compiled otherwise")
    assert code_of([f"{package}.a"], [package]).difference(before) == [f"{package}.b"]


@pytest.mark.parametrize("root", ["sub", "sub.b", "B"])
def test_a_root_that_does_not_exist_is_refused(write: Write, root: str) -> None:
    package = write({"b.py": ""})
    with pytest.raises(UserError, match=rf"no module '{package}\.{root}'.*PYTHONPATH"):
        found(package, "b", root)


@pytest.mark.parametrize("root", ["no_such_package_at_all.a", "without_a_spec", "sys"])
def test_a_root_without_a_file_is_refused(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "without_a_spec", ModuleType("without_a_spec"))
    with pytest.raises(UserError, match=f"no module '{root}'"):
        code_of([root], [root])


def test_a_single_file_can_be_a_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "module_for_digests.py").write_text("x = 1")
    assert list(code_of(["module_for_digests"], []).modules) == ["module_for_digests"]


# -- comparing ---------------------------------------------------------------------------------------------------------


def test_an_edit_is_seen_at_the_next_call_and_only_by_importers(write: Write) -> None:
    package = write({"a.py": "from .b import x", "b.py": "x = 1", "c.py": "x = 1"})
    before = code_of([f"{package}.a"], [package])
    write({"c.py": "x = 20"})
    assert code_of([f"{package}.a"], [package]) == before
    write({"b.py": "x = 20"})
    after = code_of([f"{package}.a"], [package])
    assert after.difference(before) == [f"{package}.b"] and after.digest != before.digest


def test_an_import_that_is_added_adds_a_module(write: Write) -> None:
    package = write({"a.py": "", "c.py": ""})
    before = code_of([f"{package}.a"], [package])
    write({"a.py": "from . import c"})
    after = code_of([f"{package}.a"], [package])
    assert after.difference(before) == [f"{package}.a", f"{package}.c (added)"]
    assert before.difference(after) == [f"{package}.a", f"{package}.c (removed)"]
    assert after.difference(after) == []


def test_the_digest_of_all_modules_covers_their_names_but_not_their_order() -> None:
    code = Code({"a": "1", "b": "2"})
    assert code.digest == Code({"b": "2", "a": "1"}).digest and len(code.digest) == 16
    others = (Code({"a": "2", "b": "1"}), Code({"a": "1", "c": "2"}), Code({"a": "1"}), Code({}))
    assert len({code.digest, *(other.digest for other in others)}) == 5
