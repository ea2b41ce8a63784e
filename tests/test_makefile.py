"""The real `make`: values arrive as they were typed and run nothing, and only make's command line counts."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.__main__ import VERBS, about
from benchmark.core import invocation
from benchmark.core.errors import UserError
from benchmark.study.study import Study
from tests.cases import slow_except
from tests.command_line import assert_refused, run

ROOT = Path(__file__).resolve().parents[1]
HOSTILE = (
    "a b", "it's", 'say "x"', "$(touch pwned)", "$(shell touch pwned)", "`touch pwned`", "x; touch pwned", "a\nb",
    "a#b", "$HOME", "${HOME}", "$$x", "a\\b", "back\\", "x & touch pwned", "> pwned", "%s", "null", "'", " lead",
    "$(error x)",
)  # fmt: skip

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the Makefile and an environment that is ready, whose Python prints what it receives as JSON."""
    for name in ("Makefile", "requirements.lock", "requirements-cpu.lock", "requirements-uv.lock"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(
        f"#!{sys.executable} -S\n"
        "import json, os, sys\nprint(json.dumps([sys.argv[1:], dict(os.environ)]), flush=True)\n"
    )
    python.chmod(0o755)
    for torch in ("default", "cpu"):
        (tmp_path / ".venv" / f".ready-{torch}").touch()
    return tmp_path


def make(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "BENCHMARK_", "MFLAGS"))}
    return subprocess.run(
        ["make", *arguments], cwd=folder, env=kept | environment, capture_output=True, text=True, check=False
    )


def received(done: subprocess.CompletedProcess[str]) -> list[tuple[list[str], dict[str, str]]]:
    """Arguments and environment of each Python that make has started."""
    assert done.returncode == 0, done
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


@pytest.mark.bad_input("command line", "make's variables")
@pytest.mark.parametrize("value", HOSTILE)
def test_a_value_arrives_as_it_was_typed_and_runs_nothing(value: str, checkout: Path) -> None:
    names = [*invocation.VARIABLES, "ARGS"]
    ((arguments, environment),) = received(make(checkout, "bo", *(f"{name}={value}" for name in names)))
    assert arguments == ["-m", "benchmark", "--from-make", "bo"]
    for name in names:
        assert environment[f"BENCHMARK_MAKE_{name}"] == value.lstrip(), "make itself drops blanks after the ="
        assert name not in environment
    assert not (checkout / "pwned").exists()


def test_every_other_variable_is_one_value_and_args_is_split_once_as_a_shell_splits() -> None:
    given = {"NAME": "my birds", "ROOT": 'a "b" $c', "ARGS": "seed=7 'variant=a b' \"x='1'\" note=$HOME,`id`"}
    found = invocation.from_make({f"BENCHMARK_MAKE_{name}": value for name, value in given.items()})
    assert found == ['dataset.module.root="a \\"b\\" $c"', 'dataset.name="my birds"', "seed=7", "variant=a b", "x='1'",
                     "note=$HOME,`id`"]  # fmt: skip


@pytest.mark.bad_input("command line", "make's variables")
@pytest.mark.parametrize("value", ["", "  "])
def test_an_empty_variable_is_refused(value: str) -> None:
    with pytest.raises(UserError, match="LOSS is empty"):
        invocation.from_make({"BENCHMARK_MAKE_LOSS": value})
    assert invocation.from_make({"BENCHMARK_MAKE_ARGS": value}) == []


@pytest.mark.parametrize("name", ["TORCH", "PYTHON", "BENCHMARK_CACHE"])
def test_a_setting_from_the_environment_runs_nothing(name: str, checkout: Path) -> None:
    make(checkout, "bo", **{name: "$(shell touch pwned)"})
    assert not (checkout / "pwned").exists()


@pytest.mark.parametrize(
    "name", slow_except(["given", "VENV"], ["given", "unknown", "OPTIONS", "SETTINGS", "VENV", "RUN"])
)
def test_variables_of_the_makefile_itself_are_no_options(name: str, checkout: Path) -> None:
    done = make(checkout, "bo", f"{name}=x", "TRAILS=3")
    assert done.returncode != 0 and "There is no option" in done.stderr and not done.stdout


