"""A tiny search whose workers write down what they train, for tests that kill them wherever they run."""

import json
import os
import textwrap
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmark import bo
from benchmark.jobs import queue, session
from tests.command_line import Ended, results_of, run

ROOT = Path(__file__).resolve().parents[3]
OVERRIDES = (
    "dataset=glyphs_small", "loss=hpl_nca", "trunk.width=8", "dataset.iterations_per_epoch=2", "dataset.max_epochs=4",
    "protocol.batch_size=16", "protocol.num_folds=3", "searcher=sobol", "trials=1", "display=plain",
)  # fmt: skip

# `python -m watched_worker`: `train_unit`, slower, and with a line in a log for each training that begins.
WORKER = """
    import json, os, time
    from benchmark.training import loop as train
    from benchmark.jobs import train_unit as worker
    from benchmark.jobs.executors.serve import serve

    trained = worker.train_fold

    def train_fold(parts, schedule, checkpoint, on_epoch):
        unit = checkpoint.parent
        line = {"unit": "/".join(unit.parts[-2:]), "pid": os.getpid(), "job": os.environ.get("SLURM_JOB_ID"),
                "was_finished": (unit / "record.json").exists(), "had_checkpoint": checkpoint.exists(),
                "start": train._resume(parts, checkpoint)[0].epoch}
        with open(os.environ["WATCHED_LOG"], "a") as log:
            log.write(json.dumps(line) + "\\n")

        def slowly(history):
            on_epoch(history)
            if len(history) > 1:  # after the untrained one's
                (unit / "trained").touch()
            time.sleep(float(os.environ["WATCHED_SECONDS"]))

        return trained(parts, schedule, checkpoint, slowly)

    worker.train_fold = train_fold
    if __name__ == "__main__":
        serve(worker.train_unit)
"""


@dataclass
class Watched:
    """A search in a folder, and its log."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch

    def __post_init__(self) -> None:
        (self.folder / "watched_worker.py").write_text(textwrap.dedent(WORKER))
        self.monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(self.folder), str(ROOT), *extras()]))
        self.monkeypatch.setenv("WATCHED_LOG", str(self.folder / "trainings.jsonl"))
        self.monkeypatch.setenv("WATCHED_SECONDS", "1.0")

    def trainings(self) -> list[dict[str, Any]]:
        """What has begun."""
        log = self.folder / "trainings.jsonl"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def busy(self) -> list[dict[str, Any]]:
        """The last training of each unit that has trained an epoch, which is in its checkpoint, and has no record."""
        last = {line["unit"]: line for line in self.trainings()}
        paths = {unit: next(self.folder.glob(f"results/studies/*/*/bo/{unit}")) for unit in last}
        begun = {unit: path for unit, path in paths.items() if (path / "trained").exists()}
        return [last[unit] for unit, path in begun.items() if not (path / "record.json").exists()]

    def search(self, *overrides: str, disturb: Callable[["Watched"], None] | None = None) -> Ended:
        """Run it to its end while another thread disturbs it."""
        self.monkeypatch.setattr(session, "Jobs", lambda study, run, module, heard: queue.Jobs(
            study, run, ["watched_worker"], heard))  # fmt: skip
        thread = threading.Thread(target=disturb, args=(self,)) if disturb else None
        if thread:
            thread.start()
        ended = run(bo.bo, *OVERRIDES, f"results_dir={self.folder / 'results'}", *overrides)
        if thread:
            thread.join()
        return ended

    def results(self) -> dict[str, Any]:
        """Every record's result."""
        return results_of(self.folder / "results")

    def assert_nothing_was_lost(self, undisturbed: dict[str, Any], lost: int) -> None:
        """The records of an undisturbed search; the lost units went on, and no finished one was trained again."""
        assert self.results() == undisturbed
        trainings = self.trainings()
        assert not any(t["was_finished"] for t in trainings), "a finished fold was trained again"
        again = [t for t in trainings if t["had_checkpoint"]]
        assert len(again) == lost and len(trainings) == 3 + lost, trainings
        assert all(t["start"] > 0 for t in again), "a checkpoint was not used"


def extras() -> Iterator[str]:
    """Folders of this process's own PYTHONPATH."""
    return filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))


def inline_results(folder: Path) -> dict[str, Any]:
    """Results of the same search in this process."""
    assert run(bo.bo, *OVERRIDES, "executor=inline", f"results_dir={folder}").status == 0
    return results_of(folder)
