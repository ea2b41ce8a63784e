"""tables: write the tables of all studies as CSV, LaTeX and Markdown, and print them.

A terminal shows the main columns only, see `benchmark.report.terminal`; a pipe or a file gets the whole Markdown.
"""

from pathlib import Path

from benchmark.core.console import is_terminal, write
from benchmark.core.errors import UserError
from benchmark.core.escape import visible
from benchmark.core.invocation import command
from benchmark.core.records import WriteError
from benchmark.experiment.curves import write_curves
from benchmark.experiment.selected import Selected, selected
from benchmark.experiment.tables import Made, of_experiment, of_folder
from benchmark.report.formats import markdown, write_table
from benchmark.report.terminal import short_table
from benchmark.study.command import results_command, results_dir_of
from benchmark.study.selected import check_read
from benchmark.study.stored import all_studies, repetitions
from benchmark.study.study import Study


def tables(study: Study, overrides: list[str]) -> None:
    """Write and print a table for every group of studies below `results_dir`, or print that of the named study alone.

    The table of a named study is not written, because it would replace that of its group. A study that cannot be read
    is reported and left out. With `experiment=NAME`, the tables are those of its studies, one for each data set, and
    its curves are drawn too.

    Args:
        study: supplies `results_dir`, `accept_code` and, if given, the folder of one study or the name of an
            experiment; the rest is not used.
        overrides: the overrides on the command line, which select the experiment's data set and budget.

    Raises:
        UserError: there are no studies that can be read, or an option is not read.
        WriteError: the tables were printed, but cannot be written.
    """
    # 1. make the tables
    config = study.config
    if config.bootstrap == 1:
        raise UserError("bootstrap=1: one resample has no ranks. Give 0 for none, or a number such as 1000.")
    chosen, results_dir = None, results_dir_of(study.directory) if config.study else Path(config.results_dir)
    if config.experiment:
        chosen = selected(config.experiment, overrides)
        results_dir = Path(chosen.results_dir)
        found = of_experiment(chosen, config.accept_code, config.bootstrap)
    else:
        check_read("tables", overrides, ("results_dir", "study", "experiment", "bootstrap"))
        named = [study.directory, *repetitions(study.directory)]
        folders = named if config.study else all_studies(results_dir)
        found = of_folder(results_dir, folders, config.accept_code, config.bootstrap)

    # 2. write them all before any is printed, since the reader of the output may end early
    fault: WriteError | None = None  # raised at the end: the tables of a read-only folder are still printed
    texts: list[str] = []
    for made in found.made:
        try:
            paths = [] if config.study else _written(made, chosen, results_dir)
            texts += [f"wrote {visible(str(path))}" for path in paths]
        except WriteError as error:
            fault = error
        texts += ["\n" + (short_table(table) if is_terminal() else markdown(table)) for table in made.all]

    # 3. print them
    for text in texts:
        write(text)
    following = command("report", overrides=chosen.overrides) if chosen else results_command(results_dir, "report")
    write(f"\nNext: {following}")
    if fault is not None:
        raise fault


def _written(made: Made, chosen: Selected | None, results_dir: Path) -> list[Path]:
    """Write a table, and the curves of an experiment, and return the paths."""
    paths = [path for table in made.all for path in write_table(table, results_dir / "tables")]
    if chosen is not None and "sweep" in chosen.experiment.figures:
        members, log = [one.member for one in made.studies], chosen.experiment.sweep[-1].log
        paths += write_curves(made.table.name, made.table, members, results_dir / "figures", log)
    return paths


if __name__ == "__main__":
    from benchmark.__main__ import main

    raise SystemExit(main("tables"))
