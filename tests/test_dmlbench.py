"""The command line as real processes: what answers without PyTorch, and which `benchmark` is run."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from benchmark.__main__ import VERBS
from benchmark.core import invocation, records
from benchmark.core.paths import conf_dir
from tests.command_line import OF_SEARCHES, TINY, study_dir

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "torchvision", "ax", "faiss", "sklearn", "pytorch_metric_learning", "pandas", "matplotlib")


def run(cwd: Path, *command: str, path: tuple[Path, ...] = ()) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("BENCHMARK_", "PYTHON"))}
    environment = kept | {"PYTHONPATH": os.pathsep.join(map(str, path)), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def no_libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the module path in which every library that takes long to import cannot be imported."""
    folder = tmp_path_factory.mktemp("no_libraries")
    for name in HEAVY:
        (folder / f"{name}.py").write_text(f"raise ImportError('{name} is imported')")
    return folder


LIGHT = {
    ("--help",): (0, "look:\n  status "),
    ("bo", "--help"): (0, "executor: inline, local"),
    ("boo",): (2, "There is no command 'boo'. Did you mean 'bo'?"),
    ("loss=hpl_pa",): (2, "'loss=hpl_pa' comes after a command, as in: python -m benchmark bo loss=hpl_pa"),
    ("bo", "loss=hpl_paa"): (2, "There is no loss 'hpl_paa'. Did you mean 'hpl_pa'?"),
    ("final-eval", "trails=3"): (2, "There is no key 'trails'. Did you mean 'trials'?"),
    ("traditional", "trials=abc"): (2, "trials=abc: give a whole number."),
    ("bo", "executor.workers=abc"): (2, "executor.workers='abc': give a positive number, or auto."),
    ("BO",): (2, "There is no command 'BO'. Did you mean 'bo'?"),
    ("bo", "trials=0"): (2, "trials=0: must be at least 1 and"),
    ("data", "dataset=[a"): (2, "'dataset=[a' cannot be read"),
    ("bo", "--cfg", "job"): (0, "name: hpl_pa"),
    ("status", f"results_dir={ROOT}/results/one_of_each"): (0, "hpl/arcface\tsearch\t6 of 6 trials"),
    ("status", "results_dir=none"): (2, "There is no study below none. Run python -m benchmark bo to start one."),
    ("doctor",): (1, "BROKEN torch cannot be loaded: torch is imported"),
    ("logs", "results_dir=none"): (2, "No unit has a log below the results folder. Start python -m benchmark bo"),
}


# Runs each command as a module, in a copy of a process that has already done what takes most of the time.
ANSWER = """
import json, os, runpy, sys
import benchmark.__main__
from benchmark.study import cli, study
study.Study.of(cli._compose([], []))
commands, statuses = json.loads(sys.argv[1]), []
for number, arguments in enumerate(commands):
    if os.fork() == 0:
        printed = os.open(f"{number}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(printed, 1), os.dup2(printed, 2)
        sys.argv = ["benchmark", *arguments]
        runpy.run_module("benchmark", run_name="__main__", alter_sys=True)
        sys.exit()
    statuses.append(os.waitstatus_to_exitcode(os.wait()[1]))
print(json.dumps(statuses))
"""


def answers(commands: list[tuple[str, ...]], no_libraries: Path, folder: Path) -> list[tuple[int, str]]:
    """The exit status and the output of each command where the libraries of training are missing."""
    done = run(folder, sys.executable, "-c", ANSWER, json.dumps(commands), path=(no_libraries, ROOT))
    assert done.returncode == 0, done
    return [(ended, (folder / f"{number}.txt").read_text()) for number, ended in enumerate(json.loads(done.stdout))]


@pytest.mark.slow
def test_what_needs_no_training_answers_without_the_libraries_of_training(no_libraries: Path, tmp_path: Path) -> None:
    for arguments, (ended, printed) in zip(LIGHT, answers([*LIGHT], no_libraries, tmp_path), strict=True):
        status, phrase = LIGHT[arguments]
        assert ended == status and phrase in printed, (arguments, printed)
        assert "Traceback" not in printed


