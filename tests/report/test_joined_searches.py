"""A search and its repetitions are one row, with an interval that covers the search and paired differences over it."""

import csv
import io
from collections.abc import Callable
from dataclasses import replace

import pytest

from benchmark.protocol.nested import over_searches
from benchmark.report import group_table as tables
from benchmark.report.differences import compare
from benchmark.report.formats import as_csv, markdown
from benchmark.report.table import Column, Row, Section, Table
from benchmark.study.stored import StoredStudy, read_study
from benchmark.study.study import Study
from tests import fake_results
from tests.report.test_formats import table_of

Compose = Callable[..., Study]
FOUR = ("dataset=glyphs_small", "protocol.num_runs=2")
KEY = ("concatenated", "map_at_r")
COLUMN = Column(KEY, "MAP@R", "Concatenated", is_main=True)
pytestmark = pytest.mark.usefixtures("no_fsync")


def searched(compose_study: Compose, runs: dict[int, list[float]], *overrides: str) -> list[Study]:
    """Write finished studies, one per search, and return them."""
    studies = [compose_study(*FOUR, *overrides, f"search={number}") for number in runs]
    for study, values in zip(studies, runs.values(), strict=True):
        fake_results.finish(study, values)
    return studies


def test_repetitions_are_one_row_with_an_interval_over_the_means_of_searches(compose_study: Compose) -> None:
    studies = searched(compose_study, {0: [0.09, 0.11], 1: [0.11, 0.13], 2: [0.16, 0.18]}, "loss=hpl_pa")
    table = table_of("any", studies, tables.Layout())
    (row,) = table.rows
    assert (row.name, row.label, row.num_runs, row.cells[KEY].mean) == ("hpl_pa", "HPL-PA", 2, pytest.approx(10.0))
    # Means 10, 12, 17 percent: mean 13, half width 8.956686, worked out in tests/protocol/test_nested.py.
    found = row.over_searches[KEY]
    assert (found.mean, found.half_width, found.n) == (pytest.approx(13.0), pytest.approx(8.956686, abs=1e-5), 3)
    text = markdown(table)
    assert "Concatenated (512-d) MAP@R over searches" in text and "13.00 ± 8.96" in text
    assert "mean over 3 searches and their runs +- 95 % t-interval over the means of the searches" in text
    assert "concatenated_map_at_r_over_searches_half_width" in as_csv(table)
    alone = table_of("any", studies[:1], tables.Layout()).rows[0].effort
    assert row.effort.hours == pytest.approx(3 * alone.hours), "of all searches"
    assert (row.effort.all_trials, row.effort.num_folds) == (3 * alone.trials, 3 * alone.num_folds)
    assert (row.effort.trials, row.effort.asked) == (alone.trials, alone.asked)
    assert f"searches of {alone.trials} trials" in text, "each"
    columns = table.sections[0].columns
    assert row.by_search.keys() == {column.key for column in columns}, "all are compared over searches"
    assert row.over_searches.keys() == {column.key for column in columns if column.is_main}


@pytest.mark.slow
def test_every_column_is_compared_over_searches(compose_study: Compose) -> None:
    """The runs of one search would tell P@1 apart, which is MAP@R and a constant in these results."""
    studies = searched(compose_study, {0: [0.09, 0.11], 1: [0.15, 0.17], 2: [0.16, 0.18]}, "loss=hpl_pa")
    studies += searched(compose_study, {0: [0.08, 0.10], 1: [0.11, 0.13], 2: [0.18, 0.20]}, "loss=proxy_anchor")
    table = table_of("any", studies, tables.Layout())
    (hpl,) = (row for row in table.rows if row.name == "hpl_pa")
    assert {test.n for test in hpl.compared.differences.values()} == {3}
    assert [test.mean for test in hpl.compared.differences.values()] == pytest.approx([1.0] * 6)
    assert set(map(frozenset, table.sections[0].top().values())) == {frozenset({"hpl_pa", "proxy_anchor"})}


