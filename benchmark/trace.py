"""make trace: from a cell of a table to the records behind it.

    make trace CELL=glyphs-small_conv-hpl/hpl_pa/concatenated.map_at_r
    make trace STUDY=results/studies/glyphs-small_conv-hpl/hpl_pa

A cell is named by the table, the row and the column, as in the table's CSV: the name of the file, the entry below
`loss`, and the heading. Without a column, all columns are shown. Printed are the study, the chosen setting and the
trial that it comes from, each run's record with its commit, code and device, and the mean and interval that its values
give. `bootstrap=1000` adds to each run the interval over test classes, and `classes=20` lists the 20 classes with the
lowest scores, both from the embeddings that the runs kept.
"""

if __name__ == "__main__":  # before the slow imports, so that a mistake is reported at once
    from benchmark.__main__ import main

    raise SystemExit(main("trace"))

import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmark.core import records
from benchmark.core.console import write, write_table
from benchmark.core.errors import UserError
from benchmark.core.invocation import command
from benchmark.core.provenance import UNKNOWN
from benchmark.core.wording import missing, plus_minus, ranges
from benchmark.protocol.nested import over_searches
from benchmark.protocol.statistics import t_interval
from benchmark.report.comparison import text_of
from benchmark.report.runs import StudyRuns, code_of, device_of, read_repetitions, read_runs, resolve_column
from benchmark.study import contents, layout, ledger
from benchmark.study.selected import check_read
from benchmark.study.stored import NAME, all_studies
from benchmark.study.study import Study

NOT_RECORDED = "not recorded"


def trace(study: Study, overrides: list[str]) -> None:
    """Print the records behind the cell that `cell` names, or behind every cell of the study in the folder `study`.

    Args:
        study: supplies `cell` or `study`, `results_dir`, `bootstrap` and `classes`; the rest is not used.
        overrides: the overrides on the command line.

    Raises:
        UserError: no cell is named, there is no such table, row or column, the study cannot be read, or an option is
            not read.
    """
    check_read("trace", overrides, ("cell", "study", "classes", "bootstrap", "results_dir"))
    config = study.config
    if bool(config.cell) == bool(config.study):
        example = command("trace", {"cell": "glyphs-small_conv-hpl/hpl_pa/concatenated.map_at_r"})
        other = command("trace", {"study": "FOLDER"})
        raise UserError(f"Name a cell as TABLE/ROW/COLUMN, or the folder of a study: {example} or {other}")
    if config.bootstrap == 1:
        raise UserError("bootstrap=1: one resample has no spread. Give 0 for none, or a number such as 1000.")
    directory, column = (Path(config.study), "") if config.study else find_cell(Path(config.results_dir), config.cell)
    runs = read_runs(directory)
    columns = [resolve_column(runs, column)] if column else runs.columns
    for line in [*_about_study(runs), *_about_setting(runs)]:
        write(line)
    write("\nRuns:")
    write_table(("run", "record", "checksum", "commit", "code", "device"), _records(runs))
    for line in _versions(runs):
        write(line)
    for problem in runs.problems:
        write(problem.text)
    others, left_out = read_repetitions(runs)
    for line in left_out:
        write(line)
    for name in columns:
        _write_column(runs, name)
        _write_searches(runs, others, name)
    if config.classes:
        from benchmark.report.class_intervals import lowest_classes  # imports PyTorch

        write(f"\nThe {config.classes} classes with the lowest scores, from the embeddings that runs kept, in percent:")
        rows = list(lowest_classes(runs, columns, config.classes))
        write_table(("column", "class", "name", "queries", "mean over runs", "range of runs"), rows)
    if config.bootstrap:
        from benchmark.report.class_intervals import class_intervals  # imports PyTorch

        write(f"\nPercentile intervals over {config.bootstrap} resamples of the test classes, in percent:")
        write_table(
            ("column", "run", "record", "kept embeddings", "interval over classes", "classes"),
            list(class_intervals(runs, columns, config.bootstrap)),
        )


def find_cell(results_dir: Path, cell: str) -> tuple[Path, str]:
    """The folder of the study and the name of the column that a cell names.

    Args:
        results_dir: the folder with the studies.
        cell: TABLE/ROW/COLUMN, or TABLE/ROW for all columns.

    Raises:
        UserError: there is no such table or row; the message names the nearest one.
    """
    table, _, rest = cell.strip("/").partition("/")
    row, _, column = rest.partition("/")
    tables: dict[str, list[str]] = {}
    for folder in all_studies(results_dir):
        tables.setdefault(folder.parent.name, []).append(folder.name)
    if not tables:
        raise UserError(f"There are no studies in {results_dir}/studies. Run {command('bo final-eval')} first.")
    if table not in tables and (Path(cell) / NAME).is_file():
        raise UserError(f"cell={cell} is the folder of a study: {command('trace', {'study': cell})}")
    if table not in tables:
        raise UserError(f"cell={cell}: {results_dir} has no table {table!r}.{_nearest(table, list(tables))}")
    if row not in tables[table]:
        raise UserError(f"cell={cell}: the table {table} has no row {row!r}.{_nearest(row, tables[table])}")
    return results_dir / "studies" / table / row, column


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.3)
    meant = f" Did you mean {near[0]}?" if near else ""
    return f"{meant} It has {', '.join(sorted(known))}."


