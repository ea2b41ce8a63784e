"""Loading any YAML file returns plain values or raises a `ValueError`."""

from typing import Any

import pytest
import yaml

from benchmark.core import plain_yaml

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
