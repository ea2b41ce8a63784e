"""Jobs of a real SLURM: cancelled, preempted, out of time, and the answers of those that end."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from benchmark.core.errors import UserError, WorkerDiedError
from benchmark.jobs.executors import slurm as slurm_executor
from benchmark.jobs.executors.messages import UnitFailedError, WorkerStartError
from benchmark.jobs.executors.slurm import Slurm, launcher_options
from tests.jobs.executors import scripted_worker
from tests.jobs.executors.slurm_here import missing, slurm
from tests.processes import children, wait_for

real = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing())]

ROOT = Path(__file__).resolve().parents[3]
COMMAND = (sys.executable, str(scripted_worker.__file__))


def sleep(seconds):
    return {"do": "sleep", "seconds": seconds}


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Executors on the worker script, closed at the end."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with contextlib.ExitStack() as stack:

        def make(*prefix, workers=1, on_progress=None, command=COMMAND):
            executor = Slurm(list(prefix), list(command), workers, tmp_path / "logs", on_progress)
            stack.callback(executor.close)
            return executor

        yield make


# -- any launcher: `env` runs its arguments, as srun does -------------------------------------------------------------


def test_a_unit_goes_and_comes_back_as_json_files_which_are_then_gone(make, tmp_path):
    heard = []
    executor = make("env", on_progress=heard.append)
    results = [f.result() for f in [executor.submit(sleep(0)) for _ in range(2)]]
    assert [m["pid"] for m in heard] == [r["pid"] for r in results] and heard[0] != heard[1], "a job does one unit"
    assert [p.name for p in (tmp_path / "logs").iterdir()] == ["worker_0.log"]


def test_what_a_killed_driver_has_left_is_removed(make, tmp_path):
    (tmp_path / "logs").mkdir()
    for name in ("job_0a.json", "job_0a.answer.jsonl", "worker_0.log"):
        (tmp_path / "logs" / name).touch()
    make("env")
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["worker_0.log"]


def test_a_job_without_an_answer_is_a_worker_that_died_and_one_that_fails_is_not(make):
    executor = make("env")
    with pytest.raises(WorkerDiedError, match=r"killed by signal 9 (?s:.)*ends:\nlast words$"):
        executor.submit({"do": "die"}).result()
    with pytest.raises(WorkerDiedError, match=r"exit code 3(?s:.)*printed nothing"):
        executor.submit({"do": "exit"}).result()
    with pytest.raises(UnitFailedError, match=r"KeyError: 'gone'\n(?s:.)*scripted_worker\.py"):
        executor.submit({"do": "fail"}).result()
    with pytest.raises(UserError, match=r"^no such folder$"):
        executor.submit({"do": "refuse"}).result()


def test_the_exit_code_of_the_launcher_is_not_the_answer(make, tmp_path):
    launcher = tmp_path / "launcher"
    launcher.write_text('#!/bin/sh\n"$@"\nexit 1\n')
    launcher.chmod(0o700)
    assert make(str(launcher)).submit(sleep(0)).result()["pid"]


@pytest.mark.parametrize(
    ("prefix", "message"),
    [(["/nowhere/srun"], "No job could be submitted"), (["false"], "2 jobs in a row(?s:.)*exit code 1")],
)
def test_a_job_that_never_starts_is_an_error_and_no_endless_loop(make, prefix, message):
    with pytest.raises(WorkerStartError, match=message) as caught:
        make(*prefix).submit(sleep(0)).result()
    assert not hasattr(caught.value, "worker_died")


def test_a_job_that_ends_before_its_imports_are_done_is_started_once_more(make, tmp_path):
    launcher = tmp_path / "launcher"
    launcher.write_text(f'#!/bin/sh\ntest -e {tmp_path}/before || {{ touch {tmp_path}/before; exit 1; }}\nexec "$@"\n')
    launcher.chmod(0o700)
    assert make(str(launcher)).submit(sleep(0)).result()["pid"]


@pytest.fixture
def shaky(tmp_path):
    """A launcher that fails, and adds a line to the file `refused`, as long as the file `down` exists."""
    return script(tmp_path / "launcher", f'test -e {tmp_path}/down && echo >> {tmp_path}/refused && exit 1\nexec "$@"')


def script(path, body):
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o700)
    return str(path)


def test_once_a_job_of_any_worker_has_started_one_that_cannot_is_a_worker_that_died(make, shaky, tmp_path, monkeypatch):
    monkeypatch.setattr(slurm_executor, "_FIRST_PAUSE", 0.1)
    heard = []
    executor = make(shaky, workers=2, on_progress=heard.append)
    running = executor.submit({"do": "wait", "file": str(tmp_path / "end")})
    wait_for(lambda: heard)
    (tmp_path / "down").touch()
    with pytest.raises(WorkerDiedError, match=r"^A job ended before it could take a unit, with exit code 1"):
        executor.submit(sleep(0)).result(timeout=120)
    assert (tmp_path / "refused").read_text() == "\n", "the driver counts the tries"
    (tmp_path / "down").unlink()
    assert executor.submit(sleep(0)).result(timeout=120)["pid"]
    (tmp_path / "end").touch()
    assert running.result(timeout=120)["pid"]


def test_pauses_after_jobs_that_do_not_start_double_up_to_five_minutes_until_one_starts(
    make, shaky, tmp_path, monkeypatch
):
    def fail(times):
        (tmp_path / "down").touch()
        for _ in range(times):
            with pytest.raises(WorkerDiedError):
                executor.submit(sleep(0)).result(timeout=120)
        (tmp_path / "down").unlink()

    executor, pauses = make(shaky), []
    monkeypatch.setattr(executor._jobs[0]._closed, "wait", pauses.append)
    for times in (0, 8, 1):
        fail(times)
        executor.submit(sleep(0)).result(timeout=120)
    assert pauses == [5, 10, 20, 40, 80, 160, 300, 300, 5]


def test_close_does_not_wait_for_the_end_of_a_pause(make, shaky, tmp_path, monkeypatch):
    monkeypatch.setattr(slurm_executor, "_FIRST_PAUSE", 300.0)
    executor = make(shaky)
    executor.submit(sleep(0)).result(timeout=120)
    (tmp_path / "down").touch()
    future = executor.submit(sleep(0))
    wait_for((tmp_path / "refused").exists)
    before = time.monotonic()
    executor.close()
    assert time.monotonic() - before < 60
    assert isinstance(future.exception(), CancelledError)


def test_the_job_of_an_sbatch_that_died_is_cancelled_before_the_next_is_submitted(make, tmp_path, monkeypatch):
    done = tmp_path / "done"
    sbatch = script(tmp_path / "sbatch", f"echo submit >> {done}\necho Submitted batch job 7\nkill -9 $$")
    script(tmp_path / "scancel", f'echo "cancel $2" >> {done}')
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    executor = make(sbatch)
    done.unlink()  # what a new driver cancels
    with pytest.raises(WorkerStartError, match="killed by signal 9"):
        executor.submit(sleep(0)).result(timeout=120)
    assert done.read_text().splitlines() == ["submit", "cancel 7"] * 2


def test_close_ends_jobs_and_starts_no_other(make):
    heard = []
    executor = make("env", workers=2, on_progress=heard.append)
    futures = [executor.submit(sleep(300)) for _ in range(3)]
    wait_for(lambda: len(heard) == 2)
    before = time.monotonic()
    executor.close()
    assert time.monotonic() - before < 60, "it waited for a unit"
    for future in futures:
        assert future.cancelled() or future.exception() is not None
    assert not any(Path(f"/proc/{message['pid']}").exists() for message in heard)


LAUNCHER = """
import pathlib, signal, subprocess, sys, time
folder, count = pathlib.Path(sys.argv[1]), int(sys.argv[2])
job = subprocess.Popen(sys.argv[3:])
def stop(*_):
    (folder / f"stopped_{job.pid}").touch()
    ends = time.monotonic() + 8
    while len([*folder.glob("stopped_*")]) < count and time.monotonic() < ends:
        time.sleep(0.05)
    if time.monotonic() >= ends:
        (folder / "alone").touch()
    job.kill()
    sys.exit(1)
