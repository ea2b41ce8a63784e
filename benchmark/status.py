"""status: show each study's progress, running units, latest failures and estimated remaining time.

The command writes nothing, so it can run next to a driver, on another machine, or in a read-only folder.
"""

import sys
from pathlib import Path

from benchmark.core import records
from benchmark.core.console import human_time
from benchmark.core.errors import UserError
from benchmark.core.invocation import command
from benchmark.report.progress import Stage, age, failures, stages
from benchmark.study import layout
from benchmark.study.study import Study
from benchmark.study.workload import workload

COLUMNS = ("study", "part", "done", "units", "running", "lost", "compute", "left")
NUM_FAILURES = 3


def status(study: Study, overrides: list[str]) -> None:
    """Print the status of the named study, or of every study if none is named.

    Args:
        study: supplies the results folder and, if `overrides` name it, is the study to show.
        overrides: the overrides on the command line.

    Raises:
        UserError: there is no study.
    """
    results_dir = Path(study.config.results_dir)
    directories = [study.directory] if layout.names_a_study(overrides) else layout.all_studies(results_dir)
    if not directories:
        raise UserError(f"There is no study below {results_dir}. Run {command('bo')} to start one.")
    rows, details = [], []
    for directory in directories:
        try:
            stored = layout.read_study(directory)
        except records.CorruptFileError as error:
            details.append(f"{error} Run {command('bo')} for this study: it rewrites the file and retrains nothing.")
            continue
        name = "/".join(directory.parts[-2:])
        found = stages(workload(stored.config), directory)
        rows += [row_of(name, part) for part in found]
        details += [line for part in found for line in running(name, part)]
        for entry in failures(directory)[-NUM_FAILURES:]:
            details.append(f"{name}: {entry['at']} {entry['unit']}: {entry['reason']} (see {entry['log']})")
    show(rows, details)


def row_of(name: str, part: Stage) -> tuple[str, ...]:
    """Return the table cells of one stage of a study, in the order of `COLUMNS`."""
    missing = part.finished < part.total
    left = "-" if not missing else "unknown" if part.left is None else human_time(part.left)
    if missing and not part.driver:
        left += ", no driver running"
    done = f"{part.finished} of {part.total} {part.kind}s"
    units = f"{part.count('done')} of {part.total * part.units_each}"
    counts = (str(part.count("running")), str(part.count("lost")))
    return (name, part.name, done, units, *counts, human_time(part.spent), left)


def running(name: str, part: Stage) -> list[str]:
    """Return a line for each running unit: its worker, its machine and its last heartbeat."""
    lines = []
    for unit in part.units:
        if unit.state != "running":
            continue
        line = f"{name}: {unit.name} is running: "
        if heartbeat := unit.heartbeat:
            epoch = f", epoch {heartbeat['epoch']} scored" if heartbeat.get("epoch") is not None else ""
            line += f"{heartbeat['worker']} on {heartbeat['host']} (process {heartbeat['pid']}), "
            line += f"batch {heartbeat['batches']:,}{epoch}, {human_time(age(heartbeat))} ago"
        else:
            line += "starting or ending"
        lines.append(line)
    return lines


def show(rows: list[tuple[str, ...]], details: list[str]) -> None:
    """Print a table on a terminal, and tab-separated lines for other programs elsewhere."""
    from rich.console import Console

    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    if console.is_terminal:
        from rich.table import Table

        table = Table(*COLUMNS, box=None, pad_edge=False)
        for row in rows:
            table.add_row(*row)
        console.print(table, soft_wrap=False)
    else:
        for row in (COLUMNS, *rows):
            print("\t".join(row))
    for line in details:
        console.print(line, markup=False)


if __name__ == "__main__":
    from benchmark.__main__ import main

    raise SystemExit(main("status"))
