"""Every way in which a JSON value can be wrong for a dataclass, derived from the dataclass and one correct example.

Each mutation changes one place: a field is missing or unknown, or a value has another JSON type or lies outside its
range. The ranges are those in the annotations. Nothing here uses the code that checks values.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NotRequired, Union

from msgspec import Meta, UnsetType

MISSING = object()
OF_EACH_TYPE = {"null": None, "bool": True, "int": 7, "float": 1.5, "str": "text", "list": [1], "object": {"a": 1}}
ACCEPTED = {type(None): ["null"], bool: ["bool"], int: ["int"], float: ["int", "float"], str: ["str"], UnsetType: []}
NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf, "a huge integer": 10**400}
RANGES = {
    "ge",
    "gt",
    "le",
    "lt",
    "min_length",
    "pattern",
    "description",
}  # the attributes of `Meta` that are understood here
Step = str | int
Wrong = tuple[tuple[Step, ...], str, Any]  # place, what is wrong there, the value; MISSING deletes a key


@dataclass(frozen=True)
class Mutation:
    """A wrong value.

    Attributes:
        field: the changed place, such as `result.folds[1].map_at_r`.
        what: what is wrong with it.
        value: the whole value.
    """

    field: str
    what: str
    value: Any


def mutations(kind: type, example: Any) -> Iterator[Mutation]:
    """Yield each wrong version of an example, one change at a time; the example itself stays as it is.

    Args:
        kind: the dataclass that the example is correct for.
        example: a correct JSON value.

    Raises:
        AssertionError: a field, at any depth, accepts every value.
    """
    for place, what, wrong in _of_dataclass(kind, example):
        yield Mutation(_name(place), what, _with(example, place, wrong))


def not_covered(kind: type, examples: Iterable[Any]) -> set[str]:
    """The fields, as `Class.field`, of a dataclass and those below it that have no value in any of the examples."""
    seen: set[str] = set()
    for example in examples:
        _note_fields(kind, example, seen)
    return {
        f"{c.__name__}.{field.name}" for c in _dataclasses_in(kind, set()) for field in dataclasses.fields(c)
    } - seen


def _of_dataclass(kind: type, value: Any) -> Iterator[Wrong]:
    hints = typing.get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        wrong = list(_of_value(hints[field.name], value.get(field.name, MISSING)))
        assert wrong, f"{kind.__name__}.{field.name} accepts every value"
        for place, what, new in wrong:
            yield (field.name, *place), what, new
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            yield (field.name,), "missing", MISSING
    others = getattr(kind, "other_keys", None)
    if others is None:
        yield ("no_such_field",), "unknown", 0.5
    elif others != dict[str, object]:
        yield from _of_value(others, {key: raw for key, raw in value.items() if key not in hints}, inside_only=True)


def _of_value(kind: Any, value: Any, inside_only: bool = False) -> Iterator[Wrong]:
    """Wrong values for a type, then those inside a correct value.

    Args:
        kind: the type.
        value: a correct value; MISSING if there is none.
        inside_only: skip what replaces the value as a whole.
    """
    members = [_bare(member) for member in _union(kind)]
    accepted = {name for bare, _ in members for name in _json_types(bare)}
    if not inside_only:
        for name, wrong in OF_EACH_TYPE.items():
            if name not in accepted:
                yield (), f"a value of type {name}", wrong
        for bare, meta in members:
            for what, wrong in _out_of_range(bare, meta).items():
                yield (), what, wrong
    for bare, _ in members:
        if isinstance(value, list) and _json_types(bare) == ["list"]:
            for number, item in enumerate(value):
                for place, what, wrong in _of_value(typing.get_args(bare)[0], item):
                    yield (number, *place), what, wrong
        elif isinstance(value, dict) and dataclasses.is_dataclass(bare):
            yield from _of_dataclass(typing.cast(type, bare), value)
        elif isinstance(value, dict) and typing.is_typeddict(bare):
            yield from _of_typed_dict(bare, value)
        elif isinstance(value, dict) and typing.get_origin(bare) in (dict, Mapping):
            keys, items = typing.get_args(bare)
            for what, wrong in _out_of_range(*_bare(keys)).items():
                yield (wrong,), f"a key that is {what}", next(iter(value.values()), 0.5)
            for key, item in value.items():
                for place, what, wrong in _of_value(items, item):
                    yield (key, *place), what, wrong


def _of_typed_dict(kind: Any, value: dict[str, Any]) -> Iterator[Wrong]:
    """Wrong values inside a dictionary whose keys are declared; it may have others."""
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        bare = typing.get_args(hint)[0] if typing.get_origin(hint) is NotRequired else hint
        for place, what, wrong in _of_value(bare, value.get(name, MISSING)):
            yield (name, *place), what, wrong
        if bare is hint:
            yield (name,), "missing", MISSING


def _out_of_range(bare: Any, meta: Meta) -> dict[str, Any]:
    """Values of the right JSON type that a type or its range excludes."""
    unknown = {name for name in dir(meta) if not name.startswith("_") and getattr(meta, name) is not None} - RANGES
    assert not unknown, f"no mutation is known for {', '.join(unknown)}"
    found: dict[str, Any] = dict(NOT_FINITE) if bare is float else {}
    if typing.get_origin(bare) is Literal:
        found["another word"] = "another"
    if meta.ge is not None:
        found["below its range"] = meta.ge - 1 if bare is int else math.nextafter(meta.ge, -math.inf)
    if meta.le is not None:
        found["above its range"] = meta.le + 1 if bare is int else math.nextafter(meta.le, math.inf)
    if meta.gt is not None:
        found["on its lower bound"] = meta.gt
    if meta.lt is not None:
        found["on its upper bound"] = meta.lt
    if meta.min_length is not None:
        assert meta.min_length == 1, "only one length is known"
        found["empty"] = "" if bare is str else []
    if meta.pattern is not None:
        found["of another form"] = "of another form"
    return found


def _union(kind: Any) -> tuple[Any, ...]:
    return typing.get_args(kind) if typing.get_origin(kind) in (Union, types.UnionType) else (kind,)


def _bare(kind: Any) -> tuple[Any, Meta]:
    """A type without its `Annotated`, and its range."""
    if typing.get_origin(kind) is not Annotated:
        return kind, Meta()
    metas = [meta for meta in kind.__metadata__ if isinstance(meta, Meta)]
    assert len(metas) == 1, f"{kind}: one Meta is expected"
    return typing.get_args(kind)[0], metas[0]


def _json_types(bare: Any) -> list[str]:
    """The JSON types that a type accepts."""
    origin = typing.get_origin(bare)
    if bare is object or bare is Any:
        return list(OF_EACH_TYPE)
    if origin in (list, tuple, Sequence):
        return ["list"]
    if origin in (dict, Mapping) or dataclasses.is_dataclass(bare) or typing.is_typeddict(bare):
        return ["object"]
    return ["str"] if origin is Literal else ACCEPTED[bare]


def _dataclasses_in(kind: Any, found: set[type]) -> set[type]:
    """All dataclasses that occur in a type."""
    if dataclasses.is_dataclass(kind) and kind not in found:
        found.add(typing.cast(type, kind))
        for hint in typing.get_type_hints(kind, include_extras=True).values():
            _dataclasses_in(hint, found)
    for inner in typing.get_args(kind):
        _dataclasses_in(inner, found)
    return found


def _note_fields(kind: Any, value: Any, seen: set[str]) -> None:
    """Add the fields that have a value, neither null nor empty, to those that were seen."""
    for member in _union(kind):
        bare, _ = _bare(member)
        if isinstance(value, list) and _json_types(bare) == ["list"]:
            for item in value:
                _note_fields(typing.get_args(bare)[0], item, seen)
        elif isinstance(value, dict) and typing.get_origin(bare) in (dict, Mapping):
            for item in value.values():
                _note_fields(typing.get_args(bare)[1], item, seen)
        elif isinstance(value, dict) and dataclasses.is_dataclass(bare):
            hints = typing.get_type_hints(bare, include_extras=True)
            for field in dataclasses.fields(bare):
                inner = value.get(field.name)
                if inner not in (None, [], {}, "") or (hints[field.name] is type(None) and field.name in value):
                    seen.add(f"{typing.cast(type, bare).__name__}.{field.name}")
                    _note_fields(hints[field.name], inner, seen)


def _with(value: Any, place: tuple[Step, ...], new: Any) -> Any:
    """A copy of a value with a change at one place."""
    step, *rest = place
    changed: Any = list(value) if isinstance(value, list) else dict(value)
    if rest:
        changed[step] = _with(value[step], tuple(rest), new)
    elif new is MISSING:
        del changed[step]
    else:
        changed[step] = new
    return changed


def _name(place: tuple[Step, ...]) -> str:
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place)
    return text.removeprefix(".")
