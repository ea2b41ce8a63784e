"""What it costs to hand a unit to a warm worker and to take its answer back, beside the unit itself.

Units sleep, and carry a study's configuration there and back. Imports, and the start of Ray, are paid before. A job of
SLURM is no warm worker: it pays for its imports, some seconds, each time.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from benchmark.core.errors import UserError
from benchmark.jobs.executors.local import Local
from benchmark.jobs.unit import FinishedUnit
from benchmark.perf.timing import Row
from benchmark.study.study import Study

UNITS = 20
SECONDS = 0.02  # of sleep in a unit
LIMITS = {"local": 150, "ray": 1000}  # ms


def dispatch_costs(study: Study) -> Iterator[Row]:
    """A row for each executor with warm workers: ms a unit.

    Args:
        study: its configuration is what units carry.
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


def cost(name: str, executor: Any, study: Study) -> Row:
    """The row of an executor of one worker, which is closed at the end."""
    spec = {"study": study.raw, "seconds": SECONDS}
    try:
        executor.submit(spec).result()
        spent = [1000 * (timed(executor.submit, spec) - SECONDS) for _ in range(UNITS)]
    finally:
        executor.close()
    return Row(
        f"dispatch, {name}", ("<=", LIMITS[name]), spent, "a unit to a warm worker and back, beside its work", "ms"
    )


def timed(submit: Callable[[dict[str, Any]], Future[Any]], spec: dict[str, Any]) -> float:
    """Seconds from handing over a unit to having its answer."""
    started = time.perf_counter()
    submit(spec).result()
    return time.perf_counter() - started


def sleep_unit(spec: dict[str, Any], report: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """A unit that sleeps, reports once and returns what it was given."""
    report({"pid": os.getpid()})
    time.sleep(spec["seconds"])
    return FinishedUnit(spec).to_json()


if __name__ == "__main__":
    from benchmark.jobs.executors.serve import serve

    serve(sleep_unit)
