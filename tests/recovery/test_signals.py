"""Ctrl-C and SIGTERM at many moments of real processes: one line and a status, never a traceback."""

import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmark.core import process
from benchmark.core.paths import module_arguments
from tests.command_line import on_tiny
from tests.recovery.case import ROOT

LINE = "\nStopped. Nothing finished is lost: the same command resumes from here.\n"
STEP = 0.05  # seconds between two moments
LAST = 3.0  # seconds after the start; then a search is in the middle of its first unit
AT_ONCE = 2  # processes at a time


def start(*command: str, **environment: str) -> "subprocess.Popen[str]":
    """Start a process that heeds Ctrl-C, which a shell's background jobs ignore."""
    return subprocess.Popen(
        [sys.executable, *command], text=True, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip


def stopped(number: int, seconds: float, *command: str) -> tuple[float, int, str]:
    """Send a signal to a process some seconds after its start; return the moment, the status and standard error."""
    with start(*command) as started:
        time.sleep(seconds)
        started.send_signal(number)
        _, err = started.communicate(timeout=120)
    return seconds, started.returncode, err


def before_our_first_line(code: int, err: str) -> bool:
    """Whether Python itself was still starting, or importing the module that prepares the process."""
    ours = re.findall(rf'File "{ROOT}/(benchmark/\S+)", line \d+, in <module>\n    (.+)', err)
    early = all(line == "from benchmark.core import process" or path.endswith("/process.py") for path, line in ours)
    return (code < 0 or code == 1) and early and err.count("KeyboardInterrupt") == bool(err)


COMMANDS = {
    "bo": (["-m", "benchmark", "bo"], LAST, 6),
    "status": (["-m", "benchmark", "status", f"results_dir={ROOT}/results/one_of_each"], 0.7, 1),
    "help": (["-m", "benchmark", "--help"], 0.5, 1),
    "dmlbench": (["dmlbench", "bo", "--help"], 0.7, 2),
}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_signal_at_any_moment_is_one_line_and_a_status(name: str, number: int, tmp_path: Path) -> None:
    command, last, stride = COMMANDS[name]
    if name == "bo":
        command = [*command, *on_tiny("trials=50", "executor=local", "executor.workers=1", f"results_dir={tmp_path}")]
    if name == "dmlbench":
        (script := tmp_path / "dmlbench").write_text(
            f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom benchmark.__main__ import main\nsys.exit(main())\n"
        )
        command = [str(script), *command[1:]]
    phase = STEP * (number == signal.SIGTERM)
    moments = [phase + STEP * i for i in range(1, round(last / STEP), stride)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        ends = list(pool.map(lambda seconds: stopped(number, seconds, *command), moments))
    ours = [(code, err) for _, code, err in ends if not before_our_first_line(code, err)]
    assert {(code, err) for code, err in ours} <= {(128 + number, LINE), (0, "")}, ends
    assert len(ours) >= len(ends) // 2, ends  # Python itself takes long to start on a busy machine
    assert (128 + number, LINE) in ours, ends


@pytest.mark.slow
def test_a_second_ctrl_c_during_the_clean_up_ends_the_command_with_the_same_line(tmp_path: Path) -> None:
    code = (
        "import sys, time; from benchmark.core import process\n"
        "process._runs_a_command = lambda: True\nprocess.begin()\n"
        "def wait():\n    for _ in range(6000):\n        time.sleep(0.1)\n"  # a single sleep can miss a signal
        "with process.stopped_by_exception():\n"
        "    try:\n        print('ready', flush=True); wait()\n"
        "    finally:\n        print('cleaning', flush=True); wait()\n"
    )
    with start("-c", code) as started:
        for word in ("ready\n", "cleaning\n"):
            assert started.stdout is not None and started.stdout.readline() == word
            started.send_signal(signal.SIGINT)
        assert (started.communicate(timeout=300)[1], started.returncode) == (LINE, 130)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.3, 1.0, 4.0])
def test_ctrl_c_ends_a_worker_without_a_traceback(seconds: float) -> None:
    _, code, err = stopped(signal.SIGINT, seconds, *module_arguments(["benchmark.jobs.train_unit"]))
    assert (code, err) == (-signal.SIGINT, "")


def test_an_ignored_ctrl_c_stays_ignored_and_handlers_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(process, "SIGNALS", (signal.SIGINT, signal.SIGTERM))
    heed = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with pytest.raises(process.Stopped) as caught, process.stopped_by_exception():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        assert caught.value.number == signal.SIGTERM
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN and signal.getsignal(signal.SIGTERM) is before
    finally:
        signal.signal(signal.SIGINT, heed)


def test_a_library_that_turns_the_exception_into_another_does_not_hide_the_signal() -> None:
    with pytest.raises(process.Stopped), process.stopped_by_exception():
        try:
            signal.raise_signal(signal.SIGTERM)
        except BaseException:
            raise ValueError("The configuration is invalid.") from None


def test_a_program_that_imports_the_package_keeps_its_signals_and_streams() -> None:
    before = signal.getsignal(signal.SIGINT)
    process.begin()
    assert signal.getsignal(signal.SIGINT) is before
