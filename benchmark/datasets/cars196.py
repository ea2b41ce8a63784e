"""`cars196`: Stanford Cars, 16,185 images of 196 models; the first 98 models are for training.

Source: Krause, Stark, Deng, Fei-Fei, "3D Object Representations for Fine-Grained Categorization", 3dRR 2013. Split by
class id as in Song et al., CVPR 2016 (arXiv 1511.06452), over the official train and test images together.

The official page no longer exists, and copies come in three layouts, all of which are supported: `car_ims` with
`cars_annos.mat` (or a plain-text copy of it, `cars_annos.txt`), which metric-learning code uses; `cars_train` and
`cars_test` with the devkit; and a folder for each class with `names.csv`. Images are in the order of the lists of a
layout (official train, then test), which number them differently, so layouts differ in fingerprint but not in classes.

There is no official hierarchy. A model's super class is its make, the first part of its name; there are 49.
"""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmark.core.errors import UserError
from benchmark.datasets.dataset_files import (
    find,
    find_base,
    find_required,
    image_names,
    read_rows,
    read_text,
    subfolders,
    up_to_two_levels,
)
from benchmark.datasets.image_check import check_images
from benchmark.datasets.listing import NO_GROUP, Expected, Listing, check_counts, grouped, halves
from benchmark.datasets.mat_file import Value, read_mat

TWO_WORDS = ("AM General", "Aston Martin", "Land Rover")  # makes; all others are one word
PLACES = ("", "*/", "*/*/")


class _Annotations(NamedTuple):
    """Content of a layout: its folder, (file, class id from 1) of every image, and the class names, if it has any."""

    base: Path
    rows: list[tuple[str, int]]
    class_names: list[str]


class _TextRow(NamedTuple):
    path: str
    class_id: int
    test: int


