"""`folder`: a user's own images in folders, their layouts, and everything that lies around there."""

import errno
import functools
import io
import os
import re
import socket
import unicodedata
from pathlib import Path

import pytest
from PIL import Image, features

from benchmark.core.errors import UserError
from benchmark.core.escape import visible
from benchmark.datasets import folder
from benchmark.datasets.listing import Counts, MissingDataError
from tests.datasets import trees


@functools.cache
def payload(kind: str = "JPEG") -> bytes:
    """Bytes of a small image."""
    whole = io.BytesIO()
    Image.new("RGB", (12, 9), (200, 30, 90)).save(whole, format=kind)
    return whole.getvalue()


def put(root: Path, *paths: str, content: bytes | None = None) -> str:
    """Write files, by default images, and return the root as text."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        distinct = payload() + os.fsencode(path)  # what follows the end of a JPEG is ignored
        (root / path).write_bytes(distinct if content is None else content)
    return str(root)


def classes(root: Path, *names: str) -> str:
    """Write folders with two images each."""
    return put(root, *(f"{name}/{i}.jpg" for name in names for i in (1, 2)))


def parts(found):
    """Return the names of the training classes, and of the others."""
    return [
        [found.class_names[i] for i in found.classes(*roles)] for roles in (("trainval",), ("test", "query", "gallery"))
    ]


def notes(found):
    """Return the notes, without the one that says that `check=files` compares no images."""
    return [note for note in found.notes if "not compared" not in note]


def refusal(root, **options) -> str:
    with pytest.raises(UserError) as caught:
        folder.listing(str(root), **options)
    return str(caught.value)


def forbid(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Make a folder unreadable even for root, who ignores permissions."""
    scandir = os.scandir

    def refuse(path: str | Path = ".") -> object:
        if Path(path) == folder:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)


# -- classes ----------------------------------------------------------------------------------------------------------


def test_a_folder_is_a_class_and_its_parent_is_the_super_class(tmp_path):
    names = ["gulls/herring", "gulls/lesser", "terns/arctic", "terns/common"]
    put(tmp_path, *(f"{name}/{file}" for name in names for file in ("1.JPG", "2.jpeg", "3.png")))
    trees.write_text(tmp_path / "gulls" / "herring" / "._1.JPG", "litter")
    trees.write_text(tmp_path / "readme.txt", "not an image")
    found = folder.listing(str(tmp_path), check="images")
    assert found.class_names == names
    assert [found.super_names[i] for i in found.super_labels] == ["gulls", "gulls", "terns", "terns"]
    assert found.counts_by_role()["trainval"] == Counts(6, 2, 1)
    assert found.paths[:4] == [f"gulls/herring/{name}" for name in ("1.JPG", "2.jpeg", "3.png")] + [
        "gulls/lesser/1.JPG"
    ]


def test_flat_folders_have_the_order_of_imagefolder(tmp_path):
    from torchvision.datasets import ImageFolder

    root = put(tmp_path, *(f"{name}/{i}.jpg" for name in ("10", "2", "b", "A") for i in (10, 9)))
    found, theirs = folder.listing(root), ImageFolder(root)
    assert [
        (str(found.root / path), label) for path, label in zip(found.paths, found.labels, strict=True)
    ] == theirs.samples
    assert found.super_names == ["(none)"] and notes(found) == []


def test_an_image_without_a_class_and_a_class_that_is_also_a_super_class_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"a holds both images and folders with images \(a/b\)"):
        folder.listing(put(tmp_path / "x", "a/1.jpg", "a/b/1.jpg", "c/1.jpg"))
    with pytest.raises(UserError, match=r"1\.jpg has no class"):
        folder.listing(put(tmp_path / "y", "1.jpg", "a/b/1.jpg"))


def test_an_empty_a_missing_and_a_very_deep_folder_are_refused(tmp_path):
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(MissingDataError):
            folder.listing(str(root))
    with pytest.raises(UserError, match="nested more than 16 folders deep"):
        folder.listing(put(tmp_path, "/".join("abcdefghijklmnopqr") + "/1.jpg"))


def test_folder_skips_unusable_images(tmp_path):
    root = put(tmp_path, *(f"{name}/{i}.jpg" for name in "abcd" for i in range(2)), "lone/1.jpg")
    with pytest.raises(UserError, match=r"lone: lone/1\.jpg is the only one of its class"):
        folder.listing(root)
    found = folder.listing(root, on_bad="leave_out")
    assert found.total_classes == 4
    assert "left out: 1 class without a usable image (lone)" in found.notes


@pytest.mark.parametrize("option", ["split", "on_bad", "check"])
def test_unknown_options_are_refused(tmp_path, option):
    assert f"{option}='all': allowed are" in refusal(classes(tmp_path, "a", "b"), **{option: "all"})


# -- what is passed over ----------------------------------------------------------------------------------------------

READ = ("x.JPG", "x.jpeg", "x.jpe", "x.jfif", "x.JFIF", "x.jif", "x.mpo", "x.dib", "x.bmp", "x.apng", "x.png", "x.pnm",
        "x.ppm", "x.tif", "x.webp", "x.gif", "x.jpg.jpeg", "x y.jpg", "x.tar.jpg")  # fmt: skip


