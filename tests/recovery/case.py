"""Commands as real processes, for fault-injection tests."""

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark.core import records
from tests.command_line import on_tiny, results_of
from tests.processes import is_alive, wait_for

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 300.0  # seconds to wait for a process; Ray alone takes a minute to start on a busy machine


@dataclass(frozen=True)
class Command:
    """A command, and the unit in which tests inject a fault.

    Args:
        module: module of `benchmark` to run.
        overrides: configuration that makes each unit train for a few short epochs.
        unit: pattern of the unit's folder below the results folder.
    """

    module: str
    overrides: tuple[str, ...]
    unit: str


FOLDS = on_tiny("loss=hpl_nca", "trials=1", "protocol.num_runs=1", "dataset.max_epochs=4", "dataset.patience=9")
RUNS = tuple(override for override in FOLDS if not override.startswith(("trials=", "searcher=")))  # without a search
PASSES = ("dataset=glyphs_small", "loss=hpl_nca", "trunk.width=8", "protocol.num_runs=2", "protocol.held_out=0.2",
          "training.batch_size=128", "training.epochs=4", "display=plain", "executor=inline",
          "checkpoint_seconds=0")  # fmt: skip
COMMANDS = {
    "bo": Command("bo", tuple(FOLDS), "studies/*/*/bo/trial_000/fold_0"),
    "final-eval": Command("final_eval", (*RUNS, "preset=default"), "studies/*/*/final_eval/*/run_00/fold_0"),
    "traditional": Command("traditional", PASSES, "studies/*/*/traditional/*/run_00"),
}


@dataclass
class Case:
    """A command, its results folder and its processes, whose units wait after their first epoch for `end`.

    Args:
        command: the command to start.
        results: results folder of the command.
        environment: additional environment variables of its processes.

    Attributes:
        injected: folder of the files that `injected/sitecustomize.py` reads.
        started: the commands.
        stack: clean-up at the end of the test; processes that are still running are killed.
        seen: worker processes seen so far.
    """

    command: Command
    results: Path
    environment: dict[str, str] = field(default_factory=dict)
    started: "list[subprocess.Popen[str]]" = field(default_factory=list)
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    seen: set[int] = field(default_factory=set)
    injected: Path = field(init=False)

    def __post_init__(self) -> None:
        self.injected = self.results.parent / "injected"
        path = os.pathsep.join([str(Path(__file__).with_name("injected")), str(ROOT)])
        self.environment |= {"PYTHONPATH": path, "INJECTED": str(self.injected)}
        self.hold(1)

    def hold(self, epoch: int) -> None:
        """Let units train until they have scored an epoch, and wait there."""
        records.write_whole(self.injected / "hold", str(epoch).encode())

    def start(self, *overrides: str) -> "subprocess.Popen[str]":
        """Start the command, on two local workers unless the overrides say otherwise."""
        here = ("executor=local", "executor.workers=2", f"results_dir={self.results}")
        changed = {item.split("=")[0]: item for item in (*self.command.overrides, *here, *overrides)}
        process = subprocess.Popen(
            [sys.executable, "-m", f"benchmark.{self.command.module}", *changed.values()],
            text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | self.environment,
        )  # fmt: skip
        self.started.append(process)
        self.stack.callback(self._close, process)
        return process

    def _close(self, process: "subprocess.Popen[str]") -> None:
        if process.poll() is None:
            process.kill()
        process.communicate()

    def wait_for(self, condition: Callable[[], Any]) -> Any:
        """Wait for a condition that a running command brings about; fail at once when no command runs any more."""

        def met() -> Any:
            ended = self.started and all(process.poll() is not None for process in self.started)
            found = condition()
            assert found or not ended, f"the command has ended: {self.started[-1].communicate()}"
            return found

        return wait_for(met, PATIENCE)

    @property
    def unit(self) -> Path:
        """Return the folder of the unit under test, once a worker has created it."""
        return Path(self.wait_for(lambda: next(self.results.glob(self.command.unit), None)))

    def heartbeat(self, unit: Path | None = None) -> dict[str, Any]:
        """Return the last heartbeat of a unit (None: the unit under test); empty without one."""
        try:
            return dict(json.loads(((unit or self.unit) / "alive.json").read_bytes()))
        except (FileNotFoundError, json.JSONDecodeError):
            return {}

    def worker_in_the_middle(self, attempt: int = 0, unit: Path | None = None) -> int:
        """Wait until a unit has scored a trained epoch in a given attempt.

        Args:
            attempt: number of the attempt, from 0.
            unit: folder of the unit; None: the unit under test.

        Returns:
            The process of its worker.
        """
        unit = unit or self.unit

        def worker() -> int | None:
            log = unit / "log"
            attempts = log.read_text().split("start: ")[attempt + 1 :] if log.exists() else []
            scored = attempts and re.search(r"epoch [1-9]", attempts[-1])
            return self.heartbeat(unit).get("pid") if scored else None

        found = int(self.wait_for(worker))
        self.seen.add(found)
        return found

    def end(self, process: "subprocess.Popen[str]") -> tuple[int, str]:
        """Let all units train to their end, and wait for a command to end.

        Returns:
            Exit status and output of the command.
        """
        (self.injected / "hold").unlink(missing_ok=True)
        out, err = process.communicate(timeout=PATIENCE)
        return process.returncode, out + err


def assert_records_of(results: Path, undisturbed: Path) -> None:
    """Check that records equal those of an undisturbed run, no finished unit restarted, and no scored epoch is lost."""
    assert results_of(results) == results_of(undisturbed)
    for log in results.rglob("log"):
        text = log.read_text()
        assert "start: " not in text.partition(" end\n")[2], f"{log}: trained again after its end"
        epochs = [int(number) for number in re.findall(r"^\S+ epoch (\d+)", text, re.M)]
        assert epochs == sorted(epochs), f"{log}: a checkpoint was not used"


def assert_ended(processes: Iterable[int]) -> None:
    """Check that none of these processes outlives the driver."""
    wait_for(lambda: not any(map(is_alive, processes)), 60, "for the workers to end with their driver")
