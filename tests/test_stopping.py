"""Real processes: stopped by Ctrl-C or SIGTERM, asked for help, started with a mistake."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from benchmark.bo import bo
from benchmark.core import records
from tests.command_line import TINY, on_tiny, study_dir, tiny, trainings
from tests.processes import children, is_alive, wait_for

Start = Callable[..., subprocess.Popen[str]]

# Some seconds of training, so that there is a middle to stop in.
LONG = ("dataset.iterations_per_epoch=40", "dataset.max_epochs=6", "dataset.patience=6", "protocol.batch_size=64")


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
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="counts processes by Linux's /proc")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_search_ends_cleanly_and_goes_on_where_it_was(
    number: signal.Signals, status: int, tmp_path: Path, start: Start
) -> None:
    driver = start("bo", *on_tiny(*LONG, "executor=local", "executor.workers=2", f"results_dir={tmp_path}"))
    folder = study_dir(tmp_path) / "bo"
    wait_for(lambda: list(folder.rglob("record.json")) and list(folder.rglob("*.pt")), 400, "for a fold at work")
    workers = children(driver.pid)
    driver.send_signal(number)
    out, err = driver.communicate(timeout=120)
    assert driver.returncode == status, err
    assert "Stopped. Nothing finished is lost: the same command resumes from here." in err
    assert "Traceback" not in out + err
    assert len(workers) == 2
    wait_for(lambda: not any(map(is_alive, workers)), 30, "for the workers to end")
    with records.only_one(study_dir(tmp_path) / "lock", "the study"):
        pass  # the lock is free
    finished = {"/".join(p.parent.parts[-2:]): p.read_bytes() for p in folder.rglob("record.json")}
    assert finished and len(finished) < 4, "it was stopped in the middle"
    with trainings() as trained:
        ended = tiny(bo, tmp_path, *LONG)
    assert ended.status == 0, ended
    assert set(trained) == {f"trial_00{t}/fold_{f}" for t in range(2) for f in range(2)} - set(finished)
    assert {name: (folder / name / "record.json").read_bytes() for name in finished} == finished


@pytest.mark.slow
def test_a_mistake_ends_a_real_process_with_status_2_and_no_traceback(
    start: Start,
) -> None:
    process = start("bo", "trails=3")
    out, err = process.communicate(timeout=400)
    assert (process.returncode, out) == (2, "")
    assert err.startswith("\nThere is no key 'trails'. Did you mean 'trials'?") and "Traceback" not in err


@pytest.mark.slow
def test_help_and_the_configuration_are_shown(tmp_path: Path, start: Start) -> None:
    shown = start("bo", "--help")
    out, err = shown.communicate(timeout=400)
    assert (shown.returncode, err) == (0, "")
    assert (
        "python -m benchmark.{data,splits,bo,final_eval,traditional,tables,status,logs,bench}" in out
        and "--cfg job" in out
    )
    for name in ("glyphs, glyphs_small", "executor: inline, local", "searcher: ax, sobol"):
        assert name in out
    for story, protocol in (("traditional", "traditional"), ("bo", "hpl")):
        shown = start(story, "dataset=cub", "--cfg", "job", "--resolve")
        out, err = shown.communicate(timeout=60)
        assert shown.returncode == 0 and f"  name: {protocol}\n" in out, err
    shown = start("final_eval", "dataset=glyphs_small", "loss=contrastive", "--cfg", "job", "--resolve")
    out, err = shown.communicate(timeout=400)
    config = yaml.safe_load(out)
    assert (shown.returncode, err) == (0, "")
    assert (config["loss"]["name"], config["trials"], config["protocol"]["trials"]) == ("contrastive", 8, 8)
    assert not list(tmp_path.iterdir()), "to show is not to run"


@pytest.mark.slow
def test_several_losses_are_searched_by_one_command(tmp_path: Path, start: Start) -> None:
    base = [o for o in TINY if not o.startswith("loss=")]
    process = start("bo", "--multirun", *base, "trials=1", "loss=proxy_nca,contrastive")
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    assert err == ""
    for name in ("proxy_nca", "contrastive"):
        assert f"{name} on glyphs_small: 1 trials" in out
        assert (study_dir(tmp_path / "results", name) / "bo" / "best.yaml").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["results"], "nothing is left where the command was given"
