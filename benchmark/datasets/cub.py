"""`cub`: Caltech-UCSD Birds-200-2011, 11,788 pictures of 200 species; the first 100 species are trained on.

Source: Wah, Branson, Welinder, Perona, Belongie, "The Caltech-UCSD Birds-200-2011 Dataset", CNS-TR-2011-001. Split by
class id as in Song et al., CVPR 2016 (arXiv 1511.06452); the archive's own `train_test_split.txt` divides the pictures
of every class and is not used. Pictures are in the order of class ids, then of file names, as torchvision's ImageFolder
has them, which is what the Reality Check's code reads; so a copy without the lists is the same data set.

The archive has no hierarchy. A species' super class is the last word of its name: Albatross, Sparrow, Warbler.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmark.datasets.dataset_files import anywhere, check_pictures, need, pictures_in, read_rows, subfolders
from benchmark.datasets.listing import Listing, check_counts, grouped, halves


def listing(root: str, *, expected: Mapping[str, Any] | None = None, check: str = "files") -> Listing:
    """The pictures in `CUB_200_2011`, at `root` or in a folder or two below it.

    Args:
        root: folder of the data set.
        expected: the published counts, see `check_counts`.
        check: `lists`, `files` or `images`, see `image_check.complaints`.

    Raises:
        ValueError: the data set is not there, incomplete, or another one.
    """
    folder = need(root, "cub", *anywhere("images.txt"), *anywhere("images/001.*")).parent
    if not (folder / "images").is_dir():  # found by images/001.*, in a copy without the lists
        folder = folder.parent
    images = folder / "images"
    if (folder / "images.txt").is_file():
        listed = read_rows(folder / "images.txt", {"image id": int, "path": str})
        classes = read_rows(folder / "image_class_labels.txt", {"image id": int, "class id": int})
        if [i for i, _ in listed] != [i for i, _ in classes]:
            raise ValueError(f"{folder}: images.txt and image_class_labels.txt name other pictures. Fetch it anew.")
        rows = sorted((label, path) for (_, path), (_, label) in zip(listed, classes, strict=True))
    else:
        rows = [
            (_class_id(name), f"{name}/{file}") for name in subfolders(images) for file in pictures_in(images / name)
        ]
        rows.sort()
    ids = sorted({label for label, _ in rows})
    folders = {label: path.partition("/")[0] for label, path in rows}
    labels = np.searchsorted(ids, [label for label, _ in rows])
    super_labels, super_names = grouped(folders[i].rpartition("_")[2].rpartition(".")[2] for i in ids)
    found = Listing(
        root=images,
        paths=[path for _, path in rows],
        labels=labels,
        class_names=[folders[i].partition(".")[2] or folders[i] for i in ids],
        super_labels=super_labels,
        super_names=super_names,
        roles=halves(labels, len(ids) // 2),
    )
    what = "CUB-200-2011 (the older CUB-200 of 2010, with 6,033 pictures, is another data set)"
    return check_pictures(check_counts(found, expected, what), check)


def _class_id(folder: str) -> int:
    number = folder.partition(".")[0]
    if not number.isdecimal():
        raise ValueError(
            f"images/{folder} is no class of CUB, whose folders are called like 001.Black_footed_Albatross."
        )
    return int(number)
