"""A command that is killed around every write leaves the records of an undisturbed run and repeats no finished unit."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.bo import bo
from benchmark.final_eval import final_eval
from benchmark.traditional import traditional
from tests.command_line import on_tiny, run
from tests.recovery.case import ROOT, assert_records_of

# The test is only meaningful with a minimum number of kills.
CASES = {
    "bo,final_eval": (8, on_tiny("loss=hpl_nca", "dataset.max_epochs=3", "display=quiet")),
    "bo": (4, on_tiny("protocol.num_folds=3", "trials=4", "dataset.max_epochs=2", "searcher.stop_behind=0.2",
                      "display=quiet")),
    "traditional": (3, ["dataset=glyphs_small", "loss=hpl_nca", "trunk.width=8", "protocol.num_runs=2",
                        "protocol.held_out=0.2", "training.batch_size=128", "training.epochs=4", "executor=inline",
                        "display=quiet", "protocol=traditional", "checkpoint_seconds=0"]),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("names", CASES)
def test_kills_around_writes_do_not_change_the_records(names: str, tmp_path: Path) -> None:
    least, overrides = CASES[names]
    stories = {"bo": bo, "final_eval": final_eval, "traditional": traditional}
    for name in names.split(","):
        assert run(stories[name], *overrides, f"results_dir={tmp_path / 'undisturbed'}").status == 0
    hurt = tmp_path / "hurt"
    done = subprocess.run(
        [sys.executable, "-m", "tests.recovery.kill_at_writes", "5", names, *overrides, f"results_dir={hurt}"],
        capture_output=True, text=True, check=False, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout.split()[-1]) >= least
    logs = [path.read_text() for path in hurt.rglob("log")]
    assert sum(log.count("resume: ") for log in logs) > 0, "no kill interrupted a unit"
    assert_records_of(hurt, tmp_path / "undisturbed")
    assert not [*hurt.rglob("*.tmp"), *hurt.rglob("checkpoint.pt")]
