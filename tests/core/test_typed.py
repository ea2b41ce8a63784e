"""A value that is not allowed is named with its place, the value, and what is allowed."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
from msgspec import UNSET, Meta, UnsetType

from benchmark.core.records import CorruptFileError
from benchmark.core.typed import Count, Finite, Fraction, Integer, Seconds, Text, convert

PATH = Path("folder/file.json")


@dataclass(frozen=True, kw_only=True)
class Inner:
    share: Fraction
    word: Literal["a", "b"] = "a"

    def __post_init__(self) -> None:
        if self.word == "b" and self.share < 0.5:
            raise ValueError("share - at `$.x` is too small for b")


@dataclass(frozen=True, kw_only=True)
class Outer:
    other_keys: ClassVar = dict[Annotated[str, Meta(pattern="^x_")], Seconds]
    items: list[Inner]
    named: dict[Text, Inner] = field(default_factory=dict)
    settings: dict[str, Integer | Finite] = field(default_factory=dict)
    maybe: Count | None = None
    optional: Fraction | UnsetType = UNSET
    few: Annotated[int, Meta(gt=2, lt=5)] = 3


GOOD: dict[str, Any] = {
    "items": [{"share": 1}], "named": {"k": {"share": 0.5, "word": "b"}}, "settings": {"a": 2, "b": 2.0}, "x_1": 3,
}  # fmt: skip
FAULTS = {
    "items[0].share is 1.5; it must be a number between 0 and 1": {"items": [{"share": 1.5}]},
    "items[1].share is NaN; it must be a number between 0 and 1": {"items": [{"share": 1}, {"share": float("nan")}]},
    "items[0].share is a huge number; it must be": {"items": [{"share": 10**5000}]},
    "items[0].share is missing": {"items": [{}]},
    "items[0].word is \"c\"; it must be a or b": {"items": [{"share": 1, "word": "c"}]},
    "items[0].share - at `$.x` is too small for b": {"items": [{"share": 0, "word": "b"}]},
    "items[0].more is unknown; allowed are share, word": {"items": [{"share": 1, "more": 1}]},
    "items[0] is null; it must be an object": {"items": [None]},
    "items is an object with 1 keys; it must be a list": {"items": {"a": 1}},
    "named.k.share is true; it must be a number between": {"named": {"k": {"share": True}}},
    "named.k.more is unknown": {"named": {"k": {"share": 1, "more": 1}}},
    "named. is unknown; a name here must be a non-empty string": {"named": {"": {"share": 1}}},
    "named.3 is unknown; a name here must be a non-empty string": {"named": {3: {"share": 1}}},
    "settings.b is Infinity; it must be a whole number below 2^53, or a finite number": {
        "settings": {"a": 1, "b": float("inf")},
    },
    "settings.a is 18014398509481984; it must be a whole": {"settings": {"a": 2**54}},
    "settings.a is false; it must be a whole": {"settings": {"a": False}},
    "maybe is -1; it must be a whole number of at least 0, or null": {"maybe": -1},
    "optional is null; it must be a number between 0 and 1": {"optional": None},
    "few is 5; it must be a whole number with gt 2, lt 5": {"few": 5},
    "x_1 is -1; it must be a number of seconds between 0 and 10^10": {"x_1": -1},
    "y_1 is unknown; a name here must be a string with pattern ^x_": {"y_1": 1},
    "a\\x1b[31m\\n is unknown; a name here": {"a\x1b[31m\n": 1},
    "maybe is \"" + 79 * "m" + "...; it must": {"maybe": 200 * "m"},
    '"\\ud800" is not valid text: it contains half of a surrogate pair': {"\ud800": 1},
}  # fmt: skip


def test_what_is_allowed_is_converted() -> None:
    made = convert(GOOD, Outer, PATH)
    assert made.items == [Inner(share=1.0)] and made.named["k"].word == "b" and made.optional is UNSET
    assert [type(value) for value in made.settings.values()] == [int, float]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named(fault: str) -> None:
    with pytest.raises(CorruptFileError) as caught:
        convert(GOOD | FAULTS[fault], Outer, PATH)
    message = str(caught.value)
    assert message.startswith(f"folder/file.json: {fault}") and message.endswith(".") and len(message) < 250


@pytest.mark.parametrize(("value", "shown"), [(None, "null"), ([1], "a list of 1"), ("text", '"text"'), (b"x", '"b')])
def test_a_value_that_is_not_an_object_is_named(value: object, shown: str) -> None:
    with pytest.raises(CorruptFileError, match=r"^folder/file\.json: the content is " + shown):
        convert(value, Outer, PATH)
