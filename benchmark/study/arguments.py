"""The arguments of a command: checked one by one, with the fault and the remedy, before Hydra composes them.

An argument is `key=value` in Hydra's grammar or one of a few flags. Whatever Hydra would ignore, guess or answer with
its own usage text is refused here: a key that is given twice, a key of Hydra itself, a list where one choice is needed,
values for several studies without `--multirun` (except losses, for commands that take several), a value that is
computed from something outside the configuration.
"""

import itertools
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    Glob,
    Override,
    QuotedString,
    RangeSweep,
    Transformer,
)
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from benchmark.core import invocation, places
from benchmark.core.errors import UserError
from benchmark.core.escape import shown
from benchmark.study import messages
from benchmark.study.config import Config
from benchmark.study.stored import REFERENCE

MOST_STUDIES = 1000  # of one command line
MOST_CHARACTERS = 10_000  # of one argument
KEY = re.compile(r"[+~]{0,2}[\w.]+(?:/[\w.]+)*(?:@[\w.:]*)?")
DASHES = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"), "-")
QUOTES = dict.fromkeys(map(ord, "\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\u00ab\u00bb"), "'")
FOLDERS = ("results_dir", "study", "a", "b", "dataset.module.root", "dataset.module.images_root")
FILES = ("dataset.module.path",)
REQUIRED = tuple(field.name for field in fields(Config))  # keys of the top level, none of which may be deleted
LISTS = ("figure", "corruptions", "keep_epochs")  # one value needs no brackets
Choices = Callable[[str], Sequence[str]]


@dataclass(frozen=True)
class Arguments:
    """The arguments of a command.

    Attributes:
        jobs: the overrides of each study, in Hydra's grammar; several with `--multirun`.
        shows: whether only the configuration is to be printed (`--cfg job`).
        resolves: whether it is printed with references resolved (`--resolve`).
    """

    jobs: list[list[str]]
    shows: bool = False
    resolves: bool = False


def read(given: Sequence[str], groups: Sequence[str], choices: Choices, several: Sequence[str] = ()) -> Arguments:
    """Check the arguments of a command, and return them by study.

    Args:
        given: the arguments.
        groups: keys that select a file of `conf/`.
        choices: returns the names of the files that a group has.
        several: groups of which several names may be given without `--multirun`, such as `loss=a,b`.

    Raises:
        UserError: an argument cannot be read, or may not be given.
    """
    multirun, shows, resolves, words = _flags(given, groups)
    parsed = [_parse(words, place, multirun) for place in range(len(words))]
    _check_once(parsed)
    lists = []
    for override in parsed:
        _check_key(override)
        if override.is_sweep_override() and not multirun and override.key_or_group not in several:
            raise UserError(_several(override, groups))
        values = _values(override, groups, choices)
        for value in values:
            _check_value(override, value)
            if override.key_or_group in groups:
                _check_choice(override, value, choices(override.key_or_group))
        lists.append([_with_value(override, value) for value in values])
    jobs = [list(job) for job in itertools.islice(itertools.product(*lists), MOST_STUDIES + 1)]
    if len(jobs) > MOST_STUDIES:
        raise UserError(f"These are more than {MOST_STUDIES:,} studies, which one command does not run. Sweep less.")
    return Arguments(jobs, shows, resolves)


def _flags(given: Sequence[str], groups: Sequence[str]) -> tuple[bool, bool, bool, list[str]]:
    """Whether there is `--multirun`, `--cfg job` and `--resolve`, and all other arguments."""
    multirun = shows = resolves = False
    words, rest = [], iter(given)
    for word in rest:
        if word in ("--multirun", "-m"):
            multirun = True
        elif word == "--resolve":
            resolves = True
        elif word in ("--cfg=job", "-c=job", "-cjob") or (word in ("--cfg", "-c") and next(rest, "") == "job"):
            shows = True
        elif word in ("--cfg", "-c") or word.startswith("--cfg="):
            raise UserError(f"{word} shows the configuration and takes one value: --cfg job")
        elif word.startswith("-"):
            raise UserError(_unknown_flag(word, next(rest, ""), groups))
        else:
            words.append(word)
    if resolves and not shows:
        raise UserError("--resolve belongs to --cfg job, which shows the configuration: --cfg job --resolve")
    return multirun, shows, resolves, words


