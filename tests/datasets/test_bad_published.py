"""Bad copies of the published data sets: read right, noted, or refused with a message that names the fault.

Every input changes a tiny copy (`trees`) in one way. An entry of a table is (data set, name of the change, change,
outcome): the outcome is a tuple of texts that the message of the `UserError` holds, or `READ` with a text that a note
holds, if there is one. No refusal may start a download, except those marked `GET`.
"""

import importlib
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from benchmark.core.errors import UserError
from benchmark.datasets.listing import Listing, MissingDataError
from tests.datasets import trees

READ, GET = "READ", "GET"
HUGE = "9" * 5000  # Python refuses to convert so many digits
Change = Callable[[Path], Path | None]
TREES = {"cub": trees.cub, "cub_folders": lambda root: trees.cub(root, lists=False), "cars196": trees.cars_text,
         "cars_mat": trees.cars_dml, "cars_official": trees.cars_official, "cars_folders": trees.cars_folders,
         "sop": trees.sop, "inshop": trees.inshop, "inaturalist2019": trees.inaturalist,
         "grocery": getattr(trees, "grocery", None)}  # fmt: skip
OPTIONS = {"inaturalist2019": {"num_trainval": 7}, "grocery": {"num_trainval": 2}}
LIST = {"cub": "CUB_200_2011/images.txt", "cars196": "cars_annos.txt",
        "sop": "Stanford_Online_Products/Ebay_train.txt", "inshop": "Eval/list_eval_partition.txt",
        "inaturalist2019": "train2019.json", "grocery": "GroceryStoreDataset/dataset/train.txt"}  # fmt: skip
FIRST = {"cub": "001.Black_footed_Albatross/Black_footed_Albatross_0009_0.jpg", "cars196": "car_ims/000001.jpg",
         "sop": "bicycle_final/11_0.JPG", "inshop": "img/WOMEN/Dresses/id_00000002/02_1_front.jpg",
         "inaturalist2019": f"train_val2019/Plants/10/{1:032x}.jpg",
         "grocery": "train/Food/Apple/Golden-Delicious/Golden-Delicious_000.jpg"}  # fmt: skip
IMAGES = {
    "cub": "CUB_200_2011/images",
    "cars196": "car_ims",
    "sop": "Stanford_Online_Products/bicycle_final",
    "inshop": "Img/img/WOMEN",
    "inaturalist2019": "train_val2019",
    "grocery": "GroceryStoreDataset/dataset/train",
}


def read(tree: str, root: Path, **options: Any) -> Listing:
    name = {"cars_mat": "cars196", "cars_official": "cars196", "cars_folders": "cars196", "cub_folders": "cub"}
    module = importlib.import_module(f"benchmark.datasets.{(dataset := name.get(tree, tree))}")
    listing: Listing = module.listing(str(root), **OPTIONS.get(dataset, {}), **options)
    return listing


