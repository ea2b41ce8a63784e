"""The project from Python: run studies, load trained models, embed images and score any embeddings.

Every function is what a command does. A whole round, with a training far too short to be of use:

>>> import tempfile, numpy as np
>>> from pathlib import Path
>>> from benchmark import api
>>> folder = Path(tempfile.mkdtemp())
>>> study = api.run_study(
...     "final-eval", dataset="glyphs_small", loss="proxy_nca", preset="default", results_dir=folder,
...     **{"trunk.width": 8, "protocol.num_folds": 2, "protocol.num_runs": 1, "dataset.max_epochs": 1,
...        "dataset.iterations_per_epoch": 1, "executor": "inline", "display": "quiet", "levels": False},
... )
>>> sorted(study.values("concatenated.map_at_r"))  # one value for each run, by its number
[0]
>>> model = api.load_model(study.directory)
>>> model.described.loss, len(model.networks)
('proxy_nca', 2)
>>> from PIL import Image
>>> for name in ("a", "b"):
...     Image.new("RGB", (40, 40), "white").save(folder / f"{name}.png")
>>> found = api.embed(model, [folder / "a.png", folder / "b.png", folder / "missing.png"])
>>> found.concatenated.shape, [reason for path, reason in found.bad]
((2, 256), ['is missing'])
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmark.core import invocation
from benchmark.core.errors import UserError
from benchmark.models.embedding import BATCH_SIZE, Embedded, embed_files, listed
from benchmark.models.loaded import Model, load
from benchmark.models.scores import labelled, scored
from benchmark.protocol.evaluation import RECALL_AT, Groups
from benchmark.report.runs import StudyRuns, read_runs
from benchmark.study import cli
from benchmark.study.preflight import check_values
from benchmark.study.unused import check_used

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Embedded", "Model", "Scores", "StudyRuns", "embed", "evaluate", "load_model", "run_study"]
COMMANDS = ("bo", "final-eval", "traditional")


@dataclass(frozen=True)
class Scores:
    """The metrics of embeddings, as fractions.

    Attributes:
        overall: mean over queries by metric: `map_at_r`, `precision_at_1`, `r_precision`, `recall_at_<k>`; with a
            hierarchy also `h_ap`, `ndcg`, `asi` and `super_map_at_r`; and `class_map_at_r`, the mean over classes.
        classes: one row per class, by its name: `queries` and the means of the metrics.
        super_classes: one row per super class; None without super classes.
        num_queries: number of all queries.
        num_lone_queries: queries without another image of their class, which have no score.
    """

    overall: dict[str, float]
    classes: "pd.DataFrame"
    super_classes: "pd.DataFrame | None"
    num_queries: int
    num_lone_queries: int


def evaluate(
    embeddings: np.ndarray,
    labels: Sequence[object] | np.ndarray,
    *,
    super_labels: Sequence[object] | np.ndarray | None = None,
    is_query: Sequence[bool] | np.ndarray | None = None,
    distance: str = "cosine",
    recall_at: Sequence[int] = RECALL_AT,
    mode: str = "concatenated",
    curvature: float | None = None,
) -> Scores:
    """Score any embeddings: MAP@R, P@1, R-Precision and Recall@K by exact search, per class and super class too.

    >>> points = [[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.6, 0.5]]
    >>> scores = evaluate(points, ["tern", "tern", "gull", "gull"], recall_at=[1, 2])
    >>> scores.overall["precision_at_1"], scores.overall["recall_at_2"]
    (0.75, 0.75)
    >>> scores.classes["precision_at_1"].to_dict()
    {'gull': 0.5, 'tern': 1.0}

    Args:
        embeddings: (N, D), or (F, N, D) for F models: arrays, tensors on the CPU or lists.
        labels: (N,) classes, numbers or texts.
        super_labels: (N,) super class of each image, numbers or texts; each class lies in one.
        is_query: (N,) bool, or the numbers 0 and 1, true for queries that are searched among the others; None: each
            image is searched among all others.
        distance: `cosine`, `l2` or `hyperbolic`.
        recall_at: each K of Recall@K, 1 or more.
        mode: for several models: `concatenated` or `separated`, see `protocol.evaluation`.
        curvature: curvature of the ball; for "hyperbolic" only.

    Raises:
        UserError: labels are missing, shapes or options do not fit, or the embeddings cannot be scored.
    """
    supers, queries = (None if given is None else _as_given(given) for given in (super_labels, is_query))
    given = labelled(np.asarray(embeddings), _as_given(labels), supers, queries, "evaluate")
    options = {} if curvature is None else {"curvature": curvature}
    found = scored(
        given, mode=mode, metric=distance, recall_at=tuple(recall_at), options=options, what="The embeddings"
    )
    return Scores(
        overall=found.scores,
        classes=_frame(found.classes, given.class_names),
        super_classes=None if found.super_classes is None else _frame(found.super_classes, given.super_names),
        num_queries=found.num_queries,
        num_lone_queries=found.num_lone_queries,
    )


def _as_given(values: Sequence[object] | np.ndarray) -> np.ndarray:
    """An array (N,) of these values; numpy would turn the NaN of a list of texts into a text."""
    return values if isinstance(values, np.ndarray) else np.asarray(values, dtype=object)


def _frame(groups: Groups, names: Mapping[int, str]) -> "pd.DataFrame":
    import pandas as pd

    columns = {"queries": groups.num_queries.tolist()} | {key: value.tolist() for key, value in groups.scores.items()}
    return pd.DataFrame(columns, index=[names[i] for i in groups.ids.tolist()])


def load_model(place: str | Path, *, run: int = 0, device: str = "auto", plugins: Sequence[str] = ()) -> Model:
    """Load the trained model of a study, or of one of its runs.

    >>> load_model("nowhere")
    Traceback (most recent call last):
    ...
    benchmark.core.errors.UserError: model=nowhere: there is no such folder. ...

    Args:
        place: folder of the study or of the run.
        run: number of the run, if a study is named.
        device: `auto`, `cpu`, `cuda`, ...
        plugins: packages with components of your own that the model may be built from.

    Raises:
        UserError: there is no model, or it needs plug-ins that are not named.
        CorruptFileError: a file of it is damaged or altered.
    """
    options = _overrides({"device": device} | ({"plugins": [*plugins]} if plugins else {}))
    return load(str(place), cli.study_of(options), options, run)


def embed(model: Model, images: str | Path | Sequence[str | Path], *, batch_size: int = BATCH_SIZE) -> Embedded:
    """Embed image files; those that cannot be read are listed in the result, each with the reason.

    Args:
        model: the model.
        images: a folder, all of whose images at any depth are embedded, an image, or a list of images.
        batch_size: images in one forward pass; it affects the last digits of the embeddings.

    Raises:
        UserError: there is no such folder, it holds no image, or the batch size is below 1.
    """
    if isinstance(images, str | Path):
        place = Path(images).expanduser()
        paths, _ = listed(place)
        root = seen = place if place.is_dir() else place.parent
    else:
        root, paths = Path(), [str(path) for path in images]
        seen = Path(os.path.commonpath([Path(path).absolute() for path in paths])) if paths else root
    model.log_if_tested_on(seen, f"embeddings of {len(paths):,} images")
    return embed_files(model, root, paths, batch_size=batch_size)


def run_study(command: str, **options: object) -> StudyRuns:
    """Run `bo`, `final-eval` or `traditional` for one study, which resumes if it was begun, and return its runs.

    After `bo` alone there are none yet: `choice` of what is returned has the best setting and its validation score.

    Args:
        command: the command.
        options: values by configuration key, as on the command line; keys with a dot are given as `**{"a.b": value}`.

    Raises:
        UserError: an option is not allowed or has no effect, or the study cannot be run.
        IncompleteError: results are missing through no fault of the user.
    """
    if command not in COMMANDS:
        raise UserError(f"command={command}: allowed are {', '.join(COMMANDS)}.")
    traditional = command == "traditional"
    given = {"protocol": "traditional"} if traditional and "study" not in options else {}
    study, overrides = cli.selected_study(_overrides(given | options))
    check_values(study, "traditional" if traditional else "search")
    check_used(study, overrides, cli.study_of)
    with invocation.overridden(overrides):
        if command == "bo":
            from benchmark.bo import bo as run
        elif traditional:
            from benchmark.traditional import traditional as run
        else:
            from benchmark.final_eval import final_eval as run
        run(study, overrides)
    return read_runs(study.directory, may_have_none=command == "bo")


def _overrides(options: dict[str, object]) -> list[str]:
    """Options as they are on the command line.

    >>> _overrides({"loss": "hpl_pa", "levels": False, "keep_epochs": [1, 3], "preset": None})
    ['loss=hpl_pa', 'levels=false', 'keep_epochs=[1,3]', 'preset=null']
    """
    return [
        invocation.override(key, str(value))
        if isinstance(value, str | Path)
        else f"{key}={json.dumps(value, separators=(',', ':'))}"
        for key, value in options.items()
    ]
