"""Worker processes that sleep, fail, print, and are killed."""

import concurrent.futures
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from benchmark.core.errors import UserError, WorkerDiedError
from benchmark.jobs.executors.local import Local
from benchmark.jobs.executors.messages import UnitFailedError, WorkerStartError
from tests.processes import is_alive, wait_for

ROOT = Path(__file__).resolve().parents[3]

# A worker script outside the package; the spec of a unit says what the unit does.
WORKER = """
    import errno, os, signal, subprocess, sys, time
    from pathlib import Path
    from benchmark.core.records import LockedError
    from benchmark.jobs.executors.serve import serve

    def run(spec, report):
        do = spec["do"]
        if do == "sleep":
            report({"started": os.getpid()})
            start = time.monotonic()
            time.sleep(spec["seconds"])
            return {"start": start, "end": time.monotonic(), "pid": os.getpid(), "name": spec.get("name")}
        if do == "wait":
            report({"started": os.getpid()})
            while not Path(spec["file"]).exists():
                time.sleep(0.02)
            return {"pid": os.getpid()}
        if do == "environment":
            return {name: os.environ.get(name) for name in spec["names"]} | {"session": os.getsid(0) == os.getpid()}
        if do == "progress":
            for step in range(spec["steps"]):
                report({"step": step, "text": "a\\nline \\u2028 \\u00e9"})
            return {"steps": spec["steps"]}
        if do == "print":
            print("said with print")
            print('{"id": 0, "result": {"forged": true}}', flush=True)
            os.write(1, b"said to descriptor 1\\n")
            subprocess.run(["echo", "said by a child"])
            print("said to stderr \\xe9", file=sys.stderr)
            return {"read": sys.stdin.readline()}
        if do == "raise":
            raise {"key": KeyError("gone"), "disk": OSError(errno.ENOSPC, "No space left on device", "x.pt"),
                   "value": ValueError("bad value"), "missing": FileNotFoundError(errno.ENOENT, "No such file", "y.pt"),
                   "locked": LockedError("in use")}[spec["what"]]
        if do == "unjson":
            return {"x": object()}
        if do == "die":
            print("last words", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        if do == "exit":
            os._exit(spec["code"])

    if __name__ == "__main__":
        serve(run)
"""


