"""Which rows of a section differ: each row's difference from its base, or from the best row, and how ranks hold.

A row has a base if its loss or its experiment names one, as the Hierarchical Proxy-based Loss does. The others are
compared with the row that has the highest mean in the first main column. There are two families of tests for each
column and kind of row, each adjusted by Holm's method: the comparisons of all rows with that best row, which also
determine what is bold if it is the best one of the column, and the comparisons with other bases.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace

from benchmark.core.wording import plus_minus
from benchmark.protocol.comparisons import (
    MOST_RUNS,
    POWER,
    RESAMPLES,
    Difference,
    difference,
    holm,
    rank_stability,
    runs_needed,
)
from benchmark.report.table import Block, Column, Compared, Head, Key, Row, Section, scores_of_searches, values_of


def compare(section: Section) -> None:
    """Compare the complete rows of a section, and add the table of their differences to its blocks.

    Args:
        section: its rows hold the values of their runs; `compared` and `ranks` of the rows are filled.
    """
    first = section.main_columns()[0].key if section.columns else ()
    for rows in section.kinds().values():
        complete = {row.name: row for row in rows if row.values.get(first)}
        if len(complete) > 1:
            _compare(list(complete.values()), section.columns, first, section.confidence)
    groups = {
        kind: [_line(row, section.main_columns()) for row in rows if row.compared or row.ranks]
        for kind, rows in section.kinds().items()
    }
    if groups := {kind: lines for kind, lines in groups.items() if lines}:
        heads = [Head("Loss"), Head("Compared with")]
        for column in section.main_columns():
            heads += [Head(title, column.heading) for title in ("", "p", "Runs")]
        title = "Difference to the base, or to the best row."
        block = Block("differences", title, [*heads, Head("First"), Head("Rank")], 2, groups, [_explained(section)])
        section.blocks.append(block.without_empty_columns())


def _compare(rows: Sequence[Row], columns: Sequence[Column], first: Key, confidence: float) -> None:
    named = {row.name: row for row in rows}
    values = values_of(rows, first)
    best = max(rows, key=lambda row: statistics.mean(values[row.name].values()))
    bases = {row.name: named[row.base] for row in rows if row.base in named and row.base not in (row.name, best.name)}
    others = {row.name: best for row in rows if row is not best}
    tests: dict[Key, dict[str, Difference]] = {}
    adjusted: dict[Key, dict[str, float]] = {}
    for column in columns:
        complete = [row for row in rows if column.key in row.values]
        for family in (others, bases):  # a row with a base has its entry from the second
            found = {
                row.name: _difference(row, family[row.name], column.key, confidence)
                for row in complete
                if row.name in family and column.key in family[row.name].values
            }
            tests.setdefault(column.key, {}).update(found)
            p_values = {name: test.p for name, test in found.items() if test.p is not None}
            corrected = holm(list(p_values.values()))
            adjusted.setdefault(column.key, {}).update(zip(p_values, corrected, strict=True))
        nested = scores_of_searches(complete, column.key)
        ranks = rank_stability(nested or {row.name: row.values[column.key] for row in complete})
        for row in complete:
            if row.name in ranks:
                row.ranks[column.key] = ranks[row.name]
    for row in rows:
        if other := (others | bases).get(row.name):
            row.compared = _compared(row, other, tests, adjusted, confidence)


def _difference(row: Row, other: Row, key: Key, confidence: float) -> Difference:
    """Return the difference of two rows; over the means of searches if both have the same ones, else of runs."""
    values = values_of([row, other], key)
    found = difference(values[row.name], values[other.name], confidence)
    # The number of runs that would be needed says nothing about a number of searches.
    return replace(found, deviation=None) if values[row.name] is not row.values[key] else found


def _compared(
    row: Row,
    other: Row,
    tests: Mapping[Key, Mapping[str, Difference]],
    adjusted: Mapping[Key, Mapping[str, float]],
    confidence: float,
) -> Compared:
    mine = {key: of[row.name] for key, of in tests.items() if row.name in of}
    runs = {
        key: runs_needed(test.mean, test.deviation, confidence)
        for key, test in mine.items()
        if test.deviation is not None
    }
    p = {key: of[row.name] for key, of in adjusted.items() if row.name in of}
    return Compared(other.name, other.label, mine, p, runs)


def _line(row: Row, columns: Sequence[Column]) -> list[str]:
    """Return a row's line: with what it is compared, its differences, and its ranks in the first column."""
    line = [row.label, row.compared.label if row.compared else ""]
    for column in columns:
        line += _cells(row.compared, column.key)
    rank = row.ranks.get(columns[0].key)
    return [*line, *(("", "") if rank is None else (f"{100 * rank.first:.0f} %", f"{rank.mean:.1f}"))]


def _cells(compared: Compared | None, key: Key) -> tuple[str, str, str]:
    """Return the printed difference, p-value and number of runs; each empty if there is none."""
    if compared is None or key not in compared.differences:
        return "", "", ""
    test = compared.differences[key]
    text = plus_minus(test.mean, test.half_width, "±", "+")
    runs = compared.runs.get(key) if key in compared.runs else 0
    needed = "" if runs == 0 else f"> {MOST_RUNS:,}" if runs is None else str(runs)
    return text, _p_text(compared.p[key]) if key in compared.p else "", needed


def _p_text(p: float) -> str:
    """Return a p-value with three decimals.

    >>> _p_text(0.0004), _p_text(0.0467)
    ('< 0.001', '0.047')
    """
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _explained(section: Section) -> str:
    """Return the sentences below the table."""
    level, count = f"{100 * section.confidence:.0f} %", max(row.num_runs for row in section.rows)
    texts = ["This row minus the other one, in points."]
    over_runs = f" over n = {count} pairs of runs with equal seeds" if count > 1 else ""
    if count > 1 or any(row.over_searches for row in section.rows):
        texts = [
            f"This row minus the other one, in points: mean +- {level} t-interval{over_runs}. p: paired t-test, "
            "adjusted by Holm's method over the comparisons of all rows with the best one, or over those with other "
            "bases.",
            "Runs: how many pairs find a difference of this size in a single test "
            f"with a power of {100 * POWER:.0f} %." * any(row.compared and row.compared.runs for row in section.rows),
            f"First: how often the row has the highest {section.main_columns()[0].heading} in {RESAMPLES:,} bootstrap "
            "samples of the runs; rank: its mean rank in them.",
        ]
        if counts := sorted({value.n for row in section.rows for value in row.over_searches.values()}):
            listed = " or ".join(map(str, counts))
            texts.append(
                f"Rows with the same repeated searches are compared by the means of these, n = {listed}, not by runs."
            )
        if any(row.effort and row.effort.trials is not None for row in section.rows):
            over = all(row.over_searches for row in section.rows if row.cells and not row.is_untrained)
            texts += ["All of this is conditional on one search for each row: another search may differ."] * (not over)
    return " ".join(filter(None, texts))
