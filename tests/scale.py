"""make scale: run a thousand sleeping units on 32 workers of a local Ray, and measure what that costs the driver.

Prints the driver's CPU time, from the first answer to the last, and how much its memory grows meanwhile. Units carry a
study's configuration there and back, as real ones do, and report once. The workers need about 16 GB of memory.

Estimate: a driver that needs 6 ms of CPU time for a unit has 20 % of a core to spare for 33 units a second, which is
what 20,000 workers make of folds of ten minutes. A search with `searcher.round=8` keeps 32 workers busy, and waits for
the slowest fold of each round: so the search limits the number of GPUs, not the driver. A unit leaves 6 small files.

    python -m tests.scale [units] [workers] [seconds of sleep]
"""

import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir

from benchmark.core.paths import conf_dir
from benchmark.jobs.queue import Jobs
from benchmark.jobs.unit import Unit
from benchmark.perf.dispatch import sleep_unit
from benchmark.study.code import training_code
from benchmark.study.study import Study

MOST_CPU = 20.0  # per cent of a core
MOST_GROWTH = 20.0  # MB in all: Ray's own buffers, which are full after some thousand units, hold about 10


@dataclass(frozen=True, kw_only=True)
class SleepUnit(Unit):
    """A unit that sleeps for some seconds."""

    seconds: float


def megabytes() -> float:
    """Resident memory of this process, in MB."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmRSS:")[2].split()[0]) / 1000


def scale(results: Path, units: int, workers: int, seconds: float) -> bool:
    """Run the units, print what they cost, and return whether that stays within the limits."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        study = Study.of(compose("config", ["executor=ray", f"executor.workers={workers}", f"results_dir={results}"]))
    common: dict[str, Any] = {"study": study, "fingerprint": "", "study_identity": study.identity(""),
                              "code": training_code(study).digest, "accepted": []}  # fmt: skip
    heard: list[int] = []

    def hear(progress: dict[str, Any]) -> None:
        heard.append(progress["pid"])

    memory, started = [], time.perf_counter()
    with Jobs(study, sleep_unit, ["benchmark.perf.dispatch"], hear) as jobs:
        for number in range(units):
            jobs.add(SleepUnit(
                **common, kind="trial", index=number, fold=None, setting={}, directory=results / f"unit_{number}",
                seconds=seconds,
            ))  # fmt: skip
        for number, _ in enumerate(jobs.finished()):
            if not number:
                first, cpu = time.perf_counter(), time.process_time()
            memory.append(megabytes())
        wall, cpu = time.perf_counter() - first, time.process_time() - cpu
        threads = threading.active_count()
    growth = memory[-1] - memory[0]
    share = 100 * cpu / wall
    print(
        f"{len(memory)} units of {seconds:g} s on {len(set(heard))} workers: start {first - started:.0f} s, then "
        f"{wall:.0f} s, {(len(memory) - 1) / wall:.1f} units/s (at most {workers / seconds:.1f}); driver: "
        f"{share:.1f} % of a core, {1000 * cpu / (len(memory) - 1):.1f} ms a unit, {memory[0]:.0f} MB at first, "
        f"{growth:+.1f} at last, {threads} threads"
    )
    return len(memory) == units == len(heard) and share < MOST_CPU and growth < MOST_GROWTH


if __name__ == "__main__":
    given = [float(word) for word in sys.argv[1:]]
    units, workers, seconds = (*given, *(1000.0, 32.0, 4.0)[len(given) :])
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(not scale(Path(folder), int(units), int(workers), seconds))
