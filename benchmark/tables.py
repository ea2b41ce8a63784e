"""make tables: records -> CSV, LaTeX and Markdown.

One table for each data set x trunk x protocol, one row a loss. A cell is the mean over runs with its t-interval's half
width, in percent. Nothing is computed that a record does not hold but means and intervals, and a cell whose runs are
not all there stays empty, with the reason below the table: a mean of what happened to finish is not the number asked
for.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from benchmark import ledger, records
from benchmark.protocol.statistics import Interval, t_interval
from benchmark.study import Study, conf_dir, main

MODES = {"concatenated": "Concatenated", "separated": "Separated"}
METRICS = {"map_at_r": "MAP@R", "precision_at_1": "P@1", "r_precision": "RP"}
COLUMNS = [(mode, metric) for mode in MODES for metric in METRICS]


@dataclass
class Row:
    """One loss: its cells, or the reason why there are none."""

    name: str
    label: str
    cells: dict[tuple[str, str], Interval] = field(default_factory=dict)
    num_runs: int = 0
    reason: str = ""
    seconds: float = 0.0


@dataclass
class Table:
    """A comparison: one data set, trunk and protocol."""

    name: str
    caption: str
    rows: list[Row]
    embedding_dim: int
    num_folds: int
    confidence: float

    def best(self) -> dict[tuple[str, str], float]:
        """The highest mean of each column, as it is printed."""
        found: dict[tuple[str, str], float] = {}
        for column in COLUMNS:
            means = [round(row.cells[column].mean, 2) for row in self.rows if column in row.cells]
            if means:
                found[column] = max(means)
        return found

    def heads(self) -> list[str]:
        """The two blocks' headings."""
        dims = {"concatenated": self.num_folds * self.embedding_dim, "separated": self.embedding_dim}
        return [f"{title} ({dims[mode]}-d)" for mode, title in MODES.items()]

    def notes(self) -> list[str]:
        """What a number is, then the reasons of the empty rows."""
        counts = sorted({row.num_runs for row in self.rows if row.cells})
        if not counts:
            return ["No row is complete yet.", *self._reasons()]
        spread = f"+- {100 * self.confidence:.0f} % t-interval " if counts != [1] else ""
        runs = f"n = {', '.join(map(str, counts))} run" + "s" * (counts != [1])
        first = f"Mean {spread}over {runs}, in percent, on unseen classes; the best mean of a column is bold."
        return [first, *self._reasons()]

    def _reasons(self) -> list[str]:
        return [f"{row.label}: {row.reason}" for row in self.rows if row.reason]


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
    for directory in ledger.all_studies(results_dir):
        stored = Study.of(ledger.read_study(directory)["config"] | {"results_dir": str(results_dir)})
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
    folder = Path(__file__).resolve().parent.parent / "experiments"
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
    rows = []
    for key in wanted:
        if key in found:
            rows.append(make_row(found[key]))
        else:
            command = studies[0].command("bo final-eval", loss=key)
            rows.append(Row(key, label_of(key), reason=f"not run; {command}"))
    dataset, protocol = studies[0].config.dataset, studies[0].config.protocol
    caption = experiment.get("caption", f"{dataset.label}, protocol {protocol.name}.")
    return Table(name, caption, rows, protocol.embedding_dim, protocol.num_folds, protocol.confidence)


def label_of(loss: str) -> str:
    """How a table names a loss that no study holds."""
    path = conf_dir() / "loss" / f"{loss}.yaml"
    return str(yaml.safe_load(path.read_text(encoding="utf-8"))["label"]) if path.exists() else loss


def make_row(study: Study) -> Row:
    """A study's row."""
    suffix = ", ".join(filter(None, (study.config.preset, study.config.variant)))
    row = Row(study.directory.name, study.config.loss.label + f" ({suffix})" * bool(suffix))
    if not study.config.preset and not (study.directory / "bo" / "best.yaml").exists():
        num_done = len(ledger.finished_trials(study)[0])
        row.reason = f"its search is unfinished, with {num_done} trials done; {study.command('bo final-eval')}"
        return row
    try:
        chosen = ledger.read_chosen(study)
    except ValueError as error:
        row.reason = str(error)
        return row
    runs = ledger.finished_runs(study, chosen.trial)
    wanted = study.config.protocol.num_runs
    scored = {r: rec for r, rec in runs.items() if r < wanted and rec.result["concatenated"] is not None}
    row.num_runs = len(scored)
    row.seconds = sum(sum(record.provenance["seconds"].values()) for record in runs.values())
    if len(scored) < wanted:
        row.reason = missing(study, runs, wanted)
        return row
    results = [scored[r].result for r in sorted(scored)]
    for mode, metric in COLUMNS:
        row.cells[mode, metric] = t_interval([100 * r[mode][metric] for r in results], study.config.protocol.confidence)
    return row


def missing(study: Study, runs: dict[int, records.Record], wanted: int) -> str:
    """Which runs are not there, and why."""
    absent = [f"run_{r:02d}" for r in range(wanted) if r not in runs]
    reasons = [
        f"run_{r:02d} has no score ({rec.result['reason']})"
        for r, rec in runs.items()
        if not rec.result["concatenated"]
    ]
    if absent:
        reasons.append(f"of {wanted} runs, {', '.join(absent)} missing; {study.command('final-eval')}")
    return "; ".join(reasons)


