"""Embed image files with a trained model; a file that cannot be read is counted and named, and the others go on."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmark.core.errors import UserError
from benchmark.core.threads import usable_cores
from benchmark.datasets.image_tree import ImageTree, is_image
from benchmark.images.crops import FILTERS, centre_crop
from benchmark.images.decode import Reading, UnreadableImageError, decode, resized
from benchmark.images.decoded_on_read import read
from benchmark.models.loaded import Model
from benchmark.study.model_files import Preprocessing

BATCH_SIZE = 32  # as in the evaluations of image files
MOST_THREADS = 8


@dataclass(frozen=True)
class Embedded:
    """The embeddings of image files.

    Attributes:
        paths: the N files, as they were listed.
        embeddings: float32 (F, N, D), one model per fold, as retrieval compares them.
        bad: files that could not be read, each with the reason.
    """

    paths: list[str]
    embeddings: np.ndarray
    bad: list[tuple[str, str]]

    @property
    def labels(self) -> list[str]:
        """The folder of each file, which is its class by the convention of the data set `folder`."""
        return [path.rpartition("/")[0] for path in self.paths]

    @property
    def concatenated(self) -> np.ndarray:
        """The embeddings of all folds side by side, (N, F D)."""
        return np.concatenate(list(self.embeddings), axis=1)


def listed(root: Path) -> tuple[list[str], tuple[str, ...]]:
    """The image files below a folder, sorted, relative to it; and notes on what is passed over.

    A single file is listed as itself, relative to its folder.

    Raises:
        UserError: there is no such folder, it cannot be read, or it holds no image.
    """
    if root.is_file():
        if not is_image(root.name):
            raise UserError(f"{root} has no suffix of an image format that is read.")
        return [root.name], ()
    if not root.is_dir():
        raise UserError(f"There is no folder or image {root}. Name a folder with images, at any depth.")
    tree = ImageTree(root)
    found = [f"{folder}/{name}" if folder else name for folder, names in tree.images.items() for name in names]
    if not found:
        raise UserError("\n  ".join([f"{root} holds no image.", *tree.left_out(), *tree.notes]))
    return sorted(found), (*tree.left_out(), *tree.notes)


def prepared(path: Path, how: Preprocessing) -> np.ndarray:
    """The input of a network for an image file: uint8 (C, H, W), equal to that of its evaluation.

    Args:
        path: the file.
        how: sizes, and how its pixels become RGB or grey.

    Raises:
        UnreadableImageError: it cannot be read; the message is a predicate.
    """
    reading = Reading(how.orient, tuple(how.background) if how.background else None, how.grey_bits)  # type: ignore[arg-type]
    pixels = decode(read(path)[0], None, reading)
    crop = centre_crop(resized(pixels, how.short_side, FILTERS.get(how.resampling, FILTERS["pil"])), how.crop)
    if how.channels == 1:
        return np.asarray(Image.fromarray(crop).convert("L"))[None]
    return crop.transpose(2, 0, 1)


def embed_files(
    model: Model, root: Path, paths: Sequence[str], *, batch_size: int = BATCH_SIZE,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Embedded:  # fmt: skip
    """Embed image files.

    Args:
        model: the model.
        root: folder that the paths are relative to.
        paths: the files.
        batch_size: images in one forward pass; it affects the last digits of the embeddings.
        progress: called with the number of files done and of all files.

    Raises:
        UserError: the batch size is below 1.
    """
    if batch_size < 1:
        raise UserError(f"batch_size={batch_size}: give at least 1 image.")
    good: list[str] = []
    bad: list[tuple[str, str]] = []
    parts: list[torch.Tensor] = []
    done = 0
    for names, images in _batches(model.described.preprocessing, root, paths, batch_size):
        read_well = [(name, image) for name, image in zip(names, images, strict=True) if isinstance(image, np.ndarray)]
        bad += [(name, image) for name, image in zip(names, images, strict=True) if isinstance(image, str)]
        if read_well:
            parts.append(model.embed(torch.from_numpy(np.stack([image for _, image in read_well]))))
            good += [name for name, _ in read_well]
        progress(done := done + len(names), len(paths))
    none = torch.zeros(len(model.networks), 0, model.described.embedding_dim)
    return Embedded(good, torch.cat([none, *parts], dim=1).numpy(), bad)


def _batches(
    how: Preprocessing, root: Path, paths: Sequence[str], size: int
) -> Iterator[tuple[Sequence[str], list[np.ndarray | str]]]:
    """Yield the names of a batch, and for each image its pixels or why it cannot be read; the next is read ahead."""

    def one(name: str) -> np.ndarray | str:
        try:
            return prepared(root / name, how)
        except UnreadableImageError as error:
            return str(error)

    chunks = [paths[first : first + size] for first in range(0, len(paths), size)]
    with ThreadPoolExecutor(min(MOST_THREADS, usable_cores())) as pool:
        coming = [pool.submit(one, name) for name in chunks[0]] if chunks else []
        for number, chunk in enumerate(chunks):
            current, coming = coming, []
            if number + 1 < len(chunks):
                coming = [pool.submit(one, name) for name in chunks[number + 1]]
            yield chunk, [future.result() for future in current]
