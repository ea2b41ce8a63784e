"""Messages about an invalid command line: the fault, the closest match, the allowed values and the next command."""

import difflib
import re
import unicodedata
from collections.abc import Sequence

from benchmark.core import invocation
from benchmark.core.escape import shown
from benchmark.core.names import PATTERN

VALUE = re.compile(
    r"[Vv]alue '(.*)'(?: of type '\w+' could not be converted to| is not a valid| for field of type) '?(\w+)"
)
KINDS = {"Integer": "a whole number", "int": "a whole number", "Float": "a number", "float": "a number",
         "Boolean": "true or false", "bool": "true or false"}  # fmt: skip


def see_all() -> str:
    """A sentence on how to see every key and its value."""
    return f"See the configuration that a command would use: {invocation.command('bo', flags='--cfg job')}"


def unknown_choice(group: str, name: str, allowed: Sequence[str]) -> str:
    """The message for a choice that has no file in a group of `conf/`.

    >>> print(unknown_choice("loss", "contrastiv", ["contrastive", "triplet"]))
    There is no loss 'contrastiv'. Did you mean 'contrastive'?
    Allowed: contrastive, triplet. To add one, write conf/loss/contrastiv.yaml.

    Args:
        group: folder of `conf/`.
        name: the chosen name.
        allowed: names of the files in that folder.
    """
    near = _did_you_mean(_nearest(name, allowed))
    ending = f" To add one, write conf/{group}/{name}.yaml." if re.fullmatch(PATTERN, name) and name != "null" else ""
    return f"There is no {group} {shown(name)}.{near}\nAllowed: {', '.join(allowed)}.{ending}"


def unknown_key(key: str, known: Sequence[str]) -> str:
    """The message for a key that does not exist: the closest key, and all keys at the level of the first wrong part.

    >>> print(unknown_key("trunk.widht", ["trunk", "trunk.name", "trunk.width"]).splitlines()[0])
    There is no key 'trunk.widht'. Did you mean 'trunk.width'?
    >>> print(unknown_key("dataset.x.steps", ["dataset", "loss", "loss.steps"]).splitlines()[0])
    There is no key 'dataset.x.steps'. Did you mean 'loss.steps'?

    Args:
        key: the dotted key.
        known: all dotted keys, including groups.
    """
    if key in known:
        return f"The file for {key!r} does not set it. Write +{key}=VALUE to set it.\n{see_all()}"
    parts = key.split(".")
    depth = next(n for n in range(len(parts)) if ".".join(parts[: n + 1]) not in known)  # depth of the first wrong part
    above, below = parts[:depth], parts[depth + 1 :]
    siblings = [k.rpartition(".")[2] for k in known if k.rpartition(".")[0] == ".".join(above)]
    near = [k for k in known if k.rpartition(".")[2] == parts[-1]]  # right, but at another place
    if not near or below:
        near = [".".join([*above, name, *below]) for name in _nearest(parts[depth], siblings)] or near
    there = f"Keys of {'.'.join(above)}: {', '.join(siblings)}." if above else f"Keys: {', '.join(siblings)}."
    if len(above) > 1:
        there += f" To set a key that its file does not set, write +{key}=VALUE."
    return f"There is no key {shown(key)}.{_did_you_mean(near)}\n{there}\n{see_all()}"


def wrong_type(key: str, complaint: str) -> str:
    """The message for a value of the wrong type.

    >>> print(wrong_type("trials", "Value 'abc' of type 'str' could not be converted to Integer").splitlines()[0])
    trials=abc: give a whole number.
    >>> print(wrong_type("loss.setting", "field 'loss.setting' is not Optional").splitlines()[0])
    loss.setting=null: this key needs a value. Leave it out for its default.
    >>> print(wrong_type("loss.module.weights", "AnyNode is not a ListConfig, list or tuple.").splitlines()[0])
    loss.module.weights takes a list in brackets, as in loss.module.weights=[A,B].

    Args:
        key: the dotted key.
        complaint: OmegaConf's message.
    """
    if re.search(r"is not Optional|Incompatible value 'None'", complaint):
        return f"{key}=null: this key needs a value. Leave it out for its default.\n{see_all()}"
    if "missing mandatory value" in complaint:
        return f"{key} has no value, and this key needs one: {key}=VALUE\n{see_all()}"
    if "is not a ListConfig" in complaint:
        return f"{key} takes a list in brackets, as in {key}=[A,B].\n{see_all()}"
    found = VALUE.search(complaint)
    if found is None or found[2] not in KINDS:
        return f"{key} is invalid: {complaint.strip().splitlines()[0]}.\n{see_all()}"
    value = {"None": "null", "True": "true", "False": "false"}.get(found[1], found[1])
    return f"{key}={value}: give {KINDS[found[2]]}.\n{see_all()}"


def does_not_fit(complaint: str) -> str:
    """The message for any other configuration error, based on the message of the library that found it."""
    if key := re.search(r"full_key: (\S+)", complaint):
        return wrong_type(key[1], complaint)
    first = complaint.strip().splitlines()[0] if complaint.strip() else "No reason was given"
    return f"The configuration is invalid. {first.rstrip('.')}.\n{see_all()}"


def unreadable(argument: str, meant: str = "") -> str:
    """The message for an argument that is not an override.

    >>> print(unreadable("\u2013loss=hpl_pa", "loss=hpl_pa").splitlines()[0])
    '–loss=hpl_pa' cannot be read: it contains '–' (EN DASH). Did you mean loss=hpl_pa?

    Args:
        argument: the argument.
        meant: what was probably meant.
    """
    foreign = next((char for char in argument if not char.isascii()), "")
    why = f": it contains {foreign!r} ({unicodedata.name(foreign, 'unnamed')})" if foreign else ""
    if not why and any(argument.count(quote) % 2 for quote in "'\""):
        why = ": a quote in it is not closed"
    guess = f" Did you mean {meant}?" if meant else ""
    return (
        f"{shown(argument)} cannot be read{why}.{guess}\nWrite key=value without blanks, such as trials=20 or "
        "loss=contrastive; put a value with other characters in quotes, such as 'loss.space.alpha.bounds=[1,100]' or "
        f"'dataset.module.root=\"my birds\"'.\n{see_all()}"
    )


def dotted(node: object, prefix: str = "") -> list[str]:
    """Every dotted key of nested mappings; empty for anything else.

    >>> dotted({"a": {"b": 1}, "c": 2})
    ['a', 'c', 'a.b']
    """
    if not isinstance(node, dict):
        return []
    return [prefix + str(k) for k in node] + [n for k, v in node.items() for n in dotted(v, f"{prefix}{k}.")]


def _nearest(name: str, known: Sequence[str]) -> list[str]:
    return difflib.get_close_matches(re.sub(r"[\s.-]+", "_", name.lower()), known, n=1, cutoff=0.6)


def _did_you_mean(near: Sequence[str]) -> str:
    return f" Did you mean {' or '.join(map(repr, near[:3]))}?" if near else ""
