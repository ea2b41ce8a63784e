"""`csv`: a user's own images in a list, and everything that can be wrong with the list."""

import csv

import pytest

from benchmark.core.errors import UserError
from benchmark.datasets import cub, manifest
from tests.datasets import trees

ROWS = [
    ("c/1.jpg", "c", "low"), ("c/2.JPG", "c", "low"), ("a/1.png", "a", "low"), ("a/2.png", "a", "low"),
    ("b/1.jpg", "b", "high"), ("b/2.jpg", "b", "high"), ("d/1.jpg", "d", "high"), ("d/2.jpg", "d", "high"),
]  # fmt: skip


def table(path, rows=ROWS, header=("path", "label", "super_label"), images=True):
    """Write a CSV file and its images, and return its path as text."""
    for row in rows if images else []:
        trees.write_image(path.parent / row[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


def parts(found):
    """Return the names of the training classes, and of the others."""
    return [
        [found.class_names[i] for i in found.classes(*roles)] for roles in (("trainval",), ("test", "query", "gallery"))
    ]


@pytest.mark.parametrize(
    ("order", "sides"), [("appearance", [["c", "a"], ["b", "d"]]), ("sorted", [["a", "b"], ["c", "d"]])]
)
def test_the_first_half_of_the_classes_is_trained_on_in_either_order(tmp_path, order, sides):
    found = manifest.listing(table(tmp_path / "mine.csv"), order=order, check="images")
    assert parts(found) == sides
    assert found.paths == [row[0] for row in ROWS]
    assert [found.super_names[found.super_labels[i]] for i in found.labels] == [row[2] for row in ROWS]


def test_a_given_split_is_kept_for_any_order(tmp_path):
    split = {"a": "test", "b": "train", "c": "test", "d": "trainval"}
    rows = [(path, label, split[label]) for path, label, _ in ROWS]
    found = manifest.listing(table(tmp_path / "mine.csv", rows, ("path", "label", "split")))
    assert parts(found) == [["b", "d"], ["c", "a"]]
    assert found.super_names == ["(none)"]


def test_query_and_gallery_are_kept(tmp_path):
    roles = ["trainval"] * 4 + ["query", "gallery"] * 2
    rows = [(*row[:2], role) for row, role in zip(ROWS, roles, strict=True)]
    found = manifest.listing(table(tmp_path / "mine.csv", rows, ("path", "label", "split")))
    assert found.roles.tolist() == roles


def test_paths_may_be_relative_to_another_folder_and_other_columns_are_ignored(tmp_path):
    table(tmp_path / "pictures" / "unused.csv")
    rows = [(path, "?", label) for path, label, _ in ROWS]
    path = table(tmp_path / "lists" / "mine.csv", rows, ("path", "photographer", " label "), images=False)
    assert manifest.listing(path, root=str(tmp_path / "pictures")).root == tmp_path / "pictures"
    with pytest.raises(UserError, match=r"8 of 8 images.*\n  line 2: c/1\.jpg is missing"):
        manifest.listing(path)


def test_an_exported_split_is_read_back(tmp_path):
    found = cub.listing(str(trees.cub(tmp_path)))
    found.to_csv(tmp_path / "split.csv")
    again = manifest.listing(str(tmp_path / "split.csv"), root=str(found.root))
    assert again.fingerprint == found.fingerprint
    assert again.class_names == found.class_names


@pytest.mark.parametrize(
    ("header", "rows", "said"),
    [
        (("path", "class"), [("a", "b")], r"mine\.csv has the columns path, class; it needs path and label"),
        (("path;class",), [("a;b",)], r"has the columns path, class; it needs .* separated by commas"),
        (("path", "label", "label"), [("a", "b", "b")], "label may be there once only"),
        (("path", "label"), [], "has a header and no rows"),
        (("path", "label"), [("a", "b"), ("c",)], "line 3: the row has fewer fields"),
        (("path", "label"), [("a", "b", "c")], "line 2: the row has more fields"),
        (("path", "label"), [("a", " ")], "line 2: label is empty"),
        (
            ("path", "label", "split"),
            [("a", "b", "fold 1")],
            "line 2: split='fold 1'; allowed are train, trainval, test",
        ),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_its_line(tmp_path, header, rows, said):
    with pytest.raises(UserError, match=said):
        manifest.listing(table(tmp_path / "mine.csv", rows, header, images=False))


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b'path,label\n"a,b\n'])
def test_a_file_that_is_not_csv_is_refused(tmp_path, content):
    (tmp_path / "mine.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"mine\.csv"):
        manifest.listing(str(tmp_path / "mine.csv"))


def test_a_file_that_is_missing_or_not_named_says_how_to_name_it(tmp_path):
    for path in ("", str(tmp_path), str(tmp_path / "no.csv")):
        with pytest.raises(UserError, match=r"There is no file .* make data DATASET=csv CSV="):
            manifest.listing(path)


@pytest.mark.parametrize(("option", "value"), [("order", "random"), ("on_bad", "ignore"), ("check", "all")])
def test_unknown_options_are_refused(tmp_path, option, value):
    with pytest.raises(UserError, match=f"{option}='{value}': allowed are"):
        manifest.listing(table(tmp_path / "mine.csv"), **{option: value})


# -- what cannot be used ----------------------------------------------------------------------------------------------

GOOD = [(f"{label}/{i}.jpg", label, "group") for label in "wxyz" for i in range(2)]
BAD = [
    ([("lost.jpg", "w", "group")], "line 10: lost.jpg is missing", "1 is missing"),
    ([("broken.jpg", "w", "group")], "line 10: broken.jpg cannot be decoded", "1 cannot be decoded"),
    ([("w/0.jpg", "w", "group")], "line 10: w/0.jpg is named twice (first: line 2)", "1 is named twice"),
    ([("lone.jpg", "lone", "group")], "line 10: lone.jpg is the only one of its class ('lone')", "1 is the only one"),
    (
        [("v/0.jpg", "v", "group"), ("v/1.jpg", "v", "other")],
        "line 10: v/0.jpg is of a label with two super classes ('v': 'group' and 'other')",
        "2 are of a label with two super classes",
    ),
]


def with_bad(tmp_path, rows):
    path = table(tmp_path / "mine.csv", [*GOOD, *rows])
    (tmp_path / "lost.jpg").unlink(missing_ok=True)
    if (tmp_path / "broken.jpg").exists():
        (tmp_path / "broken.jpg").write_bytes(b"broken")
    return path


@pytest.mark.parametrize(("rows", "said", "_"), BAD)
def test_a_row_that_cannot_be_used_stops_and_is_named(tmp_path, rows, said, _):
    with pytest.raises(UserError) as caught:
        manifest.listing(with_bad(tmp_path, rows), check="images")
    first, row, *_, last = str(caught.value).splitlines()
    assert first == f"{len(rows)} of {8 + len(rows)} images in {tmp_path} cannot be used:"
    assert row.startswith(f"  {said}")
    assert last.endswith("ARGS=dataset.module.on_bad=leave_out")


@pytest.mark.parametrize(("rows", "_", "said"), BAD)
def test_a_row_that_cannot_be_used_is_skipped_and_counted(tmp_path, rows, _, said):
    found = manifest.listing(with_bad(tmp_path, rows), check="images", on_bad="leave_out")
    clean = manifest.listing(table(tmp_path / "clean.csv", GOOD))
    assert found.fingerprint == clean.fingerprint
    assert found.notes[0].startswith(
        f"{len(rows)} of {8 + len(rows)} images {'is' if len(rows) == 1 else 'are'} skipped: {said}"
    )


def test_a_class_with_one_image_left_is_skipped_too(tmp_path):
    path = table(tmp_path / "mine.csv", GOOD)
    (tmp_path / "x" / "0.jpg").unlink()
    found = manifest.listing(path, on_bad="leave_out")
    assert found.class_names == ["w", "y", "z"]
    assert (
        found.notes[0] == "2 of 8 images are skipped: 1 is missing (x/0.jpg), 1 is the only one of its class (x/1.jpg)"
    )


def test_queries_without_a_gallery_are_named(tmp_path):
    roles = ["trainval"] * 4 + ["query"] * 2 + ["query", "gallery"]
    rows = [(*row[:2], role) for row, role in zip(GOOD, roles, strict=True)]
    with pytest.raises(UserError, match=r"y/0\.jpg is of a class without gallery images \('y'\)"):
        manifest.listing(table(tmp_path / "mine.csv", rows, ("path", "label", "split")))


def test_a_class_in_both_halves_is_refused(tmp_path):
    rows = [(*row[:2], ("trainval", "test")[i % 2]) for i, row in enumerate(GOOD)]
    with pytest.raises(UserError, match="are both for training and for testing, such as 'w'"):
        manifest.listing(table(tmp_path / "mine.csv", rows, ("path", "label", "split")))


def test_no_usable_class_is_refused(tmp_path):
    with pytest.raises(UserError, match="has 0 usable classes"):
        manifest.listing(table(tmp_path / "mine.csv", GOOD, images=False), on_bad="leave_out")
