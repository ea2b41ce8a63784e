"""Names and folders that cannot be used are refused by every command, with a sentence, before anything is written."""

import copy
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmark.core.errors import UserError
from benchmark.study.preflight import check_values
from benchmark.study.study import Study
from tests.command_line import assert_refused, commanded, on_tiny


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory that is also the home directory; whatever is written outside of it is not ours."""
    folder = tmp_path / "place"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    yield folder


KEYS = ("dataset.name", "loss.name", "trunk.name", "protocol.name", "variant", "head.name", "searcher.name")
# A name, and the similar one that the message suggests.
BAD_NAMES = {
    "my-data": "my_data", "my data": "my_data", "../../x": "x", "..": "", ".": "", "a/b": "a_b", "/etc/x": "etc_x",
    ".hidden": "hidden", "_x": "x", "a.b": "a_b", "data.": "data", "data ": "data", " data": "data", "CON": "CON_",
    "nul": "nul_", "aux.txt": "aux_txt", "Com1": "Com1_", "Müller": "Muller", "鳥": "", "a\nb": "a_b",
    "a\x1b[2J": "a_2J",
    "a\x00b": "a_b", "x" * 65: "x" * 64, "x" * 5000: "x" * 64, "~": "", "$HOME": "HOME", "a:b": "a_b", "a\\b": "a_b",
    "%s": "s", "a,b": "a_b", "*": "", "👩": "", "ﬁ": "fi", "a\u202eb": "ab", "-rf": "rf", "a\u00a0b": "a_b",
    "１２": "12",
}  # fmt: skip


def named(study: Study, key: str, name: str) -> Study:
    """The study with another name in its configuration, as if a file of `conf/` or of a plug-in had it."""
    config = copy.deepcopy(study.config)
    group, _, inner = key.rpartition(".")
    setattr(getattr(config, group) if group else config, inner, name)
    return Study(study.raw, config)


@pytest.mark.bad_input("command line", "names")
@pytest.mark.parametrize(("name", "similar"), BAD_NAMES.items(), ids=lambda text: ascii(text)[:30])
def test_a_name_that_cannot_be_part_of_a_path_is_refused_with_a_similar_one_that_can(
    name: str, similar: str, compose_study: Callable[..., Study]
) -> None:
    key = KEYS[list(BAD_NAMES).index(name) % len(KEYS)]
    study = compose_study("dataset=glyphs_small", "loss=proxy_nca")
    with pytest.raises(UserError) as refused:
        check_values(named(study, key, name))
    text = str(refused.value)
    assert text.startswith(f"{key}=") and "becomes part of a path" in text and len(text) < 500, text
    assert ("For example: " in text) == bool(similar) and similar in text, text
    assert not any(char in text for char in "\n\x1b\x00\u202e"), text


@pytest.mark.bad_input("command line", "names")
@pytest.mark.parametrize("verb", ["bo", "final-eval", "data", "splits", "status", "logs"])
def test_every_command_refuses_a_name_that_leads_out_of_its_folder(verb: str, place: Path) -> None:
    ended = commanded(verb, *on_tiny("results_dir=results", "dataset.name=../../x"))
    assert_refused(ended, "dataset.name='../../x' becomes part of a path", "NAME=x")
    assert not list(place.parent.rglob("*"))[1:], "nothing may be written"


@pytest.mark.bad_input("command line", "names")
@pytest.mark.parametrize("variant", ["WIDE", "Wide", "wIDE"])
def test_a_name_that_differs_from_an_existing_one_only_in_its_case_is_refused(
    variant: str, compose_study: Callable[..., Study]
) -> None:
    compose_study("loss=proxy_nca", "variant=wide").directory.mkdir(parents=True)
    with pytest.raises(UserError, match=f"proxy_nca-{variant} differs from it only in upper and lower case"):
        check_values(compose_study("loss=proxy_nca", f"variant={variant}"))
    check_values(compose_study("loss=proxy_nca", "variant=wide"))


def test_names_that_people_use_are_allowed(compose_study: Callable[..., Study]) -> None:
    study = compose_study("loss=proxy_nca")
    for name in ("a", "7", "my_birds_2", "CUB", "console", "com10", "x" * 64, "A_"):
        check_values(named(study, "variant", name))


@pytest.fixture
def things(place: Path) -> Path:
    """The working directory with a file, a pipe, a socket and links that lead nowhere, in a circle and to a folder."""
    (place / "file").write_text("")
    os.mkfifo(place / "pipe")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket")
    (place / "dangling").symlink_to("nowhere")
    (place / "circle").symlink_to("circle")
    (place / "folder").mkdir()
    (place / "link").symlink_to("folder")
    return place


FOLDERS = {
    "": ("is empty",), "   ": ("is empty",), "~nobody_here/x": ("no home directory for ~nobody_here",),
    "file": ("it is a file",), "file/below": ("file is a file",), "pipe": ("a named pipe",), "socket": ("a socket",),
    "dangling": ("a link to what does not exist",), "dangling/x": ("dangling is a link to what does not exist",),
    "circle": ("links lead in a circle",), "/dev/null": ("a device",), "/dev/null/x": ("/dev/null is a device",),
    "https://example.org/x": ("is an address", "on this machine"), "s3://bucket/x": ("is an address",),
    "a\nb": ("'\\n'",), "a\tb": ("'\\t'",), "a\x00b": ("'\\x00'",), "a\x1bb": ("'\\x1b'",), "caf\udce9": ("'\\udce9'",),
    "x" * 300: ("300 bytes; at most 255",), "é" * 200: ("400 bytes; at most 255",), "x/" * 2500: ("too long",),
}  # fmt: skip


@pytest.mark.bad_input("command line", "folders and files")
@pytest.mark.parametrize("value", FOLDERS, ids=lambda text: ascii(text)[:30])
@pytest.mark.parametrize("key", ["results_dir", "dataset.module.root", "study"])
def test_a_folder_that_cannot_be_one_is_refused_and_nothing_is_written(key: str, value: str, things: Path) -> None:
    before = sorted(things.rglob("*"))
    verb, first = {
        "results_dir": ("bo", ()),
        "study": ("status", ()),
        "dataset.module.root": ("data", ("dataset=folder",)),
    }[key]
    ended = commanded(verb, *first, f"{key}={value}")
    assert_refused(ended, *FOLDERS[value])
    assert key in ended.err and len(ended.err) < 600
    assert sorted(things.rglob("*")) == before


NO_FILES = ("", ".", "folder", "pipe", "socket", "/dev/zero", "s3://a/b.csv", "~nobody_here/a.csv", "x" * 300, "circle")


@pytest.mark.bad_input("command line", "folders and files")
@pytest.mark.parametrize("value", NO_FILES, ids=lambda text: ascii(text)[:30])
def test_a_manifest_that_cannot_be_a_file_is_refused(value: str, things: Path) -> None:
    ended = commanded("data", "dataset=csv", f"dataset.module.path={value}")
    assert_refused(ended, "dataset.module.path")
    assert any(word in ended.err for word in ("not a file", "is empty", "address", "home", "at most 255", "circle"))


NO_CACHES = ("file", "dangling", "pipe", "~nobody_here/x", "s3://b", "x" * 300, "a\nb", "/dev/null", "circle", "file/x")


@pytest.mark.bad_input("command line", "folders and files")
@pytest.mark.parametrize("value", NO_CACHES, ids=lambda text: ascii(text)[:30])
def test_a_cache_that_cannot_be_a_folder_is_refused(value: str, things: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCHMARK_CACHE", value)
    before = sorted(things.rglob("*"))
    assert_refused(commanded("data", *on_tiny()), "BENCHMARK_CACHE=")
    assert sorted(things.rglob("*")) == before


GOOD_FOLDERS = {
    "~": "", "~/results": "results", ".": ".", "..": "..", "link": "link", "link/x": "link/x", "null": "null", "7": "7",
    "my results": "my results", "a,b": "a,b", "a=b": "a=b", "it's": "it's", "a#b": "a#b", "%s": "%s", "é": "é",
    "a:b": "a:b", "(a)": "(a)", "new/new": "new/new",
}  # fmt: skip
FAST = ("~/results", "null", "it's")


@pytest.mark.bad_input("command line", "folders and files")
@pytest.mark.parametrize("value", [pytest.param(v, marks=[pytest.mark.slow] * (v not in FAST)) for v in GOOD_FOLDERS])
def test_a_folder_with_an_unusual_name_is_the_one_that_is_used(value: str, things: Path) -> None:
    ended = commanded("bo", *on_tiny(f"results_dir={value}"))
    assert ended.status == 0, ended
    expected = Path(str(GOOD_FOLDERS[value])) if value[0] != "~" else things / str(GOOD_FOLDERS[value])
    assert f"reached: {expected / 'studies'}/glyphs_small-small_conv-hpl/proxy_nca with seed 0\n" in ended.out
