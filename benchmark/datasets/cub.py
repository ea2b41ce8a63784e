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
from benchmark.datasets.dataset_files import find_required, image_names, read_rows, subfolders, up_to_two_levels
from benchmark.datasets.image_check import check_images
from benchmark.datasets.listing import Expected, Listing, check_counts, grouped, halves


class _ImageRow(NamedTuple):
    image_id: int
    path: str


class _ClassRow(NamedTuple):
    image_id: int
    class_id: int


def listing(root: str, *, expected: Expected | None = None, check: str = "files") -> Listing:
    """List the images of `CUB_200_2011`, at `root` or up to two levels below it.

    Args:
        root: folder of the data set.
        expected: the published counts, see `check_counts`.
        check: `lists`, `files` or `images`, see `image_check.find_problems`.

    Raises:
        MissingDataError: the data set was not found.
        UserError: the folder is incomplete or holds another data set.
    """
    folder = find_required(root, "cub", *up_to_two_levels("images.txt"), *up_to_two_levels("images/001.*")).parent
    if not (folder / "images").is_dir():  # found by images/001.* in a copy without the lists
        folder = folder.parent
    rows = _listed(folder) if (folder / "images.txt").is_file() else _in_folders(folder / "images")
    ids = sorted({class_id for class_id, _ in rows})
    folders = {class_id: path.partition("/")[0] for class_id, path in rows}
    labels = np.searchsorted(ids, [class_id for class_id, _ in rows])
    super_labels, super_names = grouped(folders[i].rpartition("_")[2].rpartition(".")[2] for i in ids)
    found = Listing(
        root=folder / "images",
        paths=[path for _, path in rows],
        labels=labels,
        class_names=[folders[i].partition(".")[2] or folders[i] for i in ids],
        super_labels=super_labels,
        super_names=super_names,
        roles=halves(labels, len(ids) // 2),
    )
    what = "CUB-200-2011 (the older CUB-200 of 2010, with 6,033 images, is another data set)"
    return check_images(check_counts(found, expected, what), check)


def _listed(folder: Path) -> list[tuple[int, str]]:
    """Read class id and path of every image from the archive's lists."""
    images = read_rows(folder / "images.txt", _ImageRow)
    classes = read_rows(folder / "image_class_labels.txt", _ClassRow)
    if [row.image_id for row in images] != [row.image_id for row in classes]:
        raise UserError(f"{folder}: images.txt and image_class_labels.txt name different images. Download it again.")
    return sorted((label.class_id, image.path) for image, label in zip(images, classes, strict=True))


def _in_folders(images: Path) -> list[tuple[int, str]]:
    """Derive class id and path of every image from the folders alone."""
    return sorted(
        (_class_id(name), f"{name}/{file}") for name in subfolders(images) for file in image_names(images / name)
    )


def _class_id(folder: str) -> int:
    number = folder.partition(".")[0]
    if not number.isdecimal():
        raise UserError(
            f"images/{folder} is not a class of CUB, whose folders have names like 001.Black_footed_Albatross."
        )
    return int(number)