@pytest.fixture
def command(tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(textwrap.dedent(WORKER))
    return [sys.executable, str(script)]


@pytest.fixture
def make(tmp_path, command, monkeypatch):
    """Executors on the worker script, closed at the end."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with contextlib.ExitStack() as stack:

        def make(workers=1, on_progress=None, environments=None, command=command):
            executor = Local(command, workers, tmp_path / "logs", on_progress, environments)
            stack.callback(executor.close)
            return executor

        yield make


def sleep(seconds, name=None):
    return {"do": "sleep", "seconds": seconds, "name": name}


def wait(file):
    return {"do": "wait", "file": str(file)}


def test_units_start_in_the_order_of_submission(make):
    executor = make(workers=1)
    results = [f.result() for f in [executor.submit(sleep(0.0, name)) for name in range(8)]]
    assert [r["name"] for r in results] == list(range(8))
    assert all(a["end"] <= b["start"] for a, b in itertools.pairwise(results))
    assert len({r["pid"] for r in results}) == 1, "the worker is long-lived"


def test_two_workers_work_at_the_same_time_and_the_first_free_one_takes_the_next_unit(make, tmp_path):
    started = []
    executor = make(workers=2, on_progress=started.append)
    a, b = (executor.submit(wait(tmp_path / name)) for name in "ab")
    wait_for(lambda: len(started) == 2)
    (tmp_path / "a").touch()
    free = a.result(timeout=120)["pid"]
    assert {executor.submit(sleep(0)).result(timeout=120)["pid"] for _ in range(5)} == {free}
    assert not b.done()
    (tmp_path / "b").touch()
    assert {free, b.result(timeout=120)["pid"]} == {message["started"] for message in started}


def test_progress_arrives_in_order_and_before_the_result(make):
    heard = []
    executor = make(on_progress=heard.append)
    assert executor.submit({"do": "progress", "steps": 50}).result() == {"steps": 50}
    assert [message["step"] for message in heard] == list(range(50))
    assert heard[0]["text"] == "a\nline \u2028 \u00e9"


def test_workers_have_one_thread_their_own_variables_and_their_own_session(make, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    monkeypatch.setenv("INHERITED", "yes")
    executor = make(workers=2, environments=[{"CUDA_VISIBLE_DEVICES": "3"}] * 2)
    names = ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "INHERITED",
             "BENCHMARK_WORKERS_HERE"]  # fmt: skip
    found = executor.submit({"do": "environment", "names": names}).result()
    assert found == dict(zip(names, ["1", "1", "1", "3", "yes", "2"], strict=True)) | {"session": True}


def test_what_a_unit_prints_goes_to_the_log_and_reads_nothing(make, tmp_path):
    executor = make()
    assert executor.submit({"do": "print"}).result() == {"read": ""}
    log = (tmp_path / "logs" / "worker_0.log").read_text()
    for said in ("with print", '"forged"', "to descriptor 1", "by a child", "to stderr \u00e9"):
        assert said in log


def test_what_is_printed_before_serving_goes_to_the_log(make, tmp_path):
    script = tmp_path / "loud.py"
    script.write_text(
        "import os\nfrom benchmark.jobs.executors.serve import serve\n"
        "os.write(1, b'imported\\n[1]\\n\\xff\\n')\nprint('no line end', end='')\nserve(lambda spec, report: spec)\n"
    )
    executor = make(command=[sys.executable, "-u", str(script)])
    assert executor.submit({"x": 1}).result() == {"x": 1}
    log = (tmp_path / "logs" / "worker_0.log").read_text()
    assert "imported" in log and "[1]" in log and "no line end" in log


def test_an_exception_comes_back_with_its_traceback(make):
    executor = make()
    with pytest.raises(UnitFailedError, match=r"KeyError: 'gone'\n(?s:.)*worker\.py.*in run"):
        executor.submit({"do": "raise", "what": "key"}).result()
    with pytest.raises(UnitFailedError, match=r"ValueError: bad value\n(?s:.)*worker\.py.*in run"):
        executor.submit({"do": "raise", "what": "value"}).result()
    with pytest.raises(UnitFailedError, match=r"FileNotFoundError: .*y\.pt(?s:.)*worker\.py.*in run"):
        executor.submit({"do": "raise", "what": "missing"}).result()
    with pytest.raises(UnitFailedError, match="TypeError: Object of type object is not JSON serializable"):
        executor.submit({"do": "unjson"}).result()
    assert executor.submit(sleep(0)).result()["end"] > 0, "the worker goes on"


def test_what_the_user_can_put_right_comes_back_as_a_user_error(make):
    executor = make()
    with pytest.raises(UserError, match=r"The disk is full \(No space left on device: x\.pt\)"):
        executor.submit({"do": "raise", "what": "disk"}).result()


def test_a_lock_that_another_process_keeps_costs_a_retry(make):
    with pytest.raises(WorkerDiedError, match=r"^in use$"):
        make().submit({"do": "raise", "what": "locked"}).result()


def test_a_killed_worker_fails_its_own_unit_only_and_is_replaced(make, tmp_path):
    started = []
    executor = make(workers=2, on_progress=started.append)
    other = executor.submit(wait(tmp_path / "other"))
    dying = executor.submit({"do": "die"})
    with pytest.raises(WorkerDiedError, match=r"killed by signal 9 \(Killed\)\. .*worker_\d\.log ends:\nlast words$"):
        dying.result()
    (tmp_path / "other").touch()
    before = other.result(timeout=120)["pid"]
    started.clear()
    after = [executor.submit(wait(tmp_path / "after")) for _ in range(2)]
    wait_for(lambda: len(started) == 2)
    (tmp_path / "after").touch()
    pids = {future.result(timeout=120)["pid"] for future in after}
    assert len(pids) == 2 and before in pids


def test_a_worker_killed_from_outside_or_while_idle_is_replaced(make):
    started = []
    executor = make(on_progress=started.append)
    future = executor.submit(sleep(300))
    wait_for(lambda: started)
    os.kill(started[0]["started"], signal.SIGKILL)
    with pytest.raises(WorkerDiedError, match="signal 9"):
        future.result(timeout=120)
    idle = executor.submit(sleep(0)).result()["pid"]
    os.kill(idle, signal.SIGKILL)
    wait_for(lambda: not is_alive(idle))
    assert executor.submit(sleep(0)).result(timeout=120)["pid"] != idle


def test_a_unit_that_hangs_is_killed_alone_though_its_process_is_stopped(make, tmp_path):
    started = []
    executor = make(workers=2, on_progress=started.append)
    future = executor.submit(sleep(300))
    wait_for(lambda: started)
    other = executor.submit(wait(tmp_path / "other"))
    os.kill(started[0]["started"], signal.SIGSTOP)
    executor.kill(future)
    with pytest.raises(WorkerDiedError, match="signal 9"):
        future.result(timeout=120)
    assert not is_alive(started[0]["started"])
    executor.kill(future)  # it is over, which hurts nobody
    (tmp_path / "other").touch()
    assert other.result(timeout=120)["pid"] != started[0]["started"]


def test_a_defect_costs_its_worker_which_may_be_unfit_for_other_units(make):
    executor = make()
    before = executor.submit(sleep(0)).result()["pid"]
    with pytest.raises(UnitFailedError):
        executor.submit({"do": "raise", "what": "key"}).result()
    assert executor.submit(sleep(0)).result()["pid"] != before


def test_a_worker_that_exits_reports_its_exit_code_and_only_its_own_words(make):
    executor = make()
    executor.submit({"do": "print"}).result()
    with contextlib.suppress(WorkerDiedError):
        executor.submit({"do": "die"}).result()
    with pytest.raises(WorkerDiedError, match="with exit code 3") as caught:
        executor.submit({"do": "exit", "code": 3}).result()
    assert "last words" not in str(caught.value)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ([sys.executable, "-c", "raise SystemExit('no such module')"], "with exit code 1(?s:.)*no such module"),
        (["/nowhere/python"], "No worker could be started with .*No such file"),
        (["true"], "2 workers in a row ended before they could take a unit(?s:.)*printed nothing"),
    ],
)
def test_a_worker_that_cannot_start_is_an_error_and_no_endless_loop(make, command, message):
    executor = make(command=command)
    for _ in range(2):
        with pytest.raises(WorkerStartError, match=message):  # the user's to fix: trying again does not help
            executor.submit({}).result(timeout=120)


def test_a_worker_that_is_killed_before_it_is_ready_may_be_tried_again(make):
    executor = make(command=[sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"])
    with pytest.raises(WorkerDiedError, match="before it could take a unit, killed by signal 9"):
        executor.submit({}).result(timeout=120)


def test_close_ends_busy_workers_at_once_and_cancels_waiting_units(make):
    started = []
    executor = make(workers=2, on_progress=started.append)
    futures = [executor.submit(sleep(300)) for _ in range(5)]
    wait_for(lambda: len(started) == 2)
    before = time.monotonic()
    executor.close()
    assert time.monotonic() - before < 60, "it waited for a unit"
    assert not any(is_alive(message["started"]) for message in started)
    for future in futures:
        with pytest.raises(concurrent.futures.CancelledError):
            future.result(timeout=1)
    with pytest.raises(RuntimeError, match="closed"):
        executor.submit(sleep(0))
    executor.close()


def test_close_ends_workers_that_are_still_starting(make):
    threads = threading.active_count()
    executor = make(command=[sys.executable, "-c", "import time; time.sleep(60)"])
    future = executor.submit({})
    time.sleep(0.3)
    executor.close()
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(timeout=1)
    assert threading.active_count() == threads


def test_a_unit_that_waits_can_be_cancelled(make):
    executor = make()
    first, second, third = (executor.submit(sleep(0.5, name)) for name in "abc")
    assert second.cancel()
    assert (first.result()["name"], third.result()["name"]) == ("a", "c")


def test_a_failing_progress_callback_fails_the_unit_and_not_the_next(make):
    calls = []

    def on_progress(message):
        calls.append(message)
        if len(calls) == 1:
            raise ValueError("no terminal")

    executor = make(on_progress=on_progress)
    with pytest.raises(ValueError, match="no terminal"):
        executor.submit({"do": "progress", "steps": 3}).result()
    assert executor.submit({"do": "progress", "steps": 2}).result() == {"steps": 2}


def test_specs_that_are_no_json_and_senseless_numbers_are_refused(make):
    with pytest.raises(TypeError, match="not JSON serializable"):
        make().submit({"x": object()})
    with pytest.raises(ValueError, match="0 workers"):
        make(workers=0)
    with pytest.raises(ValueError, match="2 workers with 1 environments"):
        make(workers=2, environments=[{}])


DRIVER = """
    import json, sys, time
    from pathlib import Path
    from benchmark.jobs.executors.local import Local

    def on_progress(message):
        sys.stdout.write(json.dumps(message) + "\\n")  # one write: two threads report
        sys.stdout.flush()

    executor = Local(json.loads(sys.argv[1]), 2, Path(sys.argv[2]), on_progress)
    for _ in range(3):
        executor.submit({"do": "sleep", "seconds": 300})
    time.sleep(300)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_their_driver(command, tmp_path, how):
    driver = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(DRIVER), json.dumps(command), str(tmp_path / "logs")],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    with driver:
        pids = [json.loads(driver.stdout.readline())["started"] for _ in range(2)]
        assert all(map(is_alive, pids))
        driver.send_signal(how)
        driver.wait(timeout=120)
        wait_for(lambda: not any(map(is_alive, pids)))


def test_a_worker_ends_when_its_standard_input_closes_though_a_unit_is_running(command, monkeypatch):
    """The way without Linux's help."""
    script = Path(command[1])
    without = "import benchmark.jobs.executors.serve as s\n    s.end_with_parent = lambda number: None\n    serve(run)"
    script.write_text(script.read_text().replace("serve(run)", without))
    worker = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    with worker:
        assert [worker.stdout.readline() for _ in range(2)] == ["\n", '{"ready": true}\n']
        worker.stdin.write('{"id": 5, "spec": {"do": "sleep", "seconds": 300}}\n')
        worker.stdin.flush()
        assert json.loads(worker.stdout.readline())["id"] == 5
        worker.stdin.close()
        assert worker.wait(timeout=120) == 0


def test_ctrl_c_at_the_terminal_reaches_the_driver_only(make):
    """A terminal signals its foreground process group; the workers are in sessions of their own."""
    started = []
    executor = make(on_progress=started.append)
    future = executor.submit(sleep(0.5))
    wait_for(lambda: started)
    assert os.getpgid(started[0]["started"]) != os.getpgid(0)
    assert future.result()["pid"] == started[0]["started"]