@pytest.mark.bad_input("folder", "other suffixes")
@pytest.mark.parametrize("name", READ)
def test_every_usual_suffix_of_a_format_that_is_read_is_read(tmp_path, name):
    kinds = {"dib": "BMP", "bmp": "BMP", "png": "PNG", "apng": "PNG", "pnm": "PPM", "ppm": "PPM", "tif": "TIFF"}
    kinds |= {"gif": "GIF", "webp": "WEBP"}
    classes(tmp_path, "a", "b")
    suffix = name.rpartition(".")[2].lower()
    put(
        tmp_path,
        f"a/{name}",
        content=payload(kinds.get(suffix, suffix.upper() if suffix in ("gif", "webp") else "JPEG")),
    )
    found = folder.listing(str(tmp_path), check="images")
    assert f"a/{name}" in found.paths and notes(found) == []


@pytest.mark.bad_input("folder", "other suffixes")
def test_avif_is_read_where_pillow_reads_it(tmp_path):
    put(tmp_path, "a/x.avif", content=payload("AVIF") if features.check("avif") else b"")
    found = folder.listing(classes(tmp_path, "a", "b"))
    assert ("a/x.avif" in found.paths) == features.check("avif")
    assert bool(notes(found)) != features.check("avif")


def fifo(path: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(path.parent)  # the whole path may be too long for a socket
        try:
            server.bind(path.name)
        finally:
            os.chdir(here)


TEXT = b"some text"
OVER = {  # what lies in class a beside its images, and the note about it
    "heic": ({"a/x.heic": TEXT}, r"passed over: 1 \.heic file \(a/x\.heic\): convert to \.jpg or \.png"),
    "heic in capitals": ({"a/X.HEIC": TEXT, "b/Y.Heic": TEXT}, r"passed over: 2 \.heic files \(such as a/X\.HEIC\)"),
    "camera raw": ({"a/x.CR2": TEXT, "a/x.nef": TEXT}, r"passed over: 1 \.cr2 file"),
    "jpeg 2000": ({"a/x.jp2": TEXT}, r"passed over: 1 \.jp2 file .*convert"),
    "vector": ({"a/x.svg": TEXT}, r"passed over: 1 \.svg file"),
    "text": ({"a/x.txt": TEXT, "labels.txt": TEXT}, r"passed over: 2 \.txt files \(such as a/x\.txt\)$"),
    "annotations": ({"a/1.xml": TEXT, "a/2.json": TEXT}, r"passed over: 1 \.json file \(a/2\.json\)"),
    "video": ({"a/x.mp4": TEXT}, r"passed over: 1 \.mp4 file"),
    "download that did not finish": ({"a/x.jpg.part": TEXT}, r"passed over: 1 \.part file"),
    "backup": ({"a/1.jpg.bak": None}, r"passed over: 1 \.bak file .*rename to \.jpg or \.png"),
    "no suffix": ({"README": TEXT}, r"passed over: 1 file without a suffix \(README\)$"),
    "image without a suffix": ({"a/IMG_1": None}, r"1 image whose name has no suffix \(a/IMG_1\): rename to \.jpg"),
    "numbered suffix": ({"a/IMG.0001": None, "a/x.1": None}, "2 images whose names have no suffix"),
    "blank behind the suffix": ({"a/x.jpg ": None}, "1 image whose name has no suffix"),
    "dot behind the suffix": ({"a/x.jpg.": None}, "1 image whose name has no suffix"),
    "suffix of a scraper": ({"a/x.jpg_large": None}, r"1 \.jpg_large file .*: rename to \.jpg or \.png"),
    "tilde": ({"a/x.jpg~": None}, "1 image whose name has no suffix"),
    "mac": ({"a/.DS_Store": TEXT, "a/._1.jpg": TEXT, "__MACOSX/a/1.jpg": None}, "3 system files or folders"),
    "windows": ({"a/Thumbs.db": TEXT, "Desktop.ini": TEXT, "$RECYCLE.BIN/x.jpg": None}, "3 system files or folders"),
    "nas": ({"a/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg": None, "#recycle/1.jpg": None}, "2 system files or folders"),
    "netatalk": ({"a/.AppleDouble/1.jpg": TEXT}, "1 system file or folder"),
    "thumbnails": ({"a/.thumbnails/1.jpg": None}, "1 system file or folder"),
    "notebook": ({".ipynb_checkpoints/x.ipynb": TEXT, "a/.ipynb_checkpoints/1.jpg": None}, "2 system files or folders"),
    "disk": ({"lost+found/x.jpg": None, ".Trash-1000/x.jpg": None}, "2 system files or folders"),
    "git": ({".git/config": TEXT, ".gitattributes": TEXT, ".gitkeep": b""}, "3 system files or folders"),
    "hidden image": ({"a/.x.jpg": None}, r"1 hidden file or folder \(a/\.x\.jpg\)"),
    "hidden folder": ({".old/x.jpg": None, "...": TEXT}, "2 hidden files or folders"),
    "evicted but present": ({"a/.1.jpg.icloud": TEXT}, "1 system file or folder"),
    "pipe": ({"a/x.jpg": fifo}, r"1 socket, pipe or device \(a/x\.jpg\)"),
    "socket": ({"a/x.jpg": unix_socket}, "1 socket, pipe or device"),
    "strange name": ({"a/\n\x1b[2J\udcff.heic": TEXT}, r"1 \.heic file \(a/\\n\\x1b\[2J\\udcff\.heic\)"),
    "long name": ({f"a/{'x' * 240}.heic": TEXT}, r"1 \.heic file \(a/x{98}\.\.\.\)"),
}  # fmt: skip


@pytest.mark.bad_input("folder", "files that are no images")
@pytest.mark.parametrize(("files", "said"), OVER.values(), ids=OVER)
def test_what_is_passed_over_is_counted_with_its_reason(tmp_path, files, said):
    plain = folder.listing(classes(tmp_path, "a", "b", "c"))
    for path, content in files.items():
        if callable(content):
            content(tmp_path / path)
        else:
            put(tmp_path, path, content=content)
    found = folder.listing(str(tmp_path))
    assert found.fingerprint == plain.fingerprint
    assert re.search(said, "\n".join(found.notes), re.MULTILINE), found.notes
    assert all(visible(note) == note for note in found.notes)


def test_many_kinds_of_files_do_not_flood_the_notes(tmp_path):
    classes(tmp_path, "a", "b")
    put(tmp_path, *(f"a/x.{chr(97 + i)}{chr(97 + j)}" for i in range(10) for j in range(10)), content=TEXT)
    found = folder.listing(str(tmp_path))
    assert len(notes(found)) == 13 and found.notes[-1] == "passed over: 88 files of other kinds"


# -- the split --------------------------------------------------------------------------------------------------------

BIRDS = [["a", "b"], ["c", "d"]]
LAYOUTS = {  # folders with images, and the classes for training and for testing
    "train, test": ("train/a train/b test/c test/d", BIRDS),
    "test comes first by name": ("training/x training/y test/c test/d", [["x", "y"], ["c", "d"]]),
    "capitals": ("Train/a Train/b TEST/c TEST/d", BIRDS),
    "long words": ("Training/a Training/b Testing/c Testing/d", BIRDS),
    "images of": ("train_images/a train_images/b test_images/c test_images/d", BIRDS),
    "images first": ("images-train/a images-train/b images-test/c images-test/d", BIRDS),
    "glued": ("trainset/a trainset/b testset/c testset/d", BIRDS),
    "sets": ("training-set/a training-set/b test-set/c test-set/d", BIRDS),
    "years": ("train2017/a train2017/b val2017/c val2017/d", BIRDS),
    "numbered": ("01_train/a 01_train/b 02_test/c 02_test/d", BIRDS),
    "valid is the test half": ("train/a train/b valid/c valid/d", BIRDS),
    "validation is for training": ("train/a validation/b test/c test/d", BIRDS),
    "dev and eval": ("train/a dev/b eval/c eval/d", BIRDS),
    "trainval": ("trainval/a trainval/b test/c test/d", BIRDS),
    "train and val share classes": ("train/a train/b val/a val/b test/c test/d", BIRDS),
    "queries": ("train/a train/b query/c query/d gallery/c gallery/d", BIRDS),
    "probes": ("train/a train/b probe/c probe/d gallery/c gallery/d", BIRDS),
    "market": ("bounding_box_train/a bounding_box_train/b bounding_box_test/c query/c", [["a", "b"], ["c"]]),
    "index": ("train/a train/b test/c test/d index/c index/d", BIRDS),
    "queries in test": ("train/a train/b test/query/c test/gallery/c", [["a", "b"], ["c"]]),
    "wrapper": ("data/train/a data/train/b data/test/c data/test/d", BIRDS),
    "wrappers": ("x/y/train/a x/y/train/b x/y/test/c x/y/test/d", BIRDS),
    "twice": ("train/train/a train/train/b test/test/c test/test/d", BIRDS),
    "images within": ("train/images/a train/images/b test/images/c test/images/d", BIRDS),
    "images below": ("train/a/images train/b/images test/c test/d", BIRDS),
    "common prefix": ("birds_train/a birds_train/b birds_test/c birds_test/d", BIRDS),
    "hierarchy": ("train/x/a train/x/b train/y/c test/x/d test/z/e", [["x/a", "x/b", "y/c"], ["x/d", "z/e"]]),
    "groups around": ("x/train/a x/train/b x/test/c y/train/a y/test/d", [["x/a", "x/b", "y/a"], ["x/c", "y/d"]]),
    "within classes": ("a/train b/train c/test d/test", BIRDS),
    "within classes, below groups": ("x/a/train x/b/train y/c/test y/d/test", [["x/a", "x/b"], ["y/c", "y/d"]]),
    "omniglot": ("images_background/x/a images_background/x/b images_evaluation/y/c", [["x/a", "x/b"], ["y/c"]]),
    "test only": ("test/a test/b", [[], ["a", "b"]]),
    "validation only": ("val/a val/b", [[], ["a", "b"]]),
    "queries and gallery only": ("query/a query/b gallery/a gallery/b", [[], ["a", "b"]]),
    "numbers as classes": ("train/0 train/1 test/2 test/3", [["0", "1"], ["2", "3"]]),
    "a train is a vehicle": ("bus train car tram", [["bus", "car"], ["train", "tram"]]),
    "several classes with such names": ("bus train test car", [["bus", "car"], ["test", "train"]]),
    "capital class": ("Bus Train Car Tram", [["Bus", "Car"], ["Train", "Tram"]]),
    "vehicle in a hierarchy": ("v/train v/car w/x w/y", [["v/car", "v/train"], ["w/x", "w/y"]]),
    "trains in a hierarchy": ("train/ice train/tgv bus/x bus/y", [["bus/x", "bus/y"], ["train/ice", "train/tgv"]]),
    "kinds of trains": ("freight_train/x bullet_train/y", [["bullet_train/y"], ["freight_train/x"]]),
    "words that begin so": ("trainer valve testimony devil", [["devil", "testimony"], ["trainer", "valve"]]),
}  # fmt: skip


@pytest.mark.bad_input("folder", "splits")
@pytest.mark.parametrize(("names", "halves"), LAYOUTS.values(), ids=LAYOUTS)
def test_a_split_by_folders_is_the_split(tmp_path, names, halves):
    found = folder.listing(classes(tmp_path, *names.split()))
    assert parts(found) == halves
    assert len(found.paths) == 2 * len(names.split())
    assert all((found.root / path).is_file() for path in found.paths)


def test_a_split_by_folders_is_said(tmp_path):
    found = folder.listing(classes(tmp_path, "train/a", "val/b", "query/c", "gallery/c"))
    assert notes(found) == ["the folders are the split: trainval: train, val; query: query; gallery: gallery"]
    assert found.super_names == ["(none)"]
    assert sorted(zip(found.paths, found.roles.tolist(), strict=True))[::2] == [
        ("gallery/c/1.jpg", "gallery"), ("query/c/1.jpg", "query"), ("train/a/1.jpg", "trainval"),
        ("val/b/1.jpg", "trainval"),
    ]  # fmt: skip


def test_a_single_folder_that_is_named_like_a_part_is_ordinary_and_said(tmp_path):
    found = folder.listing(classes(tmp_path, "train/ice", "train/tgv", "bus/x"))
    assert notes(found) == ["train: an ordinary folder and no part of a split, like those next to it"]


def test_super_classes_of_a_split_are_the_parents_of_its_classes(tmp_path):
    found = folder.listing(
        classes(tmp_path, "train/birds/terns/arctic_tern", "train/birds/gulls/herring", "test/fish/eel")
    )
    groups = {name: found.super_names[group] for name, group in zip(found.class_names, found.super_labels, strict=True)}
    assert groups == {
        "birds/gulls/herring": "birds/gulls",
        "birds/terns/arctic_tern": "birds/terns",
        "fish/eel": "fish",
    }


def test_classes_without_a_super_class_next_to_classes_with_one_do_not_become_one_super_class(tmp_path: Path) -> None:
    found = folder.listing(classes(tmp_path, "a", "b/c", "b/d", "e"))
    assert [found.super_names[group] for group in found.super_labels] == ["(a)", "b", "b", "(e)"]
    assert notes(found) == ["2 classes have no super class and get one each of their own: 'a', 'e'"]


AMBIGUOUS = {  # folders with images, what the refusal says, and the number of classes that split=off finds
    "training only": ("train/a train/b", ["holds only train", "nothing to test on", "split=merge"], 2),
    "training only, in classes": ("a/train b/train", ["holds only train", "split=merge"], 2),
    "training and its validation only": ("train/train/a train/trainval/b", ["nothing to test on"], 2),
    "another folder next to them": ("train/a test/b misc/c", ["test and train", "misc/c", "split=off"], 3),
    "another class next to them": ("train/a test/b misc", ["test and train", "misc is in none", "split=off"], 3),
    "unlabelled extra folder": ("train/a val/b unlabeled/c", ["train and val", "unlabeled/c"], 3),
    "predictions": ("seg_train/a seg_test/b seg_pred", ["seg_test and seg_train", "seg_pred is in none"], 3),
    "different levels": ("data/train/a test/b", ["data/train and test", "different levels"], 2),
    "test images without classes": ("train/a train/b test", ["test holds images that are in no class folder"], 3),
    "test images in one folder": ("train/a train/b test/images", ["images that are in no class folder"], 3),
    "validation images in one folder": ("train/a train/b val/imgs", ["images that are in no class folder"], 3),
    "no classes at all": ("train test", ["in no class folder", "split=off"], 2),
    "no classes, wrapped": ("data/train data/test", ["in no class folder", "split=off"], 2),
    "queries without a gallery": ("train/a train/b query/c", ["to be tested on query", "gallery images"], 3),
    "gallery without queries": ("train/a train/b gallery/c", ["to be tested on gallery"], 3),
    "queries, gallery and test": ("train/a query/b gallery/b test/c", ["tested on gallery, query, test"], 4),
    "train repeats train": ("train/a train_all/a test/b", ["'a' in several of train, train_all", "repeats"], 3),
    "only some classes are divided": ("a/train a/test b/x b/y", ["a/test and a/train", "b/x is in none"], 4),
    "a part that says more": ("train/a train/b test_novel/c", ["test_novel and train", "rename them"], 3),
    "parts that say more": ("train/a test_easy/b test_hard/c", ["test_hard and train", "rename them", "split=off"], 3),
    "both say more": ("x/train_base/a x/test_novel/b", ["x/test_novel and x/train_base", "rename them"], 2),
    "generalised zero-shot": ("train/a test_seen/a test_unseen/b", ["test_unseen and train", "rename them"], 3),
    "a group without parts": ("x/train/a x/test/b y/c", ["x/test and x/train", "y/c is in none"], 3),
    "one part holds a class itself": ("train/x/a train/y test z", ["test and train", "z is in none"], 4),
}  # fmt: skip


@pytest.mark.bad_input("folder", "splits")
@pytest.mark.parametrize(("names", "said", "count"), AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_a_split_that_can_be_meant_in_two_ways_is_explained(tmp_path, names, said, count):
    root = classes(tmp_path, *names.split())
    message = refusal(root)
    assert all(phrase in message for phrase in said), message
    assert folder.listing(root, split="off").class_names == sorted(names.split()) and len(names.split()) == count


CLOSED = {  # folders with images, names of parts, and the classes of split=merge
    "train and test": ("train/a train/b test/a test/b", "train, test", "a b"),
    "capitals": ("Train/a Train/b Test/a Test/b", "Train, Test", "a b"),
    "other words": ("Training/a Training/b Validation/a Validation/b", "Training, Validation", "a b"),
    "train and val": ("train/a train/b val/a val/b", "train, val", "a b"),
    "three parts": ("train/a train/b val/a val/b test/a test/b", "train, val, test", "a b"),
    "one class of several": ("train/a train/b train/c test/c test/d", "train, test", "a b c d"),
    "val is not the problem": ("train/a val/b test/b test/c", "train, val, test", "a b c"),
    "queries": ("train/a train/b query/a query/b gallery/a gallery/b", "train, gallery, query", "a b"),
    "wrapped": ("data/train/a data/train/b data/test/a data/test/b", "train, test", "a b"),
    "twice": ("train/train/a train/train/b test/test/a test/test/b", "train/train, test/test", "a b"),
    "hierarchy": ("train/x/a train/y/b test/x/a test/y/b", "train, test", "x/a y/b"),
    "within classes": ("a/train a/test b/train b/test", "train, test", "a b"),
    "within classes, below groups": ("x/a/train x/a/test y/b/train y/b/test", "train, test", "x/a y/b"),
    "groups around": ("x/train/a x/test/a y/train/b y/test/b", "train, test", "x/a y/b"),
    "images below": ("train/a/images train/b/images val/a val/b", "train, val", "a b"),
    "common prefix": ("cifar_train/a cifar_train/b cifar_test/a cifar_test/b", "cifar_train, cifar_test", "a b"),
    "years": ("train2017/a train2017/b val2017/a val2017/b", "train2017, val2017", "a b"),
    "numbers as classes": ("train/0 train/1 test/0 test/1", "train, test", "0 1"),
    "composed and decomposed": ("train/caf\u00e9 train/b test/cafe\u0301 test/b", "train, test", "b caf\u00e9"),
}  # fmt: skip


@pytest.mark.bad_input("folder", "closed-set splits")
@pytest.mark.parametrize(("names", "named", "merged"), CLOSED.values(), ids=CLOSED)
def test_a_split_within_classes_is_explained_and_can_be_merged(tmp_path, names, named, merged):
    root = classes(tmp_path, *names.split())
    message = refusal(root)
    assert (
        "closed-set" in message
        and re.search(r"class(es)? in common", message)
        and "dataset.module.split=merge" in message
    )
    assert all(part in message for part in named.split(", ")), message
    found = folder.listing(root, split="merge")
    assert found.class_names == merged.split() and len(found.paths) == 2 * len(names.split())
    half = len(merged.split()) // 2
    assert parts(found) == [merged.split()[:half], merged.split()[half:]]
    assert any("are ignored as a split" in note for note in found.notes)


def test_domains_that_share_some_classes_are_said_and_can_be_merged(tmp_path: Path) -> None:
    root = classes(tmp_path, "photo/a", "photo/b", "photo/c", "sketch/c", "sketch/d", "sketch/e")
    (note,) = notes(folder.listing(root))
    assert note.startswith(
        "1 name of a class folder is in both halves for different classes: 'photo/c' and 'sketch/c'; "
    ) and note.endswith("ARGS=dataset.module.split=merge")
    assert notes(folder.listing(root, split="off")) == []
    merged = folder.listing(root, split="merge")
    assert merged.class_names == ["a", "b", "c", "d", "e"] and len(merged.paths) == 12


def test_a_name_in_both_halves_of_a_split_is_said(tmp_path: Path) -> None:
    found = folder.listing(classes(tmp_path, "train/s1/a", "train/s1/b", "test/s3/a", "test/s3/c"))
    assert "1 name of a class folder is in both halves for different classes: 's1/a' and 's3/a'" in notes(found)


def test_a_split_within_classes_is_counted(tmp_path):
    message = refusal(classes(tmp_path, "train/a", "train/b", "train/c", "test/b", "test/c"))
    assert "train (3 classes) and test (2 classes) have 2 classes in common, such as 'b' and 'c'" in message


# -- names ------------------------------------------------------------------------------------------------------------

STRANGE = {
    "newline": "a\nb", "carriage return": "a\rb", "tab": "a\tb", "escape sequence": "\x1b[31mred", "bell": "\x07",
    "not UTF-8": "caf\udce9", "emoji": "🐦🏽‍♀️", "long": "x" * 200, "long and wide": "鳥" * 80, "leading dash": "-rf",
    "leading blank": " a", "trailing blank": "a ", "trailing dot": "a.", "single quote": "it's", "double quote": 'a"b',
    "comma": "a,b", "semicolon": "a;b", "backslash": "a\\b", "dots": "a..b", "ends with dots": "a..", "reserved": "CON",
    "reserved with suffix": "aux.txt", "percent": "%s%n", "braces": "{x}", "reference": "${HOME}", "shell": "$(x)`y`",
    "pattern": "[a]*?", "tilde": "~", "right to left": "a\u202egpj", "zero width": "a\u200bb", "decomposed": "e\u0301",
    "colon": "C:", "formula": "=1+1", "not a number": "nan", "null": "null", "number": "1e9", "zeros": "007",
    "like a suffix": "a.jpg", "only blanks": "   ", "ampersand": "a&b", "pipe": "a|b", "hash": "#1", "at": "@home",
}  # fmt: skip


@pytest.mark.bad_input("folder", "strange names")
@pytest.mark.parametrize("name", STRANGE.values(), ids=STRANGE)
def test_classes_and_images_may_have_any_name(tmp_path, name):
    names = sorted(["m", "n", name], key=lambda one: unicodedata.normalize("NFC", one))
    put(tmp_path, *(f"{label}/{i}.jpg" for label in ("m", "n") for i in (1, 2)), f"{name}/1.jpg", f"{name}/{name}.jpg")
    found = folder.listing(str(tmp_path), check="images")
    assert found.class_names == names and notes(found) == []
    assert {f"{name}/1.jpg", f"{name}/{name}.jpg"} <= {*found.paths}
    assert all((found.root / path).is_file() for path in found.paths)
    assert len(found.fingerprint) == 64


@pytest.mark.bad_input("folder", "strange names")
@pytest.mark.parametrize("name", STRANGE.values(), ids=STRANGE)
def test_a_class_with_any_name_is_named_when_it_is_empty(tmp_path, name):
    classes(tmp_path, "m", "n")
    (tmp_path / name).mkdir()
    message = refusal(tmp_path)
    assert visible(name)[:90] in message and all(visible(line) == line for line in message.split("\n")[1:])
    found = folder.listing(str(tmp_path), on_bad="leave_out")
    assert found.class_names == ["m", "n"] and any(
        note.startswith(f"left out: 1 class without a usable image ({visible(name)[:90]}") for note in found.notes
    )


# -- damaged and empty classes ----------------------------------------------------------------------------------------

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d7a2146" * 8 + b"\nsize 12345\n"
FAULTY = {  # what the class `bad` holds, and how the refusal names it
    "nothing": ({"bad": "folder"}, ["1 folder without an image (bad: it is empty)"]),
    "empty below a group": ({"group/bad": "folder"}, ["1 folder without an image (group/bad: it is empty)"]),
    "two empty classes": ({"bad": "folder", "worse": "folder"}, ["2 folders without an image (such as bad"]),
    "text only": ({"bad/1.txt": TEXT}, ["1 folder without an image (bad: 1 .txt file)"]),
    "heic only": ({"bad/1.heic": TEXT, "bad/2.heic": TEXT}, ["bad: 2 .heic files", "rename or convert"]),
    "no suffixes": ({"bad/1": None, "bad/2": None}, ["bad: 2 images whose names have no suffix", "rename"]),
    "another suffix": ({"bad/1.jpg_large": None}, ["bad: 1 .jpg_large file"]),
    "hidden only": ({"bad/.1.jpg": None, "bad/.2.jpg": None}, ["bad: 2 hidden files or folders"]),
    "system files only": ({"bad/.DS_Store": TEXT, "bad/@eaDir/1.jpg": None}, ["bad: 2 system files or folders"]),
    "links to nowhere": ({"bad/1.jpg": "->/gone/1.jpg", "bad/2.jpg": "->/gone/2.jpg"}, ["2 links to nothing"]),
    "evicted": ({"bad/.1.jpg.icloud": TEXT, "bad/.2.heic.icloud": TEXT}, ["2 images that are only in iCloud"]),
    "a link that is gone": ({"bad": "->/mnt/disk/bad"}, ["1 link to nothing (bad, to /mnt/disk/bad)"]),
    "zero bytes": ({"bad/1.jpg": b"", "bad/2.jpg": b""}, ["bad: bad/1.jpg"]),
    "zeros": ({"bad/1.jpg": bytes(4096), "bad/2.jpg": bytes(4096)}, ["bad: bad/1.jpg"]),
    "a web page": ({"bad/1.jpg": b"<!DOCTYPE html>", "bad/2.jpg": b"<html>"}, ["bad: bad/1.jpg"]),
    "truncated": ({"bad/1.jpg": payload()[:-300], "bad/2.jpg": payload()[:200]}, ["bad: bad/1.jpg"]),
    "pointers of git LFS": ({"bad/1.jpg": LFS, "bad/2.jpg": LFS}, ["bad: bad/1.jpg"]),
    "pointers of git-annex": ({"bad/1.jpg": b"/annex/objects/MD5E-s1--0.jpg\n"}, ["bad: bad/1.jpg"]),
    "heic named jpg": ({"bad/1.jpg": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "bad/2.jpg": TEXT}, ["bad: bad/1.jpg"]),
    "one image": ({"bad/1.jpg": None}, ["bad: bad/1.jpg is the only one of its class ('bad')"]),
    "one good image": ({"bad/1.jpg": None, "bad/2.jpg": b""}, ["bad: bad/2.jpg"]),
    "pipes": ({"bad/1.jpg": fifo, "bad/2.jpg": fifo}, ["bad: 2 sockets, pipes or devices"]),
}  # fmt: skip


def fill(root: Path, files: dict[str, object]) -> None:
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if callable(content):
            content(root / path)
        elif content == "folder":
            (root / path).mkdir()
        elif isinstance(content, str):
            (root / path).symlink_to(content.removeprefix("->"))
        else:
            put(root, path, content=content)


@pytest.mark.bad_input("folder", "damaged or empty classes")
@pytest.mark.parametrize(("files", "said"), FAULTY.values(), ids=FAULTY)
def test_a_class_without_usable_images_is_refused_or_left_out_and_named(tmp_path, files, said):
    classes(tmp_path, "a", "c")
    fill(tmp_path, files)
    message = refusal(tmp_path, check="images")
    assert all(phrase in message for phrase in said) and "dataset.module.on_bad=leave_out" in message, message
    found = folder.listing(str(tmp_path), check="images", on_bad="leave_out")
    assert found.class_names == ["a", "c"]
    assert any(note.startswith("left out: ") and "bad" in note for note in found.notes), found.notes


# -- links and unreadable folders -------------------------------------------------------------------------------------

MISSING = {  # links beside the images of class a, and how they are refused and counted
    "to nowhere": ({"a/x.jpg": "->/gone/x.jpg"}, "1 link to nothing (a/x.jpg, to /gone/x.jpg)"),
    "to nowhere, relative": ({"a/x.jpg": "->../gone/x.jpg"}, "1 link to nothing (a/x.jpg, to ../gone/x.jpg)"),
    "git-annex": ({"a/x.jpg": "->../.git/annex/objects/Xx/9/MD5E-s1--0.jpg"}, "1 link to nothing (a/x.jpg"),
    "several": ({f"a/{i}x.jpg": "->/gone" for i in range(9)}, "9 links to nothing (such as a/0x.jpg, to /gone)"),
    "heic": ({"a/x.heic": "->/gone/x.heic"}, "1 link to nothing (a/x.heic"),
    "without a suffix": ({"a/x": "->/gone/x"}, "1 link to nothing (a/x"),
    "a class": ({"x": "->/mnt/disk/x"}, "1 link to nothing (x, to /mnt/disk/x)"),
    "through a file": ({"a/x.jpg": "->1.jpg/x.jpg"}, "1 link to nothing (a/x.jpg, to 1.jpg/x.jpg)"),
    "to itself": ({"a/x.jpg": "->x.jpg"}, "1 link that leads in a circle (a/x.jpg"),
    "to each other": ({"a/x.jpg": "->y.jpg", "a/y.jpg": "->x.jpg"}, "2 links that lead in a circle (such as a/x.jpg"),
    "class to itself": ({"x": "->x"}, "1 link that leads in a circle (x"),
    "long chain": ({f"a/{i:02}.jpg": f"->{i + 1:02}.jpg" for i in range(60)}, "links that lead in a circle"),
    "empty class behind a link": ({"x": "->../outside"}, "1 folder without an image (x: it is empty)"),
    "class that is only a link to another": ({"x/again": "->../a"}, "1 folder without an image (x: 1 link to a folder"),
    "class that links up": ({"x/up": "->.."}, "1 folder without an image (x: 1 link to a folder that is read anyway"),
}  # fmt: skip


@pytest.mark.bad_input("folder", "links and unreadable files")
@pytest.mark.parametrize(("links", "said"), MISSING.values(), ids=MISSING)
def test_a_link_that_leads_to_no_image_is_refused_or_left_out(tmp_path, links, said):
    plain = folder.listing(classes(tmp_path / "root", "a", "b"))
    (tmp_path / "outside").mkdir()
    fill(tmp_path / "root", links)
    assert said in refusal(tmp_path / "root")
    found = folder.listing(str(tmp_path / "root"), on_bad="leave_out")
    assert found.fingerprint == plain.fingerprint
    assert any("left out: " in note and said in note for note in found.notes)


FOLLOWED = {  # links, a path of an image behind them (empty: none), and the note
    "to an image outside": ({"a/x.jpg": "->../../outside/c/1.jpg"}, "a/x.jpg", "1 link to another folder (a/x.jpg)"),
    "to a class outside": ({"x": "->../outside/c"}, "x/1.jpg", "1 link to another folder (x)"),
    "to a group outside": ({"x": "->../outside"}, "x/c/1.jpg", "1 link to another folder (x)"),
    "through another link": ({"x": "->y", "y": "->../outside/c"}, "x/1.jpg", "1 link to a folder that is read anyway"),
    "to a hidden store": ({"x": "->.store"}, "x/1.jpg", "1 hidden file or folder (.store)"),
    "to the class itself": ({"a/again": "->."}, "", "1 link to a folder that is read anyway"),
    "to the root": ({"a/again": "->.."}, "", "1 link to a folder that is read anyway"),
    "to the folder around the root": ({"x": "->.."}, "", "1 link to a folder that is read anyway"),
    "to another class": ({"x": "->a"}, "", "1 link to a folder that is read anyway"),
    "to a text": ({"x.txt": "->/gone/x.txt"}, "", "1 link to nothing (x.txt)"),
    "to a device": ({"a/x.jpg": "->/dev/zero"}, "", "1 socket, pipe or device (a/x.jpg)"),
    "to a terminal": ({"a/x.jpg": "->/dev/stdin"}, "", ""),
    "to a pipe": ({"a/x.jpg": "->../../outside/pipe"}, "", "1 socket, pipe or device (a/x.jpg)"),
}  # fmt: skip


@pytest.mark.bad_input("folder", "links and unreadable files")
@pytest.mark.parametrize(("links", "path", "said"), FOLLOWED.values(), ids=FOLLOWED)
def test_links_to_images_are_followed_once_and_other_links_are_counted(tmp_path, links, path, said):
    plain = folder.listing(classes(tmp_path / "root", "a", "b"))
    classes(tmp_path / "outside", "c")
    fifo(tmp_path / "outside" / "pipe")
    put(tmp_path / "root" / ".store", "1.jpg", "2.jpg")
    fill(tmp_path / "root", links)
    found = folder.listing(str(tmp_path / "root"))
    assert path in found.paths if path else found.fingerprint == plain.fingerprint
    assert any(said in note for note in found.notes), found.notes


@pytest.mark.bad_input("folder", "links and unreadable files")
@pytest.mark.parametrize("name", ["b", "b/inner", "b/inner/most"])
def test_an_unreadable_folder_is_refused_or_left_out_and_named(tmp_path, monkeypatch, name):
    classes(tmp_path, "a", "c", f"{name}/x" if name != "b" else name)
    forbid(monkeypatch, tmp_path / name)
    assert f"1 file or folder that cannot be read ({name}, Permission denied)" in refusal(tmp_path)
    found = folder.listing(str(tmp_path), on_bad="leave_out")
    assert found.class_names == ["a", "c"]
    assert f"left out: 1 file or folder that cannot be read ({name}, Permission denied)" in found.notes


@pytest.mark.bad_input("folder", "links and unreadable files")
@pytest.mark.parametrize("kind", ["unreadable", "file", "link to nothing", "link to file", "link to itself", "null"])
def test_a_root_that_is_no_readable_folder_is_named(tmp_path, monkeypatch, kind):
    root = tmp_path / "root"
    if kind == "unreadable":
        classes(root, "a", "b")
        forbid(monkeypatch, root)
    elif kind == "file":
        root.write_text("")
    elif kind == "link to file":
        (tmp_path / "file").write_text("")
        root.symlink_to("file")
    elif kind.startswith("link"):
        root.symlink_to("gone" if kind == "link to nothing" else "root")
    shown = f"{root}\0" if kind == "null" else str(root)
    assert str(root) in refusal(shown)


def test_a_root_behind_a_link_is_read(tmp_path):
    plain = folder.listing(classes(tmp_path / "root", "a", "b"))
    (tmp_path / "link").symlink_to("root")
    assert folder.listing(str(tmp_path / "link")).fingerprint == plain.fingerprint


def test_names_are_normalised_within_a_split_only(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    assert folder.listing(classes(tmp_path, composed, decomposed)).total_classes == 2


def test_halves_super_classes_and_images_are_the_same_however_the_disk_writes_accents(tmp_path: Path) -> None:
    found = []
    for form in ("NFC", "NFD"):
        names = [unicodedata.normalize(form, name) for name in ("é/é", "é/f", "é/g", "f/é", "z/f", "z/ü")]
        put(tmp_path / form, *(f"{name}/{unicodedata.normalize(form, i)}.jpg" for name in names for i in ("é", "f")))
        listing = folder.listing(str(tmp_path / form))
        whole = [parts(listing), listing.super_names, listing.paths]
        found.append(unicodedata.normalize("NFC", repr(whole)))
    assert found[0] == found[1]


@pytest.mark.bad_input("folder", "splits")
@pytest.mark.parametrize("outer", [("fold_1", "fold_2", "fold_3"), ("amazon", "webcam"), ("seta", "setb")], ids=str)
def test_folders_with_the_same_classes_are_joined_or_taken_literally_but_never_guessed(tmp_path, outer):
    put(tmp_path, *(f"{part}/{name}/{part}.jpg" for part in outer for name in "abc"))
    message = refusal(tmp_path)
    assert f"{outer[0]}/a and {outer[1]}/a" in message and "split=merge" in message and "split=off" in message
    joined = folder.listing(str(tmp_path), split="merge")
    assert joined.class_names == ["a", "b", "c"] and outer[0] in joined.notes[0]


@pytest.mark.bad_input("folder", "files that are no images")
def test_a_part_without_class_folders_next_to_one_with_some_is_explained(tmp_path):
    put(tmp_path, "train/a/1.jpg", "train/a/2.jpg", "train/b/1.jpg", "train/b/2.jpg", "test/1.jpg", "test/2.jpg")
    assert refusal(tmp_path).endswith(f"ROOT={tmp_path / 'train'}")
