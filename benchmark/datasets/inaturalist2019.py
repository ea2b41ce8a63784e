"""`inaturalist2019`: iNaturalist 2019, 268,243 images of 1,010 species in 72 genera.

Source: Van Horn et al., "The iNaturalist Species Classification and Detection Dataset", CVPR 2018 (arXiv 1707.06642),
and the 2019 competition (github.com/visipedia/inat_comp). The split is that of Yang et al., "Hierarchical Proxy-based
Loss", WACV 2022, section 4.1: by category id, the first 656 species (48 genera) are for training, and the other 354 (24
genera) are test classes. Images are those of the competition's train and val lists, in the order of the two lists.

Labels are the integer ids of the JSON files; folder names would sort as '10' < '2'. The lists name taxa by made-up
words, shared by all species of a genus; `categories.json`, if present, has the real names.
"""

import json
from pathlib import Path

import numpy as np

from benchmark.core.errors import UserError
from benchmark.core.records import JsonObject
from benchmark.datasets.dataset_files import find, find_base, find_required, read_text, up_to_two_levels
from benchmark.datasets.image_check import check_images
from benchmark.datasets.listing import Expected, Listing, check_counts, grouped, halves


def listing(
    root: str,
    *,
    images_root: str | None = None,
    num_trainval: int = 656,
    expected: Expected | None = None,
    check: str = "files",
) -> Listing:
    """List the images of `train2019.json` and `val2019.json`, at `root` or up to two levels below it.

    Args:
        root: folder of the lists, and of `train_val2019`.
        images_root: folder of `train_val2019` if it is elsewhere, for example a copy with smaller images.
        num_trainval: number of species for training, those with the lowest ids.
        expected: the published counts, see `check_counts`.
        check: `lists`, `files` or `images`, see `image_check.find_problems`.

    Raises:
        MissingDataError: the data set was not found.
        UserError: the folder is incomplete or holds another data set.
    """
    train = find_required(root, "inaturalist2019", *up_to_two_levels("train2019.json"))
    val = find_required(root, "inaturalist2019", *up_to_two_levels("val2019.json"))
    rows, species = _read(train)
    val_rows, val_species = _read(val)
    if species != val_species:
        raise UserError(f"{train} and {val} have different categories. Download them again.")
    if list(species) != list(range(len(species))):
        raise UserError(f"{train}: the category ids are not 0 .. {len(species) - 1}. Download it again.")
    if not 0 < num_trainval < len(species):
        raise UserError(f"inaturalist2019: num_trainval={num_trainval}; give 1 to {len(species) - 1}.")
    rows += val_rows
    if real := find(Path(root).expanduser(), *up_to_two_levels("categories.json")):
        species |= {i: names for i, names in _species(real, _json(real)).items() if i in species}
    base = find_base(images_root or root, "inaturalist2019", rows[0][0], "", "*/", "*/*/")
    labels = np.array([label for _, label in rows])
    super_labels, super_names = grouped(genus for _, genus in species.values())
    found = Listing(
        root=base,
        paths=[path for path, _ in rows],
        labels=labels,
        class_names=[name for name, _ in species.values()],
        super_labels=super_labels,
        super_names=super_names,
        roles=halves(labels, num_trainval),
    )
    return check_images(check_counts(found, expected, "iNaturalist 2019"), check)


def _read(path: Path) -> tuple[list[tuple[str, int]], dict[int, tuple[str, str]]]:
    """Read file and category id of every image, in the order of `images`; name and genus of each category, by id."""
    whole = _json(path)
    if not isinstance(whole, dict) or not {"annotations", "images", "categories"} <= set(whole):
        raise UserError(f"{path} does not hold annotations, images and categories. Download it again.")
    annotations = _entries(path, whole["annotations"], image_id=int, category_id=int)
    category_of = {entry["image_id"]: entry["category_id"] for entry in annotations}
    images = _entries(path, whole["images"], id=int, file_name=str)
    species = _species(path, whole["categories"])
    rows = [(entry["file_name"], category_of.get(entry["id"], -1)) for entry in images]
    if not rows or not {label for _, label in rows} <= set(species):
        raise UserError(f"{path} has no images, or images without a known category. Download it again.")
    return rows, species


def _species(path: Path, categories: object) -> dict[int, tuple[str, str]]:
    """Return the name and the genus of each category, ids ascending."""
    entries = _entries(path, categories, id=int, name=str, genus=str)
    return dict(sorted((entry["id"], (entry["name"], entry["genus"])) for entry in entries))


def _entries(path: Path, entries: object, **fields: type) -> list[JsonObject]:
    """Return the entries of a list, all of which have the given fields.

    Raises:
        UserError: an entry lacks a field; the message names its position.
    """
    if not isinstance(entries, list):
        raise UserError(f"{path} should hold a list of entries with {', '.join(fields)}. Download it again.")
    for number, entry in enumerate(entries, start=1):
        if not (isinstance(entry, dict) and all(isinstance(entry.get(name), kind) for name, kind in fields.items())):
            raise UserError(f"{path}: entry {number} of a list should have {', '.join(fields)}. Download it again.")
    return entries


def _json(path: Path) -> object:
    text = read_text(path)
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}. Download it again.") from error
