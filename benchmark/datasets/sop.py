"""`sop`: Stanford Online Products, 120,053 images of 22,634 products in 12 categories.

Source: Song, Xiang, Jegelka, Savarese, "Deep Metric Learning via Lifted Structured Feature Embedding", CVPR 2016
(arXiv 1511.06452). The lists have 11,318 products for training and 11,316 for testing. The Reality Check splits all
classes in half, at 11,317, so the last product of the training list is a test class (`sop_cut`). Images are in the
order of the two lists.

Super classes are the categories, all 12 of which occur in both halves.
"""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmark.core.errors import UserError
from benchmark.datasets.dataset_files import read_rows, read_text
from benchmark.datasets.listing import Expected, Listing, check_counts, halves
from benchmark.datasets.published import LEVELS, Names, below, beside, complete, find_base, find_required
from benchmark.datasets.published_rows import at_line, distinct, inside, numbered

HEADER = "image_id class_id super_class_id path"
NAMES = Names(
    "sop",
    "Stanford Online Products",
    marks=(("Ebay_train.txt",), ("Ebay_test.txt",), ("Ebay_info.txt",), ("bicycle_final",)),
    archives=("*Online?Products*",),
    fetched=("Stanford_Online_Products.zip",),
    likely={59551: "the training list only", 60502: "the test list only"},
)


class _Row(NamedTuple):
    image_id: int
    class_id: int
    super_class_id: int
    path: str


def listing(
    root: str, *, sop_cut: int | None = None, expected: Expected | None = None, check: str = "files"
) -> Listing:
    """List the images of `Ebay_train.txt` and `Ebay_test.txt`, at `root` or up to three levels below it.

    Args:
        root: folder of the data set.
        sop_cut: number of products for training, 11,317 in the Reality Check; None: those of the training list.
        expected: the published counts of the lists, see `check_counts`; the cut is applied afterwards.
        check: `lists`, `files` or `images`, see `image_check.inspect`.

    Raises:
        MissingDataError: nothing of the data set was found.
        UserError: the folder is incomplete or holds another data set, or the cut leaves one half empty.
    """
    train_list = find_required(root, NAMES, *below("Ebay_train.txt"))
    test_list = beside(train_list, "Ebay_test.txt", NAMES)
    train, rows = _read(train_list, test_list)
    ids = sorted({row.class_id for row in rows})
    paths = [row.path for row in rows]
    base = find_base(root, NAMES, paths, *LEVELS)
    labels = np.array([row.class_id - 1 for row in rows])
    categories = _categories(train_list, rows)
    super_ids = sorted(categories)
    group_of = {row.class_id: super_ids.index(row.super_class_id) for row in rows}
    found = Listing(
        root=base,
        paths=paths,
        labels=labels,
        class_names=[f"{categories[super_ids[group_of[i]]]} {i}" for i in ids],
        super_labels=np.array([group_of[i] for i in ids]),
        super_names=[categories[i] for i in super_ids],
        roles=np.array(["trainval"] * len(train) + ["test"] * (len(rows) - len(train))),
    )
    check_counts(found, expected, NAMES.label, NAMES.likely)
    if sop_cut is not None:
        if not 0 < sop_cut < len(ids):
            raise UserError(f"sop: sop_cut={sop_cut}; give a number of classes from 1 to {len(ids) - 1}, or null.")
        found = dataclasses.replace(found, roles=halves(labels, sop_cut))
    return complete(found, NAMES, None, check)


def _read(train_list: Path, test_list: Path) -> tuple[list[_Row], list[_Row]]:
    """Return the rows of the training list, and those of both lists."""
    train, test = (_rows(path) for path in (train_list, test_list))
    rows = train + test
    first, second = at_line(train_list, skip=1), at_line(test_list, skip=1)

    def where(row: int) -> str:
        return first(row) if row < len(train) else second(row - len(train))

    distinct([row.image_id for row in rows], where, "image id")
    numbered([row.class_id for row in train], first)  # the training list has the first ones
    numbered([row.class_id for row in rows], where)
    numbered([row.super_class_id for row in rows], where, what="super class")
    paths = inside([row.path for row in rows], where)
    rows = [row._replace(path=path) for row, path in zip(rows, paths, strict=True)]
    return rows[: len(train)], rows


def _rows(path: Path) -> list[_Row]:
    rows = read_rows(path, _Row, skip=1)
    if read_text(path).splitlines()[:1] and read_text(path).split(None, 4)[:4] != HEADER.split():
        raise UserError(f"{path}, line 1: the header {HEADER!r} is missing. Download it again.")
    if not rows:
        raise UserError(f"{path} is empty. Download it again.")
    return rows


def _categories(path: Path, rows: list[_Row]) -> dict[int, str]:
    """Return the name of each super class, which is the folder of its images."""
    names: dict[int, str] = {}
    group_of: dict[int, int] = {}
    for row in rows:
        name, group = row.path.partition("/")[0].removesuffix("_final"), row.super_class_id
        if names.setdefault(group, name) != name or group_of.setdefault(row.class_id, group) != group:
            raise UserError(
                f"{path.parent}: {row.path} is of class {row.class_id}, which has two super classes. Download it again."
            )
    return names