# -- three ways to print the same table -------------------------------------------------------------------------------


def write_table(table: Table, folder: Path) -> list[Path]:
    """Write the three files and return their paths."""
    texts = {"csv": as_csv(table), "tex": latex(table), "md": markdown(table)}
    paths = []
    for ending, text in texts.items():
        path = folder / f"{table.name}.{ending}"
        records.write_whole(path, text.encode())
        paths.append(path)
    return paths


def as_csv(table: Table) -> str:
    """Means, half widths, n and reasons, full precision."""
    import pandas as pd

    rows = []
    for row in table.rows:
        line: dict[str, Any] = {"loss": row.name, "label": row.label, "num_runs": row.num_runs}
        for column in COLUMNS:
            interval = row.cells.get(column)
            line["_".join(column)] = interval.mean if interval else None
            line["_".join(column) + "_half_width"] = interval.half_width if interval else None
        rows.append(line | {"reason": row.reason})
    return pd.DataFrame(rows).to_csv(index=False)


def markdown(table: Table) -> str:
    """A GitHub table; best means in bold."""
    heads = [f"{head} {metric}" for head in table.heads() for metric in METRICS.values()]
    lines = ["| Loss | " + " | ".join(heads) + " |", "|---" * (1 + len(heads)) + "|"]
    best = table.best()
    for row in table.rows:
        cells = [" ± ".join(filter(None, _cell(row, column, best, "**{}**"))) for column in COLUMNS]
        lines.append(f"| {row.label} | " + " | ".join(cells) + " |")
    return f"{table.caption}\n\n" + "\n".join(lines) + "\n\n" + "\n\n".join(table.notes()) + "\n"


def _cell(row: Row, column: tuple[str, str], best: dict[tuple[str, str], float], bold: str) -> tuple[str, str]:
    """Mean and half width as they are printed; empty where there is none."""
    interval = row.cells.get(column)
    if interval is None:
        return "", ""
    mean = f"{interval.mean:.2f}"
    mean = bold.format(mean) if round(interval.mean, 2) == best[column] else mean
    return mean, "" if interval.half_width is None else f"{interval.half_width:.2f}"


def latex(table: Table) -> str:
    r"""A booktabs table that compiles alone and, unchanged, by `\input` in a paper that loads booktabs.

    It is as wide as the page, over both columns where there are two, and fits the 345 pt of LaTeX's `article`.
    """
    best, (statistic, *reasons) = table.best(), table.notes()
    width, pair = 2 * len(METRICS), r"@{\extracolsep{\fill}\hspace{3pt}}r@{\extracolsep{0pt}}l"
    heads = [rf"\multicolumn{{{width}}}{{@{{}}c@{{}}}}{{{escape(head)}}}" for head in table.heads()]
    metrics = [rf"\multicolumn{{2}}{{@{{}}c@{{}}}}{{{metric}}}" for _ in MODES for metric in METRICS.values()]
    lines = [
        r"% Compiles as it is; in a paper that loads booktabs, \input it.",
        r"\expandafter\ifx\csname @nodocument\endcsname\relax\def\endalone{}\else",
        r"\documentclass{article}\usepackage{booktabs}\usepackage[margin=2cm]{geometry}",
        r"\begin{document}\def\endalone{\end{document}}\fi",
        r"\begin{table*}[!t]\centering\ifdim\textwidth<400pt\scriptsize\else\small\fi",
        rf"\caption{{{escape(f'{table.caption} {statistic}')}}}\label{{tab:{table.name}}}\smallskip",
        r"\begin{tabular*}{\textwidth}{@{}l" + pair * len(COLUMNS) + "@{}}", r"\toprule",
        " & " + " & ".join(heads) + r" \\",
        rf"\cmidrule(lr){{2-{1 + width}}}\cmidrule(l){{{2 + width}-{1 + 2 * width}}}",
        "Loss & " + " & ".join(metrics) + r" \\", r"\midrule",
    ]  # fmt: skip
    for row in table.rows:
        cells = [_cell(row, column, best, r"\textbf{{{}}}") for column in COLUMNS]
        pairs = [mean + " & " + (rf"\scriptsize\,$\pm${half}" if half else "") for mean, half in cells]
        lines.append(" & ".join([escape(row.label), *pairs]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular*}"]
    if reasons:
        lines += [
            r"\par\smallskip\parbox{\textwidth}{\footnotesize\raggedright",
            "\\par\n".join(map(escape, reasons)) + "}",
        ]
    return "\n".join([*lines, r"\end{table*}", r"\endalone"]) + "\n"


SPECIAL = str.maketrans({
    "\\": r"\textbackslash{}", "^": r"\^{}", "~": r"\~{}", "<": "$<$", ">": "$>$", "|": "$|$", '"': "''",
    **{sign: "\\" + sign for sign in "_%&#${}"},
})  # fmt: skip


def escape(text: str) -> str:
    """Text as LaTeX prints it."""
    return text.translate(SPECIAL).replace("+-", r"$\pm$")


if __name__ == "__main__":
    main(tables)
