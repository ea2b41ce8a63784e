"""Kill a training by SIGKILL while its checkpoint's writer thread is at a given place, again and again, until it ends.

    python -m tests.recovery.kill_in_the_writer FOLDER

The writer stops at the place for good and training goes on; once that has drawn another batch, or has ended and waits
for the writer, the parent process kills both. The next process resumes, and is killed at a later write. The last one
compares everything with a training that nobody has killed. Prints, by place, where each resumed process began, and
which files it found.
"""

import io
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmark.core import records
from benchmark.training import checkpoint
from benchmark.training.checkpoint import CPU, Saver, read_state
from benchmark.training.loop import Outcome, train_fold
from tests.training.small_fold import a_checkpoint, a_fold, a_schedule, nothing
from tests.training.test_resume import check_equal, everything

SCHEDULE = a_schedule(iterations_per_epoch=3, evaluate_every=1, patience=20, max_epochs=3)
SEED = 8  # every epoch is better than the one before
MOMENTS = (("validation", 1), ("checkpoint.pt", 1), ("checkpoint.pt", 2))  # a file, and which of its writes
MOST_KILLS = 30  # more mean that a training makes no progress
Reach = Callable[[Path], None]
Uninterrupted = tuple[Outcome, list[torch.Tensor]]


class HalfFile(io.BufferedWriter):
    """A file that is at the place when half of the data is written."""

    def __init__(self, path: Path, reach: Reach) -> None:
        super().__init__(io.FileIO(path, "wb"))
        self.path, self.reach = path, reach

    def writelines(self, parts: Any) -> None:
        data = b"".join(parts)
        self.write(data[: len(data) // 2])
        self.flush()
        self.reach(self.path)
        self.write(data[len(data) // 2 :])


def in_the_middle_of_a_file(reach: Reach) -> None:
    def opened(path: Path, mode: str, **options: Any) -> Any:
        return HalfFile(path, reach) if mode == "wb" else open(path, mode, **options)

    records.open = opened  # type: ignore[attr-defined]


def before_the_rename(reach: Reach) -> None:
    replace = os.replace

    def late(source: Path, target: Path) -> None:
        reach(target)
        replace(source, target)

    os.replace = late  # type: ignore[assignment]


def after_the_rename(reach: Reach) -> None:
    replace = os.replace

    def early(source: Path, target: Path) -> None:
        replace(source, target)
        reach(target)

    os.replace = early  # type: ignore[assignment]


PLACES = (in_the_middle_of_a_file, before_the_rename, after_the_rename)


def train(
    path: Path, install: Callable[..., None], moment: tuple[str, int], undisturbed: Uninterrupted, parent: int
) -> None:
    """Train to the end, unless the writer gets to a place at a moment of `MOMENTS`; then tell the parent."""
    stuck, visits, save = threading.Event(), 0, Saver.save
    torch.set_num_threads(1)

    def reach(file: Path) -> None:
        nonlocal visits
        assert threading.current_thread() is not threading.main_thread()
        visits += moment[0] in file.name
        if visits == moment[1]:
            stuck.set()
            time.sleep(600)

    def saved(saver: Saver, *arguments: Any) -> None:  # else it is chance which writes there are
        save(saver, *arguments)
        while not (saver._writing is None or saver._writing.done() or stuck.is_set()):
            time.sleep(0.0005)

    def telling(function: Callable[..., Any]) -> Callable[..., Any]:
        def first(*arguments: Any) -> Any:
            if stuck.is_set():
                os.write(parent, b"x")
            return function(*arguments)

        return first

    install(reach)
    Saver.save = saved  # type: ignore[method-assign]
    Saver.__exit__ = telling(Saver.__exit__)  # type: ignore[method-assign]
    checkpoint.SHARE = 1e9  # whatever checkpoints cost
    parts = a_fold(seed=99 if path.exists() else SEED)
    parts.sampler.batch = telling(parts.sampler.batch)  # type: ignore[method-assign]
    outcome = train_fold(parts, SCHEDULE, a_checkpoint(path, seconds=1e-9), nothing)
    check_equal(outcome, parts, undisturbed)


def killed(*arguments: Any) -> bool:
    """Run `train` in a process of its own, and kill it when it tells so; return whether it did."""
    ours, childs = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            train(*arguments, childs)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(childs)
    if told := bool(os.read(ours, 1)):  # or it has ended
        os.kill(pid, signal.SIGKILL)
    os.close(ours)
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status) if told else status == 0, status
    return told


def main(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Return, for each place and each kill, the progress in the checkpoint, if any, and the names of all files."""
    torch.set_num_threads(1)
    fold = a_fold(SEED)
    undisturbed = train_fold(fold, SCHEDULE, a_checkpoint(folder / "whole.pt"), nothing), everything(fold)
    found: dict[str, list[dict[str, Any]]] = {}
    for install in PLACES:
        path = folder / install.__name__ / "checkpoint.pt"
        path.parent.mkdir()
        left = found[install.__name__] = []
        while killed(path, install, MOMENTS[len(left) % len(MOMENTS)], undisturbed):
            files = sorted(file.name for file in path.parent.iterdir())
            progress = read_state(path, CPU, lambda _: "")["progress"] if path.exists() else {"epoch": None}
            left.append({"epoch": progress["epoch"], "iterations": progress.get("iterations"), "files": files})
            assert len(left) < MOST_KILLS, "no progress"
    return found


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
