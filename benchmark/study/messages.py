"""Sentences for people whose command does not fit: what is wrong, what is nearest, what is allowed, what to run."""

import difflib
import re
from typing import Any

from benchmark.core import invocation

VALUE = re.compile(
    r"[Vv]alue '(.*)'(?: of type '\w+' could not be converted to| is not a valid| for field of type) '?(\w+)"
)
KINDS = {"Integer": "a whole number", "int": "a whole number", "Float": "a number", "float": "a number",
         "Boolean": "true or false", "bool": "true or false"}  # fmt: skip


def see_all() -> str:
    """How to see every key and its value."""
    return f"See the configuration that a command would use: {invocation.command('bo', flags='--cfg job')}"


def unknown_choice(group: str, name: str, allowed: list[str]) -> str:
    """No such file in a group of `conf/`.

    >>> print(unknown_choice("loss", "hpl_paa", ["contrastive", "hpl_pa"]))
    There is no loss 'hpl_paa'. Did you mean 'hpl_pa'?
    Allowed: contrastive, hpl_pa. To add one, write conf/loss/hpl_paa.yaml.
    """
    near = _did_you_mean(_nearest(name, allowed))
    ending = f" To add one, write conf/{group}/{name}.yaml." if re.fullmatch(r"\w+", name) else ""
    return f"There is no {group} {name!r}.{near}\nAllowed: {', '.join(allowed)}.{ending}"


def unknown_key(key: str, known: list[str]) -> str:
    """No such key: the nearest one beside it, or one of that name elsewhere, and all keys beside it.

    >>> print(unknown_key("trunk.widht", ["trunk", "trunk.name", "trunk.width"]).splitlines()[0])
    There is no key 'trunk.widht'. Did you mean 'trunk.width'?

    Args:
        key: dotted.
        known: every key there is, dotted, groups among them.
    """
    if key in known:
        return f"The file of {key!r} leaves it out. Write +{key}=VALUE to set it.\n{see_all()}"
    parts = key.split(".")
    depth = next(n for n in range(len(parts)) if ".".join(parts[: n + 1]) not in known)  # of the first wrong part
    above, below = parts[:depth], parts[depth + 1 :]
    beside = [k.rpartition(".")[2] for k in known if k.rpartition(".")[0] == ".".join(above)]
    near = [".".join([*above, name, *below]) for name in _nearest(parts[depth], beside)]
    if not near and not below:
        near = [k for k in known if k.rpartition(".")[2] == parts[-1]]
    there = f"Keys of {'.'.join(above)}: {', '.join(beside)}." if above else f"Keys: {', '.join(beside)}."
    if len(above) > 1:
        there += f" One that its file leaves out is set by +{key}=VALUE."
    return f"There is no key {key!r}.{_did_you_mean(near)}\n{there}\n{see_all()}"


def wrong_type(key: str, complaint: str) -> str:
    """A value of the wrong type, from the sentence of the library that found it.

    >>> print(wrong_type("trials", "Value 'abc' of type 'str' could not be converted to Integer").splitlines()[0])
    trials=abc: give a whole number.
    """
    found = VALUE.search(complaint)
    if found is None or found[2] not in KINDS:
        return f"{key} does not fit: {complaint.strip()}\n{see_all()}"
    value = "null" if found[1] == "None" else found[1]
    return f"{key}={value}: give {KINDS[found[2]]}.\n{see_all()}"


def does_not_fit(complaint: str) -> str:
    """Anything else that is wrong with a configuration."""
    return f"The configuration does not fit. {complaint.strip()}\n{see_all()}"


def unreadable(override: str) -> str:
    """An argument that is no override."""
    return (
        f"{override!r} cannot be read. Write key=value, such as trials=20 or loss=hpl_pa; what holds blanks, commas or "
        f"brackets goes into quotes, such as 'loss.space.scale_0.bounds=[1,100]'.\n{see_all()}"
    )


def dotted(node: Any, prefix: str = "") -> list[str]:
    """Every key of nested mappings.

    >>> dotted({"a": {"b": 1}, "c": 2})
    ['a', 'c', 'a.b']
    """
    if not isinstance(node, dict):
        return []
    return [prefix + str(k) for k in node] + [n for k, v in node.items() for n in dotted(v, f"{prefix}{k}.")]


def _nearest(name: str, known: list[str]) -> list[str]:
    return difflib.get_close_matches(name, known, n=1, cutoff=0.6)


def _did_you_mean(near: list[str]) -> str:
    return f" Did you mean {' or '.join(map(repr, near[:3]))}?" if near else ""
