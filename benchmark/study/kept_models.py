"""The models whose weights a study has kept (`keep=best`): of its final runs, or of its traditional runs."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from benchmark.core import records
from benchmark.core.code import code_of
from benchmark.core.errors import UserError
from benchmark.core.records import Record
from benchmark.study import contents, layout
from benchmark.study.identity import Identity
from benchmark.study.model_files import NAME, WEIGHTS, Mismatch, is_there
from benchmark.study.stored import StoredStudy
from benchmark.study.study import Study

# What scores corrupted images, and the packages whose modules count if these import them.
SCORING = ("benchmark.images.corruptions", "benchmark.study.scoring")
SCORING_CODE = (
    "benchmark.study.scoring", "benchmark.images", "benchmark.protocol", "benchmark.trunks", "benchmark.heads"
)  # fmt: skip


@dataclass(frozen=True)
class KeptRun:
    """A finished run and its weights.

    Attributes:
        number: number of the run.
        study: the study, with the setting that was trained.
        record: the run's record.
        weights: for each model, its weights file, and a function that describes how an identity differs from that of
            the model's training.
    """

    number: int
    study: Study
    record: Record
    weights: tuple[tuple[Path, Mismatch], ...]


@dataclass(frozen=True)
class KeptRuns:
    """The runs of a study whose weights can be read.

    Attributes:
        chosen: name of the folder of the runs: the trial, the preset, or `setting`.
        runs: the runs, by number.
        without: numbers of finished runs whose weights were not kept.
    """

    chosen: str
    runs: list[KeptRun]
    without: list[int]


def find(study: Study, stored: StoredStudy) -> KeptRuns:
    """The runs of a study whose weights were kept.

    Args:
        study: the study.
        stored: the content of its `study.yaml`.

    Raises:
        UserError: no run is finished, or none has kept its weights; the message says how to get some.
    """
    traditional = stored.facts.story == "traditional"
    command = "traditional" if traditional else "final-eval"
    chosen = _chosen(study, stored)
    kind = contents.Traditional if traditional else contents.Run
    folder = study.directory / command.replace("-", "_") / chosen
    found = KeptRuns(chosen, [], [])
    for number in range(stored.num_runs):
        path = folder / f"run_{number:02d}.json"
        try:
            record = contents.read(path, kind)
        except (FileNotFoundError, records.CorruptFileError):  # its command reports and repeats it
            continue
        if (record.identity or {}).get("study") != stored.identity or record.result["status"] == "failed":
            continue
        weights = _weights(path.with_suffix(""), record, traditional, stored)
        if all(is_there(file) for file, _ in weights):
            own = study if traditional else study.with_setting(record.result["setting"])
            found.runs.append(KeptRun(number, own, record, weights))
        else:
            found.without.append(number)
    if not found.runs:
        again = study.command(command, "keep=best")
        raise UserError(
            f"{folder} has no finished run. This command trains the runs, and keeps their weights: {again}"
            if not found.without
            else f"No run in {folder} has kept its weights. {_how_to_keep(traditional)}: {again}"
        )
    return found


def _how_to_keep(traditional: bool) -> str:
    if not traditional:
        return "This command trains them once more for their weights; their records stay as they are"
    return (
        "A finished run of this protocol is not trained again, because each training looks at the test classes. Delete "
        "or move this folder, then train the runs with weights that are kept"
    )


def robustness_identity(stored: StoredStudy, run: Record) -> Identity:
    """The identity of a run's scores on corrupted images: that of the run, and the code that scores.

    Args:
        stored: the study.
        run: the run's record.
    """
    digest = code_of([*SCORING], SCORING_CODE).digest
    return stored.expected.of("robustness", run.result["run"], run.result["setting"], code=[digest])


def _chosen(study: Study, stored: StoredStudy) -> str:
    """Name of the folder of a study's runs.

    Raises:
        UserError: a search has chosen no setting yet.
    """
    if stored.facts.story == "traditional":
        return layout.traditional_path(study.directory, stored.facts.preset, 0).parent.name
    if stored.facts.preset:
        return stored.facts.preset
    choice = layout.choice_on_disk(study.directory, stored.expected)
    if choice is None:
        raise UserError(f"{study.title}: the search is not finished. Run {study.command('bo final-eval', 'keep=best')}")
    return layout.Chosen.of(choice).name


def has_weights(folder: Path, record: Record) -> bool:
    """Whether the weights of all folds of a final run are there, and `model.yaml`, which is written after them.

    Args:
        folder: the run's folder.
        record: its record.
    """
    folds = range(len(record.result["folds"]))
    return (folder / NAME).is_file() and all(is_there(folder / f"fold_{fold}" / WEIGHTS) for fold in folds)


def _weights(
    folder: Path, record: Record, traditional: bool, stored: StoredStudy
) -> tuple[tuple[Path, Mismatch], ...]:  # fmt: skip
    """The weights files of a run, whether they exist or not, and what their identities must be."""
    identity = Identity(**(record.identity or {}))
    if traditional:
        return ((_file(folder, "weights.pt"), identity.mismatch),)
    of_fold = dataclasses.replace(identity, kind="fold", code=sorted(stored.expected.code))
    return tuple(
        (_file(folder / f"fold_{fold}", "best.pt"), dataclasses.replace(of_fold, fold=fold).mismatch)
        for fold in range(len(record.result["folds"]))
    )


def _file(folder: Path, earlier: str) -> Path:
    """The weights in a folder; unless they are there, the name that earlier versions gave to them."""
    return path if is_there(path := folder / WEIGHTS) else folder / earlier
