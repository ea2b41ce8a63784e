"""`inaturalist2019`: iNaturalist 2019, 268,243 images of 1,010 species in 72 genera.

Source: Van Horn et al., "The iNaturalist Species Classification and Detection Dataset", CVPR 2018 (arXiv 1707.06642),
and the 2019 competition (github.com/visipedia/inat_comp). The split is that of Yang et al., "Hierarchical Proxy-based
Loss", WACV 2022, section 4.1: by category id, the first 656 species (48 genera) are for training, and the other 354 (24
genera) are test classes. Images are those of the competition's train and val lists, in the order of the two lists.

Labels are the integer ids of the JSON files; folder names would sort as '10' < '2'. The lists name taxa by made-up
words, shared by all species of a genus; `categories.json`, if present, has the real names.

torchvision's INaturalist downloads the images without the lists, to `2019/<super category>/<category id>`. Such a copy
is read from its folders: it has the same images, in the order of category ids and file names instead of the lists'
order, and its genera are known, because ascending ids run through one genus after the other (`GENERA`).
"""

import json
from pathlib import Path

import numpy as np

from benchmark.core.errors import UserError
from benchmark.core.invocation import command
from benchmark.core.records import JsonObject
from benchmark.datasets.dataset_files import read_text
from benchmark.datasets.image_tree import INCOMPLETE, ImageTree
from benchmark.datasets.listing import NO_GROUP, Expected, Listing, MissingDataError, grouped, halves
from benchmark.datasets.published import (
    LEVELS,
    Names,
    below,
    complete,
    find,
    find_base,
    find_required,
    first_image,
    folder_of,
    place_of,
)
from benchmark.datasets.published_rows import at_entry, distinct, inside, numbered

GENERA = (
    12, 11, 10, 10, 15, 10, 12, 11, 23, 25, 14, 10, 18, 11, 10, 10, 12, 11, 22, 10, 15, 14, 11, 11, 10, 13, 12, 10, 13,
    14, 10, 16, 13, 13, 13, 10, 13, 12, 13, 15, 14, 12, 12, 25, 15, 25, 23, 12, 38, 11, 12, 14, 17, 18, 10, 13, 10, 19,
    16, 12, 20, 15, 10, 10, 13, 14, 10, 15, 10, 10, 23, 14,
)  # fmt: skip  # number of species in each genus, ids ascending
SUPER_CATEGORIES = ("Amphibians", "Birds", "Fungi", "Insects", "Plants", "Reptiles")
FOLDERS = ("train_val2019", "2019")  # in the archive, and torchvision's name for it
LISTS = ("train2019.json", "val2019.json")
NAMES = Names(
    "inaturalist2019",
    "iNaturalist 2019",
    marks=((LISTS[0],), (LISTS[1],), ("train_val2019",), *((f"2019/{name}",) for name in SUPER_CATEGORIES)),
    archives=("train_val2019*", "2019", "train2019.json", "val2019.json"),
    fetched=("train_val2019.tar.gz", "train2019.json.tar.gz", "val2019.json.tar.gz"),
    likely={265213: "the training list only", 3030: "the validation list only"},
)


