"""Lists that are not what they should be: refused with the line, before they fill the memory."""

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from benchmark.core.errors import UserError
from benchmark.datasets.dataset_files import read_rows, read_text

MEMORY_BYTES = 32 << 20  # that refusing a list may take


class PathAndId(NamedTuple):
    path: str
    id: int


ROWS = {
    "no id": "b.jpg",
    "a third field": "b.jpg 8 9",
    "a million fields": "b.jpg 8" + " 9" * 1_000_000,
    "a blank in a path": "b c.jpg 8",
    "an id in words": "b.jpg eight",
    "a float": "b.jpg 8.0",
    "a float without a fraction": "b.jpg 8.",
    "an exponent": "b.jpg 1e3",
    "not a number": "b.jpg nan",
    "infinity": "b.jpg inf",
    "a bool": "b.jpg True",
    "a negative id": "b.jpg -1",
    "a plus": "b.jpg +8",
    "an underscore": "b.jpg 1_000",
    "full-width digits": "b.jpg \uff18",
    "Arabic digits": "b.jpg \u0668",
    "a superscript": "b.jpg \u00b2",
    "a hexadecimal id": "b.jpg 0x8",
    "an id of 10^9": "b.jpg 1000000000",
    "an id of 10^30": "b.jpg 1" + "0" * 30,
    "an id of 5000 digits": "b.jpg " + "9" * 5000,
    "a list": "b.jpg [8]",
    "a comma": "b.jpg,8",
    "a semicolon": "b.jpg;8",
    "an escape sequence": "\x1b[2Jb.jpg 8",
    "a right-to-left mark": "\u202eb.jpg 8",
    "a delete": "b\x7f.jpg 8",
    "a vertical tab": "b.jpg\x0b8",
    "a form feed": "b.jpg\f8",
    "a line separator": "b.jpg\u20288",
}


@pytest.mark.bad_input("published list", "rows")
@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_a_row_that_does_not_fit_is_refused_with_its_line(tmp_path: Path, row: str) -> None:
    (tmp_path / "list.txt").write_text(f"header\na.jpg 7\n{row}\nc.jpg 9\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"list\.txt, line 3: .* should hold path, id") as caught:
        read_rows(tmp_path / "list.txt", PathAndId, skip=1)
    assert len(str(caught.value)) < 1000 and "\x1b" not in str(caught.value)


@pytest.mark.bad_input("published list", "rows")
@pytest.mark.parametrize("row", [",8", " ,8", "b.jpg,", "b.jpg, ", "b.jpg,8,", "b.jpg,8,9", "b.jpg;8"])
def test_a_row_of_a_table_that_does_not_fit_is_refused_with_its_line(tmp_path: Path, row: str) -> None:
    (tmp_path / "list.txt").write_text(f"a.jpg,7\n{row}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"list\.txt, line 2: .* should hold path, id"):
        read_rows(tmp_path / "list.txt", PathAndId, separator=",")


def hollow(path: Path, size: int) -> None:
    path.touch()
    os.truncate(path, size)


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "10 GB": (lambda path: hollow(path, 10**10), "10,000,000,000 bytes"),
    "one line of 100 MB": (lambda path: hollow(path, 10**8), "100,000,000 bytes"),
    "a named pipe": (os.mkfifo, "a named pipe"),
    "a folder": (Path.mkdir, "a folder"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "a device"),
    "a terminal": (lambda path: path.symlink_to("/dev/null"), "a device"),
    "UTF-16": (lambda path: path.write_text("a.jpg 7\n", encoding="utf-16"), "UTF-16 text"),
    "UTF-16 without a mark": (lambda path: path.write_text("a.jpg 7\n", encoding="utf-16-le"), "binary, or UTF-16"),
    "Latin-1": (lambda path: path.write_text("a.jpg 7\nb\u00e9.jpg 8\n", encoding="latin-1"), "line 2 has .*0xe9"),
    "a JPEG image": (lambda path: path.write_bytes(b"\xff\xd8\xff\xe0\0\x10JFIF"), "a JPEG image"),
    "a compressed list": (lambda path: path.write_bytes(b"\x1f\x8b\x08\0\xff"), "gzip data"),
    "a zip archive": (lambda path: path.write_bytes(b"PK\x03\x04\x14\0\xff"), "a zip archive"),
    "a web page": (lambda path: path.write_bytes(b"<!DOCTYPE html>\n<html>Sign in</html>"), "a web page"),
    "a pointer of Git LFS": (lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n"), "Git LFS"),
    "zeros": (lambda path: path.write_bytes(b"\0" * 100), "nothing but zeros"),
    "a row with a NUL": (lambda path: path.write_bytes(b"a.jpg 7\nb\0.jpg 8\n"), "binary"),
}  # fmt: skip


@pytest.mark.bad_input("published list", "another format")
@pytest.mark.parametrize(("write", "said"), FILES.values(), ids=FILES)
def test_a_file_that_is_no_list_is_refused_by_what_it_is(
    tmp_path: Path, write: Callable[[Path], object], said: str
) -> None:
    write(tmp_path / "list.txt")
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=rf"list\.txt.* {said}"):
            read_rows(tmp_path / "list.txt", PathAndId)
        assert tracemalloc.get_traced_memory()[1] < MEMORY_BYTES
    finally:
        tracemalloc.stop()


def test_a_larger_text_is_read_where_one_is_expected(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text("123456789", encoding="utf-8")
    assert read_text(tmp_path / "list.json") == "123456789"
    with pytest.raises(UserError, match="has 9 bytes, but a list has at most 8"):
        read_text(tmp_path / "list.json", at_most=8)


def test_ids_with_leading_zeros_and_names_in_other_letters_are_read(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("中.jpg 0007\nß.jpg 10000000\n", encoding="utf-8")
    assert read_rows(tmp_path / "list.txt", PathAndId) == [("中.jpg", 7), ("ß.jpg", 10_000_000)]
