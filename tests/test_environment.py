"""The environment of a command: variables, the home folder, the cache's folder and the terminal."""

import pwd
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmark.core import cache_dir
from benchmark.core.errors import message_for_user
from benchmark.datasets.glyphs import Glyphs

CACHE = "in the environment variable BENCHMARK_CACHE"
Place = Callable[[Path], str]  # makes a folder's name below a temporary folder


def file(folder: Path) -> str:
    (folder / "file").write_text("notes")
    return str(folder / "file")


def link(folder: Path, target: str) -> str:
    (folder / "link").symlink_to(target)
    return str(folder / "link")


UNUSABLE: dict[str, dict[str, Place]] = {
    "BENCHMARK_CACHE": {
        "a file": file,
        "below a file": lambda folder: f"{file(folder)}/cache",
        "a device": lambda folder: "/dev/null",
        "below a device": lambda folder: "/dev/null/cache",
        "a dangling link": lambda folder: link(folder, "gone"),
        "below a dangling link": lambda folder: f"{link(folder, 'gone')}/cache",
        "a link to itself": lambda folder: link(folder, "link"),
        "a link to a file": lambda folder: link(folder, Path(file(folder)).name),
        "not creatable": lambda folder: "/proc/cache",
        "a process's folder": lambda folder: "/proc/self/fd",
        "too long": lambda folder: str(folder / ("x" * 300)),
        "too deep": lambda folder: str(folder) + "/x" * 2500,
        "the home of nobody": lambda folder: "~no_such_user/cache",
        "blank": lambda folder: f"{file(folder)}/ ",
    },
    "XDG_CACHE_HOME": {
        "a file": file,
        "a device": lambda folder: "/dev/null",
        "a dangling link": lambda folder: link(folder, "gone"),
        "not creatable": lambda folder: "/proc/cache",
        "too long": lambda folder: str(folder / ("x" * 300)),
    },
    "HOME": {
        "a file": file,
        "a device": lambda folder: "/dev/null",
        "not creatable": lambda folder: "/proc/home",
        "a dangling link": lambda folder: link(folder, "gone"),
    },
}
SMALL = Glyphs(every=8)
CASES = [(variable, name) for variable in UNUSABLE for name in UNUSABLE[variable]]


def refusal() -> str:
    """What a user reads when the cache of a data set cannot be filled; an error without a message is a defect."""
    with pytest.raises(Exception) as caught:
        SMALL.prepare()
    message = message_for_user(caught.value)
    assert message is not None, caught.value
    return message


@pytest.fixture
def no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (cache_dir.VARIABLE, "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.usefixtures("no_cache")
@pytest.mark.bad_input("environment", "variables")
@pytest.mark.parametrize(("variable", "name"), CASES)
def test_a_cache_that_cannot_be_used_is_named_with_the_variable_that_moves_it(
    variable: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, UNUSABLE[variable][name](tmp_path))
    assert CACHE in refusal()
    assert {path.name for path in tmp_path.iterdir()} <= {"file", "link"}


@pytest.mark.usefixtures("no_cache")
@pytest.mark.bad_input("environment", "variables")
@pytest.mark.parametrize("named", [None, "~/cache", "~no_such_user"], ids=["no name", "~", "~user"])
def test_without_a_home_folder_the_message_names_the_variable(
    named: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(_: object) -> None:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    if named:
        monkeypatch.setenv(cache_dir.VARIABLE, named)
    said = refusal()
    assert "There is no home folder" in said and CACHE in said and (named or "the cache") in said


@pytest.fixture(scope="module")
def drawn() -> Path:
    """The folder of the drawn glyphs, in the user's cache."""
    SMALL.prepare()
    return SMALL.folder


FINE: dict[str, dict[str, str | None]] = {
    "a relative cache": {"BENCHMARK_CACHE": "cache"},
    "a cache below the home folder": {"HOME": "{here}", "BENCHMARK_CACHE": "~/cache"},
    "a cache in a folder with blanks, quotes and letters": {"BENCHMARK_CACHE": "{here}/a 'b' \u00fc/cache"},
    "an empty name of the cache": {"BENCHMARK_CACHE": "", "XDG_CACHE_HOME": "{here}/xdg"},
    "a relative XDG folder, which the specification ignores": {"XDG_CACHE_HOME": "xdg", "HOME": "{here}/home"},
    "no home folder but a cache": {"HOME": None, "BENCHMARK_CACHE": "{here}/cache"},
    "a home folder that cannot be written, but a cache": {"HOME": "/proc/home", "BENCHMARK_CACHE": "{here}/cache"},
    "no folder for temporary files": {"TMPDIR": "/proc/none", "BENCHMARK_CACHE": "{here}/cache"},
    "a file for temporary files": {"TMPDIR": "/dev/null", "BENCHMARK_CACHE": "{here}/cache"},
    "a folder of matplotlib that cannot be written": {"MPLCONFIGDIR": "/proc/x", "BENCHMARK_CACHE": "{here}/cache"},
    "no width of the terminal": {"COLUMNS": "0", "LINES": "0", "BENCHMARK_CACHE": "{here}/cache"},
    "a width of one": {"COLUMNS": "1", "BENCHMARK_CACHE": "{here}/cache"},
    "a width in words": {"COLUMNS": "wide", "BENCHMARK_CACHE": "{here}/cache"},
    "a terminal of an unknown kind": {"TERM": "none", "NO_COLOR": "1", "BENCHMARK_CACHE": "{here}/cache"},
    "no kind of terminal": {"TERM": None, "FORCE_COLOR": "1", "BENCHMARK_CACHE": "{here}/cache"},
    "no user's name": {"LOGNAME": None, "USER": None, "BENCHMARK_CACHE": "{here}/cache"},
    "an unknown time zone": {"TZ": "Nowhere/Else", "BENCHMARK_CACHE": "{here}/cache"},
}  # fmt: skip


@pytest.mark.bad_input("environment", "variables")
@pytest.mark.parametrize("name", FINE)
def test_a_strange_environment_is_no_reason_to_fail(
    name: str, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = SMALL.prepare()
    monkeypatch.chdir(tmp_path)
    for variable in (cache_dir.VARIABLE, "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in FINE[name].items():
        if value is None:
            monkeypatch.delenv(variable, raising=False)
        else:
            monkeypatch.setenv(variable, value.format(here=tmp_path))
    place = cache_dir.user_cache_dir()
    assert place.absolute().is_relative_to(tmp_path)
    shutil.copytree(drawn, SMALL.folder)
    found = SMALL.prepare()
    assert found.fingerprint == expected.fingerprint and Path(found.folder).is_relative_to(place)
