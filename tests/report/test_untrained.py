"""Rows without training beside rows of several runs or searches."""

import copy
from dataclasses import replace

import pytest
from scipy import stats

from benchmark.protocol.statistics import t_interval
from benchmark.report.comparison import parts
from benchmark.report.differences import compare
from benchmark.report.table import Column, Row, Section
from benchmark.report.untrained import GAIN, beside_untrained
from tests.report.test_comparison import SEARCH
from tests.report.test_comparison import row as comparable

KEY = ("concatenated", "map_at_r")
COLUMNS = [Column(KEY, "MAP@R", is_main=True)]
PA = [50.1, 50.9, 49.8, 50.6]


def row(name: str, values: list[float], is_untrained: bool = False) -> Row:
    made = Row(name, name.upper(), num_runs=len(values), is_untrained=is_untrained)
    made.values[KEY], made.cells[KEY] = dict(enumerate(values)), t_interval(values)
    return made


def section(*rows: Row) -> Section:
    made = Section(COLUMNS, list(rows), 0.95)
    beside_untrained(made)
    return made


def test_each_row_has_its_gain_over_the_first_untrained_one() -> None:
    made = section(row("none", [48.0], True), row("pa", PA), row("none_pca", [47.0], True), Row("ms", "MS"))
    assert [each.settings for each in made.rows] == [{GAIN: text} for text in ("", "+2.35", "", "")]
    assert [each.exact for each in made.rows] == [{}, {GAIN: sum(PA) / 4 - 48.0}, {}, {}]
    assert section(row("pa", PA)).rows[0].settings == {}
    assert section(row("none", [48.0], True)).rows[0].settings == {}  # alone


def test_the_single_run_stands_for_every_run() -> None:
    made = section(row("none", [48.0], True), row("pa", PA))
    compare(made)
    (found,) = (each.compared for each in made.rows if each.compared)
    assert found.differences[KEY].p == pytest.approx(stats.ttest_1samp(PA, 48.0).pvalue)
    assert found.differences[KEY].n == 4
    assert made.rows[0].num_runs == 1
    assert made.rows[0].cells[KEY].half_width is None
    assert "n = 4 runs" in made.notes()[0]


@pytest.mark.parametrize(
    "more", [(), (row("triplet", PA),), (Row("ms", "MS"),)], ids=["alone", "searched once", "begun"]
)
def test_the_single_run_stands_for_every_search_whatever_the_other_rows_have(more: tuple[Row, ...]) -> None:
    searched = row("pa", [value + 1 for value in PA])
    searched.by_search[KEY] = {(s, run): v + s for s in range(3) for run, v in enumerate(searched.values[KEY].values())}
    made = section(row("none", [48.0], True), searched, *copy.deepcopy(more))
    compare(made)
    (none,) = (each.compared for each in made.rows if each.name == "none")
    assert (none.name, none.differences[KEY].n) == ("pa", 3)
    means = [sum(PA) / 4 + 1 + s for s in range(3)]
    assert none.differences[KEY].p == pytest.approx(stats.ttest_1samp(means, 48.0).pvalue)


def test_an_untrained_row_joins_rows_with_any_number_of_runs_and_splits_for_every_other_reason() -> None:
    trained = comparable(SEARCH[0])
    none = replace(trained, name="none", num_runs=None, preset="default", trials=None)
    for rows in ([none, trained], [trained, none]):
        (part,) = parts(rows)
        assert (part.rows, part.footnotes) == ([each.name for each in rows], [])
    assert len(parts([none, replace(trained, fingerprint="other")])) == 2
    (main, other) = parts([none, trained, replace(trained, name="more", num_runs=trained.num_runs + 1)])
    assert (main.rows, other.rows) == (["none", trained.name], ["more"])
    runs = trained.num_runs
    assert f"number of runs: {runs + 1} here, {runs} in the first table" in other.differences
