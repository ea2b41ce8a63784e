"""The generator of wrong values covers every field, and fails for a type that it does not know."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import pytest
from msgspec import Meta

from tests.study.mutations import mutations, not_covered


@dataclass
class Inner:
    share: Annotated[float, Meta(ge=0, le=1)]
    word: Literal["a", "b"] = "a"


@dataclass
class Outer:
    other_keys: ClassVar = dict[Annotated[str, Meta(pattern="^x_")], bool]
    inner: list[Inner]
    count: Annotated[int, Meta(ge=2)] | None = None
    rate: Annotated[float, Meta(gt=0, lt=1)] = 0.5
    codes: Sequence[str] = ()
    names: dict[str, str] = field(default_factory=dict)


EXAMPLE: dict[str, Any] = {
    "inner": [{"share": 1, "word": "b"}],
    "count": 3,
    "names": {"k": "v"},
    "x_1": True,
    "rate": 0.5,
    "codes": ["a"],
}


def test_each_place_is_mutated_in_each_way_and_the_example_stays() -> None:
    before = copy.deepcopy(EXAMPLE)
    found = {(mutation.field, mutation.what) for mutation in mutations(Outer, EXAMPLE)}
    of_share = {what.removeprefix("a value of type ") for name, what in found if name == "inner[0].share"}
    assert of_share == {"null", "bool", "str", "list", "object"} | {
        "NaN", "Infinity", "-Infinity", "a huge integer", "below its range", "above its range", "missing",
    }  # fmt: skip
    assert {what for name, what in found if name == "inner"} == {"missing"} | {
        f"a value of type {name}" for name in ("null", "bool", "int", "float", "str", "object")
    }
    assert {what for name, what in found if name == "count"} == {"below its range"} | {
        f"a value of type {name}" for name in ("bool", "float", "str", "list", "object")
    }
    assert ("inner[0].word", "another word") in found and ("inner[0].word", "missing") not in found
    assert ("inner[0].no_such_field", "unknown") in found and ("no_such_field", "unknown") not in found
    assert ("names.k", "a value of type int") in found and ("x_1", "a value of type int") in found
    assert ("of another form", "a key that is of another form") in found
    assert {("rate", "on its lower bound"), ("rate", "on its upper bound")} <= found
    assert ("codes[0]", "a value of type int") in found and ("codes", "a value of type str") in found
    assert before == EXAMPLE


def test_a_mutation_changes_one_place_only() -> None:
    below, above = [m for m in mutations(Outer, EXAMPLE) if m.what.endswith("its range") and "share" in m.field]
    assert below.value == EXAMPLE | {"inner": [{"share": math.nextafter(0, -1), "word": "b"}]}
    assert above.value == EXAMPLE | {"inner": [{"share": math.nextafter(1, 2), "word": "b"}]}


@dataclass
class Anything:
    whatever: object


@dataclass
class Unknown:
    steps: Annotated[int, Meta(multiple_of=5)]


@pytest.mark.parametrize(
    ("kind", "message"),
    [(Anything, "Anything.whatever accepts every value"), (Unknown, "multiple_of")],
)
def test_a_field_without_a_mutation_is_an_error(kind: type, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        list(mutations(kind, {"whatever": 1, "steps": 5}))


def test_fields_that_an_example_leaves_out_are_listed() -> None:
    assert not_covered(Outer, [EXAMPLE]) == set()
    assert not_covered(Outer, [{"inner": [], "count": None}]) == {
        "Outer.inner", "Outer.count", "Outer.names", "Outer.rate", "Outer.codes", "Inner.share", "Inner.word",
    }  # fmt: skip
    assert not_covered(Outer, [EXAMPLE | {"inner": [{"share": 0.5}]}, EXAMPLE | {"inner": []}]) == {"Inner.word"}
