import csv
from pathlib import Path

import numpy as np
import pytest

from benchmark.core.errors import UserError
from benchmark.datasets import folder, manifest
from benchmark.datasets.listing import Counts, Listing, check_counts, grouped, halves


def listing(**changes):
    fields = {
        "root": Path("data"),
        "paths": ["a/1.jpg", "a/2.jpg", "b/1.jpg", "c/1.jpg", "c/2.jpg"],
        "labels": np.array([0, 0, 1, 2, 2]),
        "class_names": ["a", "b", "c, the third"],
        "super_labels": np.array([1, 1, 0]),
        "super_names": ["low", "high"],
        "roles": np.array(["trainval"] * 3 + ["test"] * 2),
    }
    return Listing(**(fields | changes))


def test_counts_are_those_of_the_whole_and_of_each_role():
    assert listing().counts() == Counts(5, 3, 2)
    assert listing().counts_by_role() == {"trainval": Counts(3, 2, 1), "test": Counts(2, 1, 1)}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": np.array([0, 0, 1, 2])}, "labels has 4 entries for 5 images"),
        ({"roles": np.array(["test"])}, "roles has 1 entries for 5 images"),
        ({"super_labels": np.array([1, 1])}, "super_labels has 2 entries for 3 classes"),
        ({"super_labels": np.array([1, 1, 2])}, r"super_labels must lie in 0\.\.1"),
        ({"super_labels": np.array([1, 1, -1])}, r"super_labels must lie in 0\.\.1"),
        ({"labels": np.array([0, 0, 1, 2, 3])}, r"labels must lie in 0\.\.2"),
        ({"roles": np.array(["trainval"] * 3 + ["val"] * 2)}, "roles holds val; allowed are trainval, test"),
        ({"roles": np.array(["test"] * 3 + ["trainval"] * 2)}, "must have the first ids"),
    ],
)
def test_names_the_field_that_does_not_fit(changes, said):
    with pytest.raises(ValueError, match=said):
        listing(**changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": np.array([0, 0, 0, 2, 2])}, "1 class has no image, such as 'b'"),
        ({"paths": ["a", "b", "a", "c", "d"]}, "1 image is listed twice, such as 'a'"),
        ({"roles": np.array(["trainval"] * 5)}, "The images of data are trainval only"),
        ({"roles": np.array(["trainval"] * 3 + ["test", "gallery"])}, "trainval, test, gallery only"),
        ({"roles": np.array(["trainval"] * 4 + ["test"])}, "1 class is both for training and for testing"),
    ],
)
def test_unusable_data_are_refused(changes, said):
    with pytest.raises(UserError, match=said):
        listing(**changes)


def test_an_empty_listing_is_refused():
    empty = np.array([], dtype=np.int64)
    with pytest.raises(UserError, match="holds no usable image"):
        listing(paths=[], labels=empty, roles=empty.astype(str), class_names=[], super_labels=empty)


def test_the_fingerprint_depends_on_content_and_not_on_the_folder():
    known = listing().fingerprint
    assert listing(root=Path("elsewhere"), notes=("a note",)).fingerprint == known
    assert listing(class_names=["x", "y", "z"]).fingerprint == known
    others = [
        listing(paths=["a/1.jpg", "a/2.jpg", "b/1.jpg", "c/1.jpg", "c/3.jpg"]),
        listing(labels=np.array([0, 1, 1, 2, 2])),
        listing(super_labels=np.array([0, 1, 0])),
        listing(labels=np.array([0, 0, 1, 2, 2]), roles=halves(np.array([0, 0, 1, 2, 2]), 1)),
    ]
    assert len({known, *(other.fingerprint for other in others)}) == 5


