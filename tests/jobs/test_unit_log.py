"""The log of a unit: who ran it, what it printed, how it ended."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.bo import bo
from benchmark.jobs import unit_log
from tests.command_line import study_dir, tiny


def test_the_log_holds_who_starts_what_is_printed_and_how_it_ends(tmp_path: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from benchmark.jobs import unit_log
print("before")
with unit_log.recording(Path(sys.argv[1]), capture=True):
    print("with print")
    os.write(1, b"to a descriptor\\n")
    os.system("echo by a child")
    print("to stderr", file=sys.stderr)
print("after")
"""
    unit = tmp_path / "trial_000" / "fold_1"
    done = subprocess.run(
        [sys.executable, "-c", code, str(unit)], capture_output=True, text=True, check=True,
        env=os.environ | {"BENCHMARK_WORKER": "worker_3", "PYTHONPATH": "."},
    )  # fmt: skip
    assert done.stdout.split() == ["before", "after"] and done.stderr == ""
    lines = (unit / "log").read_text().splitlines()
    assert "start: worker_3 on " in lines[0] and lines[-1].endswith(" end")
    assert {"with print", "to a descriptor", "by a child", "to stderr"} == set(lines[1:-1])


@pytest.mark.parametrize("capture", [True, False])
def test_a_failure_leaves_its_traceback_and_the_log_only_grows(capture: bool, tmp_path: Path) -> None:
    for number in range(2):
        with pytest.raises(KeyError), unit_log.recording(tmp_path, capture=capture):
            raise KeyError(f"number {number}")
    text = (tmp_path / "log").read_text()
    assert text.count("start: ") == text.count("failed\nTraceback") == 2
    assert "KeyError: 'number 0'" in text and unit_log.tail(tmp_path / "log").endswith("KeyError: 'number 1'")


def test_a_plug_in_that_exits_the_interpreter_leaves_its_traceback(tmp_path: Path) -> None:
    with pytest.raises(SystemExit), unit_log.recording(tmp_path, capture=False):
        sys.exit(3)
    assert (
        unit_log.tail(tmp_path / "log").endswith("SystemExit: 3")
        and "test_unit_log.py" in (tmp_path / "log").read_text()
    )


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    with unit_log.recording(tmp_path, capture=True):
        pass
    assert unit_log.tail(tmp_path / "log") == unit_log.tail(tmp_path / "none") == ""


def test_a_training_logs_its_epochs_and_leaves_no_heartbeat(tmp_path: Path) -> None:
    assert tiny(bo, tmp_path, "trials=1").status == 0
    unit = study_dir(tmp_path) / "bo" / "trial_000" / "fold_1"
    lines = [line.partition(" ")[2] for line in (unit / "log").read_text().splitlines()]
    assert [line.split()[0] for line in lines] == ["start:", "epoch", "epoch", "end"]
    assert lines[1].startswith("epoch 0   validation MAP@R ") and lines[2].startswith("epoch 1   loss ")
    assert not (unit / "alive.json").exists()
