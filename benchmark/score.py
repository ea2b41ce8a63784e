"""make score: MAP@R, P@1, R-Precision and Recall@K of a model or of any embeddings, per class and super class too.

    make score MODEL=results/studies/GROUP/hpl_pa                     # on the test classes of its own data set
    make score MODEL=results/studies/GROUP/hpl_pa DATASET=cub         # on those of another one
    make score EMBEDDINGS=file.npz

The arrays of such a file are `embeddings`, `labels` and, if they are known, `super_labels` and `is_query`. They are
compared by cosine unless `distance`, and for a ball `curvature`, say otherwise. Scores of all queries go to
`scores.csv`, those of classes and super classes to `classes.csv` and `super_classes.csv`. The test classes of a data
set, and the embeddings that a run kept of them, are opened only after a line in the test ledger: the one in the folder
of the model's study.
"""

if __name__ == "__main__":  # before the slow imports, so that a mistake is reported at once
    from benchmark.__main__ import main

    raise SystemExit(main("score"))

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmark.core.console import counting, write, write_table
from benchmark.core.csv_file import write_csv
from benchmark.core.errors import UserError
from benchmark.core.invocation import command, key_of
from benchmark.core.names import joined_names
from benchmark.core.places import usable_path
from benchmark.core.provenance import commit
from benchmark.models.loaded import OF_MODEL, Model, load
from benchmark.models.scores import Labelled, labelled, scored
from benchmark.models.tables import read_npz
from benchmark.protocol.evaluation import MODES, RECALL_AT, Evaluation, Groups
from benchmark.study import stored
from benchmark.study.ledger import log_access
from benchmark.study.prepare import make_ready
from benchmark.study.selected import PLACE_KEYS, check_read
from benchmark.study.study import Study
from benchmark.study.testset import open_test_set

RECALL_AT_KEY = "dataset.recall_at"
ALWAYS_READ = ("output", "results_dir", "classes", "display")
OF_FILE = ("embeddings", RECALL_AT_KEY, "plugins", *ALWAYS_READ)
OF_TEST_IMAGES = ("model", *OF_MODEL, "dataset", "decode", "image_threads", "image_memory", *ALWAYS_READ)
LOWEST = 10  # classes that are printed unless `classes` says otherwise
TITLES = {
    "map_at_r": "MAP@R", "precision_at_1": "P@1", "r_precision": "RP", "class_map_at_r": "MAP@R over classes",
    "h_ap": "H-AP", "ndcg": "NDCG", "asi": "ASI", "super_map_at_r": "MAP@R of super classes",
}  # fmt: skip


@dataclass(frozen=True)
class Scored:
    """What is scored.

    Attributes:
        title: what it is, for the output.
        name: name of the folder of its scores.
        given: the embeddings and their classes.
        metric: distance of the search.
        options: options of that distance.
        recall_at: each K of Recall@K.
    """

    title: str
    name: str
    given: Labelled
    metric: str
    options: Mapping[str, float]
    recall_at: tuple[int, ...]


def score(study: Study, overrides: list[str]) -> None:
    """Score embeddings or a model, print the scores, and write them as CSV.

    Args:
        study: names the embeddings, or the model and the data set.
        overrides: the overrides on the command line.

    Raises:
        UserError: neither or both are named, an option is not read, a file cannot be read, or the embeddings cannot be
            scored.
    """
    config = study.config
    if bool(config.embeddings) == bool(config.model):
        one, other = (
            command("score", {key: value}) for key, value in (("model", "FOLDER"), ("embeddings", "FILE.npz"))
        )
        raise UserError(f"Name either a model or a file of embeddings: {one}, or {other}")
    check_read("score", overrides, OF_FILE if config.embeddings else OF_TEST_IMAGES, unread=())
    found = (of_file if config.embeddings else of_model)(study, overrides)
    several = found.given.embeddings.ndim == 3 and len(found.given.embeddings) > 1
    evaluated = {
        mode: scored(found.given, mode=mode, metric=found.metric, recall_at=found.recall_at,
                     options=found.options, what=found.title) for mode in (MODES if several else MODES[:1])
    }  # fmt: skip
    folder = Path(config.output or Path(config.results_dir) / "scores" / found.name)
    show(found, evaluated, config.classes or LOWEST)
    for path in write_scores(folder, found, evaluated):
        write(f"wrote {path}")


