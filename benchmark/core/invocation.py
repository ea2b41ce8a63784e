"""The form in which the user started this command, so that messages suggest commands in that form.

`make bo DATASET=cub`, `dmlbench bo dataset=cub` and `python -m benchmark bo dataset=cub` are the same command.
"""

import contextlib
import json
import os
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from benchmark.core.errors import UserError

Form = Literal["make", "dmlbench", "python -m benchmark"]
FORM = "BENCHMARK_COMMAND_FORM"  # environment variable, so that workers suggest commands in the driver's form
STARTED_AS = "BENCHMARK_STARTED_AS"  # environment variable with the form of the experiment that started this command
OVERRIDES = "BENCHMARK_COMMAND_OVERRIDES"  # environment variable with the overrides of the command line, as JSON
FROM_MAKE = "BENCHMARK_MAKE_"  # prefix under which the Makefile exports the variables of its command line
ARGS = "ARGS"  # make variable that holds all other overrides
VARIABLES = {
    "DATASET": "dataset",
    "ROOT": "dataset.module.root",
    "CSV": "dataset.module.path",
    "NAME": "dataset.name",
    "LOSS": "loss",
    "TRUNK": "trunk",
    "TRAINING": "training",
    "PROTOCOL": "protocol",
    "PRESET": "preset",
    "TRIALS": "trials",
    "SEARCHES": "searches",
    "STUDY": "study",
    "EXECUTOR": "executor",
    "WORKERS": "executor.workers",
    "TRACKER": "tracker",
    "A": "a",
    "B": "b",
    "CELL": "cell",
    "BUDGET": "budget",
    "MODEL": "model",
    "QUERY": "query",
    "EMBEDDINGS": "embeddings",
    "FORMAT": "format",
    "OUT": "output",
}  # make variables and the configuration keys that they set
OF_EXPERIMENTS = ("experiments", "experiment", "plan", "tables", "report")  # targets for which NAME is an experiment
OF_IMAGES = ("embed", "search")  # targets for which ROOT is a folder of any images
OF_SEVERAL_LOSSES = ("bo", "final-eval", "traditional")  # targets that take LOSS=a,b
TEXT = (
    "dataset.module.root",
    "dataset.module.path",
    "dataset.module.images_root",
    "dataset.name",
    "study",
    "results_dir",
    "a",
    "b",
    "cell",
    "model",
    "images",
    "query",
    "embeddings",
    "output",
)  # never a number or null
FILE_OR_NAME = "trunk.module.weights"  # text as well, or null
_NAME = re.compile(r"[A-Za-z_/.][\w/.-]*", re.ASCII)  # Hydra reads no other letters without quotes
_NUMBER = re.compile(r"[+-]?[0-9][\w.+-]*", re.ASCII)
_RESERVED = ("null", "true", "false", "nan", "inf")


def command(
    target: str, options: Mapping[str, object] | None = None, flags: str = "", overrides: Sequence[str] = ()
) -> str:
    """Return the shell command that runs one or more targets, in the form in which this process was started.

    >>> command("bo final-eval", {"dataset": "cub", "variant": "wide"})
    'make bo final-eval DATASET=cub ARGS=variant=wide'

    Args:
        target: names of commands, separated by blanks.
        options: values by configuration key, in the order in which they are printed.
        flags: arguments that are not options, such as `--cfg job`.
        overrides: more options, in Hydra's grammar.
    """
    words = arguments(options or {}, flags, overrides, target)
    if (form := os.environ.get(FORM, "make")) == "make":
        return " ".join(filter(None, ["make", target, words]))
    return " && ".join(" ".join(filter(None, [form, name, words])) for name in target.split())


def install(*packages: str) -> str:
    """The command that installs packages where this Python finds them, which is no Python of the operating system.

    Args:
        packages: names with versions, as pip takes them.
    """
    python = Path(sys.executable)
    shown = python.relative_to(Path.cwd()) if python.is_relative_to(Path.cwd()) else python
    return shlex.join([str(shown), "-m", "pip", "install", *packages])


def variables(target: str) -> dict[str, str]:
    """The make variables of a target and the configuration keys that they set.

    Args:
        target: name of a command, or of several, separated by blanks.
    """
    own = {"NAME": "experiment"} if target in OF_EXPERIMENTS else {}
    return VARIABLES | own | ({"ROOT": "images"} if target in OF_IMAGES else {})