def test_nothing_but_settings_comes_from_the_environment(checkout: Path) -> None:
    options = dict.fromkeys((*invocation.VARIABLES, "ARGS"), "stray")
    outside = options | {f"BENCHMARK_MAKE_{name}": "stray" for name in options}
    settings = {"OMP_NUM_THREADS": "3", "BENCHMARK_CACHE": "/some where/$x", "TORCH": "cpu"}
    ((_, environment),) = received(make(checkout, "bo", **outside, **settings))
    assert not [key for key in environment if key.startswith("BENCHMARK_MAKE_")]
    assert environment.items() >= settings.items()
    ((_, environment),) = received(make(checkout, "bo", "NAME=given", **outside))
    assert {k: v for k, v in environment.items() if k.startswith("BENCHMARK_MAKE_")} == {"BENCHMARK_MAKE_NAME": "given"}
    assert environment["OMP_NUM_THREADS"] == "1"


@pytest.mark.bad_input("command line", "make's variables")
@pytest.mark.parametrize(
    ("typed", "meant"),
    [("TRAILS=3", "TRIALS"), ("loss=proxy_anchor", "LOSS"), ("dataset.module.root=x", "ROOT"), ("WORKER=2", "WORKERS"),
     ("TORHC=cpu", "TORCH"), ("Dataset=$(shell touch pwned)", "DATASET"), ("\u2013trials=3", "TRIALS"),
     ("dataset=cub", "DATASET")],
)  # fmt: skip
def test_a_misspelt_variable_is_refused(typed: str, meant: str, checkout: Path) -> None:
    done = make(checkout, "bo", typed)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"There is no option {typed.split('=')[0]}. Did you mean {meant}? Options: DATASET ROOT" in done.stderr
    assert not (checkout / "pwned").exists()


def test_a_variable_that_resembles_none_is_refused_with_what_there_is(checkout: Path) -> None:
    for target in ("bo", "test", "help"):
        done = make(checkout, target, "xyzzy=1")
        assert done.returncode == 2 and "no option xyzzy. Options: DATASET ROOT" in " ".join(done.stderr.split())
    assert make(checkout, "bo", "TORCH=gpu").stderr.endswith("TORCH=gpu: allowed are default and cpu.  Stop.\n")


@pytest.mark.bad_input("command line", "make's variables")
@pytest.mark.parametrize(
    "value", ["cpu default", "default cpu", "cpu cpu", "", "  ", "CPU", "gpu", "cpu,default", "x y z"]
)
def test_a_value_of_torch_that_is_not_one_of_two_words_is_refused(value: str, checkout: Path) -> None:
    done = make(checkout, "bo", f"TORCH={value}")
    assert done.returncode == 2 and "allowed are default and cpu" in done.stderr and not done.stdout


@pytest.mark.bad_input("command line", "make's variables")
@pytest.mark.parametrize(
    ("given", "phrases"),
    [({"LOSS": "triplet", "ARGS": "loss=hpl_pa"}, ("loss is given twice: 'loss=triplet' and 'loss=hpl_pa'",)),
     ({"NAME": "a", "ARGS": "dataset.name=b"}, ("dataset.name is given twice",)),
     ({"TRIALS": "3", "ARGS": "++trials=4"}, ("trials is given twice",)),
     ({"LOSS": "hpl_pa, proxy_nca"}, ("There is no loss 'hpl_pa, proxy_nca'",)),
     ({"LOSS": "null"}, ("There is no loss 'null'",)),
     ({"ARGS": "loss=hpl_pa,proxy_nca"}, ("has several values", "'ARGS=--multirun loss=hpl_pa,proxy_nca'")),
     ({"ARGS": "LOSS=hpl_pa"}, ("There is no key 'LOSS'. Did you mean 'loss'?",)),
     ({"ARGS": "seed 7"}, ("Did you mean seed=7?",)), ({"ARGS": "--seed=7"}, ("no dashes: seed=7",)),
     ({"STUDY": "a,b"}, ("There is no study in a,b",)), ({"WORKERS": "0"}, ("executor.workers=0",)),
     ({"TRIALS": "0"}, ("trials=0: must be at least 1",)), ({"TRIALS": "ten"}, ("trials=ten: give a whole number",))],
    ids=str,
)  # fmt: skip
def test_variables_that_a_command_cannot_use_are_refused_in_makes_form(
    given: dict[str, str], phrases: tuple[str, ...], tmp_path: Path
) -> None:
    def command(study: Study, overrides: list[str]) -> None:
        raise AssertionError("the command was reached")

    words = invocation.from_make({f"BENCHMARK_MAKE_{name}": value for name, value in given.items()})
    assert_refused(run(command, *words, f"results_dir={tmp_path}/results"), *phrases)
    assert not list(tmp_path.iterdir())


