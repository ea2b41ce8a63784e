"""Where a published data set is found, and what is said if it is not."""

import shutil

import pytest

from benchmark.core.errors import UserError
from benchmark.datasets import cub
from benchmark.datasets.listing import MissingDataError
from benchmark.datasets.published import Names, find, find_base, find_required, on_disk
from tests.datasets import trees

NAMES = Names("sop", "Stanford Online Products", marks=(("Ebay_train.txt",),), archives=("*Online_Products*",))


def test_finds_the_nearest_match_and_ignores_macos_metadata(tmp_path):
    trees.write_text(tmp_path / "__MACOSX" / "list.txt", "litter")
    trees.write_text(tmp_path / "._a" / "list.txt", "litter")
    assert find(tmp_path, "list.txt", "*/list.txt") is None
    trees.write_text(tmp_path / "b" / "list.txt", "one")
    trees.write_text(tmp_path / "a" / "list.txt", "two")
    assert find(tmp_path, "list.txt", "*/list.txt") == tmp_path / "a" / "list.txt"


def test_names_in_another_case_are_found_only_if_no_exact_match_exists(tmp_path):
    trees.write_text(tmp_path / "a" / "LIST.txt", "one")
    assert find(tmp_path, "list.txt", "*/list.txt") == tmp_path / "a" / "LIST.txt"
    trees.write_text(tmp_path / "b" / "list.txt", "two")
    assert find(tmp_path, "list.txt", "*/list.txt") == tmp_path / "b" / "list.txt"


def test_what_an_interrupted_unpacking_left_is_not_data(tmp_path):
    trees.cub(tmp_path / ".CUB_200_2011.partial")
    with pytest.raises(MissingDataError):
        cub.listing(str(tmp_path))


def test_only_the_default_folder_is_created_by_a_download(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingDataError, match=r"There is no folder data/sop\. Get the data: make data DATASET=sop"):
        find_required("data/sop", NAMES, "list.txt")
    with pytest.raises(UserError, match=r"There is no folder data/sopp\.(.|\n)*mkdir -p data/sopp") as refused:
        find_required("data/sopp", NAMES, "list.txt")
    assert not isinstance(refused.value, MissingDataError)


def test_a_slip_in_the_name_of_a_folder_is_answered_with_the_folder_that_exists(tmp_path):
    (tmp_path / "Products" / "sop").mkdir(parents=True)
    with pytest.raises(UserError, match=f"Did you mean make data DATASET=sop ROOT={tmp_path}/Products/sop"):
        find_required(tmp_path / "Prodcuts" / "sop", NAMES, "list.txt")


def test_an_empty_folder_is_reported_with_what_was_looked_for_and_how_to_get_the_data(tmp_path):
    with pytest.raises(MissingDataError, match=r"hold no list\.txt or other\.txt.*ROOT=FOLDER"):
        find_required(tmp_path, NAMES, "list.txt", "*/list.txt", "other.txt")


def test_advice_uses_the_command_syntax_of_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCHMARK_COMMAND_FORM", "dmlbench")
    with pytest.raises(MissingDataError, match=r"dmlbench data dataset=sop; .*dataset\.module\.root=FOLDER"):
        find_required(tmp_path, NAMES, "list.txt")


@pytest.mark.parametrize("images", ["none", "a link that leads nowhere"])
def test_masks_are_not_taken_for_the_photographs_that_they_belong_to(images, tmp_path):
    root = trees.cub(tmp_path)
    photographs = next(tmp_path.rglob("images"))
    for path in [*photographs.rglob("*.jpg")]:
        mask = tmp_path / "segmentations" / path.relative_to(photographs).with_suffix(".png")
        mask.parent.mkdir(parents=True, exist_ok=True)
        path.rename(mask)
    shutil.rmtree(photographs)
    if images != "none":
        photographs.symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"but not the images that they name.*other images, such as segmentations"):
        cub.listing(str(root))


def test_images_of_a_list_are_found_with_special_characters_in_their_names(tmp_path):
    trees.write_text(tmp_path / "deep" / "images" / "a[1]" / "x*.jpg", "")
    assert find_base(tmp_path, NAMES, ["a[1]/x*.jpg"], "", "*/", "*/images/") == tmp_path / "deep" / "images"
    with pytest.raises(UserError, match=r"neither b/y\.jpg nor the others .* other images, such as deep/images/a\[1\]"):
        find_base(tmp_path, NAMES, ["b/y.jpg"], "", "*/")


def test_files_in_another_case_or_form_of_letters_or_with_another_suffix_are_the_same(tmp_path):
    for name in ("A/one.JPG", "A/zwo\u0308lf.png", "A/two.jpg", "A/two.png", "b/three.txt"):
        trees.write_text(tmp_path / name, "")
    asked = ["A/one.JPG", "a/One.jpg", "a/zw\u00f6lf.jpg", "a/two.jpg", "A/two.bmp", "b/three.jpg", "c/four.jpg"]
    found, missing = on_disk(tmp_path, asked)
    assert found == ["A/one.JPG", "A/one.JPG", "A/zwo\u0308lf.png", "A/two.jpg", *asked[4:]]
    assert missing == [4, 5, 6]  # two files could be two.bmp, and three.txt is no image
