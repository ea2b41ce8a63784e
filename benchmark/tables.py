"""tables: write the tables of all studies as CSV, LaTeX and Markdown.

There is one table for each data set x trunk x protocol, with one row per loss (under the traditional protocol, one row
per loss and way to choose the epoch). A cell is the mean over runs with the half width of its t-interval, in percent.
Means and intervals are the only numbers computed here; everything else is read from records. A row with missing runs
stays empty, and the reason is given below the table: a mean over only the runs that happened to finish would be a
different quantity.
"""

from pathlib import Path
from typing import TypedDict

import yaml

from benchmark.core.errors import UserError
from benchmark.core.invocation import command
from benchmark.core.paths import conf_dir, experiments_dir
from benchmark.report import fold_rows, traditional_rows
from benchmark.report.formats import Row, Table, markdown, write_table
from benchmark.study import layout
from benchmark.study.study import Study


class Experiment(TypedDict, total=False):
    """A file of `experiments/`.

    Attributes:
        table: name of the group of studies, `dataset-trunk-protocol`.
        results: name of the only results folder to which the experiment applies, if it is limited to one.
        caption: sentence above the table.
        rows: names of losses, in the order of the rows.
    """

    table: str
    results: str
    caption: str
    rows: list[str]


def tables(study: Study, overrides: list[str]) -> None:
    """Write a table for every group of studies below `results_dir`.

    Args:
        study: supplies `results_dir`; nothing else in it is used.
        overrides: unused.

    Raises:
        UserError: there are no studies, or a `study.yaml` is damaged.
    """
    results_dir = Path(study.config.results_dir)
    groups: dict[str, list[Study]] = {}
    for directory in layout.all_studies(results_dir):
        stored = Study.of(layout.read_study(directory).config | {"results_dir": str(results_dir)})
        groups.setdefault(directory.parent.name, []).append(stored)
    if not groups:
        raise UserError(f"There are no studies in {results_dir}/studies. Run {command('bo final-eval')} first.")
    for name, studies in groups.items():
        table = make_table(name, studies, read_experiment(name, results_dir))
        for path in write_table(table, results_dir / "tables"):
            print(f"wrote {path}")
        print("\n" + markdown(table))


def read_experiment(name: str, results_dir: Path) -> Experiment:
    """Return the experiment that describes a table, or an empty one if there is none.

    An experiment that names its results folder takes precedence there and is ignored for any other folder.

    Args:
        name: name of the table and of its files.
        results_dir: the folder with the studies.
    """
    paths = sorted(experiments_dir().glob("*.yaml"))
    bodies: list[Experiment] = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in paths]
    asking = [body for body in bodies if body["table"] == name and body.get("results") in (None, results_dir.name)]
    return max(asking, key=lambda body: "results" in body, default=Experiment())


def make_table(name: str, studies: list[Study], experiment: Experiment) -> Table:
    """Return the table of a group of studies, with an empty row for each requested loss that has no results.

    Args:
        name: the group's name, `dataset-trunk-protocol`.
        studies: the group's studies, at least one.
        experiment: supplies the caption and the requested rows, if any.
    """
    found = {study.directory.name: study for study in studies}
    requested = experiment.get("rows", [])
    first = studies[0]
    protocol = first.config.protocol
    caption = experiment.get("caption", f"{first.config.dataset.label}, protocol {protocol.name}.")
    shape = traditional_rows if protocol.name == "traditional" else fold_rows
    rows: list[Row] = []
    for key in [*requested, *(key for key in found if key not in requested)]:
        rows += shape.rows(found[key]) if key in found else shape.absent(first, key, label_of(key))
    return Table(name, caption, shape.columns(first), rows, protocol.confidence, shape.REMARK)


def label_of(loss: str) -> str:
    """Return a loss's label from its YAML file, or its name if there is no such file."""
    path = conf_dir() / "loss" / f"{loss}.yaml"
    return str(yaml.safe_load(path.read_text(encoding="utf-8"))["label"]) if path.exists() else loss


if __name__ == "__main__":
    from benchmark.__main__ import main

    raise SystemExit(main("tables"))
