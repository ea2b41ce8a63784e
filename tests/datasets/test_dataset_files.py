import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from benchmark.core.errors import UserError
from benchmark.datasets import cub, manifest
from benchmark.datasets.dataset_files import read_rows, subfolders
from benchmark.datasets.listing import MissingDataError
from tests.datasets import trees


class PathAndId(NamedTuple):
    path: str
    id: int


@pytest.fixture
def unreadable(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Make a folder unreadable even for root, who ignores permissions."""
    scandir = os.scandir

    def forbid(folder: Path) -> None:
        def refuse(path: str | Path = ".") -> object:
            if Path(path) == folder:
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return scandir(path)

        monkeypatch.setattr(os, "scandir", refuse)

    return forbid


def test_reads_rows_despite_odd_whitespace_line_endings_and_a_byte_order_mark(tmp_path):
    (tmp_path / "list.txt").write_bytes("\ufeffheader\r\na.jpg   \t7 \r\n\r\n  b.jpg 8".encode())
    assert read_rows(tmp_path / "list.txt", PathAndId, skip=1) == [("a.jpg", 7), ("b.jpg", 8)]


@pytest.mark.parametrize("row", ["b.jpg", "b.jpg 8 9", "b.jpg eight", "b c.jpg 8"])
def test_a_row_that_does_not_fit_is_named(tmp_path, row):
    trees.write_text(tmp_path / "list.txt", "header", "a.jpg 7", row)
    with pytest.raises(UserError, match=rf"list\.txt, line 3: '{row}' should hold path, id"):
        read_rows(tmp_path / "list.txt", PathAndId, skip=1)


def test_a_list_that_is_missing_or_not_text_is_refused(tmp_path):
    with pytest.raises(MissingDataError, match=r"There is no file .*list\.txt"):
        read_rows(tmp_path / "list.txt", PathAndId)
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"list\.txt cannot be read"):
        read_rows(tmp_path / "list.txt", PathAndId)


def test_a_folder_that_cannot_be_read_is_named(tmp_path, unreadable):
    unreadable(tmp_path)
    with pytest.raises(UserError, match=f"The folder {tmp_path} cannot be read: Permission denied"):
        subfolders(tmp_path)


@pytest.mark.parametrize("below", ["birds", "birds/terns"])
def test_an_unreadable_folder_is_not_mistaken_for_one_without_the_data(tmp_path, unreadable, below):
    (tmp_path / below).mkdir(parents=True)
    unreadable(tmp_path / below)
    with pytest.raises(UserError, match=f"The folder {tmp_path / below} cannot be read: Permission denied"):
        cub.listing(str(tmp_path))


@pytest.mark.parametrize("read", [lambda path: read_rows(path, PathAndId), lambda path: manifest.listing(str(path))])
def test_an_unreadable_list_is_named(tmp_path, monkeypatch, read):
    def refuse(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    (tmp_path / "list.csv").touch()
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(UserError, match=rf"{tmp_path}/list\.csv cannot be read: Permission denied"):
        read(tmp_path / "list.csv")
