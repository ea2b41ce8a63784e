"""make searches: the best validation score against the number of trials, with the luck of the draw, from records alone.

    make searches                                             # every search below results/
    make searches STUDY=results/studies/GROUP/hpl_nca         # one, with its repetitions (SEARCHES)

For each group of studies, a CSV file and a figure go to `results/searches`; those of a named study go to its folder
`figures`. They show whether a search was long enough: see `protocol.best_so_far` for the band. Nothing here reads test
classes.
"""

if __name__ == "__main__":  # before the slow imports, so that a mistake is reported at once
    from benchmark.__main__ import main

    raise SystemExit(main("searches"))

from pathlib import Path

from benchmark.core.console import write, write_table
from benchmark.core.csv_file import write_csv
from benchmark.core.errors import UserError
from benchmark.core.invocation import command
from benchmark.report.figures import save
from benchmark.report.search_curves import Curve, as_rows, drawn, pooled, read_search
from benchmark.study.command import results_command
from benchmark.study.selected import names_a_study
from benchmark.study.stored import all_studies, repetitions
from benchmark.study.study import Study

COLUMNS = ("loss", "searches", "trials", "best", "found by trial", "drawn trials", "mean of their best",
           "deviation", "95 % band")  # fmt: skip


def searches(study: Study, overrides: list[str]) -> None:
    """Write and print the best score against the number of trials, for the named study or for all.

    Args:
        study: supplies the results folder and, if `overrides` name it, is the study to show.
        overrides: the overrides on the command line.

    Raises:
        UserError: there is no search with a finished trial.
        WriteError: a file cannot be written.
    """
    named = names_a_study(overrides)
    results_dir = Path(study.config.results_dir)
    own = [study.directory, *repetitions(study.directory)]
    groups: dict[str, list[Curve]] = {}
    for directory in own if named else all_studies(results_dir):
        try:
            found = read_search(directory)
        except (UserError, OSError) as error:
            if named:
                raise
            write(f"{directory} is left out: {error}")
            continue
        if found is not None:
            groups.setdefault(found.group, []).append(found)
    if not groups:
        raise UserError(f"There is no search with a finished trial. Run {command('bo')} first.")
    for group, single in groups.items():
        curves = pooled(single)
        stem = study.directory / "figures" / "search" if named else results_dir / "searches" / group
        paths = [write_csv(stem.with_name(f"{stem.name}.csv"), as_rows(curves)), *save(drawn(curves), stem)]
        write(f"\n{group}: best validation MAP@R against the number of trials, in percent")
        write_table(COLUMNS, [row_of(curve) for curve in curves])
        for path in paths:
            write(f"wrote {path}")
    write(f"Next: {study.command('final-eval') if named else results_command(results_dir, 'final-eval')}")


def row_of(curve: Curve) -> tuple[str, ...]:
    """Return the table cells of one row, in the order of `COLUMNS`.

    The band is that of as many trials as one search has, drawn from all searches; of a single search, of half of them.
    """
    best, subset = curve.best(), curve.typical()
    return (
        curve.label, str(len(curve.scores)), str(curve.num_trials), f"{best.score:.2f}", best.place, f"{subset.k}",
        f"{subset.mean:.2f}", f"{subset.deviation:.2f}", f"{subset.low:.2f} to {subset.high:.2f}",
    )  # fmt: skip