@pytest.fixture(scope="session")
def copies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An intact copy of every data set; tests change copies of these."""
    root = tmp_path_factory.mktemp("copies")
    return {name: write(root / name) for name, write in TREES.items() if write}


def judge(tree: str, before: Path, change: Change, outcome: tuple[str, ...], root: Path, **options: Any) -> None:
    """Change a copy, and check that reading it ends as it should."""
    shutil.copytree(before, root, symlinks=True)
    here = change(root) or root
    if outcome[0] == READ:
        found = read(tree, here, **options)
        assert found.labels.tolist() and sorted(found.labels.tolist()) == sorted(read(tree, before).labels.tolist())
        assert all((found.root / path).is_file() for path in found.paths)
        for text in outcome[1:]:
            assert any(text in note for note in found.notes), found.notes
        return
    with pytest.raises(UserError) as refused:
        read(tree, here, **options)
    assert isinstance(refused.value, MissingDataError) == (outcome[0] == GET), refused.value
    for text in outcome[outcome[0] == GET :]:
        assert text in str(refused.value)


def moved(old: str, new: str) -> Change:
    def change(root: Path) -> None:
        (root / new).parent.mkdir(parents=True, exist_ok=True)
        (root / old).rename(root / new)

    return change


def removed(*patterns: str) -> Change:
    def change(root: Path) -> None:
        for path in [path for pattern in patterns for path in sorted(root.glob(pattern))]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def renamed_images(pattern: str, suffix: str) -> Change:
    def change(root: Path) -> None:
        for path in sorted(root.glob(pattern)):
            path.rename(path.with_suffix(suffix))

    return change


def replaced(path: str, old: str, new: str, count: int = 1) -> Change:
    def change(root: Path) -> None:
        text = (root / path).read_bytes().decode()
        assert old in text
        (root / path).write_bytes(text.replace(old, new, count).encode("utf-8", "surrogateescape"))

    return change


def edited(path: str, edit: Callable[[list[str]], list[str]], end: str = "\n") -> Change:
    def change(root: Path) -> None:
        (root / path).write_bytes((end.join(edit((root / path).read_text().splitlines())) + end).encode())

    return change


def at(name: str) -> Change:
    return lambda root: root / name


def packed(name: str, *also_keep: str) -> Change:
    """Pack everything into an archive, which is all that is left."""

    def change(root: Path) -> None:
        entries = sorted(root.iterdir())
        archive = root / name
        archive.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(archive, "w:gz") as tar:
            for path in entries:
                tar.add(path, path.name)
                if path.name not in also_keep and path != archive.parent:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def lower_case(root: Path) -> None:
    for path in sorted(root.rglob("*"), reverse=True):
        path.rename(path.with_name(path.name.lower()))


def only(*names: str) -> Change:
    """Put other files into an otherwise empty folder."""

    def change(root: Path) -> None:
        shutil.rmtree(root)
        for name in names:
            trees.write_text(root / name, "x")

    return change


def other_set(tree: str) -> Change:
    def change(root: Path) -> None:
        shutil.rmtree(root)
        TREES[tree](root)

    return change


def check_cases(*cases: tuple[str, str, Change, tuple[str, ...]]) -> Any:
    names = [f"{tree}-{name}" for tree, name, _, _ in cases]
    assert len(set(names)) == len(names)
    return pytest.mark.parametrize(("tree", "change", "outcome"), [(c[0], c[2], c[3]) for c in cases], ids=names)


# -- named otherwise --------------------------------------------------------------------------------------------------

NAMED = [
    *((tree, "lower case", lower_case, (READ,)) for tree in ("cub", "cars196", "sop", "inshop", "inaturalist2019",
                                                             "grocery")),
    *((tree, "three levels too high", moved(top, f"a/b/{top}"), (READ,)) for tree, top in (
        ("cub", "CUB_200_2011"), ("sop", "Stanford_Online_Products"), ("grocery", "GroceryStoreDataset"))),
    *((tree, "in the images", at(IMAGES[tree]), (f"make data DATASET={tree} ROOT=", LIST[tree].rpartition("/")[0]))
      for tree in ("cars196", "sop")),
    ("inshop", "in the images", at("Img"), ("holds a part of In-Shop", "img/WOMEN", "no list_eval_partition.txt")),
    ("inshop", "in a gender", at("Img/img/WOMEN"), ("list_eval_partition.txt", "ROOT=")),
    ("cub", "in the images", at("CUB_200_2011/images"), (READ,)),
    ("grocery", "in the images", at("GroceryStoreDataset/dataset/train"), ("make data DATASET=grocery ROOT=",
                                                                           "holds Grocery Store Dataset")),
    # iNaturalist as torchvision's data set keeps it, and its neighbours
    ("inaturalist2019", "torchvision", lambda root: (removed("*.json")(root), moved("train_val2019", "2019")(root))[1],
     (READ, "there is no train2019.json")),
    ("inaturalist2019", "torchvision with lists", moved("train_val2019", "2019"), (READ,)),
    ("inaturalist2019", "no lists", removed("*.json"), (READ, "species have numbers")),
    ("inaturalist2019", "no lists, deeper", lambda root: (removed("*.json")(root), moved("train_val2019", "a/b/2019")(
        root))[1], (READ, "there is no train2019.json")),
    ("inaturalist2019", "in the images", at("train_val2019"), (READ,)),
    ("inaturalist2019", "no training list", removed("train2019.json"), ("train2019.json is not", "DATASET=")),
    ("inaturalist2019", "no validation list", removed("val2019.json"), ("val2019.json is not", "ROOT=")),
    ("inaturalist2019", "lists only", removed("train_val2019"), (GET, "has the lists", "no images", "images_root")),
    ("inaturalist2019", "images elsewhere", moved("train_val2019", "pictures"), (READ,)),
    ("inaturalist2019", "list renamed", moved("train2019.json", "train2019 (1).json"), ("train2019.json is not",)),
    ("inaturalist2019", "species by name", lambda root: (removed("*.json")(root), moved(
        "train_val2019/Plants/10", "train_val2019/Plants/Quercus")(root))[1], ("Plants/Quercus is not", "numbered")),
    # suffixes
    ("sop", "suffix in small letters", renamed_images("*/*/*.JPG", ".jpg"), (READ, "9 of 9 images", "is read for")),
    ("sop", "suffix jpeg", renamed_images("*/*/*.JPG", ".jpeg"), (READ, "9 of 9 images", "not the published ones")),
    ("sop", "one image as png", renamed_images("*/*/11_0.JPG", ".png"), (READ, "1 of 9 images", "11_0.png")),
    ("cub", "images as png", renamed_images("*/images/*/B*.jpg", ".png"), (READ, "3 of 10 images", ".png")),
    ("cars196", "images as JPG", renamed_images("car_ims/*.jpg", ".JPG"), (READ, "10 of 10 images")),
    ("inshop", "images as png", renamed_images("Img/img/*/*/*/*.jpg", ".png"), (READ, "8 of 8 images")),
    ("grocery", "images as jpeg", renamed_images("*/dataset/*/*/*/*/*.jpg", ".jpeg"), (READ, "18 of 18 images")),
    ("sop", "suffix is no image", renamed_images("*/*/*.JPG", ".txt"), ("has lists of Stanford", "11_0.JPG")),
    # lists, images and archives apart
    ("cub", "lists only", removed("CUB_200_2011/images"), ("has lists of CUB-200-2011, but not the images", "ROOT=")),
    ("cub", "images elsewhere", moved("CUB_200_2011/images", "pictures"), (READ,)),
    ("cub", "images flat", lambda root: [path.rename(root / "CUB_200_2011/images" / path.name)
                                         for path in sorted(root.glob("*/images/*/*.jpg"))] and None,
     ("not the images that they name", "other images, such as")),
    ("cub", "labels missing", removed("*/image_class_labels.txt"), ("image_class_labels.txt", "not next to it")),
    ("cub", "labels renamed", moved("CUB_200_2011/image_class_labels.txt", "CUB_200_2011/image_class_labels (1).txt"),
     ("image_class_labels (1).txt", "another name")),
    ("cub", "class folders only", moved("CUB_200_2011/images", "mine"), (READ,)),
    ("cub", "published archive", packed("CUB_200_2011.tgz"), (GET, "CUB_200_2011.tgz is there, but not unpacked")),
    ("cub", "archive of another name", packed("cub_200_2011 (1).tar.gz"), ("not unpacked", "tar -xf", "move it to")),
    ("cub", "archive deeper", packed("downloads/CUB_200_2011.tgz"), ("downloads/CUB_200_2011.tgz is there", "tar -xf")),
    ("cub", "archive as ROOT", lambda root: packed("CUB_200_2011.tgz")(root) or root / "CUB_200_2011.tgz",
     ("is a file", "ROOT=")),
    ("cub", "half an archive", only("CUB_200_2011.tgz.part"), (GET, "not complete")),
    ("sop", "published archive", packed("Stanford_Online_Products.zip"), (GET, "is there, but not unpacked")),
    ("sop", "images only", removed("*/Ebay_*.txt"), ("a part of Stanford Online Products", "no Ebay_train.txt")),
    ("sop", "lists only", removed("*/*_final"), ("has lists of Stanford Online Products", "ROOT=")),
    ("sop", "test list missing", removed("*/Ebay_test.txt"), ("Ebay_test.txt of Stanford", "not next to it")),
    ("sop", "list renamed", moved("Stanford_Online_Products/Ebay_train.txt", "Stanford_Online_Products/train.txt"),
     ("a part of Stanford Online Products", "no Ebay_train.txt")),
    ("inshop", "high resolution", moved("Img/img", "Img/img_highres"), (READ,)),
    ("inshop", "official folder", moved("Img", "In-shop Clothes Retrieval Benchmark/Img"), (READ,)),
    ("inshop", "list only", removed("Img"), ("has lists of In-Shop", "WOMEN/Dresses", "ROOT=")),
    ("inshop", "images only", removed("Eval"), ("a part of In-Shop", "no list_eval_partition.txt")),
    ("inshop", "archive only", lambda root: (removed("Img")(root), trees.write_text(root / "Img" / "img.zip", "x"))[1],
     ("not the images", "Img/img.zip is there, but not unpacked")),
    ("inshop", "list renamed", moved("Eval/list_eval_partition.txt", "Eval/list_eval_partition(1).txt"),
     ("list_eval_partition",)),
    ("cars196", "list only", removed("car_ims"), ("has lists of Cars-196", "car_ims/000001.jpg")),
    ("cars196", "images only", removed("cars_annos.txt"), ("a part of Cars-196, car_ims", "no cars_annos.mat")),
    ("cars196", "images elsewhere", moved("car_ims", "data/cars/car_ims"), (READ,)),
    ("cars196", "archives", packed("car_ims.tgz", "cars_annos.txt"), (GET, "car_ims.tgz is there, but not unpacked")),
    ("cars_folders", "lower case", lower_case, (READ,)),
    ("cars_folders", "other signs in names", moved(f"car_data/car_data/train/{trees.CARS[2].replace('/', '-')}",
                                                   f"car_data/car_data/train/{trees.CARS[2].replace('/', '_')}"),
     (READ,)),
    ("cars_folders", "no names", removed("names.csv"), ("a part of Cars-196, car_data", "names.csv")),
    ("cars_folders", "names only", removed("car_data"), ("has lists of Cars-196",)),
    ("cars_folders", "no test folder", removed("car_data/car_data/test"), ("no folder", "next to train")),
    ("grocery", "archive", packed("GroceryStoreDataset-master.zip"), (READ,)),
    ("grocery", "small copy as a tar file", packed("grocery-small.tar"), (READ,)),
    ("grocery", "lists only", removed("*/dataset/train", "*/dataset/val", "*/dataset/test"), ("has lists of Grocery",)),
    ("grocery", "images only", removed("*/dataset/*.txt", "*/dataset/classes.csv"), ("a part of Grocery Store",)),
    ("grocery", "classes missing", removed("*/dataset/classes.csv"), ("a part of Grocery Store", "no classes.csv")),
    # another data set, or none
    ("cub", "holds Cars", other_set("cars_mat"), ("holds Cars-196, not CUB-200-2011", "make data DATASET=cars196")),
    ("cub", "holds SOP", other_set("sop"), ("holds Stanford Online Products", "DATASET=sop")),
    ("sop", "holds CUB", other_set("cub"), ("holds CUB-200-2011", "DATASET=cub")),
    ("cars196", "holds In-Shop", other_set("inshop"), ("holds In-Shop", "DATASET=inshop")),
    ("inshop", "holds iNaturalist", other_set("inaturalist2019"), ("holds iNaturalist 2019",)),
    ("inaturalist2019", "holds groceries", other_set("grocery"), ("holds Grocery Store Dataset",)),
    ("grocery", "holds SOP", other_set("sop"), ("holds Stanford Online Products",)),
    ("cub", "holds CUB-200 of 2010 packed as CUB", only("images.tgz"), (GET, "There are images.tgz")),
    ("cub", "empty", only(".keep"), (GET, "make data DATASET=cub")),
    ("sop", "holds other files", only("notes.txt", "a/b.csv"), (GET, "There are a, notes.txt")),
]  # fmt: skip


@pytest.mark.bad_input("published data set", "renamed files")
@check_cases(*NAMED)
def test_a_copy_with_other_names_is_read_or_explained_and_never_downloaded_again(
    tree: str, change: Change, outcome: tuple[str, ...], copies: dict[str, Path], tmp_path: Path
) -> None:
    judge(tree, copies[tree], change, outcome, tmp_path / "copy")


ROOTS = [
    ("a typo", lambda root: root.with_name("cpoy"), ("There is no folder", "Did you mean", "/copy", "mkdir -p")),
    ("a typo in the middle", lambda root: root.parent / "cpoy" / "CUB_200_2011", ("Did you mean", "CUB_200_2011")),
    ("another case", lambda root: root.with_name("COPY"), ("Did you mean", "/copy")),
    ("nothing like it", lambda root: Path("/nowhere/at/all"), ("There is no folder /nowhere/at/all", "mkdir -p")),
    ("a file", lambda root: root / "attributes.txt", ("attributes.txt is a file", "ROOT=")),
    ("empty", lambda root: "", ("dataset.module.root is empty",)),
    ("blank", lambda root: "  ", ("dataset.module.root is empty",)),
    ("a null byte", lambda root: f"{root}\0", ("cannot be printed", "ROOT=FOLDER")),
    ("nothing", lambda root: None, ("dataset.module.root=null", "a folder")),
    ("a number", lambda root: 2019, ("There is no folder 2019",)),
    ("an unknown user", lambda root: "~no_such_user_here/cub", ("~no_such_user_here/cub", "no home directory")),
    ("too long", lambda root: root / ("x" * 300), ("300 bytes",)),
    ("a dangling link", lambda root: (root / "link").symlink_to(root / "gone") or root / "link", ("is a link to",)),
    ("below a file", lambda root: root / "attributes.txt" / "a", ("There is no folder",)),
    ("a link to the copy", lambda root: (root.parent / "link").symlink_to(root) or root.parent / "link", (READ,)),
    ("dots", lambda root: root / "CUB_200_2011" / "..", (READ,)),
]  # fmt: skip


@pytest.mark.bad_input("published data set", "renamed files")
@pytest.mark.parametrize(("choose", "outcome"), [case[1:] for case in ROOTS], ids=[case[0] for case in ROOTS])
def test_a_folder_that_cannot_be_the_data_is_refused_and_never_downloaded_into(
    choose: Callable[[Path], Any], outcome: tuple[str, ...], copies: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(copies["cub"], tmp_path / "copy")
    root = choose(tmp_path / "copy")
    cub = importlib.import_module("benchmark.datasets.cub")
    if outcome[0] == READ:
        assert len(cub.listing(str(root)).paths) == 10
        return
    with pytest.raises(UserError) as refused:
        cub.listing(root if root is None or isinstance(root, int) else str(root))
    assert not isinstance(refused.value, MissingDataError)
    assert all(text in str(refused.value) for text in outcome), refused.value


# -- paths ------------------------------------------------------------------------------------------------------------

PATHS = {
    "absolute": ("/etc/passwd", ("leads outside",)),
    "above": ("../../secret.jpg", ("leads outside",)),
    "above after a folder": ("a/../../secret.jpg", ("leads outside",)),
    "home of Windows": ("C:/secret.jpg", ("leads outside",)),
    "backslashes": ("a\\..\\..\\secret.jpg", ("forward slashes",)),
    "control character": ("a/\x07.jpg", ("a/",)),
    "null byte": ("a/\0.jpg", ()),
    "a folder": ("a/b/", ("not the name of a file",)),
    "a name of 300 letters": (f"a/{'x' * 300}.jpg", ("not the name of a file",)),
    "a path of 9000 letters": ("/".join(["x" * 200] * 45), ("not the name of a file",)),
    "only a dot": (".", ("not the name of a file",)),
}  # fmt: skip
LINES = {"cub": "line 1", "cars196": "line 1", "sop": "line 2", "inshop": "line 3", "inaturalist2019": "image 1",
         "grocery": "line 1"}  # fmt: skip
ROWS = [
    (tree, name, replaced(LIST[tree], FIRST[tree], json.dumps(path)[1:-1] if "json" in LIST[tree] else path),
     (LINES[tree], *texts) if texts else (LIST[tree].split("/")[-1],))
    for tree in LIST for name, (path, texts) in PATHS.items()
]  # fmt: skip
ROWS += [
    (tree, "detour that stays inside", replaced(LIST[tree], FIRST[tree], f"./x/..//{FIRST[tree]}"), (READ,))
    for tree in LIST
]
ROWS += [
    ("cars196", "empty", replaced(LIST["cars196"], FIRST["cars196"], ""), ("line 1", "path")),
    ("grocery", "empty", replaced(LIST["grocery"], FIRST["grocery"], ""), ("line 1", "path")),
    ("inaturalist2019", "empty", replaced(LIST["inaturalist2019"], FIRST["inaturalist2019"], ""), ("image 1",)),
    ("cub", "listed twice", replaced(LIST["cub"], "0009_0", "0008_1"), ("listed twice",)),
    ("sop", "last row", replaced("Stanford_Online_Products/Ebay_test.txt", "bicycle_final/44_2.JPG", "../44_2.JPG"),
     ("Ebay_test.txt, line 4", "leads outside")),
    ("inshop", "last row", replaced(LIST["inshop"], "img/MEN/Denim/id_00000004/04_7_flat.jpg", "/a/b/c/d.jpg"),
     ("line 10", "leads outside")),
]  # fmt: skip


@pytest.mark.bad_input("published list", "paths")
@check_cases(*ROWS)
def test_a_path_that_leads_outside_or_names_no_file_is_refused_by_its_line(
    tree: str, change: Change, outcome: tuple[str, ...], copies: dict[str, Path], tmp_path: Path
) -> None:
    judge(tree, copies[tree], change, outcome, tmp_path / "copy")


# -- class numbers ----------------------------------------------------------------------------------------------------

BAD_NUMBERS = {"a billion": str(10**9), "thirty digits": "1" + "0" * 30, "five thousand digits": HUGE, "zero": "0",
               "negative": "-3", "a gap": "7", "NaN": "nan", "a fraction": "1.5", "hexadecimal": "0x1", "a word": "one",
               "infinite": "inf", "missing": ""}  # fmt: skip
LABELS = {
    "cub": ("CUB_200_2011/image_class_labels.txt", "9 4\n", "9 {}\n"),
    "cars196": ("cars_annos.txt", "000005.jpg,4,", "000005.jpg,{},"),
    "sop": ("Stanford_Online_Products/Ebay_test.txt", "8 4 1", "8 {} 1"),
    "grocery": ("GroceryStoreDataset/dataset/val.txt", "_005.jpg, 2, 2", "_005.jpg, {}, 2"),
}
IDS = [
    (tree, name, replaced(path, old, new.format(number)), ("Grocery" if tree == "grocery" else path.split("/")[-1],))
    for tree, (path, old, new) in LABELS.items() for name, number in BAD_NUMBERS.items()
    if (tree, name) != ("grocery", "zero")
]  # fmt: skip
IDS += [
    ("sop", "super class a billion", replaced(LIST["sop"], "1 1 1 b", f"1 1 {10**9} b"), ("line 2", "super")),
    ("sop", "super class negative", replaced(LIST["sop"], "1 1 1 b", "1 1 -1 b"), ("line 2", "super", "-1")),
    ("sop", "image id twice", replaced(LIST["sop"], "\n2 1 1", "\n1 1 1"), ("line 3", "image id 1 occurs a second")),
    ("sop", "test class in the training list", replaced(LIST["sop"], "6 3 2", "6 4 2"),
     ("of class 4", "two super classes")),
    ("cub", "image id twice", lambda root: [replaced(f"CUB_200_2011/{name}.txt", "\n3 ", "\n2 ")(root) for name in
                                            ("images", "image_class_labels")] and None, ("line 3", "image id 2")),
    ("cub", "another class than its folder", replaced("CUB_200_2011/image_class_labels.txt", "1 1\n", "1 2\n"),
     ("line 1", "of class 2", "folder of another")),
    ("cub_folders", "a billion", moved("CUB_200_2011/images/004.Groove_billed_Ani",
                                       f"CUB_200_2011/images/{10**8}.Groove_billed_Ani"), ("no image of class 004",)),
    ("cub_folders", "five thousand digits", moved("CUB_200_2011/images/004.Groove_billed_Ani",
                                                  f"CUB_200_2011/images/{'9' * 200}.Ani"), ("is not a class of CUB",)),
    ("cub_folders", "a gap", removed("*/images/003.*"), ("no image of class 003",)),
    ("cub_folders", "twice", lambda root: shutil.copytree(root / "CUB_200_2011/images/002.Laysan_Albatross",
                                                          root / "CUB_200_2011/images/002.Other") and None,
     ("two folders for one class",)),
    ("cub_folders", "not a number", moved("CUB_200_2011/images/004.Groove_billed_Ani", "CUB_200_2011/images/Ani"),
     ("images/Ani is not a class",)),
    ("grocery", "group a billion", replaced("GroceryStoreDataset/dataset/classes.csv", "Apple,0", f"Apple,{10**9}"),
     ("line 2", "1000000000")),
    ("grocery", "class a billion", replaced("GroceryStoreDataset/dataset/classes.csv", "Delicious,0", f"D,{10**9}"),
     ("line 2", "1000000000")),
    ("grocery", "class twice", replaced("GroceryStoreDataset/dataset/classes.csv", "Oranges,1,", "Oranges,0,"),
     ("classes.csv, line",)),
    ("grocery", "class without a name", replaced("GroceryStoreDataset/dataset/classes.csv", "Oranges,1,", ",1,"),
     ("line 3", "name")),
    ("grocery", "class of no group", replaced("GroceryStoreDataset/dataset/classes.csv", ",Milk,", ",,"),
     ("line 4", "group")),
]  # fmt: skip


@pytest.mark.bad_input("published list", "class numbers")
@check_cases(*IDS)
def test_class_numbers_that_cannot_be_right_are_refused_without_allocating_by_them(
    tree: str, change: Change, outcome: tuple[str, ...], copies: dict[str, Path], tmp_path: Path
) -> None:
    judge(tree, copies[tree], change, outcome, tmp_path / "copy")


MATS = {
    "a billion": (10**9, "cars_annos"), "zero": (0, "image 5"), "negative": (-1, "cars_annos"),
    "NaN": (np.nan, "cars_annos"),
    "a fraction": (1.5, "cars_annos"), "a gap": (9, "image 5"), "text": ("four", "image 5"), "a list": ([1, 2], "mat"),
    "infinite": (np.inf, "cars_annos"), "nothing": ([], "cars_annos"), "complex": (1j, "cars_annos"),
}  # fmt: skip


@pytest.mark.slow  # each one starts a process
@pytest.mark.bad_input("published list", "class numbers")
@pytest.mark.parametrize(("value", "said"), MATS.values(), ids=MATS)
def test_class_numbers_of_a_mat_file_that_cannot_be_right_are_refused(
    value: Any, said: str, copies: dict[str, Path], tmp_path: Path
) -> None:
    def change(root: Path) -> None:
        files = [f"car_ims/{i:06}.jpg" for i in range(1, len(trees.CARS_ROWS) + 1)]
        labels: list[Any] = [np.int64(label) for label, _ in trees.CARS_ROWS]
        labels[4] = value
        content = {"annotations": trees.structs(relative_im_path=files, **{"class": labels}),
                   "class_names": trees.cell(trees.CARS)}  # fmt: skip
        savemat(root / "cars196" / "cars_annos.mat", content)

    judge("cars_mat", copies["cars_mat"], change, (said,), tmp_path / "copy")


# -- damaged or incomplete --------------------------------------------------------------------------------------------


def overwritten(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def odd_rows(path: str, sep: str = " ") -> list[tuple[str, Change, tuple[str, ...]]]:
    """Changes of a text list that do not change its meaning."""
    return [
        ("Windows line ends", edited(path, list, end="\r\n"), (READ,)),
        ("byte order mark", lambda root: overwritten(root / path, b"\xef\xbb\xbf" + (root / path).read_bytes()),
         (READ,)),
        ("trailing blanks", edited(path, lambda lines: [f"{line} \t " for line in lines]), (READ,)),
        ("double spaces", edited(path, lambda lines: [line.replace(sep, sep + " ") for line in lines]), (READ,)),
        ("blank lines at the end", edited(path, lambda lines: [*lines, "", "  ", ""]), (READ,)),
        ("half a last line", edited(path, lambda lines: [*lines[:-1], lines[-1][: len(lines[-1]) // 4]]), ("copy",)),
        ("empty list", lambda root: overwritten(root / path, b""), (path.rpartition("/")[2][:8],)),
        ("binary", lambda root: overwritten(root / path, bytes(range(256)) * 9), (path[-8:],)),
        ("a web page", lambda root: overwritten(root / path, b"<html><body>Sign in</body></html>\n" * 9),
         (path[-8:],)),
    ]  # fmt: skip


DAMAGED = [(tree, *case) for tree in ("cub", "sop", "inshop") for case in odd_rows(LIST[tree])]
DAMAGED += [(tree, *case) for tree in ("cars196", "grocery") for case in odd_rows(LIST[tree], ",")]
DAMAGED += [
    *((tree, "an image is missing", lambda root, tree=tree: next(
        path for path in root.rglob("*") if path.is_file() and str(path).endswith(FIRST[tree])).unlink(),
       ("1 of", "cannot be used", "is missing", "of 4 classes" if tree != "inaturalist2019" else "of 11 classes"))
      for tree in LIST),
    ("cub", "a class is missing", removed("*/images/003.*"), ("Sooty_Albatross (2 of 2)", "1 classes have none")),
    ("cub", "most are missing", removed("*/images/00[234]*"), ("7 of 10 images", "3 of 4 classes", "3 classes have")),
    ("cub", "a folder instead of an image", lambda root: (root / "CUB_200_2011/images" / FIRST["cub"]).unlink() or (
        root / "CUB_200_2011/images" / FIRST["cub"]).mkdir(), ("1 of 10 images", "is missing")),
    ("cub", "a dangling link", lambda root: (root / "CUB_200_2011/images" / FIRST["cub"]).unlink() or (
        root / "CUB_200_2011/images" / FIRST["cub"]).symlink_to("gone.jpg"), ("1 of 10 images", "is missing")),
    ("cub", "labels of other images", edited("CUB_200_2011/image_class_labels.txt", lambda lines: lines[1:]),
     ("name different images",)),
    ("cub_folders", "files of other kinds", lambda root: [trees.write_text(root / "CUB_200_2011/images" / name, "x")
     for name in ("002.Laysan_Albatross/a.heic", "@eaDir/b.jpg", "cover.jpg")] and None,
     (READ, "passed over", "cover.jpg")),
    ("cub_folders", "an empty class", lambda root: (root / "CUB_200_2011/images/005.Crow").mkdir(),
     ("folder without an image",)),
    ("sop", "no header", edited(LIST["sop"], lambda lines: lines[1:]), ("line 1", "header")),
    ("sop", "half of the training list", edited(LIST["sop"], lambda lines: lines[:3]), ("class",)),
    ("sop", "a category is missing", removed("*/cabinet_final"), ("4 of 9 images", "2 classes have none")),
    ("inshop", "no header", edited(LIST["inshop"], lambda lines: lines[2:]), ("should begin with",)),
    ("inshop", "no count", edited(LIST["inshop"], lambda lines: lines[1:]), ("should begin with",)),
    ("inshop", "rows are missing", edited(LIST["inshop"], lambda lines: lines[:-1]), ("has 7 images, but 8",)),
    ("inshop", "a gender is missing", removed("Img/img/MEN"), ("4 of 8 images", "id_00000004 (3 of 3)")),
    ("inshop", "unknown status", replaced(LIST["inshop"], "gallery", "test   "), ("line", "no status of")),
    ("cars_folders", "a class is missing", removed(f"car_data/car_data/*/{trees.CARS[1]}"), ("no image of 1 of",)),
    ("cars_folders", "a name twice", edited("names.csv", lambda lines: [*lines, lines[0]]), ("names a class twice",)),
    ("cars_folders", "an unknown class", moved(f"car_data/car_data/train/{trees.CARS[0]}",
                                               "car_data/car_data/train/Bus"), ("Bus is not a class",)),
    ("grocery", "a list is missing", removed("*/dataset/val.txt"), ("val.txt of Grocery", "not next to it")),
    ("grocery", "a part is missing", removed("*/dataset/test"), ("of 18 images", "Golden-Delicious")),
    ("grocery", "class list cut", edited("GroceryStoreDataset/dataset/classes.csv", lambda lines: lines[:3]),
     ("is of class 2", "not in classes.csv")),
    ("inaturalist2019", "a species is missing", removed("train_val2019/Plants/3"), ("Zw 3 (3 of 3)", "1 classes")),
    ("inaturalist2019", "no lists and a species missing", lambda root: removed("*.json", "*/Plants/3")(root),
     ("species 10 is out of range",)),
    ("inaturalist2019", "no lists and an empty species", lambda root: removed("*.json", "*/Plants/3/*")(root),
     ("folder without an image (Plants/3",)),
]  # fmt: skip


@pytest.mark.bad_input("published data set", "incomplete copies")
@check_cases(*DAMAGED)
def test_a_damaged_or_incomplete_copy_is_read_right_or_named(
    tree: str, change: Change, outcome: tuple[str, ...], copies: dict[str, Path], tmp_path: Path
) -> None:
    judge(tree, copies[tree], change, outcome, tmp_path / "copy")


COUNTS = [
    ("cub", {"images": 12}, "only a part"), ("cub", {"images": 9}, "other files were added"),
    ("cub", {"images": 10, "classes": 5}, "lists were probably changed"),
    ("sop", {"trainval": {"images": 5}}, "6 trainval"),
    ("inshop", {"query": {"classes": 3}}, "2 query classes, not 3"), ("cars196", {"smallest_class": 1}, "not 1"),
    ("grocery", {"super_classes": 4}, "3 super_classes, not 4"), ("inaturalist2019", {"test": {"images": 1}}, "not 1"),
]  # fmt: skip


@pytest.mark.bad_input("published data set", "incomplete copies")
@pytest.mark.parametrize(("tree", "expected", "said"), COUNTS, ids=[f"{c[0]}-{c[2]}" for c in COUNTS])
def test_other_counts_are_listed_with_what_the_copy_probably_is(
    tree: str, expected: dict[str, Any], said: str, copies: dict[str, Path]
) -> None:
    with pytest.raises(UserError, match="does not hold the published") as refused:
        read(tree, copies[tree], expected=expected)
    assert said in str(refused.value)


@pytest.mark.parametrize("images", [6033, 5994, 5864])
def test_another_edition_of_cub_is_recognised_by_its_number_of_images(images: int) -> None:
    cub = importlib.import_module("benchmark.datasets.cub")
    assert cub.NAMES.likely[images]


@pytest.mark.bad_input("published data set", "incomplete copies")
@pytest.mark.parametrize("below", ["CUB_200_2011/images", "CUB_200_2011/images/002.Laysan_Albatross"])
def test_a_folder_that_cannot_be_read_is_named(
    below: str, copies: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def refuse(path: Any = ".") -> Any:
        if str(path).rstrip("/") == str(copies["cub_folders"] / below):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    said = f"({below} cannot be read: |cannot be read .{Path(below).name}, )Permission denied"
    with pytest.raises(UserError, match=said):
        read("cub_folders", copies["cub_folders"])


# -- JSON of iNaturalist ----------------------------------------------------------------------------------------------


def json_with(part: str, entry: int, key: str, value: Any) -> Change:
    """Replace a value of an entry; without a key, the entry; without an entry, the part."""

    def change(root: Path) -> None:
        path = root / "train2019.json"
        whole = json.loads(path.read_text())
        if key:
            whole[part][entry][key] = value
        elif entry >= 0:
            whole[part][entry] = value
        else:
            whole[part] = value
        path.write_text(json.dumps(whole))

    return change


def json_text(text: str | bytes) -> Change:
    content = text.encode() if isinstance(text, str) else text
    return lambda root: overwritten(root / "train2019.json", content)


JSONS: list[tuple[str, Change, tuple[str, ...]]] = [
    ("category id a billion", json_with("categories", 0, "id", 10**9), ("category 1: ", "1000000000 is out of range")),
    ("category id of 40 digits", json_with("categories", 0, "id", 10**40), ("with more than 30 digits",)),
    ("category id negative", json_with("categories", 0, "id", -1), ("category -1 is out of range",)),
    ("category id twice", json_with("categories", 0, "id", 3), ("id 3 occurs a second time",)),
    ("category id a fraction", json_with("categories", 0, "id", 1.5), ("entry 1 of categories", "id (number)")),
    ("category id a whole float", json_with("categories", 0, "id", 10.0), ("entry 1 of categories",)),
    ("category id true", json_with("categories", 0, "id", True), ("entry 1 of categories",)),
    ("category id text", json_with("categories", 0, "id", "10"), ("entry 1 of categories",)),
    ("category id null", json_with("categories", 0, "id", None), ("entry 1 of categories",)),
    ("category id NaN", json_with("categories", 0, "id", float("nan")), ("entry 1 of categories",)),
    ("category id infinite", json_with("categories", 0, "id", float("inf")), ("entry 1 of categories",)),
    ("genus a number", json_with("categories", 0, "genus", 3), ("entry 1 of categories", "genus (text)")),
    ("annotation of an unknown category", json_with("annotations", 0, "category_id", 10**9), ("no known category",)),
    ("annotation of a negative category", json_with("annotations", 0, "category_id", -1), ("no known category",)),
    ("annotation of a bool", json_with("annotations", 0, "category_id", False), ("entry 1 of annotations",)),
    ("annotation of another image", json_with("annotations", 0, "image_id", 10**12), ("no known category",)),
    ("annotation twice", json_with("annotations", 0, "image_id", 1), ("annotation", "image 1 occurs a second")),
    ("annotation is a list", json_with("annotations", 0, "", [1, 2]), ("entry 1 of annotations",)),
    ("annotations are an object", json_with("annotations", -1, "", {"a": 1}), ("annotations should be a list",)),
    ("annotations are null", json_with("annotations", -1, "", None), ("annotations should be a list",)),
    ("annotations are empty", json_with("annotations", -1, "", []), ("no known category",)),
    ("images are empty", json_with("images", -1, "", []), ("has no images",)),
    ("image id twice", json_with("images", 1, "id", 1), ("image 2", "id 1 occurs a second")),
    ("image id a fraction", json_with("images", 0, "id", 0.5), ("entry 1 of images", "id (number)")),
    ("file name null", json_with("images", 0, "file_name", None), ("entry 1 of images", "file_name (text)")),
    ("file name a list", json_with("images", 0, "file_name", ["a"]), ("entry 1 of images",)),
    ("a billion digits in spirit", json_text('{"images": ' + HUGE + "}"), ("is not JSON",)),
    ("nested deeply", json_text("[" * 100_000), ("is not JSON",)),
    ("nested deeply and closed", json_text("[" * 50_000 + "]" * 50_000), ("train2019.json",)),
    ("a number", json_text("3"), ("does not hold annotations",)),
    ("a long list", json_text("[" + "0," * 200_000 + "0]"), ("does not hold annotations",)),
    ("text after the end", json_text("{} {}"), ("is not JSON",)),
    ("cut", lambda root: overwritten(root / "train2019.json", (root / "train2019.json").read_bytes()[:500]),
     ("is not JSON",)),
    ("empty", json_text(""), ("is not JSON",)),
    ("a web page", json_text("<html>Sign in</html>"), ("train2019.json", "not")),
    ("UTF-16", json_text("{}".encode("utf-16")), ("train2019.json",)),
    ("gzip", json_text(b"\x1f\x8b\x08\x00" + bytes(20)), ("train2019.json",)),
    ("of 2018", json_with("categories", -1, "", [{"id": 0, "name": "a", "supercategory": "Plants"}]), ("genus",)),
    ("byte order mark", lambda root: overwritten(
        root / "train2019.json", b"\xef\xbb\xbf" + (root / "train2019.json").read_bytes()), (READ,)),
    ("other species in the other list", json_with("categories", 0, "name", "Zw 99"), ("different categories",)),
]  # fmt: skip


@pytest.mark.bad_input("published list", "JSON")
@pytest.mark.parametrize(("change", "outcome"), [case[1:] for case in JSONS], ids=[case[0] for case in JSONS])
def test_a_json_list_with_impossible_contents_is_refused_by_its_entry(
    change: Change, outcome: tuple[str, ...], copies: dict[str, Path], tmp_path: Path
) -> None:
    judge("inaturalist2019", copies["inaturalist2019"], change, outcome, tmp_path / "copy")