@pytest.mark.slow
def test_tables_need_no_training_library_either(no_libraries: Path, tmp_path: Path) -> None:
    copy = tmp_path / "traditional"
    shutil.copytree(ROOT / "results" / "traditional" / "studies", copy / "studies")
    command = (sys.executable, "-m", "benchmark", "tables", f"results_dir={copy}")
    done = run(tmp_path, *command, path=(no_libraries, ROOT))
    assert done.returncode == 0 and "wrote " in done.stdout, done


@pytest.mark.slow
def test_a_closed_pipe_ends_a_command_quietly_only_if_it_is_the_output(tmp_path: Path) -> None:
    """`dmlbench tables | head` is no error; a pipe that a plug-in or a worker has lost is one."""
    code = """
import sys
from benchmark.study import cli
sys.argv = ["dmlbench"]
def command(study, overrides):
    if {broken}:
        raise BrokenPipeError(32, "Broken pipe")
    while True:
        print("a line")
cli.main(command)
"""
    done = run(tmp_path, sys.executable, "-c", code.format(broken=True), path=(ROOT,))
    assert done.returncode == 1 and done.stderr.endswith("BrokenPipeError: [Errno 32] Broken pipe\n"), done
    piped = f'"{sys.executable}" -c "$0" | head -1; exit ${{PIPESTATUS[0]}}'
    done = run(tmp_path, "bash", "-c", piped, code.format(broken=False), path=(ROOT,))
    assert (done.returncode, done.stdout) == (141, "a line\n")
    assert done.stderr.startswith("\nStopped, because the reader of this command's output has ended.")
    piped = f'"{sys.executable}" -m benchmark bo --help | true; exit ${{PIPESTATUS[0]}}'
    done = run(tmp_path, "bash", "-c", piped, path=(ROOT,))
    assert (done.returncode, done.stderr) == (0, ""), "help is output too"


MODULES = ["bo", *(pytest.param(m, marks=pytest.mark.slow) for m in ("final_eval", "traditional", "data", "splits"))]


@pytest.mark.parametrize("module", MODULES)
def test_a_command_run_as_a_module_answers_a_mistake_at_once(module: str, no_libraries: Path, tmp_path: Path) -> None:
    done = run(tmp_path, sys.executable, "-m", f"benchmark.{module}", "trails=3", path=(no_libraries, ROOT))
    assert done.returncode == 2 and "Did you mean 'trials'?" in done.stderr, done


NOT_TRADITIONAL = (*OF_SEARCHES, "dataset.iterations_per_epoch")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("verb", "line"),
    [
        ("bo", "proxy_nca on glyphs_small: search of 2 trials, records in r/studies/glyphs_small-small_conv-hpl/"),
        ("final-eval", "proxy_nca on glyphs_small: 2 final runs, records in "),
        ("traditional", "proxy_nca on glyphs_small: 2 runs under the traditional protocol, records in "),
    ],
)
def test_a_command_that_trains_prints_its_first_line_before_it_imports_pytorch(
    verb: str, line: str, no_libraries: Path, tmp_path: Path
) -> None:
    own = [word for word in TINY if verb != "traditional" or word.split("=")[0] not in NOT_TRADITIONAL]
    command = (sys.executable, "-m", "benchmark", verb, *own, "results_dir=r")
    done = run(tmp_path, *command, path=(no_libraries, ROOT))
    assert done.stdout.startswith(line), done
    assert done.stderr.splitlines()[-1] == "ImportError: torch is imported", "else this test proves nothing"


def test_help_lists_the_commands_in_groups_and_the_choices_of_each(no_libraries: Path, tmp_path: Path) -> None:
    (_, shown), (_, choices) = answers([("--help",), ("bo", "--help")], no_libraries, tmp_path)
    assert [line for line in shown.splitlines() if line.endswith(":")] == ["run:", "use:", "look:", "data:", "develop:"]
    assert all(f"\n  {name} " in shown for name in VERBS)
    for group in yaml.safe_load((conf_dir() / "config.yaml").read_text())["defaults"][:8]:
        assert isinstance(group, dict) and f"\n  {next(iter(group))}: " in choices, group


