"""`folder`: your own pictures, a folder for each class, as torchvision's ImageFolder reads them.

Our own convention for nested folders: a class is a folder that holds pictures, its name is the path to it, and its
super class is the folder around it: `birds/terns/arctic_tern/1.jpg` is of class birds/terns/arctic_tern in
birds/terns. The first half of the classes, in the order of their names as text, is trained on, the second half tested,
as in Musgrave, Belongie, Lim, "A Metric Learning Reality Check" (arXiv 2003.08505); for another order or split write a
CSV file.
"""

from collections.abc import Iterator
from pathlib import Path

from benchmark.datasets.dataset_files import pictures_in, subfolders
from benchmark.datasets.listing import Listing, MissingDataError
from benchmark.datasets.user_images import Row, assemble

DEPTH = 16  # of nested folders; a link that leads back would never end


def listing(root: str, *, on_bad: str = "stop", check: str = "files") -> Listing:
    """The pictures below a folder, classes and files in the order of their names; hidden and other files do not count.

    Args:
        root: holds a folder for each class, or folders of such folders.
        on_bad: `stop`, or `leave_out` and say how many; see `user_images.assemble`.
        check: `lists`, `files` or `images`, see `image_check.complaints`.

    Raises:
        ValueError: the folders are not such folders, or hold pictures that cannot be used.
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise MissingDataError(f"There is no folder {folder}. Name one: make data DATASET=folder ROOT=some/pictures")
    if lone := pictures_in(folder):
        raise ValueError(
            f"{folder / lone[0]} is in no class. Put each picture into a folder that is called as its class."
        )
    rows = [
        Row(f"{label}/{name}", label, label.rpartition("/")[0], "", label)
        for label in sorted(_classes(folder))
        for name in pictures_in(folder / label)
    ]
    if not rows:
        raise MissingDataError(f"{folder} holds no folders with pictures.")
    return assemble(folder, rows, order="sorted", on_bad=on_bad, check=check)


def _classes(root: Path, below: str = "", depth: int = 0) -> Iterator[str]:
    """Every folder with pictures, as a path below `root`.

    Raises:
        ValueError: one holds pictures and folders with pictures: it would be a class and a super class.
    """
    if depth > DEPTH:
        raise ValueError(f"{root / below} is nested more than {DEPTH} folders deep.")
    inner = [
        label for name in subfolders(root / below) for label in _classes(root, f"{below}/{name}".strip("/"), depth + 1)
    ]
    if below and pictures_in(root / below):
        if inner:
            raise ValueError(
                f"{root / below} holds pictures and folders with pictures ({inner[0]}), so it is both a class and a "
                "super class. Put its own pictures into a folder of their own."
            )
        yield below
    yield from inner
