"""The short form of a table: it fits the terminal, the loss stands first, and nothing is cut."""

import re

import pytest

from benchmark.core import console
from benchmark.report.table import Section, Table
from benchmark.report.terminal import lines_of, short_table
from tests.report.page.test_page import table_of

LONG = "A loss with a very long name that some paper has (at the setting of its base, variant)"


@pytest.mark.parametrize("width", [40, 80, 120])
def test_a_table_fits_and_nothing_in_it_is_cut(width: int) -> None:
    table = table_of([LONG, "ProxyNCA", "Triplet"])
    table.caption = table.warning = "Any."
    text = short_table(table, width)
    assert max(map(len, text.splitlines())) <= width
    assert "Proxy" in text and "..." not in text and "…" not in text
    words = {word for line in text.splitlines() for word in line.split()}
    assert set(LONG.split()) <= words
    assert re.search(r"^ProxyNCA +40\.17 ± 3\.13$", text, re.M), text
    assert re.search(r"41\.17 ± 3\.13 \*$", text, re.M)


def test_columns_that_do_not_fit_go_on_below_with_their_labels() -> None:
    cells = {f"head {n}": ["12.34 ± 0.56", "-"] for n in range(4)}
    lines = list(lines_of("Loss", ["first", "second"], cells, 40))
    assert max(map(len, lines)) <= 40
    assert sum(line.startswith("first") for line in lines) == 2 and " ".join(lines).count("12.34") == 4


def test_a_row_without_numbers_says_whether_it_was_run() -> None:
    table = table_of(["a", "b", "c"])
    table.sections[0].rows[2].cells = {}
    text = short_table(table, 80)
    assert re.search(r"^Absent +not run$", text, re.M) and re.search(r"^c +-$", text, re.M)
    assert "No row is complete yet." in short_table(Table("x", "y", [Section(table.sections[0].columns, [], 0.9)]), 80)


def test_a_terminal_that_is_too_narrow_cuts_no_cell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "xterm")
    console.write_table(("loss", "what it is"), [("hpl_nca_eq3", f"{LONG} {'x' * 50}")])
    shown = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)
    assert max(map(len, shown.splitlines())) <= 40 and "…" not in shown and "hpl_nca_eq3" in shown
    assert shown.count("x") == 50 and all(word in shown for word in LONG.split())
