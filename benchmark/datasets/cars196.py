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
from benchmark.datasets.dataset_files import read_rows, read_text
from benchmark.datasets.image_tree import INCOMPLETE, ImageTree
from benchmark.datasets.listing import NO_GROUP, Expected, Listing, grouped, halves
from benchmark.datasets.mat_file import Value, read_mat
from benchmark.datasets.published import LEVELS, Names, below, complete, find, find_base, find_required, no_images
from benchmark.datasets.published_rows import Where, at_entry, at_line, inside, numbered

NAMES = Names(
    "cars196",
    "Cars-196",
    marks=(
        ("cars_annos.mat",), ("cars_annos.txt",), ("cars_train_annos.mat",), ("cars_test_annos_withlabels.mat",),
        ("car_ims",), ("cars_train",), ("car_data",), ("train/AM General*",), ("devkit/cars_train_annos.mat",),
    ),
    archives=("car_ims*", "cars_train*", "cars_test*", "car_devkit*", "car_data*", "*stanford*car*", "cars196*"),
    fetched=(
        "stanford-car-dataset-by-classes-folder.zip", "CARS196.zip", "cars_train.tgz", "cars_test.tgz",
        "car_devkit.tgz", "car_ims.tgz",
    ),
    likely={
        8144: "the official training part only, which has images of all classes",
        8041: "the official test part only, which has images of all classes",
        8054: "the first 98 classes only",
        8131: "the last 98 classes only",
    },
)  # fmt: skip
TWO_WORDS = ("AM General", "Aston Martin", "Land Rover")  # makes; all others are one word


class _Annotations(NamedTuple):
    """Content of a layout: its folder, (file, class id from 1) of every image, the class names, if any, and notes."""

    base: Path
    rows: list[tuple[str, int]]
    class_names: list[str]
    notes: tuple[str, ...] = ()


class _TextRow(NamedTuple):
    path: str
    class_id: int
    test: int