def _unknown_flag(word: str, after: str, groups: Sequence[str]) -> str:
    """The message for a flag that does not exist."""
    key, equals, value = word.lstrip("-").partition("=")
    meant = ""
    if key in groups or key.partition(".")[0] in REQUIRED:
        meant = f" Options have no dashes: {key}={value if equals else after or 'VALUE'}."
    return (
        f"There is no flag {shown(word)}.{meant}\nFlags: --cfg job (show the configuration), --resolve (with its "
        "references resolved), --multirun (run several studies), --help."
    )


def _parse(words: Sequence[str], place: int, multirun: bool) -> Override:
    """The override in one of the arguments.

    Raises:
        UserError: it cannot be read; the message has what was probably meant.
    """
    word = words[place]
    if len(word) > MOST_CHARACTERS:
        raise UserError(f"{shown(word[:40])} has {len(word):,} characters; an argument has {MOST_CHARACTERS:,}.")
    if bad := next((char for char in word if ord(char) < 32 or ord(char) == 127 or "\ud800" <= char <= "\udfff"), ""):
        raise UserError(
            f"{shown(word)} contains the character {shown(bad)}, which no key or value can hold. Leave it "
            "out; rename a file or folder that has it in its name."
        )
    key, _, value = word.partition("=")
    if not key.strip("+~ "):
        raise UserError(messages.unreadable(word))
    if (
        not multirun
        and (key in invocation.TEXT or (key == invocation.FILE_OR_NAME and value != "null"))
        and value
        and value[0] not in "'\"[{"
        and "${" not in value.replace(r"\${", "")
    ):
        word = invocation.override(key, value)  # a path is one text, whatever Hydra's grammar makes of it
    try:
        return OverridesParser.create().parse_override(word)
    except (HydraException, OmegaConfBaseException):
        after = [word for word in words[place + 1 : place + 3] if word != "="]
        raise UserError(messages.unreadable(word, _meant(word, after[0] if after else ""))) from None


def _meant(word: str, after: str) -> str:
    """What was probably meant by an argument that cannot be read; empty if there is no idea.

    Args:
        word: the argument.
        after: the argument behind it.
    """
    plain = unicodedata.normalize("NFKC", word.translate(DASHES).translate(QUOTES)).strip("'\" ,;").lstrip("-")
    if re.fullmatch(r"\w+", plain) and plain in REQUIRED and after:
        plain = f"{plain}={after}"
    if "=" not in plain:
        plain = plain.replace(":", "=", 1)
    key, _, value = (part.strip("'\" ") for part in plain.partition("="))
    plain = f"{key}={value}"
    return plain if plain != word and KEY.fullmatch(key) and re.fullmatch(r"[\w./-]+", value) else ""


def _check_once(parsed: Sequence[Override]) -> None:
    """Refuse a key that is given twice."""
    given: dict[str, str] = {}
    for override in parsed:
        key = override.key_or_group.replace("/", ".")
        if key in given:
            raise UserError(
                f"{key} is given twice: {shown(given[key])} and {shown(str(override.input_line))}. Give it "
                f"once; for several studies: {_multirun(key, 'A,B')}"
            )
        given[key] = str(override.input_line)


def _check_key(override: Override) -> None:
    """Refuse the keys of Hydra itself, its packages, and the deletion of a key that a study needs."""
    line, key = shown(str(override.input_line)), override.key_or_group
    top, *rest = re.split(r"[./]", key)
    if top == "hydra":
        raise UserError(
            f"{line}: the keys of Hydra itself cannot be set. Results go to results_dir=FOLDER; the flags are "
            "--cfg job, --resolve and --multirun."
        )
    if override.package is not None:
        raise UserError(f"{line}: write the key without @{override.package}: {key}=VALUE")
    if override.is_delete() and top in REQUIRED and (len(rest) < 2 or top not in ("loss", "dataset")):
        raise UserError(
            f"{line}: {key} cannot be deleted. Leave it out for its default, or give another value: {key}=VALUE"
        )


