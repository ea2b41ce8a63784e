"""Embeddings as files: npz, CSV or Parquet, and back from npz."""

import csv
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmark.core import records
from benchmark.core.errors import UserError
from benchmark.core.invocation import arguments, install
from benchmark.models.embedding import Embedded

FORMATS = ("npz", "csv", "parquet")
OPTIONS = ("curvature",)  # of distances, by the names of their arrays in npz


def check_format(kind: str) -> None:
    """Refuse a format that cannot be written here.

    Args:
        kind: name of the format.

    Raises:
        UserError: the format is unknown, or its package is not installed.
    """
    if kind not in FORMATS:
        raise UserError(f"format={kind}: allowed are {', '.join(FORMATS)}.")
    if kind == "parquet":
        import pandas as pd

        try:
            pd.DataFrame().to_parquet(io.BytesIO(), index=False)
        except ImportError as error:
            raise UserError(
                f"format=parquet needs pyarrow, which is not installed: {install('pyarrow')}\n"
                "Or give format=npz or csv."
            ) from error


def write(
    path: Path, kind: str, found: Embedded, *, separated: bool, distance: str, options: Mapping[str, float]
) -> None:
    """Write paths, labels and embeddings.

    Args:
        path: the file; an existing one is replaced.
        kind: one of `FORMATS`.
        found: N embedded images.
        separated: whether the folds stay apart: (F, N, D) in npz, and one group of columns per fold elsewhere.
        distance: distance by which the embeddings are compared.
        options: options of that distance, by name.

    Raises:
        UserError: the format is unknown, or its package is not installed.
        WriteError: the file cannot be written.
    """
    check_format(kind)
    groups = list(found.embeddings) if separated else [found.concatenated]
    buffer = io.BytesIO()
    if kind == "npz":
        array = found.embeddings if separated else found.concatenated
        arrays = {"embeddings": array, "paths": np.array(found.paths), "labels": np.array(found.labels)}
        arrays |= {name: np.array(value) for name, value in {"distance": distance, **options}.items()}
        np.savez(buffer, **arrays)  # type: ignore[arg-type]
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
        pd.DataFrame(columns).to_parquet(buffer, index=False)
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
        options: options of that distance, by name.
    """

    embeddings: np.ndarray
    labels: np.ndarray
    super_labels: np.ndarray | None
    is_query: np.ndarray | None
    distance: str
    options: dict[str, float]


def _arrays(path: Path) -> dict[str, np.ndarray]:
    opened = np.load(path, allow_pickle=False)
    if isinstance(opened, np.ndarray):
        raise ValueError("it holds one array without a name, as npy files do")
    with opened as file:
        return {name: file[name] for name in file.files}


def read_npz(path: Path) -> Given:
    """Read `embeddings` and `labels`, and if they are there `super_labels`, `is_query`, `distance` and `curvature`.

    Args:
        path: the file, which is read without unpickling anything.

    Raises:
        UserError: it cannot be read, or lacks one of the two.
    """
    layout = (
        "It needs the arrays embeddings, (N, D) or (F, N, D), and labels, (N,); super_labels and is_query may be in"
    )
    try:
        found = _arrays(path)
        options = {name: float(found[name]) for name in OPTIONS if name in found}
    except FileNotFoundError:
        raise UserError(f"There is no file {path}. Name one: {arguments({'embeddings': 'FILE.npz'})}") from None
    except (OSError, ValueError, TypeError, LookupError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise UserError(f"{path} cannot be read as npz ({str(error).splitlines()[0][:120]}). {layout}.") from error
    if missing := [name for name in ("embeddings", "labels") if name not in found]:
        raise UserError(f"{path} has no array {' and '.join(missing)}; it has {', '.join(found) or 'none'}. {layout}.")
    distance = str(found["distance"]) if "distance" in found else ""
    return Given(
        found["embeddings"], found["labels"], found.get("super_labels"), found.get("is_query"), distance, options
    )
