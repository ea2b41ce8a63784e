"""logs: show the newest log or the log of `unit=`; on a terminal, follow it while the unit runs.

The command writes nothing.
"""

import sys
import time
from pathlib import Path

from benchmark.core import records
from benchmark.core.console import write
from benchmark.core.errors import UserError
from benchmark.core.escape import visible
from benchmark.core.invocation import command
from benchmark.report import progress
from benchmark.study.selected import names_a_study
from benchmark.study.stored import all_studies
from benchmark.study.study import Study

POLL_SECONDS = 0.5


def logs(study: Study, overrides: list[str]) -> None:
    """Print the log of `unit=`, or the newest one, of the named study or, if none is named, of all studies.

    Args:
        study: supplies the results folder and the unit and, if `overrides` name it, is the study to show.
        overrides: the overrides on the command line.

    Raises:
        UserError: there is no such log; the message names the existing ones.
    """
    results_dir = Path(study.config.results_dir)
    named = names_a_study(overrides)
    directories = [study.directory] if named else all_studies(results_dir)
    path = newest(directories, study.config.unit)
    write(f"== {visible(str(path))}")
    follow(path, while_it_runs=sys.stdout.isatty())


def newest(directories: list[Path], unit: str) -> Path:
    """Return the most recently written log.

    Args:
        directories: folders of studies.
        unit: end of the unit's path, such as `trial_003/fold_1`; empty for any unit.

    Raises:
        UserError: no log matches.
    """
    found = progress.logs(directories)
    wanted = tuple(Path(unit).parts)
    matching = [path for path in found if path.parent.parts[len(path.parent.parts) - len(wanted) :] == wanted]
    if matching:
        return matching[-1]
    where = ", ".join(str(d) for d in directories[:3]) or "the results folder"
    if not found:
        raise UserError(
            f"No unit has a log below {where}. Start {command('bo')}, and run {command('logs')} while it runs."
        )
    existing = ", ".join("/".join(path.parent.parts[-2:]) for path in found[-5:])
    raise UserError(f"There is no log of unit {unit} below {where}. The latest logs are those of {existing}.")


def follow(path: Path, while_it_runs: bool) -> None:
    """Print a log.

    Args:
        path: the log, next to its unit's lock.
        while_it_runs: keep printing new lines until the unit ends.
    """
    with open(path, encoding="utf-8", errors="replace") as log:
        while True:
            more = while_it_runs and records.is_held(path.parent / "lock")  # checked before the last lines are read
            for line in log:
                write(line, end="")
            if not more:
                return
            time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    from benchmark.__main__ import main

    raise SystemExit(main("logs"))
