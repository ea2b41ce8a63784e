"""Standard streams that are closed, full, or no longer read: a command ends with a sentence, or as if all were well."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark import tables
from tests.command_line import assert_refused, on_tiny, results_of, run, study_dir
from tests.recovery.case import ROOT

STATUS = f"status results_dir={ROOT}/results/one_of_each"
FULL = "Standard output cannot be written: No space left on device."

# By command and redirection: the exit status, and what standard error or the other stream says.
SHOWING = {
    ("--help", "| head -1"): (0, ""),
    ("--help", "| true"): (0, ""),
    ("--help", "2>&1 | head -1"): (0, ""),
    ("--help", ">&-"): (0, ""),
    ("--help", "<&-"): (0, ""),
    ("--help", "2>&-"): (0, ""),
    ("--help", "<&- >&- 2>&-"): (0, ""),
    ("--help", ">/dev/full"): (2, FULL),
    ("--help", ">/dev/full 2>/dev/full"): (2, ""),
    ("bo --help", "| head -1"): (0, ""),
    ("bo trails=3", "2>/dev/full"): (2, ""),
    ("bo trails=3", "2>&-"): (2, ""),
    ("bo trails=3", "2>&1 | true"): (2, ""),
    ("bo --cfg job", "| true"): (141, ""),
    ("bo --cfg job", ">/dev/full"): (2, "No space left on device"),
    (STATUS, "| head -1"): (0, ""),
    (STATUS, "2>&1 | head -1"): (0, ""),
    (STATUS, ">&-"): (0, ""),
    (STATUS, ">/dev/full"): (2, FULL),
    (STATUS, "2>/dev/full"): (0, ""),
    (STATUS, "<&- >&- 2>&-"): (0, ""),
    ("status results_dir=none", ">&-"): (2, "There is no study below none."),
    ("logs results_dir=none", "2>&- >/dev/full"): (2, ""),
}


def ended(command: str, redirection: str, folder: Path) -> subprocess.CompletedProcess[str]:
    line = f'"{sys.executable}" -m benchmark {command} {redirection}; exit ${{PIPESTATUS[0]}}'
    return subprocess.run(
        ["bash", "-c", line], cwd=folder, capture_output=True, text=True, check=False, timeout=300,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(folder), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.bad_input("environment", "standard streams")
@pytest.mark.parametrize(("command", "redirection"), SHOWING, ids=lambda word: word.replace(f"{ROOT}/", ""))
def test_a_command_that_shows_something_survives_its_streams(command: str, redirection: str, tmp_path: Path) -> None:
    status, says = SHOWING[command, redirection]
    done = ended(command, redirection, tmp_path)
    assert done.returncode == status and says in done.stderr, done
    assert "Traceback" not in done.stdout + done.stderr and "Exception ignored" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.bad_input("environment", "standard streams")
@pytest.mark.parametrize(
    ("redirection", "status", "says"),
    [
        ("| head -1", 141, "Stopped, because the reader of this command's output has ended. Nothing finished is lost"),
        ("<&- >&- 2>&-", 0, ""),
    ],
)
def test_a_search_whose_output_ends_stops_and_the_same_command_goes_on(
    redirection: str, status: int, says: str, searched: Path, tmp_path: Path
) -> None:
    from benchmark.bo import bo

    command = " ".join(["bo", *on_tiny(f"results_dir={tmp_path / 'r'}", "executor=local", "executor.workers=1")])
    done = ended(command, redirection, tmp_path)
    assert done.returncode == status and says in done.stderr and "Traceback" not in done.stdout + done.stderr, done
    if status:
        assert not (study_dir(tmp_path / "r") / "bo" / "best.yaml").exists(), "it went on to the end"
    assert run(bo, *on_tiny(f"results_dir={tmp_path / 'r'}")).status == 0
    assert results_of(study_dir(tmp_path / "r")) == results_of(study_dir(searched))


@pytest.mark.slow
def test_tables_are_all_written_before_any_is_printed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The reader of the output may end at the first line."""
    results = shutil.copytree(ROOT / "results" / "one_of_each", tmp_path / "one_of_each")
    shutil.rmtree(results / "tables", ignore_errors=True)

    def gone(text: str) -> None:
        raise tables.UserError(f"{len(list((results / 'tables').iterdir()))} files are there.")

    monkeypatch.setattr(tables, "write", gone)
    ended = run(tables.tables, f"results_dir={results}")
    number = len(list((ROOT / "results" / "one_of_each" / "tables").iterdir()))
    assert_refused(ended, f"{number} files are there.")