def test_settings_on_the_command_line_reach_the_command(checkout: Path) -> None:
    settings = {"OMP_NUM_THREADS": "3", "BENCHMARK_CACHE": "/some where/$x"}
    ((_, environment),) = received(make(checkout, "bo", *(f"{name}={value}" for name, value in settings.items())))
    assert environment.items() >= settings.items()
    assert "TORCH=: allowed are default and cpu" in make(checkout, "bo", "TORCH=").stderr


@pytest.mark.bad_input("command line", "make's variables")
@pytest.mark.parametrize(
    "typed", [["LOSS", "hpl_pa"], ["final_eval"], ["-k", "BO"], ["--", "x"], ["DATASET:cub"], ["."]], ids=" ".join
)
def test_a_target_that_does_not_exist_is_refused_before_another_runs(typed: list[str], checkout: Path) -> None:
    done = make(checkout, "bo", *typed)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"There is no target {typed[-1] if typed[0][0] == '-' else typed[0]}. Targets: help setup bo" in done.stderr


def test_several_targets_run_in_order_also_with_parallel_jobs(checkout: Path) -> None:
    for flags in ([], ["-j2"]):
        ran = received(make(checkout, *flags, "bo", "final-eval", "tables", "LOSS=hpl_pa"))
        assert [arguments[-1] for arguments, _ in ran] == ["bo", "final-eval", "tables"]
        assert all(environment["BENCHMARK_MAKE_LOSS"] == "hpl_pa" for _, environment in ran)


def test_a_dry_run_prints_the_command_and_runs_nothing(checkout: Path) -> None:
    done = make(checkout, "-n", "bo", "LOSS=$(shell touch pwned)")
    assert done.stdout == ".venv/bin/python -m benchmark --from-make bo\n"
    assert not (checkout / "pwned").exists()


def test_make_lists_the_verbs_of_the_command_line_with_their_descriptions(checkout: Path) -> None:
    lines = {
        words[1]: line for line in make(checkout, "help").stdout.splitlines() if (words := line.split())[:1] == ["make"]
    }
    for name in VERBS:
        assert about(name, "make").split("; ")[0].split(" or that")[0] in lines[name], name
    options = make(checkout, "help").stdout.rpartition("All options: ")[2].split()
    assert options == [*invocation.VARIABLES, "ARGS"]


@pytest.mark.slow
def test_make_reaches_the_real_command_which_advises_in_makes_form(checkout: Path) -> None:
    (checkout / ".venv" / "bin" / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    for name in ("benchmark", "conf", "experiments"):
        (checkout / name).symlink_to(ROOT / name)
    done = make(checkout, "status", "ARGS=results_dir='no where'")
    assert done.returncode == 2 and "There is no study below no where. Run make bo to start one." in done.stderr
    done = make(checkout, "bo", "LOSS=x; touch pwned")
    assert done.returncode == 2 and "There is no loss 'x; touch pwned'." in done.stderr
    done = make(checkout, "bo", "ARGS=seed='7")
    assert done.returncode == 2 and "ARGS=seed='7 cannot be split into words: No closing quotation." in done.stderr
    assert not (checkout / "pwned").exists()
