"""`sop`: Stanford Online Products, 120,053 pictures of 22,634 products in 12 categories.

Source: Song, Xiang, Jegelka, Savarese, "Deep Metric Learning via Lifted Structured Feature Embedding", CVPR 2016
(arXiv 1511.06452). The lists train on 11,318 products and test on 11,316. The Reality Check cuts at half of all
classes, 11,317: there the last product of the training list is a test class (`sop_cut`). Pictures are in the order of
the two lists.

Super classes are the categories, the same 12 on both sides.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.datasets.dataset_files import anywhere, check_pictures, need, need_base, read_rows
from benchmark.datasets.listing import Listing, check_counts, halves

FIELDS = {"image_id": int, "class_id": int, "super_class_id": int, "path": str}


def listing(
    root: str, *, sop_cut: int | None = None, expected: Mapping[str, Any] | None = None, check: str = "files"
) -> Listing:
    """The pictures of `Ebay_train.txt` and `Ebay_test.txt`, at `root` or in a folder or two below it.

    Args:
        root: folder of the data set.
        sop_cut: number of products to train on, 11,317 for the Reality Check's; None as the lists have it.
        expected: the published counts of the lists, see `check_counts`; the cut comes after it.
        check: `lists`, `files` or `images`, see `image_check.complaints`.

    Raises:
        ValueError: the data set is not there, incomplete, or another one, or the cut leaves one side empty.
    """
    train_list = need(root, "sop", *anywhere("Ebay_train.txt"))
    train = read_rows(train_list, FIELDS, skip=1)
    rows = train + read_rows(train_list.with_name("Ebay_test.txt"), FIELDS, skip=1)
    ids = sorted({class_id for _, class_id, _, _ in rows})
    if not train or ids != list(range(1, len(ids) + 1)):
        raise ValueError(f"{train_list} and Ebay_test.txt do not hold classes from 1 on. Fetch them anew.")
    base = need_base(root, "sop", rows[0][3], "", "*/", "*/*/")
    labels = np.array([class_id - 1 for _, class_id, _, _ in rows])
    categories = _categories(train_list, rows)
    super_ids = sorted(categories)
    group_of = {class_id: super_ids.index(group) for _, class_id, group, _ in rows}
    found = Listing(
        root=base,
        paths=[path for *_, path in rows],
        labels=labels,
        class_names=[f"{categories[super_ids[group_of[i]]]} {i}" for i in ids],
        super_labels=np.array([group_of[i] for i in ids]),
        super_names=[categories[i] for i in super_ids],
        roles=np.array(["trainval"] * len(train) + ["test"] * (len(rows) - len(train))),
    )
    check_counts(found, expected, "Stanford Online Products")
    if sop_cut is not None:
        if not 0 < sop_cut < len(ids):
            raise ValueError(f"sop: sop_cut={sop_cut}; give a number of classes from 1 to {len(ids) - 1}, or null.")
        found = dataclasses.replace(found, roles=halves(labels, sop_cut))
    return check_pictures(found, check)


def _categories(path: Path, rows: list[tuple[int, int, int, str]]) -> dict[int, str]:
    """The name of each super class, which is the folder of its pictures."""
    names: dict[int, str] = {}
    group_of: dict[int, int] = {}
    for _, class_id, group, picture in rows:
        name = picture.partition("/")[0].removesuffix("_final")
        if names.setdefault(group, name) != name or group_of.setdefault(class_id, group) != group:
            raise ValueError(f"{path.parent}: {picture} is of class {class_id} in two super classes. Fetch it anew.")
    return names