def test_advice_is_written_the_way_the_user_types_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"dataset": "csv", "dataset.module.path": "my birds/it's.csv", "dataset.name": "mine", "seed": 7}
    told = {}
    for form in ("make", "dmlbench", "python -m benchmark"):
        monkeypatch.setenv(invocation.FORM, form)
        told[form] = invocation.command("bo final-eval", options)
    assert told["make"] == ("""make bo final-eval DATASET=csv 'CSV=my birds/it'"'"'s.csv' NAME=mine ARGS=seed=7""")
    once = """dataset=csv 'dataset.module.path="my birds/it'"'"'s.csv"' dataset.name=mine seed=7"""
    assert told["dmlbench"] == f"dmlbench bo {once} && dmlbench final-eval {once}"
    assert told["python -m benchmark"] == told["dmlbench"].replace("dmlbench", "python -m benchmark")


@pytest.mark.slow
def test_no_message_writes_a_command_in_one_form_only() -> None:
    verbs, variables = (name for name in VERBS if "bench" not in name), ("ARGS", *invocation.VARIABLES)
    fixed = re.compile(rf"\bmake ({'|'.join(verbs)})\b|\b({'|'.join(variables)})=")
    for path in sorted((ROOT / "benchmark").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        documented = [n for n in ast.walk(tree) if isinstance(n, ast.Module | ast.ClassDef | ast.FunctionDef)]
        docstrings = {id(n.body[0].value) for n in documented if n.body and isinstance(n.body[0], ast.Expr)}
        texts = (n for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str))
        wrong = [n.value for n in texts if id(n) not in docstrings and fixed.search(n.value)]
        assert not wrong, f"{path}: use benchmark.core.invocation"


TEXTS = ("a b", "it's", 'say "x"', "a$b", "${b}", r"a\${b}", "$(id)", "a\nb", "a#b", "a\\", '\\"', "null", "5", "1e3",
         "TRUE", "~/x", "a,b", "[a]", "{a: b}", "a=b", "a:b", " lead", "é", "%d", "*")  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_hydra_receives_exactly_the_text_of_an_override(text: str) -> None:
    parsed = OverridesParser.create().parse_override(invocation.override("dataset.name", text))
    assert OmegaConf.create({"value": parsed.value()}).value == text


# -- installed from a wheel -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's wheel, built from the files as they are."""
    pytest.importorskip("hatchling", reason="hatchling, which builds the wheel, is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    command = (sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder))
    done = run(ROOT, *command)
    assert done.returncode == 0, done
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`dmlbench` in a fresh environment that has the wheel and, by a path file, the libraries of this one."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "libraries.pth").write_text("\n".join(entry for entry in sys.path if entry.endswith("site-packages")))
    return folder / "bin" / "dmlbench"


@pytest.mark.slow
def test_the_wheel_has_configuration_experiments_and_types_but_no_measurements_of_the_code(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"benchmark/conf/config.yaml", "benchmark/experiment/files/glyphs.yaml", "benchmark/py.typed"} <= names
    assert "benchmark/jobs/executors/batch_job.sh" in names
    assert not [name for name in names if name.startswith(("benchmark/perf", "tests/"))]


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["local", "ray"])
def test_an_installed_dmlbench_ignores_a_folder_of_the_packages_name_and_so_do_its_workers(
    executor: str, installed: Path, tmp_path: Path
) -> None:
    if executor == "ray":
        pytest.importorskip("ray")
    shadow = tmp_path / "benchmark"
    shadow.mkdir()
    for name in ("__init__", "__main__", "bo"):
        (shadow / f"{name}.py").write_text("raise SystemExit('this is not the benchmark')\n")
    tiny = [option for option in TINY if not option.startswith(("executor", "trials"))]
    search = (*tiny, "trials=1", f"executor={executor}", "executor.workers=2")
    done = run(tmp_path, str(installed), "bo", *search)
    assert done.returncode == 0, done
    assert done.stdout.splitlines()[-1].startswith("Next: dmlbench final-eval study=")
    assert records.read_record(study_dir(tmp_path / "results") / "bo" / "trial_000.json").result["map_at_r"] is not None
    shown = run(tmp_path, str(installed), "--help").stdout
    assert shown.startswith("usage: dmlbench COMMAND") and "bench-gpu" not in shown
    refused = run(tmp_path, str(installed), "bench")
    assert (refused.returncode, refused.stderr.splitlines()[1:2]) == (2, ["There is no command 'bench'."])
