"""Units of work and their answers: frozen dataclasses in a process, JSON between a driver and its workers.

A worker parses each configuration once: `Study.of` caches the studies that it has composed, and the functions that run
a unit take the `Study` itself.
"""

import dataclasses
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, Self

from benchmark.core.errors import UserError
from benchmark.core.provenance import check_versions, versions
from benchmark.core.records import JsonObject
from benchmark.study import contents, plugins
from benchmark.study.code import training_code
from benchmark.study.identity import Identity, StudyIdentity
from benchmark.study.study import Study


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One training that any worker can run.

    Attributes:
        study: the study to train, without `setting` applied.
        fingerprint: identifies the driver's data.
        study_identity: digest of the driver's scientific configuration and data.
        kind: `trial` for a search, `run` for any other training.
        index: number of the trial or run.
        fold: number of the fold; None for a run without folds.
        setting: hyper-parameters that replace the loss's own.
        directory: folder of the unit's record, checkpoint, log and heartbeat.
        code: digest of the driver's code; a worker refuses a unit if its own code differs.
        accepted: digests of all code whose results belong to the study, see `opening.Opened`.
        keep_weights: whether the trained weights are still needed after the training.
    """

    task: ClassVar[str] = "train"  # distinguishes the tasks of one worker
    study: Study
    fingerprint: str
    study_identity: str
    kind: Literal["trial", "run"]
    index: int
    fold: int | None
    setting: Mapping[str, float | int]
    directory: Path
    code: str
    accepted: Sequence[str]
    keep_weights: bool = False

    def identity(self, kind: str | None = None, fold: int | None = None) -> Identity:
        """The identity of the unit's record, checkpoint and weights.

        Args:
            kind: kind of the record; None for `fold`, the record of a training.
            fold: number of the fold; None for the unit's own.
        """
        study = StudyIdentity(self.study_identity, self.study.config.precision, frozenset(self.accepted))
        fold = self.fold if fold is None else fold
        return study.of(kind or "fold", self.index, self.setting, fold=fold, code=[self.code])

    @property
    def name(self) -> str:
        """The unit's name in messages, as in `make logs ARGS=unit=trial_003/fold_1`."""
        return "/".join(self.directory.parts[-2:])

    def has_record(self) -> bool:
        """Whether the unit's folder has a record of a training; whether it is valid is for a worker to find out."""
        return (self.directory / "record.json").exists()

    def to_json(self) -> JsonObject:
        """All fields, the task, the package versions that a worker must share, and the folders of plug-ins."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        plain |= {"study": self.study.raw, "directory": str(self.directory), "setting": dict(self.setting)}
        extra = {"versions": versions(), "plugin_folders": plugins.folders(self.study.config.plugins)}
        return {"task": self.task} | extra | plain | {"accepted": list(self.accepted)}

    @classmethod
    def from_json(cls, body: JsonObject) -> Self:
        """Build the unit from the JSON that the driver's `to_json` returned.

        Raises:
            UserError: the packages, the code or a file of weights on this machine differ from the driver's.
            ValueError: the task differs, or a field is missing or unknown.
        """
        check_versions(body.get("versions", {}))  # checked first, since other software may have other fields
        plain = {key: value for key, value in body.items() if key not in ("task", "versions", "plugin_folders")}
        if body.get("task") != cls.task:
            raise ValueError(f"A {cls.__name__} has task={cls.task!r}, but this unit has task={body.get('task')!r}.")
        _check_fields(cls, plain)
        plugins.add_to_path(*body.get("plugin_folders", []))
        unit = cls(**plain | {"study": Study.of(plain["study"]), "directory": Path(plain["directory"])})
        unit.check_machine()
        return unit

    def check_machine(self) -> None:
        """Check that this machine has the study's device, the driver's code, and the weights that a path names.

        Raises:
            UserError: the device is missing, or the code or the weights file differs.
        """
        self.study.make_device()  # which raises if this machine lacks it
        if (here := self.study.identity(self.fingerprint)) != self.study_identity:
            raise UserError(
                f"The configuration has the identity {here} on {platform.node()}, and {self.study_identity} where this "
                "command runs: a file that it names (trunk.module.weights) differs. Use one file on both, then run "
                "the command again."
            )
        if (here := training_code(self.study).digest) != self.code:
            raise UserError(
                f"{platform.node()} has other code than this command: {here} there, {self.code} here. Install the same "
                "version on both. If the code was edited while the command ran, run the command again: it reports what "
                "differs from the code of the existing results."
            )


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
        identity: the record's identity; None for an answer without a record.
        notes: sentences about files that were quarantined.
    """

    result: JsonObject
    provenance: JsonObject = field(default_factory=dict)
    identity: JsonObject | None = None
    notes: Sequence[str] = ()

    def to_json(self) -> JsonObject:
        """All fields."""
        return {
            "result": self.result, "provenance": self.provenance, "identity": self.identity, "notes": list(self.notes),
        }  # fmt: skip


@dataclass(frozen=True)
class LostUnit(contents.LostUnit, _FromJson):
    """The answer of a unit that is lost: it exhausted its retries, so it has no record until the command runs again."""

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