def _about_study(runs: StudyRuns) -> Iterator[str]:
    """Yield lines about the study: its folder, configuration, data, code and its accesses to the test classes."""
    stored, facts = runs.stored, runs.stored.facts
    yield f"Study {runs.directory}: {stored.label} on {facts.dataset_label}, {facts.trunk}, protocol {facts.protocol}"
    yield f"  identity {stored.identity} (version {stored.version})"
    yield f"  seed {text_of(stored.science.get('seed'))}: with the data set, the run and the fold, it gives every seed"
    yield f"  data {stored.fingerprint}"
    if stored.overrides:
        yield f"  started with {' '.join(stored.overrides)}"
    for kind, code in (("trials", stored.search_code), ("runs", stored.code)):
        for one in code:
            yield f"  code of its {kind}: {one.digest[:16]} ({len(one.modules)} modules, commit {one.commit})"
    yield f"  test classes: {_looks(runs.directory / ledger.NAME)}"


def _looks(path: Path) -> str:
    """The number of accesses to the test classes that a ledger lists, with the first and the last."""
    try:
        lines = records.read_file(path).decode(errors="replace").splitlines()
    except FileNotFoundError:
        return f"there is no {path.name}"
    times = [found[1] for line in lines if (found := re.search(r'"when": "([^"]{1,40})"', line))]
    when = f", from {min(times)} to {max(times)}" if times else ""
    return f"read {len(lines)} time{'s' * (len(lines) != 1)}{when}, see {path}"


def _about_setting(runs: StudyRuns) -> Iterator[str]:
    """Yield lines about the setting that the runs were trained with, and about where it comes from."""
    facts, choice = runs.stored.facts, runs.choice
    if choice is None:
        yield f"Setting: preset {facts.preset}" if facts.preset else "Setting: that of the loss's file"
    else:
        error = 100 * choice.standard_error
        yield (
            f"Setting: trial {choice.trial + 1} of {choice.num_trials}, chosen by the rule {choice.rule}, validation "
            f"MAP@R {100 * choice.validation_map_at_r:.2f} +- {error:.2f} (standard error between folds)"
        )
        path = layout.trial_path(runs.directory, choice.trial)
        yield f"  record {path}: {_checked(path, contents.Trial)}"
    for name, value in runs.chosen.setting.items():
        yield f"  {name} = {text_of(value)}"


def _checked(path: Path, kind: type[contents.Content]) -> str:
    """Whether a record can be read and agrees with its checksum."""
    try:
        contents.read(path, kind)
    except FileNotFoundError:
        return "missing"
    except UserError as error:
        return str(error)
    return "checksum ok"


def _records(runs: StudyRuns) -> list[tuple[str, ...]]:
    """One row for each run: its record, when, where and by which code it was made."""
    rows: list[tuple[str, ...]] = []
    for run in range(max(runs.stored.num_runs, *(run + 1 for run in runs.records))):
        path = runs.paths(run)
        if (record := runs.records.get(run)) is None:
            rows.append((str(run), str(path), "not usable" if path.exists() else "missing", "", "", ""))
            continue
        code = ", ".join(digest[:12] for digest in code_of(record)) or NOT_RECORDED
        rows.append((str(run), str(path), "ok", str(record.provenance.get("commit", UNKNOWN)), code, device_of(record)))
    return rows


def _versions(runs: StudyRuns) -> Iterator[str]:
    """Yield a line for each set of package versions, with the runs that it computed."""
    groups: dict[str, list[int]] = {}
    for run, record in sorted(runs.records.items()):
        versions = record.provenance.get("versions", {})
        text = ", ".join(f"{name} {version}" for name, version in versions.items()) or NOT_RECORDED
        groups.setdefault(text, []).append(run)
    for text, numbers in groups.items():
        yield f"Versions of run {ranges(numbers)}: {text}"


def _write_column(runs: StudyRuns, column: str) -> None:
    """Print each run's value, and the mean and interval that the table shows."""
    values, confidence, num_runs = runs.values(column), runs.stored.facts.confidence, runs.stored.num_runs
    write(f"\n{column}, in percent: " + ", ".join(f"run {run} {value:.4f}" for run, value in sorted(values.items())))
    if len(values) < num_runs:
        write(f"  {missing(values, num_runs, 'value')}; the table's cell stays empty")
        return
    if runs.not_shown:
        write(f"  the table's cell stays empty: {runs.not_shown}")
        return
    found = t_interval([values[run] for run in sorted(values)], confidence)
    what = "mean" if found.half_width is None else f"mean +- half width of the {100 * confidence:g} % t-interval:"
    write(f"  {what} {plus_minus(found.mean, found.half_width)} (n = {found.n})")


def _write_searches(runs: StudyRuns, others: Mapping[int, StudyRuns], column: str) -> None:
    """Print the runs of repeated searches, and the mean and interval over searches that the table shows beside them.

    Args:
        runs: the study of the first search.
        others: those of its repetitions, by their numbers.
        column: the column.
    """
    if not others:
        return
    values = {0: runs.values(column)} | {number: other.values(column) for number, other in others.items()}
    for number in sorted(values.keys() - {0}):
        listed = ", ".join(f"run {run} {value:.4f}" for run, value in sorted(values[number].items()))
        write(f"  search {number}: {listed}")
    if runs.not_shown or not values[0] or any(found.keys() != values[0].keys() for found in values.values()):
        why = "the first one is not shown" if runs.not_shown else "they have different runs, or none with a score"
        write(f"  there is no mean over searches: {why}")
        return
    scores = {(number, run): value for number, found in values.items() for run, value in found.items()}
    found = over_searches(scores, runs.stored.facts.confidence)
    mean = plus_minus(found.mean, found.half_width)
    write(f"  mean over searches and their runs: {mean} (n = {found.n} searches)")
