"""`inaturalist2019`: iNaturalist 2019, 268,243 pictures of 1,010 species in 72 genera.

Source: Van Horn et al., "The iNaturalist Species Classification and Detection Dataset", CVPR 2018 (arXiv 1707.06642),
and the 2019 competition (github.com/visipedia/inat_comp). The split is that of Yang et al., "Hierarchical Proxy-based
Loss", WACV 2022, section 4.1: by category id the first 656 species (48 genera) are trained on, the other 354 (24
genera) are test classes; pictures of the competition's train and val lists together, in the order of the two lists.

Labels are the integer ids of the JSON; folder names would sort as '10' < '2'. The taxonomy in the lists has made-up
words for names, the same for all species of a genus; `categories.json`, where it is there, has the real ones.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.datasets.dataset_files import anywhere, check_pictures, find, need, need_base, read_text
from benchmark.datasets.listing import Listing, check_counts, grouped, halves


def listing(
    root: str,
    *,
    images_root: str | None = None,
    num_trainval: int = 656,
    expected: Mapping[str, Any] | None = None,
    check: str = "files",
) -> Listing:
    """The pictures of `train2019.json` and `val2019.json`, at `root` or in a folder or two below it.

    Args:
        root: folder of the lists, and of `train_val2019`.
        images_root: folder of `train_val2019` where it lies elsewhere, such as a smaller copy.
        num_trainval: the species with lower ids are trained on.
        expected: the published counts, see `check_counts`.
        check: `lists`, `files` or `images`, see `image_check.complaints`.

    Raises:
        ValueError: the data set is not there, incomplete, or another one.
    """
    train = need(root, "inaturalist2019", *anywhere("train2019.json"))
    val = need(root, "inaturalist2019", *anywhere("val2019.json"))
    rows, species = _read(train)
    more, same = _read(val)
    if species != same:
        raise ValueError(f"{train} and {val} have different categories. Fetch them anew.")
    if list(species) != list(range(len(species))):
        raise ValueError(f"{train}: the category ids are not 0 .. {len(species) - 1}. Fetch it anew.")
    if not 0 < num_trainval < len(species):
        raise ValueError(f"inaturalist2019: num_trainval={num_trainval}; give 1 to {len(species) - 1}.")
    rows += more
    if real := find(Path(root).expanduser(), *anywhere("categories.json")):
        species |= {i: names for i, names in _names(real, _json(real)).items() if i in species}
    base = need_base(images_root or root, "inaturalist2019", rows[0][0], "", "*/", "*/*/")
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
    return check_pictures(check_counts(found, expected, "iNaturalist 2019"), check)


def _read(path: Path) -> tuple[list[tuple[str, int]], dict[int, tuple[str, str]]]:
    """File and category of every picture, in the order of `images`; name and genus of each category, ids ascending."""
    whole = _json(path)
    try:
        category = {int(a["image_id"]): int(a["category_id"]) for a in whole["annotations"]}
        rows = [(str(image["file_name"]), category[int(image["id"])]) for image in whole["images"]]
        species = _names(path, whole["categories"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not one of iNaturalist's lists ({type(error).__name__}: {error}).") from error
    if not rows or not {label for _, label in rows} <= set(species):
        raise ValueError(f"{path} has no pictures, or pictures of unknown categories. Fetch it anew.")
    return rows, species


def _names(path: Path, categories: Any) -> dict[int, tuple[str, str]]:
    try:
        return dict(sorted((int(c["id"]), (str(c["name"]), str(c["genus"]))) for c in categories))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} does not hold categories with id, name and genus ({error!r}).") from error


def _json(path: Path) -> Any:
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}. Fetch it anew.") from error
