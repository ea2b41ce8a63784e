"""`cars196`: Stanford Cars, 16,185 pictures of 196 models; the first 98 models are trained on.

Source: Krause, Stark, Deng, Fei-Fei, "3D Object Representations for Fine-Grained Categorization", 3dRR 2013. Split by
class id as in Song et al., CVPR 2016 (arXiv 1511.06452), over official train and test pictures together.

The official page is gone, and copies come in three layouts, all of which are read: `car_ims` with `cars_annos.mat` (or
a plain-text copy of it, `cars_annos.txt`), which metric learning uses; `cars_train` and `cars_test` with the devkit;
and a folder for each class with `names.csv`. Pictures are in the order of each layout's lists (official train, then
test), and numbered differently in each, so the layouts have different fingerprints and equal classes.

There is no official hierarchy. A model's super class is its make, the start of its name; 49 in all.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.datasets.dataset_files import (
    anywhere,
    check_pictures,
    find,
    need,
    need_base,
    pictures_in,
    read_rows,
    read_text,
    subfolders,
)
from benchmark.datasets.listing import NO_GROUP, Listing, check_counts, grouped, halves
from benchmark.datasets.mat_file import read_mat

TWO_WORDS = ("AM General", "Aston Martin", "Land Rover")  # makes; all others are one word
IN = ("", "*/", "*/*/")
Found = tuple[Path, list[tuple[str, int]], list[str]]  # folder, file and class from 1 on, names


def listing(root: str, *, expected: Mapping[str, Any] | None = None, check: str = "files") -> Listing:
    """The pictures in whichever layout lies at `root` or in a folder or two below it.

    Args:
        root: folder of the data set.
        expected: the published counts, see `check_counts`.
        check: `lists`, `files` or `images`, see `image_check.complaints`.

    Raises:
        ValueError: the data set is not there, incomplete, or another one.
    """
    names = ("cars_annos.mat", "cars_annos.txt", "cars_train_annos.mat", "names.csv")
    mark = need(root, "cars196", *[pattern for name in names for pattern in anywhere(name)])
    folder = Path(root).expanduser()
    read = {"cars_annos.mat": _one_mat, "cars_annos.txt": _one_text, "cars_train_annos.mat": _devkit}
    base, rows, class_names = read.get(mark.name, _folders)(folder, mark)
    labels = np.array([label - 1 for _, label in rows])
    if len(labels) == 0 or set(labels.tolist()) != set(range(max(len(class_names), labels.max() + 1))):
        raise ValueError(f"{mark} does not have pictures of every class from 1 on. Fetch it anew.")
    named = len(class_names) > 0
    class_names = class_names or [f"class {i + 1}" for i in range(labels.max() + 1)]
    super_labels, super_names = grouped(make(name) if named else NO_GROUP for name in class_names)
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
    return check_pictures(check_counts(found, expected, "Cars-196"), check)


def make(name: str) -> str:
    """The make of a model.

    >>> make("Aston Martin Virage Coupe 2012"), make("smart fortwo Convertible 2012")
    ('Aston Martin', 'smart')
    """
    return next((two for two in TWO_WORDS if name.startswith(two)), name.split(" ")[0])


def _one_mat(root: Path, mark: Path) -> Found:
    """car_ims/000001.jpg ... with cars_annos.mat."""
    annotations, names = read_mat(mark, "annotations:relative_im_path,class", "class_names")
    rows = _annotations(mark, annotations, "relative_im_path")
    return need_base(root, "cars196", rows[0][0], *IN), rows, list(map(str, names))


def _one_text(root: Path, mark: Path) -> Found:
    """The same with a text file; rows of path, class, 1 for official test."""
    rows = [row[:2] for row in read_rows(mark, {"path": str, "class": int, "test": int}, separator=",")]
    if not rows:
        raise ValueError(f"{mark} is empty. Fetch it anew.")
    meta = find(root, *anywhere("cars_meta.mat"))
    return need_base(root, "cars196", rows[0][0], *IN), rows, _class_names(meta) if meta else []


def _devkit(root: Path, mark: Path) -> Found:
    """cars_train/00001.jpg ..., cars_test/00001.jpg ... with .mat files; the numbers start over; Kaggle nests."""
    test = need(root, "cars196", *anywhere("cars_test_annos_withlabels.mat"))
    parts = []
    for folder, path in (("cars_train/", mark), ("cars_test/", test)):
        rows = _annotations(path, read_mat(path, "annotations:fname,class")[0], "fname")
        places = [before + below for before in IN for below in (folder, folder * 2)]
        parts.append((need_base(root, "cars196", rows[0][0], *places), rows))
    base = Path(os.path.commonpath([folder for folder, _ in parts]))
    both = [(f"{folder.relative_to(base).as_posix()}/{file}", label) for folder, rows in parts for file, label in rows]
    return base, both, _class_names(need(root, "cars196", *anywhere("cars_meta.mat")))


def _folders(root: Path, mark: Path) -> Found:
    """{train,test}/<class name>/*.jpg with names.csv, which has a class name a line; a slash in it is a - on disk."""
    names = [line.strip() for line in read_text(mark).splitlines() if line.strip()]
    ids = {name.replace("/", "-"): i for i, name in enumerate(names, start=1)}
    base = need(root, "cars196", *[f"{place}train/*" for place in (*IN, "*/*/*/")]).parent.parent
    rows = []
    for part in ("train", "test"):
        if not (base / part).is_dir():
            raise ValueError(f"There is no folder {base / part}, beside train. The copy is incomplete; fetch it anew.")
        if strange := [name for name in subfolders(base / part) if name not in ids]:
            raise ValueError(f"{base / part / strange[0]} is no class of {mark}. Fetch it anew.")
        for name in sorted(subfolders(base / part), key=ids.__getitem__):
            rows += [(f"{part}/{name}/{file}", ids[name]) for file in pictures_in(base / part / name)]
    return base, rows, names


def _annotations(path: Path, rows: list[Any], file_field: str) -> list[tuple[str, int]]:
    """File and class (from 1 on) of every picture, from the structs of a .mat file.

    Raises:
        ValueError: the file is none of those.
    """
    fields = list(rows[0]) if rows and isinstance(rows[0], dict) else []
    if fields != [file_field, "class"]:
        hint = "; '_withlabels' may be missing in its name" if "fname" in fields else ""
        raise ValueError(f"{path} has the fields {', '.join(fields) or '(none)'}, not {file_field} and class{hint}.")
    pairs = [(row[file_field], row["class"]) for row in rows]
    if not all(isinstance(file, str) and isinstance(label, int) and label > 0 for file, label in pairs):
        raise ValueError(f"{path} does not hold names of files and classes from 1 on. Fetch it anew.")
    return pairs


def _class_names(path: Path) -> list[str]:
    return [str(name) for name in read_mat(path, "class_names")[0]]
