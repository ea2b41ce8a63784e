"""The committed table of bad inputs is current, and each of its cells has enough inputs."""

import subprocess
import sys

import pytest

from tests.bad_inputs import LEAST, TABLE


@pytest.mark.slow
def test_the_table_of_bad_inputs_is_current_and_each_cell_has_enough_inputs() -> None:
    command = [sys.executable, "-m", "tests.bad_inputs"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=TABLE.parent.parent).stdout
    assert TABLE.read_text(encoding="utf-8") == printed, "run: python -m tests.bad_inputs > tests/BAD_INPUTS.md"
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines() if line.startswith("| ")]
    assert len(rows) > 30
    assert not [row for row in rows[1:] if int(row[2]) < LEAST]
