"""What the rest of a study will take, by the records of like trainings: its own, and those of its neighbours.

A neighbour is a study in the folder beside it with the same data, trunk, head, training and protocol, so with another
loss. Before any of them has a record, nothing is known but the number of trainings and the disk.
"""

import shutil
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmark.core.errors import UserError
from benchmark.core.provenance import kinds_of
from benchmark.core.records import CorruptFileError, NewerFileError, Record
from benchmark.core.wording import counted, human_size, human_time
from benchmark.study import contents
from benchmark.study.identity import VERSION
from benchmark.study.stored import read_study
from benchmark.study.study import Study

LIKE = ("data", "dataset", "trunk", "head", "training", "protocol", "threads", "precision")  # parts of `science`
NEWEST = 3  # records that are read of each study


@dataclass(frozen=True)
class Cost:
    """What one training took.

    Attributes:
        seconds: time of training and evaluation.
        memory: peak bytes; None where it was not recorded.
        study: name of the study.
    """

    seconds: float
    memory: int | None
    study: str


def forecast(study: Study, fingerprint: str, trainings: int, workers: int, kind: str, *, at_most: bool = False) -> str:
    """A sentence about the time, memory and disk of what is left.

    Args:
        study: the study.
        fingerprint: identifies its data.
        trainings: number of models that are left to train.
        workers: number of trainings at a time.
        kind: kind of the device that trains; empty where others train.
        at_most: whether some of them may turn out not to be needed.
    """
    free = human_size(shutil.disk_usage(study.directory).free)
    costs = list(known_costs(study, fingerprint, kind))
    start = f"Left: {'at most ' * at_most}{counted(trainings, 'training')}"
    if not costs:
        return f"{start}; the time is known once the first epochs are. Disk: {free} free"
    seconds = trainings * statistics.fmean(cost.seconds for cost in costs)
    together = f", {human_time(seconds / workers)} with {counted(workers, 'worker')}" if workers > 1 else ""
    memory = max((cost.memory for cost in costs if cost.memory), default=None)
    need = f"; memory {human_size(memory)} each" if memory else ""
    names = ", ".join(dict.fromkeys(cost.study for cost in costs))
    return f"{start}, about {human_time(seconds)} of one worker{together}, by those of {names}{need}. Disk: {free} free"


def known_costs(study: Study, fingerprint: str, kind: str = "") -> Iterator[Cost]:
    """Yield the costs of trainings of this study or, if it has none, of its neighbours.

    Args:
        study: the study.
        fingerprint: identifies its data.
        kind: kind of the device that they must have trained on; empty for any.
    """
    own = list(_costs_in(study.directory, kind))
    yield from own
    if own:
        return
    science = study.science(fingerprint)
    for folder in sorted(path.parent for path in study.directory.parent.glob("*/study.yaml")):
        try:
            stored = read_study(folder)
        except (UserError, CorruptFileError, NewerFileError, OSError):
            continue
        if stored.version == VERSION and all(stored.science.get(part) == science.get(part) for part in LIKE):
            yield from _costs_in(folder, kind)


def _costs_in(folder: Path, kind: str) -> Iterator[Cost]:
    for path in sorted((folder / "bo").glob("trial_*.json"))[-NEWEST:]:
        try:
            record: Record = contents.read(path, contents.Trial)
        except (CorruptFileError, NewerFileError, OSError):
            continue
        if kind and kinds_of([record]) != {kind}:
            continue
        seconds = sum(record.provenance["seconds"].values()) / max(1, len(record.result["folds"]))
        yield Cost(seconds, record.provenance.get("peak_memory_bytes"), folder.name)