def listing(
    root: str,
    *,
    images_root: str | None = None,
    num_trainval: int = 656,
    expected: Expected | None = None,
    check: str = "files",
) -> Listing:
    """List the images of `train2019.json` and `val2019.json`, at `root` or up to three levels below it.

    Args:
        root: folder of the lists, and of `train_val2019`.
        images_root: folder of `train_val2019` if it is elsewhere, for example a copy with smaller images.
        num_trainval: number of species for training, those with the lowest ids.
        expected: the published counts, see `check_counts`.
        check: `lists`, `files` or `images`, see `image_check.inspect`.

    Raises:
        MissingDataError: nothing of the data set was found, or only its lists.
        UserError: the folder is incomplete or holds another data set.
    """
    folder = folder_of(root, NAMES)
    images = folder if images_root is None else folder_of(images_root, NAMES)
    notes: tuple[str, ...] = ()
    if lists := [path for path in (find(folder, *below(name)) for name in LISTS) if path]:
        if len(lists) < len(LISTS):
            raise _one_list(folder, lists[0], images)
        rows, species = _listed(*lists)
        base, paths = _placed(folder, images, [path for path, _ in rows])
        labels = np.array([label for _, label in rows])
    else:
        found_in = _images_folder(images) or find_required(images, NAMES, *below(*LISTS)).parent
        base, (paths, labels, passed) = found_in.parent, _in_folders(found_in)
        species = _genera(len(set(labels.tolist())))
        notes = (
            f"there is no {' and no '.join(LISTS)}, so the images are those of {found_in.name}, in the order of their "
            "ids and file names, and the species have numbers instead of names",
            *passed,
        )
    if not 0 < num_trainval < len(species):
        raise UserError(f"inaturalist2019: num_trainval={num_trainval}; give 1 to {len(species) - 1}.")
    if real := find(folder, *below("categories.json")):
        species |= {i: names for i, names in _species(real, _json(real)).items() if i in species}
    super_labels, super_names = grouped(genus for _, genus in species.values())
    found = Listing(
        root=base,
        paths=paths,
        labels=labels,
        class_names=[name for name, _ in species.values()],
        super_labels=super_labels,
        super_names=super_names,
        roles=halves(labels, num_trainval),
        notes=notes,
    )
    return complete(found, NAMES, expected, check)


def _one_list(folder: Path, path: Path, images: Path) -> UserError:
    """Say that one of the lists is missing; without images, everything is downloaded."""
    other = LISTS[path.name.lower() == LISTS[0]]
    kind = UserError if _images_folder(images) else MissingDataError
    return kind(
        f"{path} is there, but {other} is not. Put it next to {path.name}, and run this again: "
        f"{command('data', {'dataset': NAMES.dataset, 'dataset.module.root': folder})}"
    )


def _placed(folder: Path, images: Path, paths: list[str]) -> tuple[Path, list[str]]:
    """Return the folder of the images and their paths below it; `train_val2019` may have another name there.

    Raises:
        MissingDataError: there are lists, but no images.
        UserError: the images are not those of the lists.
    """
    if base := place_of(images, paths, *LEVELS):
        return base, paths
    if found := _images_folder(images):
        moved = [f"{found.name}/{path.partition('/')[2]}" for path in paths]
        return find_base(found.parent, NAMES, moved, ""), moved
    if images == folder and not first_image(folder):
        get = command("data", {"dataset": NAMES.dataset, "dataset.module.root": folder})
        elsewhere = command("data", {"dataset": NAMES.dataset, "dataset.module.images_root": "FOLDER"})
        raise MissingDataError(
            f"{folder} has the lists of iNaturalist 2019, but no images. Get them (74 GB): {get}; or name the folder "
            f"of train_val2019: {elsewhere}."
        )
    return find_base(images, NAMES, paths, *LEVELS), paths


def _images_folder(images: Path) -> Path | None:
    """Return the folder that holds the super categories."""
    inner = [f"{top}/{name}" for top in FOLDERS for name in SUPER_CATEGORIES]
    if found := find(images, *below(*inner)):
        return found.parent
    own = find(images, *below(*(f"{name}/[0-9]*" for name in SUPER_CATEGORIES)))  # in a folder of another name
    return own.parent.parent if own else None


def _in_folders(images: Path) -> tuple[list[str], np.ndarray, tuple[str, ...]]:
    """Return path and category id of every image, sorted by id and file name, from the folders alone; and notes."""
    tree = ImageTree(images, depth=2)
    tree.check(INCOMPLETE)
    for folder in tree.images:
        name = folder.rpartition("/")[2]
        if not (name.isascii() and name.isdecimal() and len(name) < 10):
            raise UserError(
                f"{images / folder} is not the folder of a species of iNaturalist 2019, which are numbered."
            )
    ids = {folder: int(folder.rpartition("/")[2]) for folder in tree.images}
    species = [f"{images}/{folder}" for folder in ids]
    distinct([*ids.values()], lambda row: species[row], "species")
    numbered([*ids.values()], lambda row: species[row], what="species", first=0)
    rows = sorted((i, f"{images.name}/{folder}/{file}") for folder, i in ids.items() for file in tree.images[folder])
    return [path for _, path in rows], np.array([i for i, _ in rows]), tree.notes


