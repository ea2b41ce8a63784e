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
from benchmark.datasets.dataset_files import find_base, find_required, read_rows, up_to_two_levels
from benchmark.datasets.image_check import check_images
from benchmark.datasets.listing import Expected, Listing, check_counts, halves


class _Row(NamedTuple):
    image_id: int
    class_id: int
    super_class_id: int
    path: str


def listing(
    root: str, *, sop_cut: int | None = None, expected: Expected | None = None, check: str = "files"
) -> Listing:
    """List the images of `Ebay_train.txt` and `Ebay_test.txt`, at `root` or up to two levels below it.

    Args:
        root: folder of the data set.
        sop_cut: number of products for training, 11,317 in the Reality Check; None: those of the training list.
        expected: the published counts of the lists, see `check_counts`; the cut is applied afterwards.
        check: `lists`, `files` or `images`, see `image_check.find_problems`.

    Raises:
        MissingDataError: the data set was not found.
        UserError: the folder is incomplete or holds another data set, or the cut leaves one half empty.
    """
    train_list = find_required(root, "sop", *up_to_two_levels("Ebay_train.txt"))
    train = read_rows(train_list, _Row, skip=1)
    rows = train + read_rows(train_list.with_name("Ebay_test.txt"), _Row, skip=1)
    ids = sorted({row.class_id for row in rows})
    if not train or ids != list(range(1, len(ids) + 1)):
        raise UserError(f"{train_list} and Ebay_test.txt do not hold classes numbered from 1. Download them again.")
    base = find_base(root, "sop", rows[0].path, "", "*/", "*/*/")
    labels = np.array([row.class_id - 1 for row in rows])
    categories = _categories(train_list, rows)
    super_ids = sorted(categories)
    group_of = {row.class_id: super_ids.index(row.super_class_id) for row in rows}
    found = Listing(
        root=base,
        paths=[row.path for row in rows],
        labels=labels,
        class_names=[f"{categories[super_ids[group_of[i]]]} {i}" for i in ids],
        super_labels=np.array([group_of[i] for i in ids]),
        super_names=[categories[i] for i in super_ids],
        roles=np.array(["trainval"] * len(train) + ["test"] * (len(rows) - len(train))),
    )
    check_counts(found, expected, "Stanford Online Products")
    if sop_cut is not None:
        if not 0 < sop_cut < len(ids):
            raise UserError(f"sop: sop_cut={sop_cut}; give a number of classes from 1 to {len(ids) - 1}, or null.")
        found = dataclasses.replace(found, roles=halves(labels, sop_cut))
    return check_images(found, check)


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