def of_file(study: Study, overrides: Sequence[str]) -> Scored:
    """The content of an npz file; one that lies in a study's folder is logged in its ledger first.

    Args:
        study: the study of the command line, which names the file.
        overrides: the overrides on the command line.

    Raises:
        UserError: it cannot be read.
    """
    path = usable_path("embeddings", study.config.embeddings, "an npz file")
    above = next((one for one in path.absolute().parents if (one / stored.NAME).is_file()), None)
    metric, options, recall_at, names = "cosine", dict[str, float](), list[int](), list[str]()
    if above is not None:
        log_access(above, {"story": "score", "looks": f"scores of {path.name}", "commit": commit()})
        about = stored.read_study(above)
        loss, names = about.science["loss"], [above.resolve().parent.name, above.resolve().name]
        metric, options = str(loss.get("retrieval", metric)), dict(loss.get("retrieval_options", {}))
        recall_at = about.facts.recall_at
    found = read_npz(path)
    if found.distance:
        metric, options = found.distance, found.options
    return Scored(
        str(path), joined_names(*names, path.resolve().parent.name, path.resolve().stem) or "embeddings",
        labelled(found.embeddings, found.labels, found.super_labels, found.is_query, str(path)),
        metric, options, asked_recall_at(study, overrides, recall_at),
    )  # fmt: skip


def asked_recall_at(study: Study, overrides: Sequence[str], own: Sequence[int]) -> tuple[int, ...]:
    """Each K of Recall@K: those on the command line, or else those of what is scored.

    Args:
        study: the study of the command line.
        overrides: the overrides on the command line.
        own: those of the data set that is scored.
    """
    given = RECALL_AT_KEY in map(key_of, overrides)
    return tuple((study.config.dataset.recall_at if given else own) or RECALL_AT)


def of_model(study: Study, overrides: Sequence[str]) -> Scored:
    """The embeddings of test classes by a model: of the data set that is named, else of its own.

    The access is logged first, in the folder of the model's study.

    Args:
        study: the study of the command line, which names the model.
        overrides: the overrides on the command line.

    Raises:
        UserError: the model or the data set cannot be read, or they do not fit.
    """
    model = load(study.config.model, study, overrides, study.config.run)
    other = on_data_of(study, model, overrides)
    make_ready(other, other.make_dataset(), ("test",))
    test = open_test_set(other, {
        "story": "score", "run": model.described.run, "dataset": other.config.dataset.name, "commit": commit(),
        "model": model.weights_digest,
    })  # fmt: skip
    size, total = test.images.eval_batch_size, len(test.images)
    shown = counting(f"{model.name}: images embedded", study.config.display)
    parts = []  # not normalised: to normalise them twice would round them in another way than the record
    for first in range(0, total, size):
        parts.append(model.outputs(test.images.plain(np.arange(first, min(first + size, total)))))
        shown(min(first + size, total), total)
    dataset = other.config.dataset
    embeddings = torch.cat(parts, dim=1)
    labels, supers = (part.to(embeddings.device) for part in (test.labels, test.super_labels))
    is_query = None if test.is_query is None else test.is_query.to(embeddings.device)
    whole = other.make_dataset()
    super_names = whole.listing.super_names if whole.listing is not None else whole.trainval().super_names
    given = Labelled(
        embeddings, labels, supers if len(supers.unique()) > 1 else None, is_query, test.class_names,
        dict(enumerate(super_names)),
    )  # fmt: skip
    elsewhere = "" if dataset.name == model.described.dataset else dataset.name
    return Scored(
        f"{model.name}, test classes of {dataset.name}", joined_names(model.stem, elsewhere), given,
        model.described.distance, model.described.distance_options,
        asked_recall_at(study, overrides, dataset.recall_at),
    )  # fmt: skip


