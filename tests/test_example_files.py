"""What only other programs read: the notebook, the Dockerfile, the workflow, the hooks before a commit."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "examples" / "first_hour.ipynb"
ADDRESS = re.compile(r"https?://|\b[\w-]+\.(?:io|org|com|dev)/|index-url|registry|mirror", re.IGNORECASE)
PLAIN = ("Dockerfile", ".github/workflows/tests.yaml", ".pre-commit-config.yaml", ".dockerignore")


def cells(kind: str) -> list[str]:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == kind]


@pytest.mark.slow
@pytest.mark.usefixtures("no_fsync")
def test_the_cells_of_the_notebook_run_and_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "benchmark").symlink_to(ROOT / "benchmark")
    (tmp_path / "examples").mkdir()
    monkeypatch.chdir(tmp_path / "examples")  # where Jupyter starts
    for _ in range(2):
        names: dict[str, Any] = {}
        for number, cell in enumerate(cells("code")):
            exec(compile(cell, f"cell {number}", "exec"), names)
        printed = capsys.readouterr().out
        assert re.search(r"run 1: MAP@R \d+\.\d\d concatenated", printed)
        assert "2 networks of proxy_anchor, embeddings (24, 256)" in printed
        assert len(names["scores"].classes) == 4 and 0 < names["scores"].overall["map_at_r"] <= 1
    assert "trial 2 of 2" not in printed  # the second round trains nothing
    assert (tmp_path / "results" / "first_hour").is_dir()


@pytest.mark.slow
def test_the_first_cell_of_the_notebook_finds_the_project_where_jupyter_starts() -> None:
    subprocess.run([sys.executable, "-c", cells("code")[0]], cwd=NOTEBOOK.parent, check=True)


def test_the_notebook_has_no_output_and_its_links_lead_somewhere() -> None:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert not any(cell.get("outputs") for cell in notebook["cells"]) and notebook["nbformat"] == 4
    links = [link for cell in cells("markdown") for link in re.findall(r"\]\(([^)]+)\)", cell)]
    assert links and all((NOTEBOOK.parent / link).is_file() for link in links)


@pytest.mark.parametrize("name", PLAIN)
def test_no_file_names_an_address(name: str) -> None:
    assert not ADDRESS.search((ROOT / name).read_text(encoding="utf-8"))


def targets() -> set[str]:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z][a-z-]*):.*##", makefile, re.MULTILINE))


def options() -> set[str]:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return {word for line in re.findall(r"override (?:OPTIONS|SETTINGS) := (.*)", makefile) for word in line.split()}


def test_the_image_is_built_from_files_that_are_there_by_targets_that_are_there() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert re.findall(r"^FROM (\S+)$", text, re.MULTILINE) == ["python:3.12-slim"]
    copied = [word for line in re.findall(r"^COPY (.*) \S+$", text, re.MULTILINE) for word in line.split()]
    assert copied and all((ROOT / name).exists() for name in copied)
    rule = re.search(r"^\$\(STAMP\): (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert rule and {*rule[1].split()} <= {*copied}, "make setup reads a file that the image does not have yet"
    assert {"setup", "bo"} == set(re.findall(r"(?:RUN|:cpu) make ([a-z][\w-]*)", text)) <= targets()
    assert set(re.findall(r"\bmake .*?\b([A-Z]+)=", text)) <= options()


def test_the_workflow_runs_lint_and_tests() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/tests.yaml").read_text(encoding="utf-8"))
    runs = {name: [step["run"] for step in job["steps"] if "run" in step] for name, job in workflow["jobs"].items()}
    assert {"make lint", "make test"} <= {*runs["fast"]} and runs["all"][-1] == ".ci/run"
    made = [run.split()[1] for each in runs.values() for run in each if run.startswith("make ")]
    assert {*made} <= targets() and (ROOT / ".ci/run").is_file()
    supported = re.search(r'requires-python = ">=3\.(\d+),<3\.(\d+)"', (ROOT / "pyproject.toml").read_text())
    assert supported
    pythons = [f"3.{minor}" for minor in range(int(supported[1]), int(supported[2]))]
    assert workflow["jobs"]["fast"]["strategy"]["matrix"]["python"] == pythons


def test_the_hooks_before_a_commit_name_tests_that_are_there() -> None:
    (repo,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert repo["repo"] == "local"
    entries = [hook["entry"] for hook in repo["hooks"]]
    assert {entry.split()[0] for entry in entries} == {".venv/bin/ruff", ".venv/bin/mypy", ".venv/bin/python"}
    assert all((ROOT / place).exists() for entry in entries for place in re.findall(r"tests/\S+", entry))
