"""Conversion of JSON to dataclasses, which checks the type and range of every field and refuses unknown keys.

The annotations of a dataclass state what is allowed. A class attribute `other_keys`, a `dict` type, allows further keys
that match it. Conditions on several fields, such as that two of them agree, are checked in `__post_init__`, which
raises a `ValueError` whose message starts with the name of a field.
"""

import dataclasses
import functools
import json
import re
import sys
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeVar, Union

import msgspec
from msgspec import Meta

from benchmark.core.escape import shortened, visible
from benchmark.core.records import CorruptFileError

LARGEST = sys.float_info.max  # as a bound, it excludes NaN and infinity
LONGEST = 80  # characters of a value in a message
LARGEST_INT = 2**53  # larger integers are not exact as a float

Fraction = Annotated[float, Meta(ge=0, le=1, description="a number between 0 and 1")]
Finite = Annotated[float, Meta(ge=-LARGEST, le=LARGEST, description="a finite number")]
Seconds = Annotated[float, Meta(ge=0, le=1e10, description="a number of seconds between 0 and 10^10")]
Integer = Annotated[int, Meta(ge=-LARGEST_INT, le=LARGEST_INT, description="a whole number below 2^53")]
Count = Annotated[int, Meta(ge=0, le=LARGEST_INT, description="a whole number of at least 0")]
AtLeastOne = Annotated[int, Meta(ge=1, le=LARGEST_INT, description="a whole number of at least 1")]
Text = Annotated[str, Meta(min_length=1, description="a non-empty string")]

Made = TypeVar("Made")
PLAIN = {int: "a whole number", float: "a number", str: "a string", bool: "true or false", type(None): "null"}
PLACE = re.compile(r"(?P<message>.*?)(?: - at (?P<key>`key` in )?`\$(?P<place>.*)`)?", re.DOTALL)
STEP = re.compile(r"\.(?P<name>\w+)|\[(?P<index>\d+)\]|\[\.\.\.\]")


def convert(value: object, kind: type[Made], path: Path) -> Made:
    """The dataclass that a JSON value describes.

    Args:
        value: the value, as `json.loads` or `yaml.safe_load` returns it.
        kind: the dataclass.
        path: the file that holds the value, for messages.

    Raises:
        CorruptFileError: a field is missing, unknown, out of its range or of another type, or fields contradict each
            other. The message names the file, the field, its value and what is allowed.
    """
    try:
        made = msgspec.convert(value, kind, strict=True)
        fault = next(_unknown_keys(made, value, ""), "")
    except msgspec.ValidationError as error:
        fault = _explain(error, value, kind)
    except UnicodeEncodeError as error:  # JSON can escape half of a surrogate pair
        fault = f"{_shown(error.object)} is not valid text: it contains half of a surrogate pair"
    if fault:
        raise CorruptFileError(f"{path}: {fault}.")
    return made


def _unknown_keys(made: object, value: typing.Any, where: str) -> Iterator[str]:
    """Yield a sentence about each key of a JSON value that the dataclass made from it does not allow.

    Args:
        made: the dataclass, or a part of it.
        value: the JSON value from which `made` was made.
        where: the path of `value` inside the whole, for messages.
    """
    if isinstance(made, list | tuple):
        for number, item in enumerate(made):
            yield from _unknown_keys(item, value[number], f"{where}[{number}]")
    elif isinstance(made, dict):
        for name, item in made.items():
            yield from _unknown_keys(item, value[name], _join(where, _key(name)))
    elif dataclasses.is_dataclass(made):
        fields = _fields(made.__class__)
        others = {key: raw for key, raw in value.items() if key not in fields}
        allowed = getattr(made, "other_keys", None)
        if others and allowed is None:
            yield f"{_join(where, _key(next(iter(others))))} is unknown; allowed are {', '.join(fields)}"
        elif others:
            try:
                msgspec.convert(others, allowed, strict=True)
            except msgspec.ValidationError as error:
                yield _explain(error, others, allowed, where)
        for name, has_dataclasses in fields.items():
            if has_dataclasses and name in value:
                yield from _unknown_keys(getattr(made, name), value[name], _join(where, name))


