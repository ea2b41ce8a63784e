"""Units of work and their answers: frozen dataclasses in a process, JSON between a driver and its workers.

A worker parses each configuration once: `Study.of` caches the studies that it has composed, and the functions that run
a unit take the `Study` itself.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, Self

from benchmark.core.provenance import check_software, software
from benchmark.core.records import JsonObject
from benchmark.study.study import Study


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One training that any worker can run.

    Attributes:
        study: the study to train, without `setting` applied.
        fingerprint: identifies the driver's data.
        kind: `trial` for a search, `run` for any other training.
        index: number of the trial or run.
        fold: number of the fold; None for a run without folds.
        setting: hyper-parameters that replace the loss's own.
        directory: folder of the unit's record, checkpoint, log and heartbeat.
        keep_weights: whether the trained weights are still needed after the training.
    """

    task: ClassVar[str] = "train"  # distinguishes the tasks of one worker
    study: Study
    fingerprint: str
    kind: Literal["trial", "run"]
    index: int
    fold: int | None
    setting: Mapping[str, float | int]
    directory: Path
    keep_weights: bool = False

    @property
    def name(self) -> str:
        """The unit's name in messages, as in `make logs ARGS=unit=trial_003/fold_1`."""
        return "/".join(self.directory.parts[-2:])

    def to_json(self) -> JsonObject:
        """All fields, the task, and the software that a worker must share with this process."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        plain |= {"study": self.study.raw, "directory": str(self.directory), "setting": dict(self.setting)}
        return {"task": self.task, "software": software()} | plain

    @classmethod
    def from_json(cls, body: JsonObject) -> Self:
        """Build the unit from the JSON that the driver's `to_json` returned.

        Raises:
            UserError: this machine's software differs from the driver's.
            ValueError: the task differs, or a field is missing or unknown.
        """
        check_software(body.get("software", {}))  # checked first, since other software may have other fields
        plain = {key: value for key, value in body.items() if key not in ("task", "software")}
        if body.get("task") != cls.task:
            raise ValueError(f"A {cls.__name__} has task={cls.task!r}, but this unit has task={body.get('task')!r}.")
        _check_fields(cls, plain)
        return cls(**plain | {"study": Study.of(plain["study"]), "directory": Path(plain["directory"])})


class _FromJson:
    """An answer whose JSON holds its fields and nothing else."""

    @classmethod
    def from_json(cls, body: JsonObject) -> Self:
        """Build the answer from the JSON that its `to_json` returned.

        Raises:
            ValueError: a field is missing or unknown.
        """
        _check_fields(cls, body)
        return cls(**body)


@dataclass(frozen=True)
class FinishedUnit(_FromJson):
    """The answer of a finished unit, which has a record.

    Attributes:
        result: the record's result.
        provenance: the record's provenance.
        notes: sentences about damaged files that were quarantined.
    """

    result: JsonObject
    provenance: JsonObject = field(default_factory=dict)
    notes: Sequence[str] = ()

    def to_json(self) -> JsonObject:
        """All fields."""
        return {"result": self.result, "provenance": self.provenance, "notes": list(self.notes)}


@dataclass(frozen=True)
class LostUnit(_FromJson):
    """The answer of a unit that is lost: it exhausted its retries, so it has no record until the command runs again.

    Attributes:
        unit: its name in messages.
        reason: the last failure, in one line.
        log: path of its log.
        tail: the end of that log.
        error: the end of the last traceback.
    """

    unit: str
    reason: str
    log: str
    tail: str
    error: str

    def to_json(self) -> JsonObject:
        """All fields."""
        return dataclasses.asdict(self)


Answer = FinishedUnit | LostUnit


def _check_fields(kind: type, body: JsonObject) -> None:
    """Refuse JSON whose fields differ from the dataclass's; a missing field gets no default."""
    expected = {f.name for f in dataclasses.fields(kind)}
    missing, unknown = sorted(expected - body.keys()), sorted(body.keys() - expected)
    if missing or unknown:
        faults = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has unknown {', '.join(unknown)}"] * bool(unknown)
        raise ValueError(f"The JSON of a {kind.__name__} {' and '.join(faults)}; its fields are {sorted(expected)}.")
