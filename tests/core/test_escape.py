"""Escaped text is read by each format's own parser as the original text, and nothing in it takes effect."""

import csv
import functools
import io
import sys
import unicodedata
from collections.abc import Callable

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from benchmark.core import escape
from tests import hostile

CONTROL = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
ONE_LINE = [escape.visible, escape.one_line, escape.csv_text, escape.markdown, escape.markdown_paragraph, escape.latex]
GITHUB = MarkdownIt("commonmark").enable(["table", "strikethrough"])


@functools.cache
def every_control() -> str:
    return "".join(c for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(c) in CONTROL - {"Co"})


def name_of(function: Callable[[str], str]) -> str:
    return function.__name__


@pytest.mark.parametrize("function", ONE_LINE, ids=name_of)
def test_no_invisible_character_is_printed(function: Callable[[str], str]) -> None:
    for text in (every_control(), *hostile.ALL):
        assert {unicodedata.category(char) for char in function(text)}.isdisjoint(CONTROL)
    assert set(function("".join(escape.BLANK))).isdisjoint(escape.BLANK)


def test_a_terminal_receives_newlines_and_tabs_but_no_other_control_character() -> None:
    shown = escape.terminal(every_control())
    assert {char for char in shown if unicodedata.category(char) in CONTROL} == {"\n", "\t"}
    assert escape.terminal("a\tb\n\x1b[2J\u202e\udcff\n") == "a\tb\n\\x1b[2J\\u202e\\udcff\n"


def test_a_text_without_such_characters_is_unchanged() -> None:
    for text in ("HPL-NCA (Eq. 3)", "Poincaré", "中文 λ \U0001f600", "no\u00a0break", "a\\b"):
        assert escape.visible(text) == escape.terminal(text) == escape.one_line(text) == text


def test_line_breaks_become_spaces_in_documents() -> None:
    assert escape.one_line("an\n\nempty\r\nline\tand\u2028more\n") == "an empty line and more"


# -- CSV


def test_a_text_in_a_csv_file_is_not_a_formula_and_reads_back() -> None:
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows([escape.csv_text(text), "next"] for text in hostile.ALL)
    lines = list(csv.reader(io.StringIO(written.getvalue())))
    assert [following for _, following in lines] == ["next"] * len(hostile.ALL)
    for text, (cell, _) in zip(hostile.ALL, lines, strict=True):
        assert not cell.startswith(("=", "+", "-", "@", "＝", "\t", "\r")), text
        assert cell.removeprefix("'") == escape.one_line(text).removeprefix("'")
        assert cell.startswith("'") == escape.one_line(text).startswith(("=", "+", "-", "@", "＝", "'")), text


# -- Markdown


def read(token: Token) -> str:
    """What a reader of Markdown sees; only text, nothing that was made of it."""
    assert {child.type for child in token.children or []} <= {"text"}, token.content
    return "".join(child.content for child in token.children or [])


def test_a_command_in_markdown_can_be_copied_from_the_source() -> None:
    command = "make bo 'STUDY=/data/R & D/hpl_pa' && make final-eval 'ARGS=plugins=[my_package,other]'"
    assert escape.markdown(command) == command
    assert escape.markdown("&amp; &#38;") == r"\&amp; \&#38;"


def test_a_text_in_a_cell_of_a_markdown_table_is_read_as_that_text() -> None:
    lines = [f"| {escape.markdown(text)} | 1.00 |\n" for text in hostile.ALL]
    tokens = GITHUB.parse("| Loss | X |\n|---|---|\n" + "".join(lines))
    cells = [read(token) for token in tokens if token.type == "inline"][2:]
    assert cells == [cell for text in hostile.ALL for cell in (escape.one_line(text), "1.00")]


def test_a_markdown_paragraph_is_read_as_that_text() -> None:
    texts = [text for text in hostile.ALL if escape.one_line(text)]
    tokens = GITHUB.parse("".join(f"{escape.markdown_paragraph(text)}\n\n" for text in texts))
    assert [token.type for token in tokens] == ["paragraph_open", "inline", "paragraph_close"] * len(texts)
    assert [read(token) for token in tokens[1::3]] == [escape.one_line(text) for text in texts]


def test_commands_and_names_stay_readable_in_markdown() -> None:
    text = "make bo final-eval DATASET=glyphs_small LOSS=hpl_pa TRIALS=6"
    assert escape.markdown(text) == escape.markdown_paragraph(text) == text
    assert escape.markdown("$x$") == r"\$x\$", "GitHub sets it as a formula"


# -- LaTeX; tests/report/test_formats.py compiles it


def test_an_empty_line_and_an_option_cannot_break_a_row_of_a_latex_table() -> None:
    assert escape.latex("a\n\nb") == "a b"
    assert escape.latex("[2cm] x").startswith("{[}2cm") and escape.latex("* x").startswith("{*}")


def test_a_latex_label_has_safe_characters_and_differs_between_names() -> None:
    names = ["glyphs-small_conv-hpl", *hostile.ALL, "a b", "a/b", "a:b", "a-b"]
    labels = [escape.latex_label(name) for name in names]
    assert labels[0] == names[0] and labels[-1] == "a-b"
    assert all(set(label) <= set(map(chr, range(128))) - set("{}\\%#~^$& :") and label for label in labels)
    assert len(set(labels)) == len(set(names))
