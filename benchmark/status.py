"""status: show each study's progress, running units, latest failures and estimated remaining time.

The command writes nothing, so it can run next to a driver, on another machine, or in a read-only folder.
"""

from pathlib import Path

from benchmark.core.console import is_terminal, write, write_table
from benchmark.core.errors import UserError
from benchmark.core.escape import one_line
from benchmark.core.invocation import command
from benchmark.core.wording import human_time
from benchmark.report.progress import Stage, age, failures, stages, unreadable_lines
from benchmark.study.selected import names_a_study
from benchmark.study.stored import all_studies, read_study, repetitions
from benchmark.study.study import Study

COLUMNS = ("study", "part", "done", "units", "running", "lost", "compute", "left")
NUM_FAILURES = 3
NO_DRIVER = ", no driver running"


def status(study: Study, overrides: list[str]) -> None:
    """Print the status of the named study, or of every study if none is named.

    Args:
        study: supplies the results folder and, if `overrides` name it, is the study to show.
        overrides: the overrides on the command line.

    Raises:
        UserError: there is no study, or the named one cannot be read.
    """
    results_dir = Path(study.config.results_dir)
    named = names_a_study(overrides)
    own = [study.directory, *repetitions(study.directory)]
    directories = own if named else all_studies(results_dir)
    if not directories:
        raise UserError(f"There is no study below {results_dir}. Run {command('bo')} to start one.")
    rows, details = [], []
    for directory in directories:
        name = "/".join(directory.resolve().parts[-2:])
        try:
            found = stages(read_study(directory), directory)
        except (UserError, OSError) as error:
            if named:
                raise
            details.append(f"{name} is left out: {error}")
            continue
        rows += [row_of(name, part) for part in found]
        details += [line for part in found for line in running(name, part)]
        details += [f"{name}: {problem}" for part in found for problem in part.problems]
        for entry in failures(directory)[-NUM_FAILURES:]:
            details.append(f"{name}: {entry.at} {entry.unit}: {entry.reason} (see {entry.log})")
        details += [f"{name}: skipped: {fault}" for fault in unreadable_lines(directory)]
    _show(rows)
    for line in details:
        write(one_line(line))


def _show(rows: list[tuple[str, ...]]) -> None:
    """Print the rows; on a terminal in a short form, those of a group below its name, the loss first."""
    if not is_terminal():
        write_table(COLUMNS, rows)
        return
    groups: dict[str, list[tuple[str, ...]]] = {}
    for name, *cells in rows:
        group, _, loss = name.partition("/")
        groups.setdefault(group, []).append((loss, *cells))
    for group, own in groups.items():
        write(f"\n{group}")
        write_table(*_short(own))
    if waiting := [f"{row[0]} ({row[1]})" for row in rows if row[-1].endswith(NO_DRIVER)]:
        write(f"\n* no driver is running: {', '.join(waiting)}")


def _short(rows: list[tuple[str, ...]]) -> tuple[list[str], list[list[str]]]:
    """Return headings and cells without what the other cells of a row say, or what no row has."""
    named = [dict(zip(("loss", *COLUMNS[1:]), row, strict=True)) for row in rows]
    for row in named:
        row["done"] = row["done"].rpartition(" ")[0]
        row["left"] = row["left"].replace(NO_DRIVER, " *")
    kept = [name for name in named[0] if name not in ("running", "lost") or any(row[name] != "0" for row in named)]
    return kept, [[row[name] for name in kept] for row in named]


def row_of(name: str, part: Stage) -> tuple[str, ...]:
    """Return the table cells of one stage of a study, in the order of `COLUMNS`."""
    missing = part.finished < part.total
    at_most = "at most " * (part.skipped > 0)
    left = "-" if not missing else "unknown" if part.left is None else at_most + human_time(part.left)
    if missing and not part.driver:
        left += NO_DRIVER
    done = f"{part.finished} of {part.total} {part.kind}s"
    units = f"{part.count('done')} of {part.total * part.units_each - part.skipped}"
    units += f", {part.skipped} skipped" * (part.skipped > 0)
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
            epoch = f"epoch {heartbeat.epoch} scored, " if heartbeat.epoch is not None else ""
            line += f"{heartbeat.worker} on {heartbeat.host} (process {heartbeat.pid}), "
            line += f"{epoch}advanced {human_time(age(heartbeat))} ago"
        else:
            line += "starting or ending"
        lines.append(line)
    return lines


if __name__ == "__main__":
    from benchmark.__main__ import main

    raise SystemExit(main("status"))
