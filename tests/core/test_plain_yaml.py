"""Loading any YAML file returns plain values or raises a `ValueError`, and for a file of `conf/` a `UserError`."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmark.core import conf_files, plain_yaml
from benchmark.core.errors import UserError
from benchmark.core.paths import conf_dir, experiments_dir

HOSTILE = {
    "nested lists": "[" * 900_000, "nested mappings": "{a: " * 200_000, "nested blocks": "- " * 400_000,
    "large": "a" * 2_000_000, "a recursive alias": "a: &a [*a]", "an alias": "a: &a [1]\nb: *a",
    "no key": "[1]: 2\n? {a: 1}\n: 3", "a date": "2001-99-99", "no boolean": "!!bool x", "no number": "!!int ''",
    "no time": "!!timestamp x", "code": "!!python/object/apply:os.system ['true']", "an unknown tag": "!unknown 1",
    "no YAML": "a: b: c", "a control character": "a: \x00", "half a pair": 'a: "\\ud800', "no mapping": "!!omap x",
    "two documents": "a: 1\n---\nb: 2", "an integer key": "a: {1: 2}", "a duplicated key": "a: {b: 1, c: 2, b: 3}",
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_document_is_refused_in_one_line(name: str) -> None:
    phrases = r"^it (is|has|contains)|month must be|invalid literal|is a key, but not a string|b is a duplicated key"
    with pytest.raises(ValueError, match=phrases) as caught:
        plain_yaml.load(HOSTILE[name].encode())
    assert "\n" not in str(caught.value)


def test_text_that_is_not_utf_8_is_refused() -> None:
    with pytest.raises(ValueError, match="utf-8"):
        plain_yaml.load(b"a: \xff")


@pytest.mark.parametrize("value", [None, 7, [], {"a": [1, 2.5, {"b": None}], "c": {"d": "é"}}])
def test_plain_values_come_back(value: Any) -> None:
    assert plain_yaml.load(yaml.safe_dump(value, allow_unicode=True).encode()) == value


def test_fifty_levels_are_read_and_one_more_is_not() -> None:
    assert plain_yaml.load(b"[" * 50 + b"]" * 50)
    assert plain_yaml.load(b"[" + b"[]," * 60 + b"]") == [[]] * 60
    with pytest.raises(ValueError, match="more than 50 levels"):
        plain_yaml.load(b"[" * 51 + b"]" * 51)


def test_files_of_the_project_hold_what_pyyaml_says() -> None:
    files = [*conf_dir().rglob("*.yaml"), *experiments_dir().glob("*.yaml")]
    assert len(files) > 100
    for path in files:
        assert plain_yaml.read_mapping(path) == (yaml.safe_load(path.read_text(encoding="utf-8")) or {}), path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: b: c", "is not valid YAML"), (b"a: \xff", "is not valid YAML"), (b"a: 1\na: 2", "duplicated key"),
        (b"- 1", "holds list; a mapping is expected"), (b"text", "holds str"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_mapping_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        plain_yaml.read_mapping(path)
    assert str(caught.value).startswith(f"{path} ") and "\n" not in str(caught.value)


def test_a_file_may_be_empty_hold_aliases_or_lack(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("# nothing\n")
    assert plain_yaml.read_mapping(path) == {}
    path.write_text("a: &a {b: 1}\nc: *a\n")
    assert plain_yaml.read_mapping(path) == {"a": {"b": 1}, "c": {"b": 1}}
    with pytest.raises(UserError, match=r"none\.yaml cannot be read \(No such file"):
        plain_yaml.read_mapping(tmp_path / "none.yaml")


def test_a_group_lists_its_files_and_a_name_without_one_has_no_content() -> None:
    assert conf_files.names("loss") == sorted(path.stem for path in (conf_dir() / "loss").glob("*.yaml"))
    assert conf_files.content("trunk", "none_of_these") == {}
