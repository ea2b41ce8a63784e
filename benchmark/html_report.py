"""make report: one HTML page for a results folder or an experiment, with its tables and figures.

    make report                                  # results/report.html
    make report ARGS=results_dir=results/reference
    make report NAME=hpl_fig_5_coarse            # the results of an experiment
    make report ARGS=figure=search               # with a page of Ax's analyses of the searches, search.html

The page needs no network, no server and no other file. Its figures are also written as PDF and PNG, into the folder
`figures` of the results. Nothing here reads test classes: images come from what `make figures` drew.
"""

if __name__ == "__main__":  # before the slow imports, so that a mistake is reported at once
    from benchmark.__main__ import main

    raise SystemExit(main("report"))

import functools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmark.core import records
from benchmark.core.console import write
from benchmark.core.errors import UserError
from benchmark.core.escape import visible
from benchmark.core.invocation import command
from benchmark.core.wording import counted
from benchmark.experiment import curves
from benchmark.experiment.selected import Selected, selected
from benchmark.experiment.tables import Made, of_experiment, of_folder
from benchmark.report.figures import kept
from benchmark.report.group_table import Entry
from benchmark.report.page import charts, pictures, render, searches
from benchmark.report.page.content import Drawing, Group, Place, group_of
from benchmark.study.selected import names_a_study
from benchmark.study.stored import all_studies
from benchmark.study.study import Study

NAME, OF_SEARCHES = "report.html", "search.html"


def report(study: Study, overrides: list[str]) -> None:
    """Write the page of a results folder, or of an experiment.

    Args:
        study: supplies `results_dir`, `accept_code`, `bootstrap` and, if given, the name of an experiment.
        overrides: the overrides on the command line, which select the experiment's data set and budget.

    Raises:
        UserError: there are no studies that can be read, or a single study is named.
        WriteError: a file cannot be written.
    """
    # 1. make the tables
    config, chosen, results_dir = study.config, None, Path(study.config.results_dir)
    if config.bootstrap == 1:
        raise UserError("bootstrap=1: one resample has no ranks. Give 0 for none, or a number such as 1000.")
    if unknown := [figure for figure in config.figure if figure != "search"]:
        raise UserError(f"figure={unknown[0]}: a page has all figures; only figure=search asks for more.")
    if config.experiment:
        chosen = selected(config.experiment, overrides)
        results_dir = Path(chosen.results_dir)
        found = of_experiment(chosen, config.accept_code, config.bootstrap)
        title, name = chosen.experiment.title, f"report-{chosen.experiment.name}.html"
    else:
        if names_a_study(overrides, besides=["bootstrap"]):
            raise UserError(
                "A page shows all studies of a results folder. Name the folder, "
                f"{command('report', {'results_dir': 'FOLDER'})}, or an experiment, "
                f"{command('report', {'experiment': 'hpl_table_3'})}"
            )
        found = of_folder(results_dir, all_studies(results_dir), config.accept_code, config.bootstrap)
        title, name = f"Metric learning benchmark: {results_dir.resolve().name}", NAME

    # 2. draw the figures
    place, room, groups = Place(results_dir), pictures.MOST, list[Group]()
    with charts.style():
        for made in found.made:
            group = group_of(made.table, made.entries, place, functools.partial(_sweep, made, chosen, place))
            own = pictures.embedded([(entry.stored.label, entry.directory) for entry in made.entries], room)
            room -= sum(len(picture.data) for picture in own)
            groups.append(replace(group, pictures=own, draw=_undrawn(made.entries)))
            if made.corrupted is not None:
                groups.append(group_of(made.corrupted, [], place))

    # 3. analyse the searches, which takes seconds for each
    if config.figure:
        analysed = [search for made in found.made for entry in made.entries if (search := searches.analysed(entry))]
        records.write_whole(results_dir / OF_SEARCHES, searches.html(f"Searches: {title}", analysed).encode())
        write(f"wrote {visible(str(results_dir / OF_SEARCHES))}")

    # 4. write the page
    path = results_dir / name
    text = render.html(title, f"Results in {results_dir}.", groups, found.left_out, bool(config.figure))
    records.write_whole(path, text.encode())
    number = sum(len(part.drawings) for group in groups for part in group.parts)
    figures = f"{counted(number, 'figure')} as PDF and PNG to {visible(str(results_dir / 'figures'))}"
    write(f"wrote {visible(str(path))} ({len(text.encode()) / 1e6:.2f} MB), and {figures}")


def _sweep(made: Made, chosen: Selected | None, place: Place, name: str) -> Sequence[Drawing]:
    """The figure of an experiment that sweeps a value, as a list; empty for another one."""
    if chosen is None or "sweep" not in chosen.experiment.figures or not chosen.experiment.sweep:
        return []
    members, column = [one.member for one in made.studies], made.table.sections[0].columns[0]
    axis = next((list(member.swept)[-1] for member in members if member.swept), "")
    if not axis:
        return []
    points = curves.points(members, made.table.rows, column)
    figure = curves.draw(points, "", column, axis, chosen.experiment.sweep[-1].log)
    figure.set_size_inches(charts.WIDTH, 3.4)
    figure.tight_layout()
    text = f"{column.heading} against {axis}, with intervals. Hollow: published numbers."
    return [place.drawing(f"{name}-sweep", f"Sweep of {axis}", text, figure)]


def _undrawn(entries: Sequence[Entry]) -> list[str]:
    """The commands that draw what studies keep and nobody has drawn."""
    found = []
    for entry in entries:
        kept_of_run = next(iter(sorted(entry.directory.glob("*/*/run_[0-9][0-9]/embeddings.npz"))), None)
        if kept_of_run and not any((entry.directory / "figures").glob("run_*.png")):
            names = ",".join(["retrieval", "embeddings", *["hierarchy"] * kept.has_hierarchy(kept_of_run)])
            run = int(kept_of_run.parent.name.removeprefix("run_"))
            options = [f"figure=[{names}]", *[f"run={run}"] * (run > 0)]
            found.append(command("figures", {"study": entry.directory}, overrides=options))
    return found
