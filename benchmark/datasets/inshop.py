"""`inshop`: DeepFashion In-Shop Clothes Retrieval, 52,712 images of 7,982 items.

Source: Liu, Luo, Qiu, Wang, Tang, "DeepFashion: Powering Robust Clothes Recognition and Retrieval with Rich
Annotations", CVPR 2016. `list_eval_partition.txt` has the role of each image: 3,997 items are for training; 3,985
others have query images, which are matched with their gallery images. No image is both, so none is its own neighbour.
Item ids alternate between the two halves; here the training items come first, and each half is sorted by id.

Super classes are the folders of gender and category, such as WOMEN/Dresses. (The HPL paper states 72,712 images and
7,986 classes, but its own parts add up to the numbers above.)
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmark.core.errors import UserError
from benchmark.datasets.dataset_files import find_base, find_required, read_rows, up_to_two_levels
from benchmark.datasets.image_check import check_images
from benchmark.datasets.listing import Expected, Listing, check_counts, grouped

LIST = "list_eval_partition.txt"
LIST_SHA256 = "cfada103c44df866db5e2ee9ecc2301ca691a4d0cdb3c875fe4051b62570894c"  # of a common copy; none is official
ROLE = {"train": "trainval", "query": "query", "gallery": "gallery"}
FOLDERS = ("img", "img_highres")
PLACES = ("", "*/", "*/*/")


class _Row(NamedTuple):
    image_name: str
    item_id: str
    evaluation_status: str


def listing(
    root: str,
    *,
    pictures: str | None = None,
    expected: Expected | None = None,
    check: str = "files",
) -> Listing:
    """List the images of `list_eval_partition.txt`, in `Img/img`, `img` or `img_highres` below `root`.

    Args:
        root: folder of the data set.
        pictures: folder of the images, `img` (256 pixels wide) or `img_highres`; None: the first of them that exists.
        expected: the published counts, see `check_counts`.
        check: `lists`, `files` or `images`, see `image_check.find_problems`.

    Raises:
        MissingDataError: the data set was not found.
        UserError: the folder is incomplete or holds another data set.
    """
    path = find_required(root, "inshop", *up_to_two_levels(LIST), *up_to_two_levels(f"Eval/{LIST}"))
    rows = _read(path)
    if pictures not in (None, *FOLDERS):
        raise UserError(f"inshop: pictures={pictures!r}; give img, img_highres, or null for the first that exists.")
    names = [row.image_name.partition("/")[2] for row in rows]  # without img/
    places = [f"{a}{b}{c}/" for c in ([pictures] if pictures else FOLDERS) for b in ("Img/", "") for a in PLACES]
    base = find_base(root, "inshop", names[0], *places)
    trained = {row.item_id for row in rows if row.evaluation_status == "train"}
    items = sorted({row.item_id for row in rows}, key=lambda item: (item not in trained, item))
    id_of = {item: i for i, item in enumerate(items)}
    group_of: dict[str, str] = {}
    for row, name in zip(rows, names, strict=True):
        group_of.setdefault(row.item_id, "/".join(name.split("/")[:2]))
    several = {
        row.item_id for row, name in zip(rows, names, strict=True) if not name.startswith(f"{group_of[row.item_id]}/")
    }
    super_labels, super_names = grouped(group_of[item] for item in items)
    found = Listing(
        root=base.parent,
        paths=[f"{base.name}/{name}" for name in names],
        labels=np.array([id_of[row.item_id] for row in rows]),
        class_names=items,
        super_labels=super_labels,
        super_names=super_names,
        roles=np.array([ROLE[row.evaluation_status] for row in rows]),
        notes=_notes(path, len(several), published=expected is not None),
    )
    return check_images(check_counts(found, expected, "In-Shop Clothes Retrieval"), check)


def _read(path: Path) -> list[_Row]:
    rows = read_rows(path, _Row, skip=2)
    if bad := next((row for row in rows if row.evaluation_status not in ROLE or row.image_name.count("/") < 3), None):
        raise UserError(f"{path}: {' '.join(bad)!r} has no status of {', '.join(ROLE)}, or no category.")
    if not rows:
        raise UserError(f"{path} is empty. Download it again.")
    return rows


def _notes(path: Path, num_several: int, *, published: bool) -> tuple[str, ...]:
    notes = [f"{num_several} items belong to several categories; the first one counts"] * (num_several > 0)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if published and found != LIST_SHA256:
        notes.append(
            f"{LIST} differs from the copy in common use: its sha256 is {found}, not {LIST_SHA256}. Neither is "
            "official, and the counts are right; check that it comes from its authors"
        )
    return tuple(notes)
