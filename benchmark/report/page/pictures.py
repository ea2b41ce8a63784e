"""Pictures of a page: what `make figures` drew of the studies, embedded as WebP.

The page itself reads no image and no embedding: only `make figures` does, and logs each access to the test classes.
"""

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from benchmark.core.records import MOST_BYTES, CorruptFileError, read_file

NAME = re.compile(r"run_(\d+)_([a-z]+)(\w*)")
TITLES = {
    "retrieval": "Retrieved images for queries from the worst through the median to the best, by R-precision, and by "
    "the mean of both models’ if the base stands beside; a green frame is of the query’s class, a red, dashed one not",
    "embeddings": "Test embeddings in two dimensions, by class and, where there are super classes, by super class; "
    "proxies, coarse proxies and ancestors were learned on the training classes, which are other classes",
    "epochs": "Test embeddings of several epochs in two dimensions, with what the loss learned on training classes",
    "hierarchy": "The learned hierarchy, and the given one beside it: groups of classes with an example image each, "
    "framed in the colour of the class’s given group; HPL’s is of training classes, HIER’s of test classes",
    "distributions": "Learned means and spreads of the training classes, beside those of their images’ embeddings",
    "activation": "Which parts of a test image its embedding comes from",
}  # by the name of the figure
LATER = re.compile(r"_model_[1-9]\d*")  # of a run's models, a page shows the first
WIDTH, WIDE = 1200, 900  # pixels at most, and those of a picture with several columns
MOST = 1_600_000  # bytes of all pictures of a page, so that it stays below 3 MB
MOST_PIXELS = 60_000_000


@dataclass(frozen=True)
class Picture:
    """A picture.

    Attributes:
        title: what it shows.
        path: the file that it was read from.
        data: its content as a data URL; empty for one that did not fit the page.
        width: its width in pixels.
        height: its height in pixels.
    """

    title: str
    path: str
    data: str
    width: int
    height: int

    @property
    def is_wide(self) -> bool:
        """Whether it is shown at full width, and scrolled on a narrow screen, where it would be too small to read."""
        return self.width > WIDE


def embedded(studies: Sequence[tuple[str, Path]], room: int = MOST) -> list[Picture]:
    """Read what `make figures` drew, until the room is used up; further ones are named without their content.

    Of a figure that there is for each model of a run, it is that of the first.

    Args:
        studies: label and folder of each study.
        room: bytes for all of them.
    """
    found = []
    for label, directory in studies:
        for path in sorted((directory / "figures").glob("run_*.png")):
            name = NAME.fullmatch(path.stem)
            if name is None or name[2] not in TITLES or LATER.search(name[3]):
                continue
            model = ", model 0" * name[3].startswith("_model_")
            title = f"{label}, run {int(name[1])}{model}. {TITLES[name[2]]}."
            if (picture := _read(path, title)) is None:
                continue
            if len(picture.data) > room:
                picture = Picture(title, str(path), "", picture.width, picture.height)
            room -= len(picture.data)
            found.append(picture)
    return found


def _read(path: Path, title: str) -> Picture | None:
    """A picture from its file; None for one that is damaged or very large."""
    try:
        with Image.open(io.BytesIO(read_file(path, MOST_BYTES))) as image:
            if image.format != "PNG" or image.width * image.height > MOST_PIXELS:
                return None
            shown = image.convert("RGB")
    except (OSError, ValueError, CorruptFileError, UnidentifiedImageError, Image.DecompressionBombError):
        return None
    shown.thumbnail((WIDTH, MOST_PIXELS))
    buffer = io.BytesIO()
    shown.save(buffer, "WEBP", quality=72, method=4)
    data = base64.b64encode(buffer.getvalue()).decode()
    return Picture(title, str(path), f"data:image/webp;base64,{data}", shown.width, shown.height)
