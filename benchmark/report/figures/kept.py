"""The arrays that a scored run keeps for figures: `embeddings.npz`."""

import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmark.core.errors import UserError
from benchmark.core.invocation import command
from benchmark.core.records import CorruptFileError
from benchmark.core.wording import ranges

NAME = "embeddings.npz"
HIERARCHY = (".owners_0", ".lcas")  # the arrays of HPL's groups, and of HIER's ancestors
EPOCH = re.compile(r"embeddings_epoch_(\d+)\.npz")


@dataclass(frozen=True)
class Kept:
    """The test embeddings of a run.

    Attributes:
        embeddings: (F, N, D) float32, one model per fold; one model under the traditional protocol.
        labels: (N,) int64, global class ids.
        is_query: (N,) bool, which images are queries; None where every image is.
        neighbours: (Q, K) positions of the images nearest to each query; None if the file lacks them.
        states: for each model, the arrays of its loss by name, such as `proxies` (C, D).
        names: names of the classes by their ids; empty if the file lacks them.
    """

    embeddings: np.ndarray
    labels: np.ndarray
    is_query: np.ndarray | None = None
    neighbours: np.ndarray | None = None
    states: list[dict[str, np.ndarray]] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)


def find(directory: Path, run: int) -> Path:
    """The file of a run in a study's folder.

    Args:
        directory: the study's folder.
        run: number of the run.

    Raises:
        UserError: the run keeps no embeddings.
    """
    found = sorted(directory.glob(f"*/*/run_{run:02d}/{NAME}"), key=lambda path: path.stat().st_mtime)
    if not found:
        keeps: dict[str, object] = (
            {"keep": "best"} if (directory / "traditional").is_dir() else {}
        )  # final runs always keep them
        target = "traditional" if keeps else "final-eval"
        others = {int(path.parent.name[4:]) for path in directory.glob(f"*/*/run_[0-9][0-9]/{NAME}")}
        has = f" Runs that have them: {ranges(others)}." * bool(others)
        raise UserError(
            f"{directory} keeps no test embeddings of run {run}.{has} This command keeps those that it trains: "
            f"{command(target, {'study': directory, **keeps})}"
        )
    return found[-1]


def by_epoch(path: Path) -> dict[int, Path]:
    """The files with the embeddings of single epochs that lie beside a run's file, by epoch.

    Args:
        path: the run's file.
    """
    found = {int(match[1]): other for other in path.parent.iterdir() if (match := EPOCH.fullmatch(other.name))}
    return dict(sorted(found.items()))


def has_hierarchy(path: Path) -> bool:
    """Whether a run's file holds a hierarchy that its loss learned; false for a damaged file. No embedding is read.

    Args:
        path: the file.
    """
    try:
        with zipfile.ZipFile(path) as file:
            return any(name.removesuffix(".npy").endswith(HIERARCHY) for name in file.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def read(path: Path) -> Kept:
    """Read a run's file.

    Args:
        path: the file.

    Raises:
        CorruptFileError: it is damaged, or its arrays do not fit together.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        embeddings, labels = arrays["embeddings"].astype(np.float32), arrays["labels"].astype(np.int64)
        ids, words = (arrays.get(name, np.array([])).tolist() for name in ("class_ids", "class_names"))
        names = {int(one): str(word) for one, word in zip(ids, words, strict=True)}
    except (OSError, ValueError, TypeError, LookupError, EOFError, zipfile.BadZipFile) as error:
        raise CorruptFileError(f"{path} cannot be read: {error}.") from error
    is_query = arrays.get("is_query")
    if embeddings.ndim != 3 or labels.shape != (embeddings.shape[1],) or not np.isfinite(embeddings).all():
        raise CorruptFileError(f"{path} is damaged: embeddings {embeddings.shape} do not fit labels {labels.shape}.")
    states: list[dict[str, np.ndarray]] = [{} for _ in embeddings]
    for name, array in arrays.items():
        model, dot, key = name.partition(".")
        if dot and model.startswith("fold_") and model[5:].isdigit() and int(model[5:]) < len(states):
            states[int(model[5:])][key] = array
    return Kept(embeddings, labels, is_query, arrays.get("neighbours"), states, names)
