"""Small copies of the published data sets in their layouts, with learnable images, for whole searches.

Half of the classes are for training. `trees` covers the quirks of real copies; here, as in the real data sets, one
image is grey and image sizes differ.
"""

import json
from pathlib import Path

import numpy as np
from scipy.io import savemat

from tests.datasets.synthetic_images import FAMILIES, families, synthetic_image
from tests.datasets.trees import cell, structs, write_text

MORE = {"sop": ("dataset.module.sop_cut=null",), "inaturalist2019": ("+dataset.module.num_trainval={half}",),
        "grocery": ("+dataset.module.num_trainval={half}",)}  # fmt: skip


def write_small(name: str, root: Path, num_classes: int = 16, per_class: int = 6, seed: int = 0) -> list[str]:
    """Write a data set and return the overrides that select it.

    Args:
        name: name of the data set, as in `conf/dataset`.
        root: folder to write to.
        num_classes: number of classes, even and at least 4.
        per_class: number of images of each class, at least 4.
        seed: seed of the images.
    """
    make = {"cub": cub, "cars196": cars196, "sop": sop, "inshop": inshop, "inaturalist2019": inaturalist2019,
            "grocery": grocery}  # fmt: skip
    make[name](root, num_classes, per_class, seed)
    more = [override.format(half=num_classes // 2) for override in MORE.get(name, ())]
    return [f"dataset={name}", f"dataset.module.root={root}", "dataset.module.expected=null", *more]


def cub(root: Path, num_classes: int = 16, per_class: int = 6, seed: int = 0) -> Path:
    """Write `CUB_200_2011` with its lists; a family is the last word of a name."""
    folder = root / "CUB_200_2011"
    names = [f"{i + 1:03}.Spotted_{FAMILIES[f].title()}" for i, f in enumerate(families(num_classes))]
    files = [(i, n, f"{name}/{name[4:]}_{n:04}.jpg") for i, name in enumerate(names) for n in range(per_class)]
    for label, number, path in files:
        _save(folder / "images" / path, label, families(num_classes)[label], number, seed)
    write_text(folder / "images.txt", *(f"{i} {path}" for i, (_, _, path) in enumerate(files, 1)))
    write_text(folder / "image_class_labels.txt", *(f"{i} {label + 1}" for i, (label, _, _) in enumerate(files, 1)))
    write_text(folder / "classes.txt", *(f"{i} {name}" for i, name in enumerate(names, 1)))
    return root


def cars196(root: Path, num_classes: int = 16, per_class: int = 6, seed: int = 0) -> Path:
    """Write `car_ims` with `cars_annos.mat`, official train images before test images; a family is a make."""
    kinds = families(num_classes)
    rows = [(label, n) for part in (0, 1) for label in range(num_classes) for n in range(part, per_class, 2)]
    files = [f"car_ims/{i:06}.jpg" for i in range(1, len(rows) + 1)]
    for (label, number), file in zip(rows, files, strict=True):
        _save(root / "cars196" / file, label, kinds[label], number, seed)
    boxes = {f"bbox_{axis}": [1.0] * len(rows) for axis in ("x1", "y1", "x2", "y2")}
    labels, tests = [np.uint8(label + 1) for label, _ in rows], [np.uint8(n % 2) for _, n in rows]
    annotations = structs(relative_im_path=files, **boxes, **{"class": labels}, test=tests)
    names = [f"{FAMILIES[family].title()} Model {label} 2012" for label, family in enumerate(kinds)]
    savemat(root / "cars196" / "cars_annos.mat", {"annotations": annotations, "class_names": cell(names)})
    return root


def sop(root: Path, num_classes: int = 16, per_class: int = 6, seed: int = 0) -> Path:
    """Write `Stanford_Online_Products` with its two lists; a family is a category and occurs in both halves."""
    folder, serial = root / "Stanford_Online_Products", 0
    for name, chosen in (("train", range(num_classes // 2)), ("test", range(num_classes // 2, num_classes))):
        lines = []
        for label in chosen:
            family = families(num_classes)[label]
            for number in range(per_class):
                serial += 1
                path = f"{FAMILIES[family]}_final/{label:012}_{number}.JPG"
                _save(folder / path, label, family, number, seed)
                lines.append(f"{serial} {label + 1} {family + 1} {path}")
        write_text(folder / f"Ebay_{name}.txt", "image_id class_id super_class_id path", *lines)
    return root


def inshop(root: Path, num_classes: int = 16, per_class: int = 6, seed: int = 0) -> Path:
    """Write `Img/img` and `Eval`; every second item is for training, half of the other images are queries."""
    rows = []
    for label, family in enumerate(families(num_classes)):
        item = f"id_{label + 1:08}"
        for number in range(per_class):
            path = f"img/WOMEN/{FAMILIES[family].title()}/{item}/{number:02}_1_front.jpg"
            _save(root / "Img" / path, label, family, number, seed)
            rows.append(f"{path:<60} {item}  {'train' if label % 2 == 0 else ('query', 'gallery')[number % 2]:<8}")
    header = (str(len(rows)), "image_name  item_id  evaluation_status")
    write_text(root / "Eval" / "list_eval_partition.txt", *header, *rows)
    return root


def inaturalist2019(root: Path, num_classes: int = 16, per_class: int = 6, seed: int = 0) -> Path:
    """Write `train2019.json` and `val2019.json` (one image per species); a family is a genus of consecutive species."""
    kinds = sorted(families(num_classes))
    categories = [{"id": i, "name": f"{FAMILIES[f]} {i}", "genus": FAMILIES[f]} for i, f in enumerate(kinds)]
    serial = 0
    for name, numbers in (("train", range(1, per_class)), ("val", range(1))):
        images, annotations = [], []
        for label, family in enumerate(kinds):
            for number in numbers:
                serial += 1
                path = f"train_val2019/Plants/{label}/{serial:032x}.jpg"
                _save(root / path, label, family, number, seed)
                images.append({"id": serial, "file_name": path})
                annotations.append({"id": serial, "image_id": serial, "category_id": label})
        body = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
        write_text(root / f"{name}2019.json", json.dumps(body))
    return root


def grocery(root: Path, num_classes: int = 16, per_class: int = 6, seed: int = 0) -> Path:
    """Write the repository `GroceryStoreDataset` with its three lists; a family is a group, in both halves."""
    folder = root / "GroceryStoreDataset" / "dataset"
    lists: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    classes = ["Class Name (str),Class ID (int),Coarse Class Name (str),Coarse Class ID (int),Icon (str),Text (str)"]
    for label, family in enumerate(families(num_classes)):
        group = FAMILIES[family].title()
        classes.append(f"{group}-{label},{label},{group},{family},/{label}.jpg,/{label}.txt")
        for number in range(per_class):
            part = ("train", "val", "test")[number % 3]
            path = f"{part}/Fruit/{group}/{group}-{label}/{group}-{label}_{number:03}.jpg"
            _save(folder / path, label, family, number, seed)
            lists[part].append(f"{path}, {label}, {family}")
    for part, lines in lists.items():
        write_text(folder / f"{part}.txt", *lines)
    write_text(folder / "classes.csv", *classes)
    return root


def _save(path: Path, label: int, family: int, number: int, seed: int) -> None:
    """Save an image of 40 x 30 to 60 x 50 pixels; the second image of class 1 is grey."""
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = np.random.default_rng([seed, label, number, 1]).integers((40, 30), (61, 51)).tolist()
    image = synthetic_image(label, family, number, (width, height), seed)
    image.convert("L" if (label, number) == (1, 1) else "RGB").save(path, format="JPEG", quality=85)
