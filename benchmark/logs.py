"""make logs: what a unit printed, the newest one or the named one; on a terminal, on and on while it runs.

Reads only.
"""

import sys
import time
from pathlib import Path

from benchmark.core import records
from benchmark.report import progress
from benchmark.study import layout
from benchmark.study.cli import main
from benchmark.study.study import Study

LOOK_SECONDS = 0.5


def logs(study: Study, overrides: list[str]) -> None:
    """Show the log of `unit=`, or the newest one, of the named study or of any.

    Raises:
        ValueError: there is none; the message says which there are.
    """
    results_dir = Path(study.config.results_dir)
    named = layout.names_a_study(overrides)
    directories = [study.directory] if named else layout.all_studies(results_dir)
    path = newest(directories, study.config.unit)
    print(f"== {path}", flush=True)
    follow(path, while_it_runs=sys.stdout.isatty())


def newest(directories: list[Path], unit: str) -> Path:
    """The log that was written last, of the units of this name where one is given."""
    found = sorted((path for d in directories for path in progress.logs(d)), key=lambda path: path.stat().st_mtime)
    wanted = tuple(Path(unit).parts)
    fitting = [path for path in found if path.parent.parts[len(path.parent.parts) - len(wanted) :] == wanted]
    if fitting:
        return fitting[-1]
    where = ", ".join(str(d) for d in directories[:3]) or "the results folder"
    there = ", ".join("/".join(path.parent.parts[-2:]) for path in found[-5:])
    raise ValueError(
        f"No unit {unit} has a log below {where}. The last ones: {there}." if found
        else f"No unit has a log below {where}. Run make bo, and make logs beside it."
    )  # fmt: skip


def follow(path: Path, while_it_runs: bool) -> None:
    """Print a log, and what comes to it for as long as its unit runs."""
    with open(path, encoding="utf-8", errors="replace") as log:
        while True:
            more = while_it_runs and records.is_held(path.parent / "lock")  # first: what it wrote last is read below
            for line in log:
                print(line, end="", flush=True)
            if not more:
                return
            time.sleep(LOOK_SECONDS)


if __name__ == "__main__":
    main(logs)
