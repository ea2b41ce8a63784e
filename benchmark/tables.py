"""make tables: records -> CSV, LaTeX and Markdown.

One table for each data set x trunk x protocol, one row a loss. A cell is the mean over runs with its t-interval's half
width, in percent. Nothing is computed that a record does not hold but means and intervals, and a cell whose runs are not
all there stays empty, with the reason below the table: a mean of what happened to finish is not the number asked for.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from benchmark import ledger, records
from benchmark.protocol.statistics import Interval, t_interval
from benchmark.study import Study, main

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
        """The sentences below the table."""
        counts = sorted({row.num_runs for row in self.rows if row.cells})
        runs = ", ".join(map(str, counts)) or "0"
        first = f"Mean +- {100 * self.confidence:.0f} % t-interval over n = {runs} runs, in percent; unseen classes."
        return [first, *(f"{row.label}: {row.reason}" for row in self.rows if row.reason)]


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
        table = make_table(name, studies, read_experiment(name))
        for path in write_table(table, results_dir / "tables"):
            print(f"wrote {path}")
        print("\n" + markdown(table))


def read_experiment(name: str) -> dict[str, Any]:
    """The experiment that asks for this table: its caption and rows in order; nothing if there is none."""
    folder = Path(__file__).resolve().parent.parent / "experiments"
    for path in sorted(folder.glob("*.yaml")):
        body = yaml.safe_load(path.read_text(encoding="utf-8"))
        if body["table"] == name:
            return dict(body)
    return {}


def make_table(name: str, studies: list[Study], experiment: dict[str, Any]) -> Table:
    """The table of a group of studies, with an empty row for each loss that the experiment asks for in vain.

    Args:
        name: of the group, `dataset-trunk-protocol`.
        studies: at least one.
        experiment: `caption` and `rows` (names of losses), or empty.
    """
    found = {study.directory.name: study for study in studies}
    wanted = [*experiment.get("rows", []), *(key for key in found if key not in experiment.get("rows", []))]
    dataset = studies[0].config.dataset
    rows = []
    for key in wanted:
        if key in found:
            rows.append(make_row(found[key]))
        else:
            rows.append(Row(key, key, reason=f"not run; make bo final-eval DATASET={dataset.name} LOSS={key}"))
    protocol = studies[0].config.protocol
    caption = experiment.get("caption", f"{dataset.label}, protocol {protocol.name}.")
    return Table(name, caption, rows, protocol.embedding_dim, protocol.num_folds, protocol.confidence)


def make_row(study: Study) -> Row:
    """A study's row."""
    variant = f" ({study.config.variant})" if study.config.variant else ""
    row = Row(study.directory.name, study.config.loss.label + variant)
    try:
        choice = ledger.read_choice(study)
    except ValueError as error:
        row.reason = str(error)
        return row
    runs = ledger.finished_runs(study, choice.trial)
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
    absent = [r for r in range(wanted) if r not in runs]
    failed = [f"run {r} has no score ({rec.result['reason']})" for r, rec in runs.items() if not rec.result["concatenated"]]
    parts = [f"runs {', '.join(map(str, absent))} are missing; {study.command('final-eval')}"] if absent else []
    return "; ".join(parts + failed) + "."


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
        cells = [_cell(row, column, best, "**{}**", " ± ") for column in COLUMNS]
        lines.append(f"| {row.label} | " + " | ".join(cells) + " |")
    return f"{table.caption}\n\n" + "\n".join(lines) + "\n\n" + "\n\n".join(table.notes()) + "\n"


def _cell(row: Row, column: tuple[str, str], best: dict[tuple[str, str], float], bold: str, sign: str) -> str:
    interval = row.cells.get(column)
    if interval is None:
        return ""
    mean = f"{interval.mean:.2f}"
    mean = bold.format(mean) if round(interval.mean, 2) == best[column] else mean
    return mean if interval.half_width is None else f"{mean}{sign}{interval.half_width:.2f}"


def latex(table: Table) -> str:
    r"""A booktabs table that compiles alone and, unchanged, by `\input` in a paper that loads booktabs."""
    best = table.best()
    lines = [
        "% Compiles as it is; in a paper that loads booktabs, \\input it.",
        "\\expandafter\\ifx\\csname @nodocument\\endcsname\\relax\\def\\endalone{}\\else",
        "\\documentclass{article}\\usepackage{booktabs}\\usepackage[margin=2cm]{geometry}",
        "\\begin{document}\\def\\endalone{\\end{document}}\\fi",
        "\\begin{table}\\centering\\small\\setlength{\\tabcolsep}{4pt}",
        f"\\caption{{{escape(table.caption)}}}",
        "\\begin{tabular}{l" + "r@{\\,$\\pm$\\,}l" * len(COLUMNS) + "}", "\\toprule",
        " & " + " & ".join(f"\\multicolumn{{{2 * len(METRICS)}}}{{c}}{{{escape(head)}}}" for head in table.heads()) + r" \\",
        "\\cmidrule(lr){2-7}\\cmidrule(lr){8-13}",
        "Loss & " + " & ".join(f"\\multicolumn{{2}}{{c}}{{{m}}}" for _ in MODES for m in METRICS.values()) + r" \\",
        "\\midrule",
    ]  # fmt: skip
    empty = "\\multicolumn{2}{c}{}"
    for row in table.rows:
        cells = [_cell(row, column, best, "\\textbf{{{}}}", " & ") or empty for column in COLUMNS]
        lines.append(" & ".join([escape(row.label), *cells]) + r" \\")
    notes = r"\\ ".join(escape(note) for note in table.notes())
    lines += ["\\bottomrule", "\\end{tabular}", f"\\par\\smallskip\\footnotesize {notes}", "\\end{table}", "\\endalone"]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Text as LaTeX prints it."""
    for plain, tex in (("\\", "\\textbackslash "), ("_", "\\_"), ("%", "\\%"), ("&", "\\&"), ("#", "\\#"), ("$", "\\$"),
                       ("{", "\\{"), ("}", "\\}"), ("+-", "$\\pm$"), ("^", "\\^{}"), ("~", "\\~{}")):  # fmt: skip
        text = text.replace(plain, tex)
    return text


if __name__ == "__main__":
    main(tables)
