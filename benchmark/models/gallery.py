"""A folder of images that is searched: its embeddings are kept in the user's cache, and computed anew where it changed.

An image counts as unchanged while its size, modification time and change time are. The search is exact; faiss runs it
where it is installed and the distance is one of its own, and otherwise `protocol.nearest` does, with equal results up
to rounding.
"""

import io
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cosine_similarity

from benchmark.core import records
from benchmark.core.cache_dir import user_cache_dir
from benchmark.core.errors import UserError
from benchmark.images.decoded_on_read import Stamp, stamp
from benchmark.models.embedding import Embedded, embed_files
from benchmark.models.loaded import Model
from benchmark.protocol.modes import side_by_side
from benchmark.protocol.nearest import Search, nearest

BLOCK = 256


@dataclass(frozen=True)
class Gallery:
    """The images of a folder, embedded.

    Attributes:
        root: the folder.
        found: their embeddings.
        num_new: how many were embedded by this call; the others come from the cache.
        index: path of faiss's index; None without faiss.
    """

    root: Path
    found: Embedded
    num_new: int
    index: Path | None


def open_gallery(
    model: Model, root: Path, paths: Sequence[str], *, batch_size: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Gallery:  # fmt: skip
    """Embed the images of a folder, except for those that the cache holds unchanged.

    Args:
        model: the model.
        root: the folder.
        paths: its images.
        batch_size: images in one forward pass.
        progress: called with the number of images done and of all that are embedded.

    Raises:
        UserError: no image can be read.
    """
    key = records.digest([model.weights_digest, str(root.resolve())])[:24]
    folder = user_cache_dir() / "galleries" / key
    stamps = {path: _stamp(root / path) for path in paths}
    known = _read(folder / "gallery.npz", len(model.networks))
    kept = {path: known[path][1] for path in paths if path in known and known[path][0] == stamps[path]}
    fresh = embed_files(model, root, [path for path in paths if path not in kept], batch_size=batch_size,
                        progress=progress)  # fmt: skip
    vectors = kept | {path: fresh.embeddings[:, i] for i, path in enumerate(fresh.paths)}
    if not vectors:
        raise UserError(f"None of the {len(paths)} images in {root} can be read: {fresh.bad[0][0]} {fresh.bad[0][1]}.")
    names = sorted(vectors)
    found = Embedded(names, np.stack([vectors[name] for name in names], axis=1), fresh.bad)
    changed = names != sorted(known) or bool(fresh.paths)
    index = _index(model, found, folder / "gallery.faiss", changed)
    if changed:  # last: if this process is killed before, both files are written anew
        _write(folder / "gallery.npz", found, stamps)
    return Gallery(root, found, len(fresh.paths), index)


def search(model: Model, gallery: Gallery, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The images nearest to each query.

    Args:
        model: the model that embedded both.
        gallery: N images.
        queries: (F, Q, D), embeddings of the queries.
        count: number of images, at most N.

    Returns:
        Positions (Q, count) in the gallery, nearest first; and for each its similarity (cosine) or distance.
    """
    metric, options = model.described.distance, model.described.distance_options
    count = min(count, len(gallery.found.paths))
    if gallery.index is not None:
        faiss = _faiss()
        index = faiss.read_index(str(gallery.index))
        scores, places = index.search(_joined(queries), count)
        if metric == "cosine":
            return places, scores / len(model.networks)
        return places, np.sqrt(np.maximum(scores, 0.0))
    own, parts = side_by_side(torch.from_numpy(queries), metric)
    others, _ = side_by_side(torch.from_numpy(gallery.found.embeddings), metric)
    engine = Search(own, others, metric, BLOCK, parts=parts, **options)
    places, values = [], []
    for rows in torch.arange(len(own)).split(BLOCK):
        scored = engine.scores(rows)
        chosen = nearest(scored, torch.full_like(rows, count))[:, :count]
        places.append(chosen)
        if metric == "hyperbolic":
            values.append(-scored.gather(1, chosen))
        else:  # the scores of a query are shifted by a constant
            pair = own[rows].double()[:, None], others[chosen].double()
            values.append(cosine_similarity(*pair, dim=2) if metric == "cosine" else (pair[0] - pair[1]).norm(dim=2))
    return torch.cat(places).numpy(), torch.cat(values).numpy()


def _joined(embeddings: np.ndarray) -> np.ndarray:
    """Embeddings (F, N, D) side by side as faiss takes them, (N, F D)."""
    return np.ascontiguousarray(np.concatenate(list(embeddings), axis=1), dtype=np.float32)


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        return None
    return faiss


def _index(model: Model, found: Embedded, path: Path, changed: bool) -> Path | None:
    """The file of faiss's exact index, written anew if the gallery changed; None if faiss is of no use here.

    The index of a gallery that changed is deleted even without faiss, since a later search may find faiss again.
    """
    if changed:
        path.unlink(missing_ok=True)
    if model.described.distance == "hyperbolic" or (faiss := _faiss()) is None:
        return None
    if not path.is_file():
        vectors = _joined(found.embeddings)
        make = faiss.IndexFlatIP if model.described.distance == "cosine" else faiss.IndexFlatL2
        index = make(vectors.shape[1])
        index.add(vectors)
        records.write_whole(path, faiss.serialize_index(index).tobytes())
    return path


def _stamp(path: Path) -> Stamp:
    try:
        return stamp(path)
    except (OSError, ValueError):
        return Stamp(-1, -1, -1)  # it cannot be read, which embedding it reports


def _write(path: Path, found: Embedded, stamps: dict[str, Stamp]) -> None:
    buffer = io.BytesIO()
    of = np.array([stamps[one] for one in found.paths], np.int64)
    np.savez(buffer, embeddings=found.embeddings, paths=np.array(found.paths), stamps=of)
    records.write_checked(path, buffer.getbuffer())


def _read(path: Path, folds: int) -> dict[str, tuple[tuple[int, ...], np.ndarray]]:
    """Stamp and embeddings (F, D) of each image of a kept gallery; empty if there is none that can be used."""
    try:
        with np.load(io.BytesIO(records.read_checked(path)), allow_pickle=False) as file:
            embeddings, paths, stamps = file["embeddings"], file["paths"].tolist(), file["stamps"].tolist()
    except (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile, records.CorruptFileError):
        return {}
    if embeddings.ndim != 3 or len(embeddings) != folds or len(paths) != embeddings.shape[1] != len(stamps):
        return {}
    return {name: ((*of,), embeddings[:, i]) for i, (name, of) in enumerate(zip(paths, stamps, strict=True))}
