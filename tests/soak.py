"""make soak: a search with a few hundred tiny folds, whose workers and driver are killed every few seconds.

Prints units, kills, repeats (finished folds that were trained again) and losses (finished folds that are gone), and
ends with exit status 1 unless both are 0. The logs of the units are the witness: each attempt leaves a line when it
starts and one when it ends. In addition, finished folds are counted whenever a process is killed.

    python -m tests.soak [minutes] [trials] [workers] [seconds between kills, on average]

It ends when the search is done, or after 20 minutes. Where workers start slowly, give more seconds between kills, or
none of them ever gets to a unit.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.command_line import on_tiny, study_dir
from tests.processes import children

CHANGED = ("protocol.num_folds=4", "executor=local", "display=quiet", "executor.retries=1000")
SHARE_OF_DRIVERS = 0.15


def start(results: Path, trials: int, workers: int) -> "subprocess.Popen[bytes]":
    """Start a driver that does not report failures."""
    changed = (*CHANGED, f"trials={trials}", f"executor.workers={workers}", f"results_dir={results}")
    return subprocess.Popen(
        [sys.executable, "-m", "benchmark.bo", *on_tiny(*changed)], env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


def finished(results: Path) -> set[Path]:
    """Folds that have a record."""
    return set(study_dir(results).glob("bo/trial_*/fold_*/record.json"))


def repeats(results: Path) -> int:
    """The number of attempts that started after their unit had ended."""
    logs = study_dir(results).glob("bo/trial_*/fold_*/log")
    return sum(log.read_text().partition(" end\n")[2].count("start: ") for log in logs)


def soak(results: Path, minutes: float, trials: int, workers: int, seconds: float) -> bool:
    """Kill processes until the time is up or the search is done; return whether nothing was repeated or lost."""
    dice, deadline = random.Random(0), time.monotonic() + 60 * minutes
    kills = {"worker": 0, "driver": 0}
    ever: set[Path] = set()
    driver = start(results, trials, workers)
    while driver.poll() is None and time.monotonic() < deadline:
        time.sleep(dice.uniform(0.5, 1.5) * seconds)
        victims = children(driver.pid)
        if driver.poll() is not None or not victims:
            continue
        ever |= finished(results)
        kind = "driver" if dice.random() < SHARE_OF_DRIVERS else "worker"
        os.kill(driver.pid if kind == "driver" else dice.choice(victims), signal.SIGKILL)
        kills[kind] += 1
        if kind == "driver":
            driver.wait()
            driver = start(results, trials, workers)
    done = driver.poll()
    driver.kill()
    driver.wait()
    ever |= (now := finished(results))
    again, losses = repeats(results), len(ever - now)
    print(
        f"{len(now)} of {4 * trials} units done on {workers} workers; killed: {kills['worker']} workers, "
        f"{kills['driver']} drivers; finished folds repeated: {again}, lost: {losses}; "
        + ("the search is done" if done == 0 else f"the search ended with {done}" if done else "stopped by the clock")
    )
    return not again and not losses and not done


if __name__ == "__main__":
    given = [float(word) for word in sys.argv[1:]]
    minutes, trials, workers, seconds = (*given, *(20.0, 200.0, 4.0, 5.0)[len(given) :])
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(not soak(Path(folder), minutes, int(trials), int(workers), seconds))
