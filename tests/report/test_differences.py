"""Comparisons between the rows of a section: with which row, by which test, in which family, and what is printed."""

import math

import pytest
from scipy import stats

from benchmark.protocol.statistics import t_interval
from benchmark.report.differences import compare
from benchmark.report.table import Column, Effort, Row, Section

KEY, OTHER = ("map_at_r",), ("r_precision",)
COLUMNS = [Column(KEY, "MAP@R", is_main=True), Column(OTHER, "RP")]
EFFORT = Effort(10, 10, 2, 100, 1, 0.1, 10, 0.0, None, None, None, (), 1, all_trials=10)
RUNS = {
    "pa": [50.1, 50.9, 49.8, 50.6],
    "hpl_pa": [49.9, 50.1, 49.5, 50.3],
    "nca": [30.2, 30.8, 30.1, 31.0],
    "hpl_nca": [30.9, 31.2, 30.6, 32.0],
    "hpl_nca_b": [30.4, 30.7, 30.3, 31.1],
}
BASES = {"hpl_pa": "pa", "hpl_nca": "nca", "hpl_nca_b": "nca"}


def row(name: str, values: list[float], kind: str = "", base: str = "") -> Row:
    by_run = dict(enumerate(values))
    made = Row(name, name.upper(), num_runs=len(values), kind=kind, base=base, effort=EFFORT)
    for key, lower in ((KEY, 0.0), (OTHER, 1.0)):
        made.values[key] = {run: value - lower for run, value in by_run.items()}
        made.cells[key] = t_interval(list(made.values[key].values()))
    return made


def compared(rows: list[Row]) -> Section:
    section = Section(COLUMNS, rows, 0.95)
    compare(section)
    return section


@pytest.fixture
def five() -> Section:
    return compared([row(name, values, base=BASES.get(name, "")) for name, values in RUNS.items()])


def p_of(name: str, other: str) -> float:
    return float(stats.ttest_rel(RUNS[name], RUNS[other]).pvalue)


def test_a_row_is_compared_with_its_base_and_one_without_with_the_best(five: Section) -> None:
    pairs = {row.name: row.compared.name if row.compared else "" for row in five.rows}
    assert pairs == {"pa": "", "hpl_pa": "pa", "nca": "pa", "hpl_nca": "nca", "hpl_nca_b": "nca"}


def test_the_difference_and_its_interval_are_those_of_the_pairs(five: Section) -> None:
    found = five.rows[3].compared
    assert found is not None
    test = found.differences[KEY]
    assert test.mean == pytest.approx((0.7 + 0.4 + 0.5 + 1.0) / 4)
    low, high = stats.ttest_rel(RUNS["hpl_nca"], RUNS["nca"]).confidence_interval(0.95)
    assert test.half_width == pytest.approx((high - low) / 2)


def test_comparisons_with_the_best_row_and_with_other_bases_are_two_families(five: Section) -> None:
    found = {row.name: row.compared.p[KEY] for row in five.rows if row.compared}
    with_best = sorted((p_of(name, "pa"), name) for name in RUNS if name != "pa")
    steps = {name: (4 - rank) * p for rank, (p, name) in enumerate(with_best)}
    largest = {
        name: max(steps[other] for p, other in with_best[: rank + 1]) for rank, (_, name) in enumerate(with_best)
    }
    assert found["hpl_pa"] == pytest.approx(min(1, largest["hpl_pa"])) and found["nca"] == pytest.approx(largest["nca"])
    first, second = p_of("hpl_nca", "nca"), p_of("hpl_nca_b", "nca")
    assert first < second and found["hpl_nca"] == pytest.approx(2 * first)
    assert found["hpl_nca_b"] == pytest.approx(max(2 * first, second))


def test_the_table_has_differences_p_values_runs_and_ranks(five: Section) -> None:
    (block,) = five.blocks
    assert [head.title for head in block.heads] == ["Loss", "Compared with", "", "p", "Runs", "First", "Rank"]
    lines = {line[0]: line[1:] for line in block.groups[""]}
    assert lines["PA"] == ["", "", "", "", "100 %", "1.0"]
    name, difference, p, runs, first, rank = lines["HPL_NCA"]
    assert (name, first, rank) == ("NCA", "0 %", "3.0") and difference.startswith("+0.65 ± ")
    # A paired t-test of 0.65 with a deviation of 0.265 (0.7, 0.4, 0.5, 1.0): an effect of 2.46 needs 4 pairs.
    assert runs == "4" and p == f"{2 * p_of('hpl_nca', 'nca'):.3f}"
    assert "n = 4 pairs" in block.notes[0] and "conditional on one search" in block.notes[0]


def test_one_run_has_differences_without_intervals_tests_and_ranks() -> None:
    (block,) = compared([row("a", [40.0]), row("b", [30.5])]).blocks
    assert [head.title for head in block.heads] == ["Loss", "Compared with", ""]
    assert block.groups[""] == [["B", "A", "-9.50"]] and block.notes == ["This row minus the other one, in points."]


def test_a_row_alone_is_compared_with_nothing() -> None:
    assert compared([row("a", RUNS["pa"])]).blocks == [] == compared([Row("a", "A")]).blocks


def test_rows_of_different_kinds_are_not_compared() -> None:
    rows = [row("a", RUNS["pa"], "last"), row("b", RUNS["nca"], "best"), row("c", RUNS["hpl_nca"], "best")]
    section = compared(rows)
    assert rows[0].compared is None and rows[1].compared is not None and rows[1].compared.name == "c"
    assert list(section.blocks[0].groups) == ["best"]


def test_a_base_that_is_not_there_leaves_the_best_row() -> None:
    rows = [row("a", RUNS["pa"]), row("b", RUNS["nca"], base="gone"), row("c", RUNS["hpl_nca"], base="c")]
    compared(rows)
    assert [r.compared.name for r in rows if r.compared] == ["a", "a"]


def test_differences_of_every_column_are_kept_for_the_csv(five: Section) -> None:
    found = five.rows[1].compared
    assert found is not None and found.differences.keys() == {KEY, OTHER} and not math.isnan(found.p[OTHER])