def _values(override: Override, groups: Sequence[str], choices: Choices) -> list[Any]:
    """The value of an override, or each value of a sweep.

    Raises:
        UserError: there are too many values, or they cannot be listed.
    """
    value, line = override.value(), shown(str(override.input_line))
    if not override.is_sweep_override():
        return [value]
    if isinstance(value, Glob):
        found = value.filter(list(choices(override.key_or_group)) if override.key_or_group in groups else [])
    elif isinstance(value, ChoiceSweep):
        found = list(value.list)
    elif isinstance(value, RangeSweep):
        try:
            found = list(itertools.islice(value.range(), MOST_STUDIES + 1))
        except (ValueError, TypeError, OverflowError) as error:
            raise UserError(f"{line} cannot be listed: {error}.") from error
    else:
        raise UserError(f"{line} is no list of values. Write one, as in {_multirun('seed', '1,2,3')}")
    if not found:
        raise UserError(f"{line} has no values.")
    texts = [str(one) for one in found]
    if twice := [text for text in texts if texts.count(text) > 1]:
        raise UserError(f"{line} names {twice[0]} twice. Name each study once.")
    if len(found) > MOST_STUDIES:
        raise UserError(f"{line} has more than {MOST_STUDIES:,} values, which one command does not run.")
    return found


def _check_value(override: Override, value: object) -> None:
    """Refuse what stands for a missing value, what is computed from outside, and paths that cannot be used."""
    key, line = override.key_or_group, shown(str(override.input_line))
    if override.is_delete():
        return
    for text in _texts(value):
        if text == "???":
            raise UserError(f"{line}: ??? stands for a missing value. Give one, or leave {key} out for its default.")
        if "${" in text.replace(r"\${", "") and not REFERENCE.fullmatch(text):
            raise UserError(
                f"{line}: a value may refer only to another key, as in ${{loss.name}}, not to the environment or to a "
                "function. Write the value itself."
            )
    required = key in ("results_dir", "study")
    if key in (*FOLDERS, *FILES) and (isinstance(value, list | dict) or (value is None and required)):
        raise UserError(f"{line}: give one {'folder' if key in FOLDERS else 'file'}.")


def _texts(value: object) -> Iterator[str]:
    """Every string within a value, keys included."""
    if isinstance(value, dict):
        yield from (text for item in value.items() for part in item for text in _texts(part))
    elif isinstance(value, list | tuple):
        yield from (text for item in value for text in _texts(item))
    elif value is not None:
        yield _plain(value)


def _check_choice(override: Override, value: object, allowed: Sequence[str]) -> None:
    """Refuse a value that is not the name of a file in its group."""
    group = override.key_or_group
    if isinstance(value, list | dict):
        some = ",".join(map(str, value)) if value and isinstance(value, list) else ",".join(allowed[:2])
        raise UserError(
            f"{shown(str(override.input_line))}: give one {group}, such as {group}={allowed[0]}; for several "
            f"studies: {_multirun(group, some)}\nAllowed: {', '.join(allowed)}."
        )
    name = "null" if value is None else str(value).lower() if isinstance(value, bool) else _plain(value)
    if name not in allowed:
        several = "," in name and {part.strip() for part in name.split(",")} <= {*allowed}
        advice = f"\nFor several studies: {_multirun(group, name)}" if several else ""
        raise UserError(messages.unknown_choice(group, name, allowed) + advice)


def _several(override: Override, groups: Sequence[str]) -> str:
    """The message for several values without `--multirun`."""
    key = override.key_or_group
    value = str(override.input_line).partition("=")[2]
    as_list = "" if key in groups else f" A list has brackets: '{key}=[{value}]'."
    return (
        f"{shown(str(override.input_line))} has several values, and a command runs one study. Run one after the "
        f"other: {_multirun(key, value)}{as_list}"
    )


def _multirun(key: str, values: str) -> str:
    return invocation.arguments({}, flags=f"--multirun {key}={values}")


def _with_value(override: Override, value: Any) -> str:
    """An override with one of its values; a folder or file is checked, `~` replaced, and one value made a list of one.

    Raises:
        UserError: the folder or file cannot be used.
    """
    key, element = override.key_or_group, override.get_key_element()
    line = f"{element}={Transformer.str(value)}" if override.is_sweep_override() else str(override.input_line)
    if key in LISTS and not isinstance(value, list | dict) and value is not None:
        return f"{element}=[{line.partition('=')[2]}]"
    if override.is_delete() or key not in (*FOLDERS, *FILES) or value is None:
        return line
    named = _plain(value)
    usable = places.usable_folder(key, named) if key in FOLDERS else places.usable_file(key, named)
    return invocation.override(element, usable) if named.startswith("~") else line


def _plain(value: object) -> str:
    """A scalar of Hydra's grammar as text."""
    return value.text if isinstance(value, QuotedString) else str(value)