def test_the_csv_has_a_row_for_each_image(tmp_path):
    listing().to_csv(tmp_path / "new" / "split.csv", {"fold_0": ["x", "x", "y", "", ""]})
    with open(tmp_path / "new" / "split.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["path", "label", "super_label", "split", "class_id", "fold_0"]
    assert rows[3] == ["b/1.jpg", "b", "high", "trainval", "1", "y"]
    assert rows[5] == ["c/2.jpg", "c, the third", "low", "test", "2", ""]
    assert len(rows) == 6


STRANGE = (
    "a,b", 'a"b', "it's", "a\nb", "a\rb", "a\r\nb", "\n", "caf\udce9", " a ", "a ", "a", "nan", "null", "-a", "#a",
    "=1+1", "a\\b", "é", "e\u0301", "10", "2", "~", "%20", "C:", "$HOME", "${a}", "x;y", "x\ty", "1.0", "1", "'q'",
    "   ", "m (0)",
)  # fmt: skip


@pytest.mark.bad_input("folder", "strange names")
@pytest.mark.parametrize("name", STRANGE)
def test_a_written_split_of_classes_with_strange_names_is_read_back(tmp_path, name):
    root = tmp_path / "root"
    for label in {name, name.strip() or "x", "m", "n"}:
        for file in ("1", "2", label):
            (root / "g" / label).mkdir(parents=True, exist_ok=True)
            (root / "g" / label / f"{file}.jpg").write_bytes(b"")
    found = folder.listing(str(root))
    found.to_csv(tmp_path / "split.csv", {"fold_0": ["train"] * len(found.paths)})
    again = manifest.listing(str(tmp_path / "split.csv"), root=str(root), order="class_id")
    assert again.fingerprint == found.fingerprint and again.super_names == found.super_names


def test_the_order_of_the_classes_is_written_even_if_images_are_not_sorted_by_it(tmp_path):
    given = listing(
        root=tmp_path,
        paths=["3.jpg", "1.jpg", "2.jpg", "4.jpg", "5.jpg", "0.jpg"],
        labels=np.array([1, 0, 0, 2, 2, 1]),
        roles=np.array(["trainval"] * 3 + ["test"] * 2 + ["trainval"]),
        class_names=["same", "same", "z"],
        super_names=["high", "low"],
    )
    given.to_csv(tmp_path / "split.csv")
    again = manifest.listing(str(tmp_path / "split.csv"), order="class_id", check="lists")
    assert again.fingerprint == given.fingerprint and again.class_names == ["same (0)", "same (1)", "z"]


@pytest.mark.parametrize("role", ["test", "query"])
def test_a_listing_may_be_for_testing_only(role):
    roles = np.array([role, "gallery" if role == "query" else role] * 3)
    found = listing(paths=[*"abcdef"], labels=np.array([0, 0, 1, 1, 2, 2]), roles=roles)
    assert len(found.classes("trainval")) == 0 and "trainval" not in found.counts_by_role()


@pytest.mark.parametrize("field", ["labels", "super_labels"])
def test_ids_that_are_not_whole_numbers_are_refused(field):
    ids = np.array([0.0, 0, 1, 2, np.nan]) if field == "labels" else np.array([1, np.nan, 0])
    with pytest.raises(ValueError, match=f"{field} has the type float64; it must hold integers"):
        listing(**{field: ids})


def test_counts_that_differ_are_all_in_the_message():
    expected = {"images": 6, "classes": 3, "trainval": {"images": 3, "classes": 4}, "query": {"images": 1234}}
    with pytest.raises(UserError) as caught:
        check_counts(listing(), expected, "Toys")
    said = "it has 5 images, not 6; 2 trainval classes, not 4; none query images, not 1,234."
    assert f"data does not hold the published Toys: {said}" in str(caught.value)
    assert "dataset.module.expected" in str(caught.value)


def test_sizes_of_classes_that_differ_are_in_the_message():
    # The classes have 2, 1 and 2 images, so 0 and 1 together 3.
    expected = {"smallest_class": 2, "largest_class": 3, "images_of_classes": {"0-1": 2, "1-2": 3, "2-2": 1}}
    with pytest.raises(UserError) as caught:
        check_counts(listing(), expected, "Toys")
    said = "1 smallest_class, not 2; 2 largest_class, not 3; 3 images_of_classes 0-1, not 2; 2 images_of_classes 2-2, "
    assert f"it has {said}not 1." in str(caught.value)


SIZES = {"smallest_class": 1, "largest_class": 2, "images_of_classes": {"0-1": 3, "2-2": 2}}


@pytest.mark.parametrize("expected", [None, {}, {"images": 5, "test": {"super_classes": 1}}, SIZES])
def test_counts_that_match_or_are_not_expected_pass(expected):
    assert check_counts(listing(), expected, "Toys").counts().images == 5


def test_groups_are_numbered_in_the_order_of_their_names():
    ids, names = grouped(["b", "a", "b", "c"])
    assert (ids.tolist(), names, ids.dtype) == ([1, 0, 1, 2], ["a", "b", "c"], np.int64)