def listing(root: str, *, expected: Expected | None = None, check: str = "files") -> Listing:
    """List the images in whichever layout is found at `root` or up to three levels below it.

    Args:
        root: folder of the data set.
        expected: the published counts, see `check_counts`.
        check: `lists`, `files` or `images`, see `image_check.inspect`.

    Raises:
        MissingDataError: nothing of the data set was found.
        UserError: the folder is incomplete or holds another data set.
    """
    names = ("cars_annos.mat", "cars_annos.txt", "cars_train_annos.mat", "names.csv")
    mark = find_required(root, NAMES, *[pattern for name in names for pattern in below(name)])
    read = {"cars_annos.mat": _one_mat, "cars_annos.txt": _one_text, "cars_train_annos.mat": _devkit}
    base, rows, class_names, notes = read.get(mark.name.lower(), _folders)(Path(root).expanduser(), mark)
    ids = [class_id for _, class_id in rows]
    num_classes = numbered(ids, at_entry(mark, "image"))
    if not rows or (class_names and len(class_names) != num_classes):
        raise UserError(
            f"{mark} has images of {num_classes:,} classes, but {len(class_names):,} class names. The copy is "
            "incomplete or was changed; download it again."
        )
    named = len(class_names) > 0
    class_names = class_names or [f"class {i + 1}" for i in range(num_classes)]
    labels = np.array(ids) - 1
    super_labels, super_names = grouped(car_make(name) if named else NO_GROUP for name in class_names)
    found = Listing(
        root=base,
        paths=[path for path, _ in rows],
        labels=labels,
        class_names=class_names,
        super_labels=super_labels,
        super_names=super_names,
        roles=halves(labels, len(class_names) // 2),
        notes=notes if named else (f"{mark.name} has no names, so the makes are unknown and there is no hierarchy",),
    )
    return complete(found, NAMES, expected, check)


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
    return _Annotations(_base(root, rows), rows, _named(mark, names))


def _one_text(root: Path, mark: Path) -> _Annotations:
    """car_ims/000001.jpg ... with a text file whose rows are path, class, and 1 for official test images."""
    lines = read_rows(mark, _TextRow, separator=",")
    rows = _checked([row.path for row in lines], [row.class_id for row in lines], mark, at_line(mark))
    meta = find(root, *below("cars_meta.mat"))
    return _Annotations(_base(root, rows), rows, _class_names(meta) if meta else [])


def _base(root: Path, rows: list[tuple[str, int]], *places: str) -> Path:
    return find_base(root, NAMES, [path for path, _ in rows], *(places or LEVELS))


def _devkit(root: Path, mark: Path) -> _Annotations:
    """cars_train/00001.jpg ..., cars_test/00001.jpg ... with .mat files; Kaggle's copy nests each folder twice."""
    test = find_required(root, NAMES, *below("cars_test_annos_withlabels.mat"))
    meta = find_required(root, NAMES, *below("cars_meta.mat"))
    parts = []
    for folder, path in (("cars_train/", mark), ("cars_test/", test)):
        rows = _annotated(path, read_mat(path, "annotations:fname,class")[0], "fname")
        places = [before + below_it for before in LEVELS for below_it in (folder, folder * 2)]
        parts.append((_base(root, rows, *places), rows))
    base = Path(os.path.commonpath([folder for folder, _ in parts]))
    both = [
        (f"{folder.relative_to(base).as_posix()}/{file}", class_id) for folder, rows in parts for file, class_id in rows
    ]
    return _Annotations(base, both, _class_names(meta))


def _folders(root: Path, mark: Path) -> _Annotations:
    """{train,test}/<class name>/*.jpg with names.csv, one class name per line; a slash in a name is a - on disk."""
    names = [line.strip() for line in read_text(mark).splitlines() if line.strip()]
    ids = {_letters(name): i for i, name in enumerate(names, start=1)}
    if len(ids) != len(names):
        raise UserError(f"{mark} names a class twice. Download it again.")
    found = find(root, *[f"{level}train/*" for level in (*LEVELS, "*/*/*/*/")])
    if found is None:
        raise no_images(root, NAMES, f"train/{names[0] if names else ''}")
    base = found.parent.parent
    rows: list[tuple[str, int]] = []
    notes: list[str] = []
    for part in ("train", "test"):
        folder = find(base, part)
        if folder is None or not folder.is_dir():
            raise UserError(
                f"There is no folder {base / part} next to train. The copy is incomplete; download it again."
            )
        tree = ImageTree(folder, depth=1)
        tree.check(INCOMPLETE)
        notes += (f"{part}: {note}" for note in tree.notes)
        if unknown := [name for name in tree.images if _letters(name) not in ids]:
            raise UserError(f"{folder / unknown[0]} is not a class of {mark}. Download it again.")
        for name in sorted(tree.images, key=lambda name: ids[_letters(name)]):
            rows += [(f"{folder.name}/{name}/{file}", ids[_letters(name)]) for file in tree.images[name]]
    if lacking := sorted({*ids.values()} - {class_id for _, class_id in rows}):
        raise UserError(
            f"{base} has no image of {len(lacking):,} of the {len(names):,} classes of {mark}, such as "
            f"{names[lacking[0] - 1]!r}. The copy is incomplete; download it again."
        )
    return _Annotations(base, rows, names, tuple(notes))


def _letters(name: str) -> str:
    """Return the letters and digits of a class name, which folders keep; other signs and the case may differ."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def _annotated(path: Path, structs: list[Value], file_field: str) -> list[tuple[str, int]]:
    """Read the file and the class id (from 1) of every image from the structs of a .mat file.

    Raises:
        UserError: the file does not contain such structs.
    """
    fields = list(structs[0]) if structs and isinstance(structs[0], dict) else []
    if fields != [file_field, "class"]:
        hint = "; '_withlabels' may be missing in its name" if "fname" in fields else ""
        raise UserError(f"{path} has the fields {', '.join(fields) or '(none)'}, not {file_field} and class{hint}.")
    files: list[str] = []
    ids: list[int] = []
    for row, struct in enumerate(structs):
        file, class_id = struct.values() if isinstance(struct, dict) else (None, None)
        if not (isinstance(file, str) and isinstance(class_id, int) and class_id > 0):
            raise UserError(
                f"{path}, image {row + 1} does not hold a file name and a class numbered from 1. Download it again."
            )
        files.append(file)
        ids.append(class_id)
    return _checked(files, ids, path, at_entry(path, "image"))


def _checked(files: list[str], ids: list[int], path: Path, where: Where) -> list[tuple[str, int]]:
    if not files:
        raise UserError(f"{path} is empty. Download it again.")
    files = inside(files, where)
    numbered(ids, where)
    return [*zip(files, ids, strict=True)]


def _class_names(path: Path) -> list[str]:
    return _named(path, read_mat(path, "class_names")[0])


def _named(path: Path, names: list[Value]) -> list[str]:
    if bad := [name for name in names if not isinstance(name, str) or not name.strip()]:
        raise UserError(f"{path} has {bad[0]!r} as the name of a class. Download it again.")
    return [str(name) for name in names]
