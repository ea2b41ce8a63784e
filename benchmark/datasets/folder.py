"""`folder`: your own images, one folder per class, as in torchvision's ImageFolder.

Our own convention for nested folders: a class is a folder with images, its name is its path, and its super class is the
parent folder: `birds/terns/arctic_tern/1.jpg` belongs to class birds/terns/arctic_tern in birds/terns. The first half
of the classes, sorted by name as text (with composed accents), is for training and the second half for testing, as in
Musgrave, Belongie, Lim, "A Metric Learning Reality Check" (arXiv 2003.08505); for another order or split, use a CSV
file.

Folders named train, test and so on are no classes, but the split (`split_folders` has the rule), if no class is in both
halves. Otherwise, `split=merge` joins the classes of the same name, and takes the halves as above; `split=off` takes
the name of every folder literally. Folders with the same classes, such as folds or domains, need one of the two.
"""

from dataclasses import replace
from pathlib import Path

from benchmark.core.errors import UserError
from benchmark.core.invocation import arguments, command
from benchmark.core.wording import counted
from benchmark.datasets.image_tree import ImageTree, Reason, described
from benchmark.datasets.listing import Listing, MissingDataError, by_name
from benchmark.datasets.split_folders import SPLITS, Place, check_halves, describe, places
from benchmark.datasets.split_names import as_listed
from benchmark.datasets.user_images import Row, assemble

UNUSABLE = Reason("class without a usable image", "classes without a usable image")


def listing(
    root: str, *, split: str = "auto", on_bad: str = "stop", on_duplicates: str = "warn", check: str = "files"
) -> Listing:
    """List the images below a folder, sorted by class name, then by file name; what is passed over is counted.

    Args:
        root: folder that holds one folder per class, or folders of such folders.
        split: what folders named train, test and so on mean: `auto` (they are the split), `merge` (nothing; the classes
            in them are joined), or `off` (they are ordinary folders).
        on_bad: what to do with unusable images and folders, `stop` or `leave_out`; see `user_images.assemble`.
        on_duplicates: what to do with copies of test images among the training images, `warn`, `error` or `drop`; see
            `user_images.assemble`.
        check: `lists`, `files` or `images`, see `image_check.inspect`.

    Raises:
        MissingDataError: the folder does not exist or has no images.
        UserError: a folder cannot be read, holds no image, or is both a class and a super class, an image is outside
            the class folders, images cannot be used, or the split is not one between classes.
    """
    if split not in SPLITS:
        raise UserError(f"split={split!r}: allowed are {', '.join(SPLITS)}.")
    folder = Path(root).expanduser()
    if not folder.is_dir():
        example = command("data", {"dataset": "folder", "dataset.module.root": "some/images"})
        raise MissingDataError(f"There is no folder {folder}. Name one: {example}")
    tree = ImageTree(folder)
    _check_classes(tree)
    if on_bad != "leave_out":
        tree.check(f"Or leave these out and count them: {arguments({'dataset.module.on_bad': 'leave_out'})}")
    if not tree.images:
        nothing = f"{folder} holds no folders with images. Put the images of each class into a folder of its own."
        raise MissingDataError("\n  ".join([nothing, *tree.left_out(), *tree.notes]))
    found = places(folder, list(tree.images), split)
    meaning = as_listed(place.role for place in found if place.role)
    divided = bool(meaning) and split == "auto"
    if divided:
        check_halves(folder, found)
    rows = [
        Row(f"{path}/{name}", label, label.rpartition("/")[0], meaning[role] if divided else "", path)
        for (label, _, role), path in sorted(zip(found, tree.images, strict=True), key=_order)
        for name in sorted(tree.images[path], key=by_name)
    ]
    whole = assemble(folder, rows, order="sorted", on_bad=on_bad, on_duplicates=on_duplicates, check=check)
    lost = sorted({place.label for place in found} - {*whole.class_names}) + tree.imageless
    parts = filter(None, [describe(found, split)])
    left_out = [f"left out: {described(UNUSABLE, lost)}"] if lost else []
    alike = _in_both_halves(whole, divided) if split == "auto" else []
    return replace(whole, notes=(*parts, *alike, *whole.notes, *left_out, *tree.left_out(), *tree.notes))


def _in_both_halves(whole: Listing, divided: bool) -> list[str]:
    """Return a note on classes in both halves whose folders have the same name.

    Args:
        whole: the listing.
        divided: whether its halves are those of the folders.
    """
    halves: tuple[dict[str, str], dict[str, str]] = {}, {}  # for training and testing: a class by its folder's name
    for label, role in sorted({*zip(whole.labels.tolist(), whole.roles.tolist(), strict=True)}):
        name = whole.class_names[label]
        halves[role != "trainval"].setdefault(name.rpartition("/")[2], name)
    if not (common := halves[0].keys() & halves[1].keys()):
        return []
    first = min(common)
    what = counted(len(common), "name of a class folder is", "names of class folders are")
    join = "" if divided else f"; if they mean the same, join them: {arguments({'dataset.module.split': 'merge'})}"
    return [f"{what} in both halves for different classes: {halves[0][first]!r} and {halves[1][first]!r}{join}"]


def _order(folder: tuple[Place, str]) -> list[tuple[str, str]]:
    """Sort key of a folder with images: class, part and role, and path."""
    place, path = folder
    return [by_name(one) for one in (*place, path)]


def _check_classes(tree: ImageTree) -> None:
    """Check that every image has a class, and that no class is a super class too.

    Raises:
        UserError: an image lies outside the class folders, or a folder holds both images and folders with images.
    """
    if lone := tree.images.get(""):
        raise UserError(
            f"{tree.root / lone[0]} has no class. Put each image into a folder named after its class, or move it "
            "elsewhere."
        )
    for path in tree.images:
        steps = path.split("/")
        for above in ("/".join(steps[:i]) for i in range(1, len(steps))):
            if above in tree.images:
                raise UserError(
                    f"{tree.root / above} holds both images and folders with images ({path}), so it is both a class "
                    "and a super class. Move its own images to a separate folder."
                )
