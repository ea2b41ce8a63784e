"""Overhead of sending a unit to a warm worker and receiving its result.

Each unit sleeps, and carries a study's configuration in both directions. Imports and the start of Ray are not measured.
A SLURM job is not a warm worker: it spends a few seconds on imports each time.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

from benchmark.core.errors import UserError
from benchmark.core.records import JsonObject
from benchmark.jobs.executors import Executor, Report
from benchmark.jobs.executors.local import Local
from benchmark.jobs.unit import FinishedUnit
from benchmark.perf.timing import Row
from benchmark.study.study import Study

UNITS = 20
SECONDS = 0.02  # a unit's sleep
LIMITS = {"local": 150, "ray": 1000}  # ms


def dispatch_costs(study: Study) -> Iterator[Row]:
    """A row for each executor with warm workers, in ms per unit.

    Args:
        study: the study whose configuration the units carry.
    """
    arguments = ["-m", "benchmark.perf.dispatch"]
    with tempfile.TemporaryDirectory() as folder:
        yield cost("local", Local([sys.executable, *arguments], 1, Path(folder)), study)
        try:
            from benchmark.jobs.executors.ray import Ray

            executor = Ray(arguments, 1, Path(folder))
        except UserError as error:
            yield Row("dispatch, ray", ("<=", LIMITS["ray"]), [], str(error), "ms")
        else:
            yield cost("ray", executor, study)


def cost(name: str, executor: Executor, study: Study) -> Row:
    """The row for an executor with one worker, which is closed at the end."""
    spec = {"study": study.raw, "seconds": SECONDS}
    try:
        executor.submit(spec).result()
        spent = [1000 * (timed(executor.submit, spec) - SECONDS) for _ in range(UNITS)]
    finally:
        executor.close()
    return Row(
        f"dispatch, {name}", ("<=", LIMITS[name]), spent, "a unit to a warm worker and back, without its own work", "ms"
    )


def timed(submit: Callable[[JsonObject], Future[JsonObject]], spec: JsonObject) -> float:
    """Seconds from submitting a unit to its result."""
    started = time.perf_counter()
    submit(spec).result()
    return time.perf_counter() - started


def sleep_unit(spec: JsonObject, report: Report) -> JsonObject:
    """A unit that reports once, sleeps and returns its specification."""
    report({"pid": os.getpid()})
    time.sleep(spec["seconds"])
    return FinishedUnit(spec).to_json()


if __name__ == "__main__":
    from benchmark.jobs.executors.serve import serve

    serve(sleep_unit)
