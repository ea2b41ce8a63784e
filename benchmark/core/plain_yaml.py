"""Reading YAML as plain values: any document, and the files of `conf/` and `experiments/`.

PyYAML's safe loader builds no objects, but a file can still end the process with a segmentation fault (by nesting),
fill the memory (by aliases), or raise almost any exception (by a tag that does not fit its value). Here size and depth
are bounded, every failure is a `ValueError`, and aliases are refused, as are keys that are duplicated or not strings.
"""

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmark.core.errors import UserError
from benchmark.core.records import CorruptFileError, JsonObject, NewerFileError, digest, digest_or_none

MOST_BYTES = 1_000_000
DEEPEST = 50  # levels of nesting
LONGEST_SHOWN = 80  # characters of a key in a message


def with_checksum(body: JsonObject) -> bytes:
    """A YAML document that holds its own digest under `sha256`, before all other keys.

    Raises:
        ValueError: a number is not finite.
    """
    import yaml

    return yaml.safe_dump({"sha256": digest(body)} | body, sort_keys=False).encode()


def load_checked(data: bytes, path: Path, newest: int) -> JsonObject:
    """The content of a document of `with_checksum`, without the digest.

    Args:
        data: the document.
        path: its file, for messages.
        newest: the highest `version` that can be read.

    Raises:
        CorruptFileError: it is damaged, or was altered.
        NewerFileError: a newer version wrote it.
    """
    try:
        body = load(data)
    except ValueError as error:
        raise CorruptFileError(f"{path} is damaged: {error}.") from error
    if not isinstance(body, dict):
        raise CorruptFileError(f"{path} is damaged: it is not a mapping.")
    if type(version := body.get("version")) is int and version > newest:
        raise NewerFileError(f"{path} has version {version}; this version reads up to {newest}. Upgrade this project.")
    checksum = body.pop("sha256", None)
    if checksum is None or digest_or_none(body) != checksum:
        raise CorruptFileError(f"{path} is damaged: it does not match its own checksum.")
    return body


def load(data: bytes) -> Any:
    """The value of an untrusted YAML document.

    >>> load(b"trial: 7")
    {'trial': 7}

    Args:
        data: the document in UTF-8.

    Raises:
        ValueError: it is too large, too deep or not valid YAML, or it contains an alias or a tag that does not fit its
            value; the message says which, in one line.
    """
    import yaml  # here, because most of `core` is imported by commands that read no YAML

    loader = _loader()
    if len(data) > MOST_BYTES:
        raise ValueError(f"it is larger than {MOST_BYTES:,} bytes")
    try:
        text = data.decode()
        _check_events(yaml.parse(text, loader))
        return yaml.load(text, loader)
    except yaml.YAMLError as error:
        raise ValueError(f"it is not valid YAML ({' '.join(str(error).split())})") from error
    except (LookupError, AttributeError, TypeError) as error:
        raise ValueError(f"it has a tag that does not fit its value ({type(error).__name__})") from error


def read_mapping(path: Path) -> JsonObject:
    """The content of a file of `conf/` or `experiments/`, of this project or of a plug-in; an empty file holds nothing.

    Unlike `load`, it allows aliases, as Hydra does: who brings a plug-in is trusted.

    Raises:
        UserError: the file cannot be read, is not valid YAML or does not hold a mapping.
    """
    import yaml

    try:
        found = yaml.load(path.read_text(encoding="utf-8"), _loader())
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from error
    except (ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} is not valid YAML ({' '.join(str(error).split())}). Correct the file.") from error
    if not isinstance(found, dict | None):
        raise UserError(f"{path} holds {type(found).__name__}; a mapping is expected. Correct the file.")
    return found or {}


@functools.cache
def _loader() -> Any:
    """A safe loader that refuses keys that are duplicated or not strings."""
    import yaml

    fastest: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C is ten times as fast

    class Loader(fastest):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:
            seen = set()
            for key_node, _ in node.value:
                key = self.construct_object(key_node, deep=True)
                if not isinstance(key, str) or key in seen:
                    what = "is a duplicated key" if isinstance(key, str) else "is a key, but not a string"
                    raise ValueError(f"{str(key)[:LONGEST_SHOWN]} {what}")
                seen.add(key)
            return super().construct_mapping(node, deep)

    return Loader


def _check_events(events: Iterable[Any]) -> None:
    """Raise a `ValueError` for aliases and deep nesting, before a recursive function processes them."""
    depth = 0
    for event in events:
        name = type(event).__name__
        if name == "AliasEvent":
            raise ValueError("it contains an alias")
        depth += name in ("SequenceStartEvent", "MappingStartEvent")
        depth -= name in ("SequenceEndEvent", "MappingEndEvent")
        if depth > DEEPEST:
            raise ValueError(f"it has more than {DEEPEST} levels")