@functools.cache
def _fields(kind: type) -> dict[str, bool]:
    """The names of a dataclass's fields, and whether the type of each contains dataclasses."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {field.name: _contains_dataclass(hints[field.name]) for field in dataclasses.fields(kind)}


def _contains_dataclass(kind: object) -> bool:
    return dataclasses.is_dataclass(kind) or any(map(_contains_dataclass, typing.get_args(kind)))


def _explain(error: msgspec.ValidationError, value: typing.Any, kind: object, where: str = "") -> str:
    """Describe a refused value: where it is, what it is, and what is allowed; a sentence without its full stop."""
    text = str(error)
    own = isinstance(error.__cause__, ValueError)
    if own:  # raised in a `__post_init__`; its message may contain anything
        text = "own" + text.removeprefix(str(error.__cause__))
    match = PLACE.fullmatch(text)
    assert match is not None
    for step in STEP.finditer(match["place"] or ""):
        if step["name"]:
            kind = typing.get_type_hints(_member(kind, dict), include_extras=True)[step["name"]]
            where, value = _join(where, step["name"]), value[step["name"]]
        elif step["index"]:
            kind = typing.get_args(_member(kind, list))[0]
            where, value = f"{where}[{step['index']}]", value[int(step["index"])]
        else:  # the place names no key of a dictionary: take the first that is refused
            kind = typing.get_args(_member(kind, dict))[1]
            name = next(name for name in value if not _is_a(value[name], kind))
            where, value = _join(where, _key(name)), value[name]
    if own:
        return _join(where, str(error.__cause__))
    if missing := re.fullmatch(r"Object missing required field `(\w+)`", match["message"]):
        return f"{_join(where, missing[1])} is missing"
    if match["key"]:
        names = typing.get_args(_member(kind, dict))[0]
        name = next(name for name in value if not _is_a(name, names))
        return f"{_join(where, _key(name))} is unknown; a name here must be {_allowed(names)}"
    return f"{where or 'the content'} is {_shown(value)}; it must be {_allowed(kind)}"


def _is_a(value: object, kind: object) -> bool:
    try:
        msgspec.convert(value, kind, strict=True)
    except msgspec.ValidationError:
        return False
    return True


def _key(name: object) -> str:
    """An untrusted key, escaped and shortened for a message."""
    return shortened(visible(str(name)), LONGEST)


def _join(where: str, rest: str) -> str:
    return f"{where}.{rest}" if where else rest


def _shown(value: object) -> str:
    """A value for a message: a scalar as JSON, shortened; a list or an object only by its size."""
    if isinstance(value, list | dict):
        return f"a list of {len(value)}" if isinstance(value, list) else f"an object with {len(value)} keys"
    try:
        text = json.dumps(value, default=repr)
    except ValueError:  # an integer with too many digits
        return "a huge number"
    return shortened(text, LONGEST)


def _members(kind: object) -> tuple[object, ...]:
    """The members of a union; any other type as it is."""
    return typing.get_args(kind) if typing.get_origin(kind) in (Union, types.UnionType) else (kind,)


def _member(kind: object, container: type) -> typing.Any:
    """The member of a union that stands for a JSON list (`list`) or a JSON object (`dict`), without its `Annotated`."""
    bare = [typing.get_args(m)[0] if typing.get_origin(m) is Annotated else m for m in _members(kind)]
    if container is list:
        return next(member for member in bare if typing.get_origin(member) in (list, tuple, Sequence))
    return next(member for member in bare if typing.get_origin(member) is dict or dataclasses.is_dataclass(member))


def _allowed(kind: object) -> str:
    """A type in words.

    >>> _allowed(Fraction | None)
    'a number between 0 and 1, or null'
    >>> _allowed(Literal["patience", "diverged"])
    'patience or diverged'
    """
    words = []
    for member in _members(kind):
        origin = typing.get_origin(member)
        if origin is Annotated:
            meta = next(m for m in member.__metadata__ if isinstance(m, Meta))  # type: ignore[attr-defined]
            words.append(meta.description or f"{_allowed(typing.get_args(member)[0])} with {_range(meta)}")
        elif origin is Literal:
            words.append(" or ".join(map(str, typing.get_args(member))))
        elif member is not msgspec.UnsetType:
            container = "a list" if origin in (list, tuple, Sequence) else "an object"
            words.append(PLAIN.get(typing.cast(type, member), container))
    return ", or ".join(words)


def _range(meta: Meta) -> str:
    """A range without a description, by the names of its bounds, such as "ge 1"."""
    names = ("gt", "ge", "lt", "le", "multiple_of", "pattern", "min_length", "max_length")
    return ", ".join(f"{name} {getattr(meta, name)}" for name in names if getattr(meta, name) is not None)