def arguments(options: Mapping[str, object], flags: str = "", overrides: Sequence[str] = (), target: str = "") -> str:
    """Return options the way the user types them after a command, quoted for the shell.

    >>> arguments({"dataset.module.root": "my birds", "seed": 7})
    "'ROOT=my birds' ARGS=seed=7"

    Args:
        options: values by configuration key.
        flags: arguments that are not options, such as `--cfg job`.
        overrides: more options, in Hydra's grammar.
        target: the command.
    """
    given = {key: str(value) for key, value in options.items()}
    if os.environ.get(FORM, "make") != "make":
        words = [*(override(key, value) for key, value in given.items()), *overrides]
        return " ".join(filter(None, [*map(shlex.quote, words), flags]))
    names = {key: name for name, key in variables(target).items()}
    words = [f"{names[key]}={value}" for key, value in given.items() if key in names]
    rest = [_within_args(override(key, value)) for key, value in given.items() if key not in names]
    for entry in overrides:
        key, _, value = entry.partition("=")
        if key in names and override(key, value) == entry:
            words.append(f"{names[key]}={value}")
        else:
            rest.append(_within_args(entry))
    if rest or flags:
        words.append(f"{ARGS}={' '.join(filter(None, [*rest, flags]))}")
    return " ".join(map(shlex.quote, words))


def _within_args(word: str) -> str:
    """Return a word of ARGS, in quotes if `shlex.split` would change it; the shell's quotes come on top."""
    return shlex.quote(word) if re.search(r"""[\s'"\\]""", word) else word


@contextlib.contextmanager
def overridden(overrides: Sequence[str]) -> Iterator[None]:
    """Note the overrides of the command line during the block, for this process and its workers.

    Args:
        overrides: in Hydra's grammar.
    """
    before = os.environ.get(OVERRIDES)
    os.environ[OVERRIDES] = json.dumps([*overrides])
    try:
        yield
    finally:
        if before is None:
            del os.environ[OVERRIDES]
        else:
            os.environ[OVERRIDES] = before


def other_overrides(known: Iterable[str]) -> list[str]:
    """Return the overrides of the command line whose keys are not known, in their order.

    Args:
        known: configuration keys.
    """
    given: list[str] = json.loads(os.environ.get(OVERRIDES, "[]"))
    return [entry for entry in given if key_of(entry) not in {*known}]


def key_of(override: str) -> str:
    """The key of an override, without a sign in front of it.

    >>> key_of("+trunk.width=64"), key_of("~loss.space.scale")
    ('trunk.width', 'loss.space.scale')
    """
    return override.lstrip("+~").partition("=")[0]


def values_of(overrides: Iterable[str]) -> dict[str, str]:
    """The values of overrides by key, without the quotes around them; of a key that is given twice, the last.

    >>> values_of(["+variant='wide net'", "trials=20"])
    {'variant': 'wide net', 'trials': '20'}

    Args:
        overrides: in Hydra's grammar.
    """
    return {key_of(entry): entry.partition("=")[2].strip("'\"") for entry in overrides}


def override(key: str, value: str) -> str:
    r"""Return `key=value` in Hydra's grammar, such that the configuration receives exactly this value.

    >>> override("dataset.module.root", "my birds"), override("trials", "20")
    ('dataset.module.root="my birds"', 'trials=20')
    """
    number = _NUMBER.fullmatch(value) and key not in TEXT
    if number or (_NAME.fullmatch(value) and value.lower() not in _RESERVED):
        return f"{key}={value}"
    text = escaped(value)
    text = re.sub(r'(\\*)"', r'\1\1\\"', text)  # Hydra unescapes backslashes before a quote only
    return f'{key}="{text + text[len(text.rstrip(chr(92))) :]}"'


def escaped(value: str) -> str:
    r"""Return a text in which OmegaConf's references are escaped, so that it is taken literally.

    >>> print(escaped("${HOME}"))
    \${HOME}
    """
    return re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + r"\${", value)


def from_make(environment: Mapping[str, str], target: str = "") -> list[str]:
    """Convert the variables on make's command line to overrides.

    Every variable is one value, whatever characters it holds; only ARGS is split, as a shell splits words.

    Args:
        environment: environment variables of a make recipe; the Makefile exports each variable with the prefix
            `FROM_MAKE`.
        target: the command; NAME names an experiment or a data set, and some commands take several values of LOSS.

    Raises:
        UserError: a variable is empty, or a quote in ARGS is not closed.
    """
    values = {name: environment[FROM_MAKE + name] for name in VARIABLES if FROM_MAKE + name in environment}
    for name, value in values.items():
        if not value.strip():
            raise UserError(f"{name} is empty. Give it a value, or leave {name}= out.")
    rest = environment.get(FROM_MAKE + ARGS, "")
    try:
        words = shlex.split(rest)
    except ValueError as error:
        raise UserError(
            f"{ARGS}={rest} cannot be split into words: {error}. Quote it as in {ARGS}=\"seed=7 'dataset.name=mine'\"."
        ) from error
    keys, losses = variables(target), values.get("LOSS", "").split(",")
    found = {name: override(keys[name], value) for name, value in values.items()}
    if target in OF_SEVERAL_LOSSES and len(losses) > 1 and all(map(_NAME.fullmatch, losses)):
        found["LOSS"] = f"loss={','.join(losses)}"  # a list in Hydra's grammar, where a quoted text is one name
    return [*found.values(), *words]
