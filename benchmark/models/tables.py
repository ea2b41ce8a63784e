"""Embeddings as files: npz, CSV or Parquet, and back from npz."""

import csv
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmark.core import records
from benchmark.core.errors import UserError
from benchmark.core.invocation import arguments, install
from benchmark.models.embedding import Embedded

FORMATS = ("npz", "csv", "parquet")


def write(path: Path, kind: str, found: Embedded, *, separated: bool, distance: str) -> None:
    """Write paths, labels and embeddings.

    Args:
        path: the file; an existing one is replaced.
        kind: one of `FORMATS`.
        found: N embedded images.
        separated: whether the folds stay apart: (F, N, D) in npz, and one group of columns per fold elsewhere.
        distance: distance by which the embeddings are compared.

    Raises:
        UserError: the format is unknown, or its package is not installed.
        WriteError: the file cannot be written.
    """
    if kind not in FORMATS:
        raise UserError(f"format={kind}: allowed are {', '.join(FORMATS)}.")
    groups = list(found.embeddings) if separated else [found.concatenated]
    buffer = io.BytesIO()
    if kind == "npz":
        array = found.embeddings if separated else found.concatenated
        np.savez(
            buffer, embeddings=array, paths=np.array(found.paths), labels=np.array(found.labels),
            distance=np.array(distance),
        )  # fmt: skip
    elif kind == "csv":
        names = [f"fold_{f}_{i}" if separated else f"e{i}" for f, one in enumerate(groups) for i in range(one.shape[1])]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["path", "label", *names])
        for path_of, label, *rows in zip(found.paths, found.labels, *groups, strict=True):
            writer.writerow([path_of, label, *(f"{value:.9g}" for row in rows for value in row.tolist())])
        buffer.write(text.getvalue().encode("utf-8", "surrogateescape"))
    else:
        import pandas as pd

        columns: dict[str, list[object]] = {"path": [*found.paths], "label": [*found.labels]}
        for f, one in enumerate(groups):
            columns[f"fold_{f}" if separated else "embedding"] = list(one)
        try:
            pd.DataFrame(columns).to_parquet(buffer, index=False)
        except ImportError as error:
            raise UserError(
                f"format=parquet needs pyarrow, which is not installed: {install('pyarrow')}\n"
                "Or give format=npz or csv."
            ) from error
    records.write_whole(path, buffer.getvalue())


@dataclass(frozen=True)
class Given:
    """The content of an npz file with embeddings.

    Attributes:
        embeddings: (N, D) or (F, N, D).
        labels: (N,) numbers or texts.
        super_labels: (N,) numbers or texts; None without any.
        is_query: (N,) bool; None where every image is a query.
        distance: the distance that the file names; empty for none.
    """

    embeddings: np.ndarray
    labels: np.ndarray
    super_labels: np.ndarray | None
    is_query: np.ndarray | None
    distance: str


def read_npz(path: Path) -> Given:
    """Read `embeddings` and `labels`, and if they are there `super_labels`, `is_query` and `distance`.

    Args:
        path: the file, which is read without unpickling anything.

    Raises:
        UserError: it cannot be read, or lacks one of the two.
    """
    layout = (
        "It needs the arrays embeddings, (N, D) or (F, N, D), and labels, (N,); super_labels and is_query may be in"
    )
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise UserError(f"There is no file {path}. Name one: {arguments({'embeddings': 'FILE.npz'})}") from None
    except (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise UserError(f"{path} cannot be read as npz ({str(error).splitlines()[0][:120]}). {layout}.") from error
    if missing := [name for name in ("embeddings", "labels") if name not in found]:
        raise UserError(f"{path} has no array {' and '.join(missing)}; it has {', '.join(found) or 'none'}. {layout}.")
    embeddings, labels = found["embeddings"], found["labels"]
    distance = str(found["distance"]) if "distance" in found else ""
    kept = embeddings.astype(np.float32) if embeddings.dtype == np.float16 else embeddings
    return Given(kept, labels, found.get("super_labels"), found.get("is_query"), distance)