def test_repetitions_at_the_bases_optimum_are_one_row_although_each_has_a_setting_of_its_own(
    compose_study: Compose,
) -> None:
    def stored_at(search: int, scale: float) -> StoredStudy:
        raw = compose_study("loss=hpl_nca", "preset=base", f"search={search}").raw
        study = Study.of(raw, {"scale_0": scale})
        fake_results.opened(study, "final-eval")
        return read_study(study.directory)

    first, second = stored_at(0, 60.0), stored_at(1, 80.0)
    assert first.row == second.row and first.identity != second.identity
    searched = compose_study("loss=hpl_nca", "search=2")
    fake_results.start(searched)
    assert read_study(searched.directory).row != first.row


def test_with_one_search_the_line_says_so(compose_study: Compose) -> None:
    (study,) = searched(compose_study, {0: [0.4, 0.5]}, "loss=hpl_pa")
    text = markdown(table_of("any", [study], tables.Layout()))
    assert "training noise only, one search for each row" in text and "over searches" not in text


def test_an_unfinished_repetition_leaves_no_interval_and_its_reason(compose_study: Compose) -> None:
    studies = searched(compose_study, {0: [0.4, 0.5], 1: [0.4]}, "loss=hpl_pa")
    (row,) = table_of("any", studies, tables.Layout()).rows
    assert row.over_searches == {} and KEY in row.cells
    assert row.reason.startswith("search1: 1 of 2 runs is missing: 1")


def test_an_unfinished_repetition_does_not_make_the_first_search_shorter(compose_study: Compose) -> None:
    whole = searched(compose_study, {0: [0.4, 0.5]}, "loss=hpl_pa", "trials=4", "protocol.trials=4")
    begun = compose_study(*FOUR, "loss=hpl_pa", "trials=4", "protocol.trials=4", "search=1")
    fake_results.start(begun, [0])
    (row,) = (table := table_of("any", [*whole, begun], tables.Layout())).rows
    assert (row.effort.trials, row.effort.asked, row.effort.all_trials) == (4, 4, 5) and "s" not in row.marks
    assert "searches of 4 trials" in markdown(table)


def test_a_joined_row_depends_on_what_all_its_searches_depend_on(compose_study: Compose) -> None:
    studies = searched(compose_study, {0: [0.4, 0.5], 1: [0.4, 0.5]}, "loss=hpl_pa")
    folders = [study.directory for study in studies]
    first, second = (tables.read_entry(folder, folders) for folder in folders)
    known = second.depends
    other = replace(known, devices=frozenset({"cuda"}), versions=dict(known.versions) | {"torch": frozenset({"1.0"})},
                    code=dict.fromkeys(known.code, "0"))  # fmt: skip
    (found,) = tables.join_searches([first, replace(second, depends=other)], accept_code=True)
    assert found.depends.devices == {*first.depends.devices, "cuda"} and found.depends.codes_accepted == 2
    assert found.depends.versions["torch"] == {*first.depends.versions["torch"], "1.0"}
    (alike,) = tables.join_searches([first, second])
    assert (alike.depends.devices, alike.depends.codes_accepted) == (first.depends.devices, 1)


def test_a_repetition_with_other_trials_or_without_its_first_search_is_not_joined(compose_study: Compose) -> None:
    studies = searched(compose_study, {0: [0.4, 0.5], 1: [0.4, 0.5]}, "loss=hpl_pa")
    folders = [study.directory for study in studies]
    first, second = (tables.read_entry(folder, folders) for folder in folders)
    assert [entry.depends.name for entry in tables.join_searches([second])] == ["hpl_pa-search1"]
    other = replace(second, depends=replace(second.depends, trials=99))
    (found,) = tables.join_searches([first, other])
    assert found.rows[0].over_searches == {} and "search1 is left out: it has 99 trials, not 4" in found.rows[0].reason
    edited = replace(second, depends=replace(second.depends, code=dict.fromkeys(second.depends.code, "0")))
    assert "other code computed it" in tables.join_searches([first, edited])[0].rows[0].reason
    assert tables.join_searches([first, edited], accept_code=True)[0].rows[0].over_searches


