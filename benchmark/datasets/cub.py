"""`cub`: Caltech-UCSD Birds-200-2011, 11,788 images of 200 species; the first 100 species are for training.

Source: Wah, Branson, Welinder, Perona, Belongie, "The Caltech-UCSD Birds-200-2011 Dataset", CNS-TR-2011-001. Split by
class id as in Song et al., CVPR 2016 (arXiv 1511.06452); the archive's own `train_test_split.txt` divides the images
of every class and is not used. Images are sorted by class id, then by file name, as in torchvision's ImageFolder, which
the Reality Check's code uses; so a copy without the lists gives an identical data set.

The archive has no hierarchy. A species' super class is the last word of its name: Albatross, Sparrow, Warbler.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmark.core.errors import UserError
from benchmark.datasets.dataset_files import read_rows
from benchmark.datasets.image_tree import INCOMPLETE, ImageTree
from benchmark.datasets.listing import Expected, Listing, grouped, halves
from benchmark.datasets.published import LEVELS, Names, below, beside, complete, find_base, find_required
from benchmark.datasets.published_rows import at_line, distinct, inside, numbered

NAMES = Names(
    "cub",
    "CUB-200-2011",
    marks=(("images.txt", "image_class_labels.txt"), ("images/001.*", "002.*"), ("001.Black*",)),
    archives=("CUB*200*2011*",),
    fetched=("CUB_200_2011.tgz",),
    likely={
        6033: "the older CUB-200 of 2010, another data set",
        5994: "the official training part only, which has images of all classes",
        5794: "the official test part only, which has images of all classes",
        5864: "the first 100 classes only",
        5924: "the last 100 classes only",
    },
)


class _ImageRow(NamedTuple):
    image_id: int
    path: str


class _ClassRow(NamedTuple):
    image_id: int
    class_id: int


def listing(root: str, *, expected: Expected | None = None, check: str = "files") -> Listing:
    """List the images of `CUB_200_2011`, at `root` or up to three levels below it.

    Args:
        root: folder of the data set.
        expected: the published counts, see `check_counts`.
        check: `lists`, `files` or `images`, see `image_check.inspect`.

    Raises:
        MissingDataError: nothing of the data set was found.
        UserError: the folder is incomplete or holds another data set.
    """
    patterns = [pattern for name in ("images.txt", "images/001.*", "001.*") for pattern in below(name)]
    mark = find_required(root, NAMES, *patterns)
    rows, notes = (_listed(mark), ()) if mark.is_file() else _in_folders(mark.parent)
    ids = sorted({class_id for class_id, _ in rows})
    folders = {class_id: path.partition("/")[0] for class_id, path in rows}
    labels = np.searchsorted(ids, [class_id for class_id, _ in rows])
    super_labels, super_names = grouped(folders[i].rpartition("_")[2].rpartition(".")[2] for i in ids)
    paths = [path for _, path in rows]
    found = Listing(
        root=_base(root, mark, paths) if mark.is_file() else mark.parent,
        paths=paths,
        labels=labels,
        class_names=[folders[i].partition(".")[2] or folders[i] for i in ids],
        super_labels=super_labels,
        super_names=super_names,
        roles=halves(labels, len(ids) // 2),
        notes=notes,
    )
    return complete(found, NAMES, expected, check)


def _base(root: str, mark: Path, paths: list[str]) -> Path:
    places = [level + name for name in ("images/", "") for level in LEVELS]
    return find_base(mark.parent if (mark.parent / "images").is_dir() else root, NAMES, paths, *places)


def _listed(path: Path) -> list[tuple[int, str]]:
    """Read class id and path of every image from the archive's lists."""
    classes_path = beside(path, "image_class_labels.txt", NAMES)
    images, classes = read_rows(path, _ImageRow), read_rows(classes_path, _ClassRow)
    if [row.image_id for row in images] != [row.image_id for row in classes] or not images:
        raise UserError(f"{path.parent}: images.txt and {classes_path.name} name different images. Download it again.")
    distinct([row.image_id for row in images], at_line(path), "image id")
    paths = inside([row.path for row in images], at_line(path))
    ids = [row.class_id for row in classes]
    numbered(ids, at_line(classes_path))
    for row, (name, class_id) in enumerate(zip(paths, ids, strict=True)):
        if _class_id(name.partition("/")[0]) != class_id:
            raise UserError(
                f"{at_line(classes_path)(row)}: the image {name} is said to be of class {class_id}, but it is in the "
                "folder of another one. The list is damaged or was changed; download it again."
            )
    return sorted(zip(ids, paths, strict=True))


def _in_folders(images: Path) -> tuple[list[tuple[int, str]], tuple[str, ...]]:
    """Derive class id and path of every image from the folders alone; and note what else is in them."""
    tree = ImageTree(images, depth=1)
    tree.check(INCOMPLETE)
    folders = [(_class_id(name), name) for name in tree.images]
    rows = sorted((number, f"{name}/{file}") for number, name in folders for file in tree.images[name])
    ids = sorted({number for number, _ in rows})
    if gap := next((i for i, number in enumerate(ids, start=1) if i != number), None):
        last = f"{len(folders):,} folders of classes up to {folders[-1][1]}"
        raise UserError(
            f"{images} has {last}, but no image of class {gap:03}. The copy is incomplete; download it again."
        )
    if len(folders) != len(ids):
        raise UserError(f"{images} has two folders for one class. Download it again.")
    return rows, tree.notes


def _class_id(folder: str) -> int:
    number = folder.partition(".")[0]
    if not (number.isascii() and number.isdecimal() and len(number) < 10):
        raise UserError(
            f"images/{folder} is not a class of CUB, whose folders have names like 001.Black_footed_Albatross."
        )
    return int(number)
