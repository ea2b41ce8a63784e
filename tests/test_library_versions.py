"""The tests of the losses run with each version of the library that pip can install, and a failure is one of all."""

import subprocess
from collections.abc import Sequence
from typing import Any

import pytest

from tests import library_versions


def test_each_version_that_can_be_installed_is_tested_ahead_of_the_installed_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[str, str]] = []
    failing = ""

    def run(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
        if "pip" in command:
            seen.append((command[-1], folder := command[command.index("--target") + 1]))
            status = 1 if command[-1].endswith("==9") else 0
            return subprocess.CompletedProcess(command, status, "", f"looked in {folder}\nERROR: no version 9\n")
        assert options["env"]["PYTHONPATH"].split(":")[0] == seen[-1][1]
        assert any(path.endswith("test_library.py") for path in command) and command[-1].endswith(".py")
        return subprocess.CompletedProcess(command, int(seen[-1][0].endswith(failing) if failing else 0))

    monkeypatch.setattr(library_versions.subprocess, "run", run)
    assert library_versions.run_with(["==2.8.1", "==9", ">=3,<4"])
    assert [name.partition("ing")[2] for name, _ in seen] == ["==2.8.1", "==9", ">=3,<4"]
    out = capsys.readouterr().out
    assert "==9 cannot be installed here, so it was not tested: ERROR: no version 9" in out and "3,<4:" in out
    failing = "==2.8.1"
    assert not library_versions.run_with(["==2.8.1", ">=3,<4"])


def test_all_files_that_compare_with_the_library_are_among_them() -> None:
    names = {path.rpartition("/")[2] for path in library_versions.files()}
    assert {"test_library.py", "test_library_yaml.py", "test_xbm.py", "test_golden.py", "test_distances.py"} <= names