def listing(root: str, *, expected: Expected | None = None, check: str = "files") -> Listing:
    """List the images in whichever layout is found at `root` or up to two levels below it.

    Args:
        root: folder of the data set.
        expected: the published counts, see `check_counts`.
        check: `lists`, `files` or `images`, see `image_check.find_problems`.

    Raises:
        MissingDataError: the data set was not found.
        UserError: the folder is incomplete or holds another data set.
    """
    names = ("cars_annos.mat", "cars_annos.txt", "cars_train_annos.mat", "names.csv")
    mark = find_required(root, "cars196", *[pattern for name in names for pattern in up_to_two_levels(name)])
    read = {"cars_annos.mat": _one_mat, "cars_annos.txt": _one_text, "cars_train_annos.mat": _devkit}
    base, rows, class_names = read.get(mark.name, _folders)(Path(root).expanduser(), mark)
    labels = np.array([class_id - 1 for _, class_id in rows])
    if len(labels) == 0 or set(labels.tolist()) != set(range(max(len(class_names), labels.max() + 1))):
        raise UserError(f"{mark} lacks images of some classes, which must be numbered from 1. Download it again.")
    named = len(class_names) > 0
    class_names = class_names or [f"class {i + 1}" for i in range(labels.max() + 1)]
    super_labels, super_names = grouped(car_make(name) if named else NO_GROUP for name in class_names)
    found = Listing(
        root=base,
        paths=[path for path, _ in rows],
        labels=labels,
        class_names=class_names,
        super_labels=super_labels,
        super_names=super_names,
        roles=halves(labels, len(class_names) // 2),
        notes=() if named else (f"{mark.name} has no names, so the makes are unknown and there is no hierarchy",),
    )
    return check_images(check_counts(found, expected, "Cars-196"), check)


def car_make(name: str) -> str:
    """Return the make of a car, given the name of its model.

    >>> car_make("Aston Martin Virage Coupe 2012"), car_make("smart fortwo Convertible 2012")
    ('Aston Martin', 'smart')
    """
    return next((two for two in TWO_WORDS if name.startswith(two)), name.split(" ")[0])


def _one_mat(root: Path, mark: Path) -> _Annotations:
    """car_ims/000001.jpg ... with cars_annos.mat."""
    annotations, names = read_mat(mark, "annotations:relative_im_path,class", "class_names")
    rows = _annotated(mark, annotations, "relative_im_path")
    return _Annotations(find_base(root, "cars196", rows[0][0], *PLACES), rows, list(map(str, names)))


def _one_text(root: Path, mark: Path) -> _Annotations:
    """car_ims/000001.jpg ... with a text file whose rows are path, class, and 1 for official test images."""
    rows = [(row.path, row.class_id) for row in read_rows(mark, _TextRow, separator=",")]
    if not rows:
        raise UserError(f"{mark} is empty. Download it again.")
    meta = find(root, *up_to_two_levels("cars_meta.mat"))
    return _Annotations(find_base(root, "cars196", rows[0][0], *PLACES), rows, _class_names(meta) if meta else [])


def _devkit(root: Path, mark: Path) -> _Annotations:
    """cars_train/00001.jpg ..., cars_test/00001.jpg ... with .mat files; Kaggle's copy nests each folder twice."""
    test = find_required(root, "cars196", *up_to_two_levels("cars_test_annos_withlabels.mat"))
    parts = []
    for folder, path in (("cars_train/", mark), ("cars_test/", test)):
        rows = _annotated(path, read_mat(path, "annotations:fname,class")[0], "fname")
        places = [before + below for before in PLACES for below in (folder, folder * 2)]
        parts.append((find_base(root, "cars196", rows[0][0], *places), rows))
    base = Path(os.path.commonpath([folder for folder, _ in parts]))
    both = [
        (f"{folder.relative_to(base).as_posix()}/{file}", class_id) for folder, rows in parts for file, class_id in rows
    ]
    meta = find_required(root, "cars196", *up_to_two_levels("cars_meta.mat"))
    return _Annotations(base, both, _class_names(meta))


def _folders(root: Path, mark: Path) -> _Annotations:
    """{train,test}/<class name>/*.jpg with names.csv, one class name per line; a slash in a name is a - on disk."""
    names = [line.strip() for line in read_text(mark).splitlines() if line.strip()]
    ids = {name.replace("/", "-"): i for i, name in enumerate(names, start=1)}
    base = find_required(root, "cars196", *[f"{place}train/*" for place in (*PLACES, "*/*/*/")]).parent.parent
    rows = []
    for part in ("train", "test"):
        if not (base / part).is_dir():
            raise UserError(
                f"There is no folder {base / part} next to train. The copy is incomplete; download it again."
            )
        if unknown := [name for name in subfolders(base / part) if name not in ids]:
            raise UserError(f"{base / part / unknown[0]} is not a class of {mark}. Download it again.")
        for name in sorted(subfolders(base / part), key=ids.__getitem__):
            rows += [(f"{part}/{name}/{file}", ids[name]) for file in image_names(base / part / name)]
    return _Annotations(base, rows, names)


def _annotated(path: Path, structs: list[Value], file_field: str) -> list[tuple[str, int]]:
    """Read the file and the class id (from 1) of every image from the structs of a .mat file.

    Raises:
        UserError: the file does not contain such structs.
    """
    fields = list(structs[0]) if structs and isinstance(structs[0], dict) else []
    if fields != [file_field, "class"]:
        hint = "; '_withlabels' may be missing in its name" if "fname" in fields else ""
        raise UserError(f"{path} has the fields {', '.join(fields) or '(none)'}, not {file_field} and class{hint}.")
    rows = []
    for struct in structs:
        file, class_id = struct.values() if isinstance(struct, dict) else (None, None)
        if not (isinstance(file, str) and isinstance(class_id, int) and class_id > 0):
            raise UserError(f"{path} does not hold file names and classes numbered from 1. Download it again.")
        rows.append((file, class_id))
    return rows


def _class_names(path: Path) -> list[str]:
    return [str(name) for name in read_mat(path, "class_names")[0]]
