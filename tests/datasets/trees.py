"""Tiny copies of the real data sets, with the layouts and quirks of copies in circulation."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from benchmark.datasets.image_check import inspect


def write_image(path: Path, mode: str = "RGB", seed: int = 0, size: tuple[int, int] = (12, 9)) -> None:
    """Write a small image with some content, a JPEG unless the suffix says otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(noise).convert(mode)
    image.save(path, format={".png": "PNG", ".gif": "GIF"}.get(path.suffix.lower(), "JPEG"))


def find_problems(root: Path, paths: Sequence[str], check: str) -> list[str | None]:
    """Return the problem of each image; None if it has none."""
    return [seen.problem for seen in inspect(root, paths, check)]


def write_text(path: Path, *lines: str, end: str = "\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((end.join(lines) + end).encode())


CUB = {"001.Black_footed_Albatross": 3, "002.Laysan_Albatross": 2, "003.Sooty_Albatross": 2, "004.Groove_billed_Ani": 3}


def cub(root: Path, lists: bool = True) -> Path:
    """Write four species, ten images; the lists do not name the files of a class alphabetically."""
    folder = root / "CUB_200_2011"
    files = [(name, f"{name}/{name[4:]}_{9 - i:04}_{i}.jpg") for name, count in CUB.items() for i in range(count)]
    for number, (_, path) in enumerate(files):
        write_image(folder / "images" / path, mode="L" if number == 4 else "RGB")
    write_text(folder / "images" / "._001.Black_footed_Albatross", "litter")
    write_text(folder / "images" / "001.Black_footed_Albatross" / "._Black_Footed_Albatross_0009_0.jpg", "litter")
    write_text(folder / "images" / ".DS_Store", "litter")
    write_text(root / "attributes.txt", "stray")
    if lists:
        classes = list(CUB)
        write_text(folder / "images.txt", *(f"{i} {path}" for i, (_, path) in enumerate(files, 1)))
        labels = (f"{i} {classes.index(name) + 1}" for i, (name, _) in enumerate(files, 1))
        write_text(folder / "image_class_labels.txt", *labels)
        write_text(folder / "classes.txt", *(f"{i} {name}" for i, name in enumerate(classes, 1)))
    return root


CARS = ["AM General Hummer SUV 2000", "Acura RL Sedan 2012", "Ram C/V Cargo Van Minivan 2012", "smart fortwo 2012"]
CARS_ROWS = [(1, 0), (2, 0), (2, 0), (3, 0), (4, 0), (1, 1), (2, 1), (3, 1), (3, 1), (4, 1)]  # class, official test


def structs(**fields: list) -> np.ndarray:
    """Return a 1 x N struct array, as written by MATLAB."""
    n = len(next(iter(fields.values())))
    array = np.zeros((1, n), dtype=[(name, object) for name in fields])
    for name, values in fields.items():
        for i, value in enumerate(values):
            array[0, i][name] = value
    return array


def cell(names: list[str]) -> np.ndarray:
    cell = np.zeros((1, len(names)), dtype=object)
    cell[0, :] = names
    return cell


def cars_dml(root: Path) -> Path:
    """Write car_ims with cars_annos.mat."""
    files = [f"car_ims/{i:06}.jpg" for i in range(1, len(CARS_ROWS) + 1)]
    for file in files:
        write_image(root / "cars196" / file)
    n = len(files)
    boxes = {f"bbox_{axis}": [float(i) for i in range(n)] for axis in ("x1", "y1", "x2", "y2")}
    labels = [np.uint8(label) for label, _ in CARS_ROWS]
    tests = [np.uint8(test) for _, test in CARS_ROWS]
    annotations = structs(relative_im_path=files, **boxes, **{"class": labels}, test=tests)
    savemat(root / "cars196" / "cars_annos.mat", {"annotations": annotations, "class_names": cell(CARS)})
    return root


def cars_text(root: Path) -> Path:
    """Write car_ims with cars_annos.txt."""
    rows = [f"car_ims/{i:06}.jpg,{label},{test}" for i, (label, test) in enumerate(CARS_ROWS, 1)]
    for row in rows:
        write_image(root / row.split(",")[0])
    write_text(root / "cars_annos.txt", *rows, end="\r\n")
    return root


def cars_official(root: Path, nested: bool = False) -> Path:
    """Write cars_train, cars_test and devkit; Kaggle's copy nests the image folders."""
    folder = root / "stanford_cars"
    lists = {0: "devkit/cars_train_annos.mat", 1: "cars_test_annos_withlabels.mat"}
    (folder / "devkit").mkdir(parents=True)
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": cell(CARS)})
    for test, path in lists.items():
        labels = [np.uint8(label) for label, part in CARS_ROWS if part == test]
        files = [f"{i:05}.jpg" for i in range(1, len(labels) + 1)]
        name = ("cars_train", "cars_test")[test]
        for file in files:
            write_image(folder / name / (name if nested else "") / file)
        boxes = {f"bbox_{axis}": [1.0] * len(files) for axis in ("x1", "y1", "x2", "y2")}
        both = {"class": labels, "fname": files}
        savemat(folder / path, {"annotations": structs(**boxes, **both)})
        if test:  # the devkit's own list of test images has no classes
            savemat(folder / "devkit" / "cars_test_annos.mat", {"annotations": structs(**boxes, fname=files)})
    return root


def cars_folders(root: Path) -> Path:
    """Write a folder for each class, with names.csv."""
    for i, (label, test) in enumerate(CARS_ROWS):
        name = CARS[label - 1].replace("/", "-")
        write_image(root / "car_data" / "car_data" / ("train", "test")[test] / name / f"{i:05}.jpg")
    write_text(root / "names.csv", *CARS)
    return root


SOP_TRAIN = [
    (class_id, group, f"{name}_final/{class_id}{class_id}_{i}.JPG")
    for class_id, group, name in [(1, 1, "bicycle"), (2, 2, "cabinet"), (3, 2, "cabinet")]
    for i in range(2)
]
SOP_TEST = [(4, 1, "bicycle_final/44_0.JPG"), (4, 1, "bicycle_final/44_1.JPG"), (4, 1, "bicycle_final/44_2.JPG")]


def sop(root: Path, lists: str = "Stanford_Online_Products", images: str = "Stanford_Online_Products") -> Path:
    """Write three products for training and one for testing; the repacked copy separates lists and images."""
    number = 0
    for name, rows in (("train", SOP_TRAIN), ("test", SOP_TEST)):
        lines = []
        for class_id, group, path in rows:
            number += 1
            write_image(root / images / path, mode="L" if number == 3 else "RGB")
            lines.append(f"{number} {class_id} {group} {path}")
        write_text(root / lists / f"Ebay_{name}.txt", "image_id class_id super_class_id path", *lines)
    return root


INSHOP = [
    ("WOMEN/Dresses/id_00000002/02_1_front.jpg", "id_00000002", "train"),
    ("WOMEN/Dresses/id_00000002/02_2_side.jpg", "id_00000002", "train"),
    ("WOMEN/Dresses/id_00000001/01_1_front.jpg", "id_00000001", "query"),
    ("WOMEN/Dresses/id_00000001/01_2_side.jpg", "id_00000001", "gallery"),
    ("MEN/Denim/id_00000003/03_1_front.jpg", "id_00000003", "train"),
    ("MEN/Denim/id_00000004/04_1_front.jpg", "id_00000004", "query"),
    ("MEN/Denim/id_00000004/04_1_back.jpg", "id_00000004", "query"),
    ("MEN/Denim/id_00000004/04_7_flat.jpg", "id_00000004", "gallery"),
]


def inshop(root: Path, list_dir: str = "Eval", pictures: str = "Img/img") -> Path:
    """Write four items, two of them for training (one with a single image); rows are padded with blanks."""
    for path, _, _ in INSHOP:
        write_image(root / pictures / path, mode="CMYK" if path.endswith("back.jpg") else "RGB")
    rows = (f"img/{path:<60} {item}  {status:<8}" for path, item, status in INSHOP)
    header = ("image_name  item_id  evaluation_status",)
    write_text(root / list_dir / "list_eval_partition.txt", str(len(INSHOP)), *header, *rows)
    return root


def inaturalist(root: Path, genera: tuple[str, ...] = ("Xq",) * 4 + ("Bt",) * 3 + ("Ar",) * 4) -> Path:
    """Write eleven species in three genera, so that '10' < '2' matters; seven of them are for training."""
    categories = [{"id": i, "name": f"Zw {i}", "genus": genus, "family": "Om"} for i, genus in enumerate(genera)]
    serial = 0
    for name, count in (("train", 2), ("val", 1)):
        images, annotations = [], []
        for i in reversed(range(len(genera))):
            for _ in range(count):
                serial += 1
                path = f"train_val2019/Plants/{i}/{serial:032x}.jpg"
                write_image(root / path)
                images.append({"id": serial, "file_name": path, "width": 12, "height": 9})
                annotations.insert(0, {"id": serial, "image_id": serial, "category_id": i})
        body = {"info": {}, "images": images, "annotations": annotations, "categories": categories[::-1]}
        write_text(root / f"{name}2019.json", json.dumps(body))
    return root


GROCERY = {"Golden-Delicious": ("Apple", 2), "Oranges": ("Orange", 2), "Fat-Milk": ("Milk", 3), "Soy-Milk": ("Milk", 2)}


def grocery(root: Path, repository: str = "GroceryStoreDataset") -> Path:
    """Write four products in three groups, one of which lies in both halves; two images of each are in `train.txt`."""
    folder = root / repository / "dataset"
    groups = list(dict.fromkeys(group for group, _ in GROCERY.values()))
    lists: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for label, (name, (group, count)) in enumerate(GROCERY.items()):
        for number in range(2 * count):
            part = "val" if number >= 2 * count - 1 else ("train", "test")[number % 2]
            path = f"{part}/Food/{group}/{name}/{name}_{number:03}.jpg"
            write_image(folder / path)
            lists[part].append(f"{path}, {label}, {groups.index(group)}")
    for part, lines in lists.items():
        write_text(folder / f"{part}.txt", *lines)
    header = "Class Name (str),Class ID (int),Coarse Class Name (str),Coarse Class ID (int),Iconic (str),Text (str)"
    rows = (
        f"{n},{i},{g},{groups.index(g)},/icon/{n}.jpg,/text/{n}.txt" for i, (n, (g, _)) in enumerate(GROCERY.items())
    )
    write_text(folder / "classes.csv", header, *rows)
    write_image(folder / "iconic-images-and-descriptions" / "Apple_Iconic.jpg")
    return root
