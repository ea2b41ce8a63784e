"""A training that is killed while its checkpoint is being written, beside it, resumes and ends bit-equal."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.recovery.case import ROOT


@pytest.mark.slow
def test_a_training_killed_while_its_writer_writes_ends_bit_equal(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.recovery.kill_in_the_writer", str(tmp_path)],
        capture_output=True, text=True, check=False, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    kills = json.loads(done.stdout)
    for place, found in kills.items():
        begun = {(at["epoch"], at["iterations"]) for at in found}
        assert len(found) >= 5 and len(begun) >= 4, place
        left = {name.rpartition(".pt.")[0] for at in found for name in at["files"] if name.endswith(".tmp")}
        half = {".checkpoint", *(f".checkpoint.validation-{epoch}" for epoch in (1, 2, 3))}
        assert left == (set() if place == "after_the_rename" else half), place
    unnamed = [at for at in kills["after_the_rename"] if len(at["files"]) > 2]
    assert unnamed, "no kill between the best weights and the checkpoint that names them"