def row_of(name: str, values: list[list[float]]) -> Row:
    row = Row(name, name, num_runs=len(values[0]))
    row.values[KEY] = dict(enumerate(values[0]))
    row.cells[KEY] = over_searches({(0, run): value for run, value in enumerate(values[0])})
    row.by_search[KEY] = {(s, r): value for s, runs in enumerate(values) for r, value in enumerate(runs)}
    row.over_searches = {KEY: over_searches(row.by_search[KEY])}
    return row


def test_rows_with_the_same_searches_are_compared_by_the_means_of_these() -> None:
    first = row_of("first", [[10.0, 12.0], [20.0, 22.0], [31.0, 31.0]])
    second = row_of("second", [[9.0, 11.0], [18.0, 20.0], [28.0, 28.0]])
    section = Section([COLUMN], [first, second], 0.95)
    compare(section)
    found = second.compared.differences[KEY]
    # -2 +- 2.484138, p 0.0742, worked out in tests/protocol/test_nested.py; by runs of one search it would be -1 +- 0.
    assert (found.mean, found.n) == (-2.0, 3)
    assert found.half_width == pytest.approx(2.484138, abs=1e-5) and found.p == pytest.approx(0.0741799, abs=1e-6)
    assert second.compared.runs == {}, "runs of one search would not tell them apart"
    assert section.top()["", KEY] == {"first", "second"}
    table = Table("t", "c", [section])
    assert "compared by the means of these" in markdown(table)
    second_line = list(csv.DictReader(io.StringIO(as_csv(table))))[1]
    assert second_line["concatenated_map_at_r_p"] == "0.0742"
    assert second_line["concatenated_map_at_r_runs_needed"] == ""


def test_what_is_bold_agrees_with_the_differences_beside_a_row_with_a_single_search() -> None:
    first = row_of("first", [[10.0, 12.0], [20.0, 22.0], [31.0, 31.0]])
    second = row_of("second", [[9.0, 11.0], [18.0, 20.0], [28.0, 28.0]])
    alone = Row("alone", "alone", num_runs=2, values={KEY: {0: 1.0, 1: 3.0}})
    alone.cells[KEY] = over_searches({(0, 0): 1.0, (0, 1): 3.0})
    section = Section([COLUMN], [first, second, alone], 0.95)
    compare(section)
    assert second.compared.differences[KEY].n == 3 and second.compared.p[KEY] > 0.05
    assert alone.compared.differences[KEY].n == 2 and alone.compared.p[KEY] == 0.0
    assert section.top()["", KEY] == {"first", "second"}, "by the runs of one search, the second would be told apart"


def test_repeated_searches_with_one_run_each_have_their_numbers_explained() -> None:
    section = Section(
        [COLUMN], [row_of("first", [[10.0], [20.0], [31.0]]), row_of("second", [[9.0], [18.0], [28.0]])], 0.95
    )
    compare(section)
    (note,) = section.blocks[0].notes
    assert "t-interval over the means of the searches, which covers the luck of the search. " in section.notes()[0]
    assert "mean +- 95 % t-interval. p: paired t-test" in note and "compared by the means of these, n = 3" in note


def test_rows_with_other_searches_are_compared_by_the_runs_of_the_first() -> None:
    first = row_of("first", [[10.0, 12.0], [20.0, 22.0], [31.0, 31.0]])
    second = row_of("second", [[9.0, 11.5], [18.0, 20.0]])
    section = Section([COLUMN], [first, second], 0.95)
    compare(section)
    assert second.compared.differences[KEY].mean == pytest.approx(-0.75)
    assert second.compared.differences[KEY].n == 2
