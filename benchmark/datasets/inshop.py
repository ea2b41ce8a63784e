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
from benchmark.datasets.dataset_files import read_rows, read_text
from benchmark.datasets.listing import Expected, Listing, grouped
from benchmark.datasets.published import LEVELS, Names, below, complete, find_base, find_required
from benchmark.datasets.published_rows import at_line, inside

LIST = "list_eval_partition.txt"
NAMES = Names(
    "inshop",
    "In-Shop Clothes Retrieval",
    marks=((LIST,), (f"Eval/{LIST}",), ("list_bbox_inshop.txt",), ("img_highres",), ("WOMEN/Dresses",), ("img/WOMEN",)),
    archives=("img", "img_highres", "In-shop*Clothes*", "Eval"),
    likely={25882: "the training part only", 26830: "the queries and the gallery only"},
)
LIST_SHA256 = "cfada103c44df866db5e2ee9ecc2301ca691a4d0cdb3c875fe4051b62570894c"  # of a common copy; none is official
ROLE = {"train": "trainval", "query": "query", "gallery": "gallery"}
FOLDERS = ("img", "img_highres")


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
        check: `lists`, `files` or `images`, see `image_check.inspect`.

    Raises:
        MissingDataError: nothing of the data set was found.
        UserError: the folder is incomplete or holds another data set.
    """
    path = find_required(root, NAMES, *below(LIST), *below(f"Eval/{LIST}"))
    rows = _read(path)
    if pictures not in (None, *FOLDERS):
        raise UserError(f"inshop: pictures={pictures!r}; give img, img_highres, or null for the first that exists.")
    names = [row.image_name.partition("/")[2] for row in rows]  # without img/
    places = [f"{a}{b}{c}/" for c in ([pictures] if pictures else FOLDERS) for b in ("Img/", "") for a in LEVELS]
    base = find_base(root, NAMES, names, *places)
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
    return complete(found, NAMES, expected, check)


def _read(path: Path) -> list[_Row]:
    rows = read_rows(path, _Row, skip=2)
    head = [line.split() for line in read_text(path).splitlines()[:2]]
    if rows and (len(head) < 2 or len(head[0]) != 1 or not head[0][0].isdecimal() or head[1] != [*_Row._fields]):
        raise UserError(f"{path} should begin with a number and a line {' '.join(_Row._fields)!r}. Download it again.")
    if rows and int(head[0][0][:12]) != len(rows):
        raise UserError(f"{path} has {len(rows):,} images, but {head[0][0]} in its first line. Download it again.")
    where = at_line(path, skip=2)
    paths = inside([row.image_name for row in rows], where)
    rows = [row._replace(image_name=name) for row, name in zip(rows, paths, strict=True)]
    for number, row in enumerate(rows):
        if row.evaluation_status not in ROLE or row.image_name.count("/") < 3:
            raise UserError(f"{where(number)}: {' '.join(row)!r} has no status of {', '.join(ROLE)}, or no category.")
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