def _genera(count: int) -> dict[int, tuple[str, str]]:
    """Return a name and the genus of each species, by id; another number of species has no known genera."""
    genera = [genus for genus, size in enumerate(GENERA) for _ in range(size)]
    known = count == len(genera)
    return {i: (f"species {i}", f"genus {genera[i]:02}" if known else NO_GROUP) for i in range(count)}


def _listed(train: Path, val: Path) -> tuple[list[tuple[str, int]], dict[int, tuple[str, str]]]:
    """Read file and category id of every image from both lists; name and genus of each category, by id."""
    (rows, species), (val_rows, val_species) = _read(train), _read(val)
    if species != val_species:
        raise UserError(f"{train} and {val} have different categories. Download them again.")
    return rows + val_rows, species


def _read(path: Path) -> tuple[list[tuple[str, int]], dict[int, tuple[str, str]]]:
    """Read file and category id of every image, in the order of `images`; name and genus of each category, by id."""
    whole = _json(path)
    if not isinstance(whole, dict) or not {"annotations", "images", "categories"} <= set(whole):
        raise UserError(f"{path} does not hold annotations, images and categories. Download it again.")
    annotations = _entries(path, "annotations", whole["annotations"], image_id=int, category_id=int)
    images = _entries(path, "images", whole["images"], id=int, file_name=str)
    species = _species(path, whole["categories"])
    distinct([entry["image_id"] for entry in annotations], at_entry(path, "annotation"), "image")
    distinct([entry["id"] for entry in images], at_entry(path, "image"), "id")
    category_of = {entry["image_id"]: entry["category_id"] for entry in annotations}
    files = inside([entry["file_name"] for entry in images], at_entry(path, "image"))
    for row, entry in enumerate(images):
        if category_of.get(entry["id"]) not in species:
            raise UserError(f"{path}, image {row + 1} ({files[row]}) has no known category. Download it again.")
    if not images:
        raise UserError(f"{path} has no images. Download it again.")
    return [(file, category_of[entry["id"]]) for file, entry in zip(files, images, strict=True)], species


def _species(path: Path, categories: object) -> dict[int, tuple[str, str]]:
    """Return the name and the genus of each category, ids ascending."""
    entries = _entries(path, "categories", categories, id=int, name=str, genus=str)
    ids = [entry["id"] for entry in entries]
    distinct(ids, at_entry(path, "category"), "id")
    numbered(ids, at_entry(path, "category"), what="category", first=0)
    return dict(sorted((entry["id"], (entry["name"], entry["genus"])) for entry in entries))


def _entries(path: Path, what: str, entries: object, **fields: type) -> list[JsonObject]:
    """Return the entries of a list, all of which have the given fields.

    Raises:
        UserError: an entry lacks a field; the message names its position.
    """
    if not isinstance(entries, list):
        raise UserError(f"{path}: {what} should be a list of entries with {', '.join(fields)}. Download it again.")
    for number, entry in enumerate(entries, start=1):
        if not (isinstance(entry, dict) and all(type(entry.get(name)) is kind for name, kind in fields.items())):
            kinds = ", ".join(f"{name} ({'number' if kind is int else 'text'})" for name, kind in fields.items())
            raise UserError(f"{path}: entry {number} of {what} should have {kinds}. Download it again.")
    return entries


def _json(path: Path) -> object:
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: not JSON, or a number of thousands of digits
        raise UserError(f"{path} is not JSON: {str(error)[:200]}. Download it again.") from error