signal.signal(signal.SIGTERM, stop)
job.wait()
"""


def test_close_asks_all_jobs_to_end_before_it_waits_for_one(make, tmp_path):
    heard = []
    executor = make(sys.executable, "-c", LAUNCHER, str(tmp_path), "3", workers=3, on_progress=heard.append)
    for _ in range(3):
        executor.submit(sleep(300))
    wait_for(lambda: len(heard) == 3)
    executor.close()
    assert len([*tmp_path.glob("stopped_*")]) == 3 and not (tmp_path / "alone").exists()


@pytest.mark.slow
def test_a_job_that_hangs_is_ended_and_only_that_one(make, tmp_path):
    heard = []
    executor = make("env", workers=2, on_progress=heard.append)
    hanging, other = executor.submit(sleep(300)), executor.submit({"do": "wait", "file": str(tmp_path / "other")})
    wait_for(lambda: len(heard) == 2)
    executor.kill(hanging)
    with pytest.raises(WorkerDiedError):
        hanging.result(timeout=120)
    (tmp_path / "other").touch()
    assert other.result(timeout=120)["pid"]


def test_sbatch_gets_a_script_that_keeps_its_arguments_and_a_log_whose_name_is_taken_as_it_is():
    options = launcher_options("sbatch", "ours", Path("/a/100%j.log"))
    assert {"--wait", "--no-requeue"} < set(options) and "--output=/a/100%%j.log" in options
    said = subprocess.run(["sh", options[-1], "printf", "%s|", "a b", "$HOME; `x`"], capture_output=True, text=True,
                          check=True)  # fmt: skip
    assert said.stdout == "a b|$HOME; `x`|"


# -- a real one -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    with slurm(tmp_path_factory.mktemp("slurm")) as environment:
        yield environment


@pytest.fixture
def cluster(here, monkeypatch):
    for name, value in here.items():
        monkeypatch.setenv(name, value)
    wait_for(lambda: not jobs("running,pending"), what="for the jobs of the test before")


def jobs(state="all"):
    said = subprocess.run(["squeue", "-h", "-o", "%i", f"--states={state}"], capture_output=True, text=True, check=True)
    return said.stdout.split()


class TestReal:
    pytestmark = real

    def test_a_job_that_is_out_of_time_is_a_worker_that_died(self, cluster, make):
        heard = []
        future = make("srun", "--time=10", on_progress=heard.append).submit(sleep(600))
        wait_for(lambda: heard)
        (job,) = jobs("running")
        subprocess.run(["scontrol", "update", f"JobId={job}", "EndTime=now"], check=True)  # SLURM looks every 30 s
        with pytest.raises(WorkerDiedError, match="DUE TO TIME LIMIT"):
            future.result(timeout=240)

    def test_a_killed_worker_is_told_from_a_failing_one_and_a_wrong_option_from_both(self, cluster, make):
        executor = make("srun", "--ntasks=2")
        with pytest.raises(WorkerDiedError, match="ended before it answered"):
            executor.submit({"do": "die"}).result()
        with pytest.raises(UnitFailedError, match="KeyError: 'gone'"):
            executor.submit({"do": "fail"}).result()
        assert executor.submit(sleep(0)).result()["SLURM_NTASKS"] == "1", "the last word is ours"
        with pytest.raises(WorkerStartError, match="invalid partition"):
            make("srun", "--partition=nowhere").submit(sleep(0)).result()

    @pytest.mark.parametrize("prefix", ["srun", "sbatch"])
    def test_close_leaves_no_job_behind(self, cluster, make, prefix):
        heard = []
        executor = make(prefix, workers=3, on_progress=heard.append)
        for _ in range(4):
            executor.submit(sleep(300))
        wait_for(lambda: len(heard) == 2 and jobs("pending"))
        executor.close()
        wait_for(lambda: not jobs("running,pending"))

    @pytest.mark.parametrize("prefix", ["srun", "sbatch"])
    def test_a_job_that_hangs_is_cancelled_and_only_that_one(self, cluster, make, prefix):
        heard = []
        executor = make(prefix, workers=2, on_progress=heard.append)
        futures = [executor.submit(sleep(300)), executor.submit(sleep(300))]
        wait_for(lambda: len(heard) == 2)
        before = set(jobs("running"))
        executor.kill(futures[0])
        with pytest.raises(WorkerDiedError):
            futures[0].result(timeout=120)
        wait_for(lambda: len(jobs("running")) == 1)
        assert set(jobs("running")) < before and not futures[1].done()

    def test_a_job_whose_sbatch_was_killed_is_cancelled(self, cluster, make):
        heard = []
        future = make("sbatch", on_progress=heard.append).submit(sleep(300))
        wait_for(lambda: heard)
        assert len(jobs("running")) == 1
        (client,) = [pid for pid in children(os.getpid()) if Path(f"/proc/{pid}/comm").read_text() == "sbatch\n"]
        os.kill(client, signal.SIGKILL)
        with pytest.raises(WorkerDiedError, match="killed by signal 9"):
            future.result(timeout=120)
        wait_for(lambda: not jobs("running,pending"), 60)

    def test_a_job_of_sbatch_is_not_queued_again_by_slurm(self, cluster, make):
        heard = []
        make("sbatch", on_progress=heard.append).submit(sleep(300))
        wait_for(lambda: heard)
        (job,) = jobs("running")
        assert subprocess.run(["scontrol", "requeue", job], check=False, capture_output=True).returncode != 0

    @pytest.mark.parametrize("prefix", ["srun", "sbatch"])
    def test_a_new_driver_cancels_what_a_killed_one_has_left_running(self, cluster, make, tmp_path, prefix):
        script = textwrap.dedent("""
            import json, sys, time
            from pathlib import Path
            from benchmark.jobs.executors.slurm import Slurm

            command = [sys.executable, sys.argv[2]]
            executor = Slurm([sys.argv[1]], command, 1, Path(sys.argv[3]), lambda message: print(flush=True))
            executor.submit({"do": "sleep", "seconds": 300})
            time.sleep(60)
        """)
        command = [sys.executable, "-c", script, prefix, COMMAND[1], str(tmp_path / "logs")]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as driver:
            assert driver.stdout.readline() == b"\n"
            left = jobs("running")
            driver.kill()
        assert len(left) == 1
        assert make(prefix).submit(sleep(0)).result()["SLURM_JOB_ID"] not in left
        assert left[0] not in jobs("running")
