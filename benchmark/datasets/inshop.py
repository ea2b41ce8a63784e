"""`inshop`: DeepFashion In-Shop Clothes Retrieval, 52,712 pictures of 7,982 items.

Source: Liu, Luo, Qiu, Wang, Tang, "DeepFashion: Powering Robust Clothes Recognition and Retrieval with Rich
Annotations", CVPR 2016. `list_eval_partition.txt` says what a picture is for: 3,997 items are trained on, 3,985 others
have query pictures, which are searched among their gallery pictures. No picture is both, so nothing is its own
neighbour. Ids of items alternate between the two sides; here the trained ones come first, each side in the order of
its ids.

Super classes are the folders of gender and category, such as WOMEN/Dresses. (HPL's paper prints 72,712 images and 7,986
classes; its own parts add up to the numbers above.)
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.datasets.dataset_files import anywhere, check_pictures, need, need_base, read_rows
from benchmark.datasets.listing import Listing, check_counts, grouped

LIST = "list_eval_partition.txt"
LIST_SHA256 = "cfada103c44df866db5e2ee9ecc2301ca691a4d0cdb3c875fe4051b62570894c"  # of a third party; none is official
ROLE = {"train": "trainval", "query": "query", "gallery": "gallery"}
IN = ("", "*/", "*/*/")


def listing(
    root: str,
    *,
    pictures: str | None = None,
    expected: Mapping[str, Any] | None = None,
    check: str = "files",
) -> Listing:
    """The pictures of `list_eval_partition.txt`, in `Img/img`, `img` or `img_highres` below `root`.

    Args:
        root: folder of the data set.
        pictures: `img` (256 pixels wide) or `img_highres`; None takes the first of them that is there.
        expected: the published counts, see `check_counts`.
        check: `lists`, `files` or `images`, see `image_check.complaints`.

    Raises:
        ValueError: the data set is not there, incomplete, or another one.
    """
    path = need(root, "inshop", *anywhere(LIST), *anywhere(f"Eval/{LIST}"))
    rows = read_rows(path, {"image_name": str, "item_id": str, "evaluation_status": str}, skip=2)
    if strange := next((row for row in rows if row[2] not in ROLE or row[0].count("/") < 3), None):
        raise ValueError(f"{path}: {' '.join(strange)!r} has no status of {', '.join(ROLE)}, or no category.")
    if pictures not in (None, "img", "img_highres"):
        raise ValueError(f"inshop: pictures={pictures!r}; give img, img_highres, or null for the first that is there.")
    if not rows:
        raise ValueError(f"{path} is empty. Fetch it anew.")
    below = [(name.partition("/")[2], item, ROLE[status]) for name, item, status in rows]  # without img/
    kinds = [pictures] if pictures else ["img", "img_highres"]
    base = need_base(root, "inshop", below[0][0], *[f"{a}{b}{c}/" for c in kinds for b in ("Img/", "") for a in IN])
    trained = {item for _, item, role in below if role == "trainval"}
    items = sorted({item for _, item, _ in below}, key=lambda item: (item not in trained, item))
    id_of = {item: i for i, item in enumerate(items)}
    group_of: dict[str, str] = {}
    for name, item, _ in below:
        group_of.setdefault(item, "/".join(name.split("/")[:2]))
    several = {item for name, item, _ in below if not name.startswith(f"{group_of[item]}/")}
    super_labels, super_names = grouped(group_of[item] for item in items)
    found = Listing(
        root=base.parent,
        paths=[f"{base.name}/{name}" for name, _, _ in below],
        labels=np.array([id_of[item] for _, item, _ in below]),
        class_names=items,
        super_labels=super_labels,
        super_names=super_names,
        roles=np.array([role for _, _, role in below]),
        notes=_notes(path, len(several), published=expected is not None),
    )
    return check_pictures(check_counts(found, expected, "In-Shop Clothes Retrieval"), check)


def _notes(path: Path, num_several: int, *, published: bool) -> tuple[str, ...]:
    notes = [f"{num_several} items lie in several categories; the first one counts"] * (num_several > 0)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if published and found != LIST_SHA256:
        notes.append(
            f"{LIST} differs from the copy that others use: its sha256 is {found}, theirs {LIST_SHA256}. None is "
            "official, and the counts are right; see that it comes from its authors"
        )
    return tuple(notes)
