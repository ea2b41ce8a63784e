"""Every command of README and the docs exists, with options and values that it accepts."""

import os
import re
import shlex
from pathlib import Path

import pytest

from benchmark.__main__ import VERBS
from benchmark.core import invocation
from benchmark.study.study import Study
from tests.cases import slow_except
from tests.command_line import commanded, run
from tests.docs.pages import ROOT, commands

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
EXAMPLES = {"my_loss": "proxy_anchor", "my_pairs": "contrastive", "my_set": "cub"}  # files that a reader writes
STORED = ("study=", "model=", "a=", "b=", "cell=", "embeddings=")  # what a reader has: their commands are not composed


def listed(name: str) -> list[str]:
    """The words of a variable of the Makefile."""
    found = re.search(rf"^(?:override )?{name} := (.*)$", MAKEFILE, re.MULTILINE)
    assert found
    return found[1].replace("$(COMMANDS)", " ".join(listed("COMMANDS")) if name == "TARGETS" else "").split()


TARGETS, OPTIONS, SETTINGS = map(listed, ("TARGETS", "OPTIONS", "SETTINGS"))


def overrides_of(words: list[str]) -> list[tuple[str, list[str]]]:
    """Commands of this package in a command line, each with the overrides that it receives."""
    if words[0] != "make":
        verb, *overrides = words[words.index("benchmark") + 1 :] if words[0] == "python" else words[1:]
        return [(verb, [word for word in overrides if not word.startswith("--")])] if verb in VERBS else []
    targets = [word for word in words[1:] if "=" not in word]
    options = dict(word.split("=", 1) for word in words[1:] if "=" in word)
    assert set(targets) <= set(TARGETS) and set(options) <= {*OPTIONS, *SETTINGS}, words
    given = {f"{invocation.FROM_MAKE}{name}": value for name, value in options.items() if name not in SETTINGS}
    return [(target, invocation.from_make(given, target)) for target in targets if target in VERBS]


def composed(verb: str, overrides: list[str]) -> tuple[str, ...]:
    """The overrides that are tried: without the results and packages of a reader, and with ours for his files."""
    kept = [word for word in overrides if not word.startswith((*STORED, "results_dir=", "plugins="))]
    words = [f"{key}={EXAMPLES.get(value, value)}" for key, _, value in (word.partition("=") for word in kept)]
    return (verb if VERBS[verb].group == "run" else "a command that trains nothing", *words)


def refused(verb: str, overrides: list[str]) -> str:
    """What a command prints for a mistake among its overrides; empty without one."""
    if verb in ("bo", "traditional"):
        return commanded(verb, *overrides).err

    def command(study: Study, given: list[str]) -> None: ...

    command.__name__ = verb.replace("-", "_")
    return run(command, *overrides, protocol=VERBS[verb].protocol).err


FOUND = dict(commands())
TRIED = {composed(verb, overrides): (command, verb) for command in FOUND
         for verb, overrides in overrides_of(shlex.split(command))}  # fmt: skip
FIRST = {verb: tried for tried, (_, verb) in reversed(TRIED.items())}  # of each command
REFUSED = {"make traditional ARGS=trials=5": "trials=5 has no effect"}  # as the docs say


def test_the_commands_are_found() -> None:
    verbs = {verb for command in FOUND for verb, _ in overrides_of(shlex.split(command))}
    assert len(FOUND) > 80 and verbs == VERBS.keys()


@pytest.mark.parametrize("tried", slow_except([*FIRST.values()], TRIED), ids=lambda tried: TRIED[tried][0])
def test_a_command_of_the_docs_has_options_that_it_accepts(
    tried: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command, verb = TRIED[tried]
    for name in ("srun", "sbatch"):  # of a reader who has SLURM
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    found = refused(verb, [*tried[1:], f"results_dir={tmp_path / 'results'}"])
    assert REFUSED[command] in found if command in REFUSED else found == ""


def test_the_other_commands_are_those_of_the_package() -> None:
    others = [command for command in FOUND if not overrides_of(shlex.split(command))]
    assert all(command.startswith("make ") or "--help" in command for command in others), others
