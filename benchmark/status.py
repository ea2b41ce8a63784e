"""make status: how far each study is, what runs where, what is lost, and how long the rest will take.

Reads only: it may run beside a driver, on another machine, or in a folder that cannot be written.
"""

import sys
from pathlib import Path
from typing import Any

from benchmark.core import records
from benchmark.core.console import human_time
from benchmark.report.progress import Stage, age, stages, trouble
from benchmark.study import layout
from benchmark.study.cli import main
from benchmark.study.study import Study

COLUMNS = ("study", "part", "done", "units", "running", "lost", "compute", "left")
NUM_TROUBLES = 3


def status(study: Study, overrides: list[str]) -> None:
    """Tell about the named study, or about every one when none is named.

    Raises:
        ValueError: there is none.
    """
    results_dir = Path(study.config.results_dir)
    directories = [study.directory] if layout.names_a_study(overrides) else layout.all_studies(results_dir)
    if not directories:
        raise ValueError(f"There is no study below {results_dir}. Run make bo to start one.")
    rows, details = [], []
    for directory in directories:
        try:
            stored = Study.of(layout.read_study(directory)["config"])
        except records.CorruptFileError as error:
            details.append(f"{error} Run make bo for it again: the file is written anew, and nothing is trained again.")
            continue
        name = "/".join(directory.parts[-2:])
        found = stages(stored, directory)
        rows += [row_of(name, part) for part in found]
        details += [line for part in found for line in running(name, part)]
        details += [f"{name}: {line['at']} {line['unit']}: {line['reason']} (see {line['log']})"
                    for line in trouble(directory)[-NUM_TROUBLES:]]  # fmt: skip
    show(rows, details)


def row_of(name: str, part: Stage) -> tuple[str, ...]:
    """A part of a study as cells under `COLUMNS`."""
    missing = part.finished < part.total
    left = "-" if not missing else "unknown" if part.left is None else human_time(part.left)
    if missing and not part.driver:
        left += ", nobody works on it"
    done = f"{part.finished} of {part.total} {part.piece}s"
    units = f"{part.count('done')} of {part.total * part.per_piece}"
    return (name, part.name, done, units, str(part.count("running")), str(part.count("lost")), human_time(part.spent),
            left)  # fmt: skip


def running(name: str, part: Stage) -> list[str]:
    """A line for each unit that runs."""
    lines = []
    for unit in (u for u in part.units if u.state == "running"):
        beat = unit.beat
        where = f"{beat['worker']} on {beat['host']} (process {beat['pid']})" if beat else "starting or ending"
        epoch = f", epoch {beat['epoch']} scored" if beat.get("epoch") is not None else ""
        moved = f", batch {beat['batches']:,}{epoch}, {human_time(age(beat))} ago" if beat else ""
        lines.append(f"{name}: {unit.name} runs: {where}{moved}")
    return lines


def show(rows: list[tuple[str, ...]], details: list[str]) -> None:
    """A table on a terminal, elsewhere lines that other programs can read: cells between tabs."""
    from rich.console import Console

    console: Any = Console(file=sys.stdout, highlight=False, soft_wrap=True)
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
    main(status)
