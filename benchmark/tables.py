"""make tables: records -> CSV, LaTeX and Markdown.

One table for each data set x trunk x protocol, one row a loss (under the customary protocol, one for each way to choose
the epoch). A cell is the mean over runs with its t-interval's half width, in percent. Nothing is computed that a record
does not hold but means and intervals, and a cell whose runs are not all there stays empty, with the reason below the
table: a mean of what happened to finish is not the number asked for.
"""

from pathlib import Path
from typing import Any

import yaml

from benchmark.core.paths import conf_dir, experiments_dir
from benchmark.report import fold_rows, traditional_rows
from benchmark.report.formats import Row, Table, markdown, write_table
from benchmark.study import layout
from benchmark.study.cli import main
from benchmark.study.study import Study


def tables(study: Study, overrides: list[str]) -> None:
    """Write every table that the records below `results_dir` allow.

    Args:
        study: names `results_dir`; nothing else of it is used.
        overrides: unused.

    Raises:
        ValueError: there are no studies.
    """
    results_dir = Path(study.config.results_dir)
    groups: dict[str, list[Study]] = {}
    for directory in layout.all_studies(results_dir):
        stored = Study.of(layout.read_study(directory)["config"] | {"results_dir": str(results_dir)})
        groups.setdefault(directory.parent.name, []).append(stored)
    if not groups:
        raise ValueError(f"There are no studies in {results_dir}/studies. Run make bo, then make final-eval.")
    for name, studies in groups.items():
        table = make_table(name, studies, read_experiment(name, results_dir))
        for path in write_table(table, results_dir / "tables"):
            print(f"wrote {path}")
        print("\n" + markdown(table))


def read_experiment(name: str, results_dir: Path) -> dict[str, Any]:
    """The experiment that asks for this table: its caption and rows in order; nothing if there is none.

    One that names its results folder comes before one that does not, and is for no other folder.
    """
    folder = experiments_dir()
    bodies = [dict(yaml.safe_load(path.read_text(encoding="utf-8"))) for path in sorted(folder.glob("*.yaml"))]
    asking = [body for body in bodies if body["table"] == name and body.get("results") in (None, results_dir.name)]
    return max(asking, key=lambda body: "results" in body, default={})


def make_table(name: str, studies: list[Study], experiment: dict[str, Any]) -> Table:
    """The table of a group of studies, with an empty row for each loss that the experiment asks for in vain.

    Args:
        name: of the group, `dataset-trunk-protocol`.
        studies: at least one.
        experiment: `caption` and `rows` (names of losses), or empty.
    """
    found = {study.directory.name: study for study in studies}
    wanted = [*experiment.get("rows", []), *(key for key in found if key not in experiment.get("rows", []))]
    first = studies[0]
    protocol = first.config.protocol
    caption = experiment.get("caption", f"{first.config.dataset.label}, protocol {protocol.name}.")
    shape = traditional_rows if protocol.name == "traditional" else fold_rows
    rows: list[Row] = []
    for key in wanted:
        rows += shape.rows(found[key]) if key in found else shape.absent(first, key, label_of(key))
    return Table(name, caption, shape.columns(first), rows, protocol.confidence, shape.REMARK)


def label_of(loss: str) -> str:
    """How a table names a loss that no study holds."""
    path = conf_dir() / "loss" / f"{loss}.yaml"
    return str(yaml.safe_load(path.read_text(encoding="utf-8"))["label"]) if path.exists() else loss


if __name__ == "__main__":
    main(tables)
