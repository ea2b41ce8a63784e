"""Commands as real processes: help, a mistake, several losses at once. How they are stopped: `tests/recovery`."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.command_line import TINY, study_dir

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start `python -m benchmark.MODULE ARGUMENTS` in the temporary folder."""
    processes = []

    def begin(module: str, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", f"benchmark.{module}", *arguments],
            cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
        )  # fmt: skip
        processes.append(process)
        return process

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_a_mistake_ends_a_real_process_with_status_2_and_no_traceback(start: Start) -> None:
    process = start("bo", "trails=3")
    out, err = process.communicate(timeout=400)
    assert (process.returncode, out) == (2, "")
    assert err.startswith("\nThere is no key 'trails'. Did you mean 'trials'?") and "Traceback" not in err


@pytest.mark.slow
def test_help_and_the_configuration_are_shown(tmp_path: Path, start: Start) -> None:
    shown = start("bo", "--help")
    out, err = shown.communicate(timeout=400)
    assert (shown.returncode, err) == (0, "")
    assert out.startswith("usage: python -m benchmark bo ") and "--cfg job" in out
    for name in ("glyphs, glyphs_long, glyphs_small", "executor: inline, local", "searcher: ax, sobol"):
        assert name in out
    for story, protocol in (("traditional", "traditional"), ("bo", "hpl")):
        shown = start(story, "dataset=cub", "--cfg", "job", "--resolve")
        out, err = shown.communicate(timeout=400)
        assert shown.returncode == 0 and f"  name: {protocol}\n" in out, err
    shown = start("final_eval", "dataset=glyphs_small", "loss=contrastive", "--cfg", "job", "--resolve")
    out, err = shown.communicate(timeout=400)
    config = yaml.safe_load(out)
    assert (shown.returncode, err) == (0, "")
    assert (config["loss"]["name"], config["trials"], config["protocol"]["trials"]) == ("contrastive", 6, 6)
    assert not list(tmp_path.iterdir()), "to show is not to run"


@pytest.mark.slow
def test_several_losses_are_searched_by_one_command(tmp_path: Path, start: Start) -> None:
    base = [o for o in TINY if not o.startswith(("loss=", "trials="))]
    process = start("bo", "--multirun", *base, "trials=1", "loss=proxy_nca,contrastive")
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    assert err == ""
    for name in ("proxy_nca", "contrastive"):
        assert f"{name} on glyphs_small: 1 trial" in out
        assert (study_dir(tmp_path / "results", name) / "bo" / "best.yaml").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["results"], "nothing is left where the command was given"
