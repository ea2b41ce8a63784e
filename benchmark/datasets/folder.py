"""`folder`: your own images, one folder per class, as in torchvision's ImageFolder.

Our own convention for nested folders: a class is a folder with images, its name is its path, and its super class is the
parent folder: `birds/terns/arctic_tern/1.jpg` belongs to class birds/terns/arctic_tern in birds/terns. The first half
of the classes, sorted by name as text, is for training and the second half for testing, as in Musgrave, Belongie, Lim,
"A Metric Learning Reality Check" (arXiv 2003.08505); for another order or split, use a CSV file.
"""

from collections.abc import Iterator
from pathlib import Path

from benchmark.core.errors import UserError
from benchmark.core.invocation import command
from benchmark.datasets.dataset_files import image_names, subfolders
from benchmark.datasets.listing import Listing, MissingDataError
from benchmark.datasets.user_images import Row, assemble

DEPTH = 16  # limit of nested folders; a symbolic link to a parent would never end


def listing(root: str, *, on_bad: str = "stop", check: str = "files") -> Listing:
    """List the images below a folder, sorted by class name, then by file name; other files are ignored.

    Args:
        root: folder that holds one folder per class, or folders of such folders.
        on_bad: what to do with unusable images, `stop` or `leave_out`; see `user_images.assemble`.
        check: `lists`, `files` or `images`, see `image_check.find_problems`.

    Raises:
        MissingDataError: the folder does not exist or has no images.
        UserError: a folder cannot be read, an image is outside the class folders, or images cannot be used.
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        example = command("data", {"dataset": "folder", "dataset.module.root": "some/images"})
        raise MissingDataError(f"There is no folder {folder}. Name one: {example}")
    if lone := image_names(folder):
        raise UserError(f"{folder / lone[0]} has no class. Put each image into a folder named after its class.")
    rows = [
        Row(f"{label}/{name}", label, label.rpartition("/")[0], "", label)
        for label in sorted(_classes(folder))
        for name in image_names(folder / label)
    ]
    if not rows:
        raise MissingDataError(f"{folder} holds no folders with images.")
    return assemble(folder, rows, order="sorted", on_bad=on_bad, check=check)


def _classes(root: Path, below: str = "", depth: int = 0) -> Iterator[str]:
    """Return every folder with images, as a path below `root`.

    Raises:
        UserError: a folder holds both images and folders with images, so it would be both a class and a super class.
    """
    if depth > DEPTH:
        raise UserError(f"{root / below} is nested more than {DEPTH} folders deep.")
    inner = [
        label for name in subfolders(root / below) for label in _classes(root, f"{below}/{name}".strip("/"), depth + 1)
    ]
    if below and image_names(root / below):
        if inner:
            raise UserError(
                f"{root / below} holds both images and folders with images ({inner[0]}), so it is both a class and a "
                "super class. Move its own images to a separate folder."
            )
        yield below
    yield from inner