def on_data_of(study: Study, model: Model, overrides: Sequence[str]) -> Study:
    """A study whose test images are prepared as the model needs them, and whose ledger is the model's.

    Args:
        study: the study of the command line.
        model: the model.
        overrides: the overrides on the command line. If they name no data set, the one of the model's study is taken,
            from the places that they give.

    Raises:
        UserError: no data set is named, and the model lies outside of a study or another value of a data set is given.
    """
    raw, how = copy.deepcopy(study.raw), model.described.preprocessing
    given = {key_of(entry): entry for entry in overrides}
    if "dataset" not in given:
        named = command("score", {"model": study.config.model, "dataset": model.described.dataset})
        if not (model.directory / stored.NAME).is_file():
            raise UserError(f"{model.directory} is no study, so the data set is not known: {named}")
        own = [key for key in given if key.startswith("dataset.") and key != RECALL_AT_KEY]
        if other := [given[key] for key in own if key not in PLACE_KEYS]:
            raise UserError(
                f"{', '.join(other)}: no data set is named, and of the model's own one only the place can be changed "
                f"({', '.join(PLACE_KEYS)}). Leave it out, or name a data set: {named}"
            )
        places = {key: value for key, value in study.raw["dataset"]["module"].items() if f"dataset.module.{key}" in own}
        about = stored.read_study(model.directory)
        raw["dataset"] = copy.deepcopy(about.config["dataset"]) | {"sources": [], "by_hand": ""}
        raw["dataset"]["module"] |= places
    if raw["dataset"].get("images"):
        raw["dataset"]["images"] = {
            "short_side": how.short_side, "crop": how.crop, "scale": [1.0, 1.0], "ratio": [1.0, 1.0], "flip": 0.0,
            "resize_first": True, "resampling": how.resampling, "orient": how.orient, "background": how.background,
        }  # fmt: skip
    raw["trunk"]["crop"] = None
    return Study.of(raw | {"study": str(model.directory)})


# -- output -----------------------------------------------------------------------------------------------------------


def title_of(metric: str) -> str:
    """A metric as it is printed.

    >>> title_of("map_at_r"), title_of("recall_at_4")
    ('MAP@R', 'R@4')
    """
    return TITLES.get(metric) or metric.replace("recall_at_", "R@")


def show(found: Scored, evaluated: Mapping[str, Evaluation], lowest: int) -> None:
    """Print the scores of all queries, and the classes with the lowest MAP@R."""
    first = next(iter(evaluated.values()))
    lone = f", {first.num_lone_queries:,} without another image of their class" * (first.num_lone_queries > 0)
    write(f"{found.title}: {first.num_queries:,} queries{lone}, {len(first.classes.ids):,} classes, in percent")
    names = sorted(first.scores, key=lambda name: [*TITLES].index(name) if name in TITLES else len(TITLES))
    rows = [[title_of(name), *(f"{100 * one.scores[name]:.2f}" for one in evaluated.values())] for name in names]
    write_table(["metric", *evaluated], rows)
    for what, groups, known in (
        ("classes", first.classes, found.given.class_names),
        ("super classes", first.super_classes, found.given.super_names),
    ):  # fmt: skip
        if groups is None or len(groups.ids) < 2:
            continue
        order = groups.scores["map_at_r"].argsort(stable=True)[:lowest].tolist()
        write(f"\nThe {what} with the lowest MAP@R:")
        columns = ("map_at_r", "precision_at_1", "r_precision")
        write_table(
            [what, "queries", *map(title_of, columns)],
            [[known.get(int(groups.ids[i]), str(int(groups.ids[i]))), str(int(groups.num_queries[i])),
              *(f"{100 * groups.scores[name][i]:.2f}" for name in columns)] for i in order],
        )  # fmt: skip


def write_scores(folder: Path, found: Scored, evaluated: Mapping[str, Evaluation]) -> list[Path]:
    """Write the scores as CSV, as fractions, and return the paths of the files.

    A table of classes or super classes that does not belong to these scores is deleted.

    Args:
        folder: where they are written.
        found: what is scored.
        evaluated: its scores by mode.

    Raises:
        WriteError: a file cannot be written.
    """
    whole = [[mode, name, value] for mode, one in evaluated.items() for name, value in one.scores.items()]
    written = [write_csv(folder / "scores.csv", [("mode", "metric", "value"), *whole])]
    for name, known, of in (
        ("classes", found.given.class_names, lambda one: one.classes),
        ("super_classes", found.given.super_names, lambda one: one.super_classes),
    ):
        groups: dict[str, Groups] = {mode: of(one) for mode, one in evaluated.items() if of(one) is not None}
        if not groups:
            (folder / f"{name}.csv").unlink(missing_ok=True)
        else:
            metrics = list(next(iter(groups.values())).scores)
            rows = [
                [mode, int(one.ids[i]), known.get(int(one.ids[i]), ""), int(one.num_queries[i]),
                 *(float(one.scores[metric][i]) for metric in metrics)]
                for mode, one in groups.items() for i in range(len(one.ids))
            ]  # fmt: skip
            head = ["mode", "id", "name", "queries", *metrics]
            written.append(write_csv(folder / f"{name}.csv", [head, *rows]))
    return written
