import dataclasses
from pathlib import Path

import pytest

from benchmark.datasets import cub
from benchmark.datasets.dataset_files import check_pictures, find, need, need_base, pictures_in, read_rows
from benchmark.datasets.listing import MissingDataError
from tests.datasets import trees


def test_the_nearest_match_is_found_and_litter_is_not(tmp_path):
    trees.write(tmp_path / "__MACOSX" / "list.txt", "litter")
    trees.write(tmp_path / "._a" / "list.txt", "litter")
    assert find(tmp_path, "list.txt", "*/list.txt") is None
    trees.write(tmp_path / "b" / "list.txt", "one")
    trees.write(tmp_path / "a" / "list.txt", "two")
    assert find(tmp_path, "list.txt", "*/list.txt") == tmp_path / "a" / "list.txt"


def test_a_missing_folder_and_a_missing_mark_say_how_to_get_the_data(tmp_path):
    with pytest.raises(MissingDataError, match=r"There is no folder .*nowhere\. Get the data: make data DATASET=sop"):
        need(tmp_path / "nowhere", "sop", "list.txt")
    with pytest.raises(MissingDataError, match=r"holds no list\.txt or other\.txt.*ROOT=FOLDER"):
        need(tmp_path, "sop", "list.txt", "*/list.txt", "other.txt")


def test_pictures_of_a_list_are_found_with_special_characters_in_their_names(tmp_path):
    trees.write(tmp_path / "deep" / "images" / "a[1]" / "x*.jpg", "")
    assert need_base(tmp_path, "sop", "a[1]/x*.jpg", "", "*/", "*/images/") == tmp_path / "deep" / "images"
    with pytest.raises(MissingDataError, match=r"has the lists, but not b/y\.jpg"):
        need_base(tmp_path, "sop", "b/y.jpg", "", "*/")


def test_only_pictures_count_whatever_the_case_of_their_suffix(tmp_path):
    for name in ("b.JPG", "a.jpeg", "._a.jpeg", ".DS_Store", "Thumbs.db", "c.PnG", "notes.txt"):
        trees.write(tmp_path / name, "")
    (tmp_path / "folder.jpg").mkdir()
    assert pictures_in(tmp_path) == ["a.jpeg", "b.JPG", "c.PnG"]


def test_rows_are_read_over_odd_blanks_line_ends_and_a_byte_order_mark(tmp_path):
    (tmp_path / "list.txt").write_bytes("\ufeffheader\r\na.jpg   \t7 \r\n\r\n  b.jpg 8".encode())
    assert read_rows(tmp_path / "list.txt", {"path": str, "id": int}, skip=1) == [("a.jpg", 7), ("b.jpg", 8)]


@pytest.mark.parametrize("row", ["b.jpg", "b.jpg 8 9", "b.jpg eight", "b c.jpg 8"])
def test_a_row_that_does_not_fit_is_named(tmp_path, row):
    trees.write(tmp_path / "list.txt", "header", "a.jpg 7", row)
    with pytest.raises(ValueError, match=rf"list\.txt, line 3: '{row}' should hold path, id"):
        read_rows(tmp_path / "list.txt", {"path": str, "id": int}, skip=1)


def test_a_list_that_is_missing_or_no_text_is_refused(tmp_path):
    with pytest.raises(MissingDataError, match=r"There is no file .*list\.txt"):
        read_rows(tmp_path / "list.txt", {"path": str})
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"list\.txt cannot be read"):
        read_rows(tmp_path / "list.txt", {"path": str})


def test_pictures_that_cannot_be_used_are_counted_and_the_first_are_named(tmp_path):
    found = cub.listing(str(trees.cub(tmp_path)))
    for path in found.paths[1:8]:
        (found.root / path).unlink()
    with pytest.raises(ValueError) as caught:
        check_pictures(found, "files")
    said = str(caught.value).splitlines()
    assert said[0].startswith("7 of 10 pictures in") and len(said) == 8
    assert said[1] == f"  picture 2: {found.paths[1]} is missing"
    assert said[6] == "  and 2 more"
    assert check_pictures(found, "lists") is found
    assert check_pictures(dataclasses.replace(found, root=Path("nowhere")), "lists").paths == found.paths
