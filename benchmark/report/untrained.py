"""Rows without training: their single run stands for every run of the other rows, and each row has its gain over it."""

import statistics
from dataclasses import replace

from benchmark.report.table import Key, Row, Section

GAIN = "Gain over no training"


def beside_untrained(section: Section) -> None:
    """Repeat the values of untrained rows for every run of the others, and give each other row its gain.

    The gain is the difference of the means in the first main column, in points, over the first untrained row.

    Args:
        section: its rows hold the values of their runs; rows are replaced.
    """
    trained = [row for row in section.rows if not row.is_untrained]
    section.rows = [_repeated(row, trained) if row.is_untrained else row for row in section.rows]
    main = section.main_columns()
    bases = [row for row in section.rows if row.is_untrained and main and main[0].key in row.cells]
    if bases and trained:
        section.rows = [_with_gain(row, bases[0], main[0].key) for row in section.rows]


def _repeated(row: Row, trained: list[Row]) -> Row:
    """The row with its values for every run of the trained rows."""
    values = dict(row.values)
    for key, own in row.values.items():
        (value,) = own.values()
        if runs := dict.fromkeys(run for other in trained for run in other.values.get(key, {})):
            values[key] = dict.fromkeys(runs, value)
    return replace(row, values=values)


def _with_gain(row: Row, base: Row, key: Key) -> Row:
    if row.is_untrained or key not in row.cells:
        return replace(row, settings=row.settings | {GAIN: ""})
    gain = row.cells[key].mean - statistics.mean(base.values[key].values())
    return replace(row, settings=row.settings | {GAIN: f"{gain:+.2f}"}, exact=row.exact | {GAIN: gain})
