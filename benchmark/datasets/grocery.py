"""`grocery`: Grocery Store Dataset, 5,421 photographs of 81 products in 43 groups, taken with a phone in shops.

Source: Klasson, Zhang, Kjellström, "A Hierarchical Grocery Store Image Dataset with Visual and Semantic Labels", WACV
2019 (arXiv 1901.00711), and github.com/marcusklasson/GroceryStoreDataset. The paper counts 5,125 photographs, which are
those of `train.txt` and `test.txt`; `val.txt` has another 296.

All three lists have images of the same classes. For metric learning, classes are divided by their number instead, as in
the other data sets: products 0 to 40 are for training, 41 to 80 for testing. Images are in the order of the lists, one
list after the other, which is that of their authors and depends on no file system.

Super classes are the groups of `classes.csv`, such as Apple or Juice. One of them, Milk, has products in both halves.
The iconic images and the descriptions of the products are not used.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmark.core import records
from benchmark.core.archives import Limits, unpack
from benchmark.core.errors import UserError
from benchmark.datasets.dataset_files import read_rows
from benchmark.datasets.listing import Expected, Listing, check_counts, halves
from benchmark.datasets.published import (
    Names,
    archive_in,
    below,
    beside,
    complete,
    find,
    find_base,
    find_required,
    folder_of,
)
from benchmark.datasets.published_rows import at_entry, at_line, distinct, inside, numbered

LISTS = ("train.txt", "val.txt", "test.txt")
LISTS_SHA256 = "00d586ed25a29c885afc494acb63535799b0a71fd2d194c989b2f0bc8b6ed06e"  # of the lists, one after the other
LIMITS = Limits(members=20_000, bytes=2_000_000_000)  # of an archive
NAMES = Names(
    "grocery",
    "Grocery Store Dataset",
    marks=(("classes.csv", "train.txt", "test.txt"), ("dataset/classes.csv",), ("iconic-images-and-descriptions",)),
    archives=("*grocery*",),
    fetched=("GroceryStoreDataset-master.zip",),
    likely={2640: "train.txt only", 2485: "test.txt only", 296: "val.txt only", 5125: "train.txt and test.txt only"},
)


class _Row(NamedTuple):
    path: str
    fine: int
    coarse: int


class _ClassRow(NamedTuple):
    name: str
    fine: int
    group: str
    coarse: int
    icon: str
    description: str


def listing(root: str, *, num_trainval: int = 41, expected: Expected | None = None, check: str = "files") -> Listing:
    """List the images of `train.txt`, `val.txt` and `test.txt`, at `root` or up to three levels below it.

    An archive of the repository that lies in `root` is unpacked there.

    Args:
        root: folder of the data set.
        num_trainval: number of products for training, those with the lowest numbers.
        expected: the published counts, see `check_counts`; with None, the lists may differ from the published ones too.
        check: `lists`, `files` or `images`, see `image_check.inspect`.

    Raises:
        MissingDataError: nothing of the data set was found.
        UserError: the folder is incomplete or holds another data set, or its archive cannot be unpacked.
    """
    folder = folder_of(root, NAMES)
    places = below("classes.csv", "dataset/classes.csv")
    if find(folder, *places) is None and (archive := archive_in(folder, NAMES)):
        _unpack(archive)
    classes = find_required(root, NAMES, *places)
    rows = _read([beside(classes, name, NAMES) for name in LISTS])
    products = _products(classes, rows)
    if not 0 < num_trainval < len(products):
        raise UserError(f"grocery: num_trainval={num_trainval}; give 1 to {len(products) - 1}.")
    paths = [row.path for row in rows]
    labels = np.array([row.fine for row in rows])
    found = Listing(
        root=find_base(classes.parent, NAMES, paths, "", "*/"),
        paths=paths,
        labels=labels,
        class_names=[row.name for row in products],
        super_labels=np.array([row.coarse for row in products]),
        super_names=[name for _, name in sorted({row.coarse: row.group for row in products}.items())],
        roles=halves(labels, num_trainval),
        notes=_notes(products, num_trainval),
    )
    check_counts(found, expected, NAMES.label, NAMES.likely)
    if expected is not None and (digest := _digest(rows)) != LISTS_SHA256:
        raise UserError(
            f"The lists in {classes.parent} are not the published ones: one after the other, their sha256 is {digest}, "
            f"not {LISTS_SHA256}. Download them again, or set dataset.module.expected=null to use them as they are."
        )
    return complete(found, NAMES, None, check)


def _notes(products: list[_ClassRow], num_trainval: int) -> tuple[str, ...]:
    first, second = ({row.group for row in part} for part in (products[:num_trainval], products[num_trainval:]))
    both = sorted(first & second)
    return (f"super classes with products in both halves: {', '.join(both)}",) if both else ()


def _unpack(archive: Path) -> None:
    """Unpack an archive into a folder next to it.

    Raises:
        UserError: it cannot be unpacked, or nothing can be written there.
    """
    folder = archive.with_name(archive.name.partition(".")[0])
    try:
        with records.only_one(archive.with_name(".lock"), f"The folder {archive.parent}"):
            unpack(archive, folder, limits=LIMITS)
    except OSError as error:
        raise UserError(
            f"{archive} cannot be unpacked next to itself: {error.strerror or error}. Unpack it elsewhere, and name "
            "that folder as dataset.module.root."
        ) from error


def _read(paths: list[Path]) -> list[_Row]:
    """Return the rows of the lists, one after the other."""
    whole: list[_Row] = []
    for path in paths:
        rows = read_rows(path, _Row, separator=",")
        if not rows:
            raise UserError(f"{path} is empty. Download it again.")
        names = inside([row.path for row in rows], at_line(path))
        whole += [row._replace(path=name) for row, name in zip(rows, names, strict=True)]
    return whole


def _products(path: Path, rows: list[_Row]) -> list[_ClassRow]:
    """Return the rows of `classes.csv` by class number, if they agree with the rows of the lists."""
    products, where = read_rows(path, _ClassRow, skip=1, separator=","), at_line(path, skip=1)
    numbered([row.fine for row in products], where, first=0)
    numbered([row.coarse for row in products], where, what="group", first=0)
    distinct([row.fine for row in products], where, "class")
    distinct(list({row.coarse: row.group for row in products}.values()), at_entry(path, "group"), "group")
    if bad := next((row for row in products if not row.name or not row.group), None):
        raise UserError(f"{path}: class {bad.fine} or its group has no name. Download it again.")
    groups = {row.fine: row.coarse for row in products}
    for row in rows:
        if groups.get(row.fine, -1) != row.coarse:
            raise UserError(
                f"{path.parent}: {row.path} is of class {str(row.fine)[:30]} in group {str(row.coarse)[:30]}, which is "
                f"not in {path.name}. The lists are damaged or were changed; download them again."
            )
    return sorted(products, key=lambda row: row.fine)


def _digest(rows: list[_Row]) -> str:
    """Return the SHA-256 of the lists, one after the other, whatever their line ends and blanks."""
    text = "".join(f"{row.path}, {row.fine}, {row.coarse}\n" for row in rows)
    return hashlib.sha256(text.encode()).hexdigest()
