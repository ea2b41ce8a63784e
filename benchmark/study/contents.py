"""Schemas of records: one dataclass for each kind of record, and one for the choice of a search.

`check` and `read` validate a record field by field. Numbers that follow from other numbers of the record, such as the
mean of its folds, must agree with them, and its index must agree with the names of its file and folder. Of a
`provenance`, only the fields that code reads are checked; it may hold others.

Older records can be read: fields that they lack have a default, and the docstring gives the date since which they are
written.
"""

import hashlib
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Protocol, TypeVar

from msgspec import UNSET, Meta, UnsetType

from benchmark.core import records
from benchmark.core.escape import visible
from benchmark.core.records import JsonObject
from benchmark.core.typed import AtLeastOne, Count, Finite, Fraction, Integer, Seconds, Text, convert
from benchmark.protocol.statistics import standard_error
from benchmark.searchers import Rule

Value = Integer | Finite
Setting = dict[Text, Value]
RecallName = Annotated[str, Meta(pattern=r"^recall_at_[1-9][0-9]*\Z", description="recall_at_ and a number")]
DeviceKind = Annotated[str, Meta(pattern=r"^[a-z]+\Z", description="a kind of device, such as cpu or cuda")]
METRICS = ("map_at_r", "precision_at_1", "r_precision")
OF_HIERARCHY = ("h_ap", "ndcg", "asi", "super_map_at_r")


# -- devices ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Device:
    """The device that trained a fold.

    Attributes:
        kind: kind of the device, such as cpu or cuda.
        name: name of the device.
        earlier: kinds of other devices that trained its first epochs.
    """

    kind: DeviceKind
    name: Text
    earlier: tuple[DeviceKind, ...]


@dataclass(frozen=True, kw_only=True)
class Precision:
    """The precision in effect during a training or an evaluation.

    Attributes:
        convolutions: precision of float32 convolutions.
        products: precision of float32 matrix products.
        autocast: type to which trunk and head converted their operands; None without autocast.
    """

    convolutions: Text
    products: Text
    autocast: Text | None


@dataclass(frozen=True, kw_only=True)
class DeviceFacts(Device):
    """The device that computed a record, and the library settings that affect the last digits.

    Attributes:
        cuda: version of CUDA or ROCm; None for another kind of device.
        cudnn: version of cuDNN; None for another kind of device.
        deterministic_algorithms: whether PyTorch was limited to deterministic algorithms.
        cudnn_deterministic: whether cuDNN was limited to deterministic algorithms.
        cudnn_benchmark: whether cuDNN chose its algorithms by timing them.
        threads: number of threads of the process.
        precision: the precision in effect.
    """

    cuda: Text | None
    cudnn: Count | None
    deterministic_algorithms: bool
    cudnn_deterministic: bool
    cudnn_benchmark: bool
    threads: AtLeastOne
    precision: Precision


# -- folds ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Metrics of one evaluation, as fractions; each requested Recall@K is a further key.

    Attributes:
        map_at_r: MAP@R.
        precision_at_1: Precision@1.
        r_precision: R-Precision.
    """

    other_keys: ClassVar = dict[RecallName, Fraction]
    map_at_r: Fraction
    precision_at_1: Fraction
    r_precision: Fraction


@dataclass(frozen=True, kw_only=True)
class Row:
    """An evaluated epoch of a fold, scored on its validation classes.

    Attributes:
        epoch: 0 for the untrained model.
        loss: mean training loss since the previous evaluation; None for epoch 0.
        map_at_r: MAP@R.
        precision_at_1: Precision@1.
        r_precision: R-Precision.
        diagnostics: numbers of the loss by name.
    """

    epoch: Count
    loss: Finite | None
    map_at_r: Fraction
    precision_at_1: Fraction
    r_precision: Fraction
    diagnostics: dict[str, Finite | bool]

    def __post_init__(self) -> None:
        _check_loss(self.epoch, self.loss)


@dataclass(frozen=True, kw_only=True)
class FoldResult:
    """The result of a fold; further keys are the loss's own, such as `idle_hierarchy`.

    Attributes:
        fold: number of the fold.
        setting: the hyper-parameters that it was trained with.
        map_at_r: MAP@R of the best trained epoch; None if no trained epoch has a score.
        precision_at_1: Precision@1 of that epoch.
        r_precision: R-Precision of that epoch.
        best_epoch: the trained epoch with the highest MAP@R, the first of equal ones; None without a score; 0 where
            nothing is trained.
        last_epoch: the last epoch that was trained.
        stopped: why training stopped.
        reason: how the fold diverged; None if it did not.
        history: one row per evaluated epoch.
    """

    other_keys: ClassVar = dict[str, object]
    fold: Count
    setting: Setting
    map_at_r: Fraction | None
    precision_at_1: Fraction | None
    r_precision: Fraction | None
    best_epoch: Count | None
    last_epoch: Count
    stopped: Literal["patience", "max_epochs", "diverged"]
    reason: Text | None
    history: tuple[Row, ...]

    def __post_init__(self) -> None:
        _check_epochs([row.epoch for row in self.history], self.last_epoch)
        untrained = self.stopped == "max_epochs" and self.last_epoch == 0
        scored = (row for row in self.history if row.epoch or untrained)
        best = max(scored, key=lambda row: row.map_at_r, default=None)
        for name, row_name in (("best_epoch", "epoch"), *((metric, metric) for metric in METRICS)):
            _agree(name, getattr(self, name), best and getattr(best, row_name), "in the history's best trained epoch")
        if (self.stopped == "diverged") != (self.reason is not None) or (best is None and self.reason is None):
            raise ValueError(f"reason does not fit stopped, which is {self.stopped}, or the scores")


@dataclass(frozen=True, kw_only=True)
class Times:
    """Wall-clock time by activity, in seconds."""

    train: Seconds
    evaluate: Seconds


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The checked fields of every kind of provenance; further keys are allowed.

    Attributes:
        versions: package versions by name.
        hardware: processor and operating system; older records also name the GPU here.
    """

    other_keys: ClassVar = dict[str, object]
    versions: dict[str, str] = field(default_factory=dict)
    hardware: dict[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class FoldProvenance(Origin):
    """The checked fields of a fold's provenance.

    Attributes:
        seconds: wall-clock time by activity.
        fingerprint: identifies the data.
        warnings: the loss's warnings; written since 28 November 2026.
        device: the device that trained it; written since 28 November 2026.
        seconds_per_iteration: seconds of training per optimiser step; None without a step, and in older records.
        peak_memory_bytes: peak bytes that PyTorch allocated on a CUDA device, else that the process occupied; None in
            older records.
    """

    seconds: Times
    fingerprint: Text
    warnings: tuple[str, ...] = ()
    device: DeviceFacts | None = None
    seconds_per_iteration: Seconds | None = None
    peak_memory_bytes: Count | None = None


@dataclass(frozen=True, kw_only=True)
class Fold:
    """A finished fold, `fold_2/record.json`."""

    kind: ClassVar = "fold"
    places: ClassVar = {"fold": "fold_{}"}
    result: FoldResult
    provenance: FoldProvenance


# -- the search -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class AskResult:
    """The result of a proposal.

    Attributes:
        index: number of the trial.
        setting: the proposed hyper-parameters.
    """

    index: Count
    setting: Setting


@dataclass(frozen=True, kw_only=True)
class TrialSearcher:
    """How a trial was proposed, as stored in the trial's record.

    Attributes:
        name: name of the searcher.
        seed: seed of the search.
        told: number of earlier trials that the searcher received.
        identity: identity of the study; written since 21 November 2026.
        lost: trials that were lost at the time; absent if there were none.
        pending: number of pending proposals; absent if there were none.
        in_training: trials that were in training at the time; asynchronous searches only.
    """

    name: Text
    seed: Count
    told: Count
    identity: Text | UnsetType = UNSET
    lost: tuple[Count, ...] | UnsetType = UNSET
    pending: Count | UnsetType = UNSET
    in_training: tuple[Count, ...] | UnsetType = UNSET


@dataclass(frozen=True, kw_only=True)
class AskProvenance(TrialSearcher):
    """How a trial was proposed, as stored in its proposal.

    Attributes:
        identity: identity of the study.
    """

    identity: Text


@dataclass(frozen=True, kw_only=True)
class Ask:
    """The proposal of a trial, `trial_007/ask.json`."""

    kind: ClassVar = "ask"
    places: ClassVar = {"index": "trial_{:03d}"}
    result: AskResult
    provenance: AskProvenance


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """The result of a trial.

    Attributes:
        index: number of the trial.
        setting: its hyper-parameters.
        status: `completed` if all folds have a score; `stopped` if the first ones have, and the others were not needed
            because these are clearly behind those of the best trial, see `protocol.racing`.
        reason: which folds have no score, and why, or how far the trial is behind; None if it is completed.
        map_at_r: mean of the folds' validation MAP@R; None if the trial is not completed.
        standard_error: standard error of the mean or of the estimate; None if the trial failed or has one fold.
        estimate: what the searcher sees in place of the mean; stopped trials only.
        folds: results of the folds, in order; of a stopped trial, the first ones.
    """

    index: Count
    setting: Setting
    status: Literal["completed", "failed", "stopped"]
    reason: Text | None
    map_at_r: Fraction | None
    standard_error: Fraction | None
    estimate: Fraction | UnsetType = UNSET
    folds: Annotated[tuple[FoldResult, ...], Meta(min_length=1, description="a list with one or more folds")]

    def __post_init__(self) -> None:
        scores = _scores_of(self.folds, self.setting)
        if self.estimate is not UNSET:
            _check_status(self.status, "stopped" if scores else "failed", self.reason)
            if not scores or self.map_at_r is not None or self.standard_error is None:
                raise ValueError(f"estimate does not fit folds, map_at_r or standard_error; status is {self.status}")
            return
        _check_status(self.status, "completed" if scores else "failed", self.reason)
        _agree("map_at_r", self.map_at_r, sum(scores) / len(scores) if scores else None, "as the mean of its folds")
        error = standard_error(scores) if scores else None
        _agree("standard_error", self.standard_error, error, "as the standard error between its folds")


@dataclass(frozen=True, kw_only=True)
class TrialProvenance(Origin):
    """The checked fields of a trial's provenance.

    Attributes:
        seconds: wall-clock time by activity, summed over folds.
        searcher: how the trial was proposed.
        warnings: the loss's warnings in each fold; written since 28 November 2026.
        devices: the device of each fold, None if its record names none; written since 28 November 2026.
        seconds_per_iteration: seconds of training per optimiser step, mean over folds; None in older records.
        peak_memory_bytes: highest peak of memory of a fold, see `FoldProvenance`; None in older records.
    """

    seconds: Times
    searcher: TrialSearcher
    warnings: tuple[tuple[str, ...], ...] = ()
    devices: tuple[Device | None, ...] = ()
    seconds_per_iteration: Seconds | None = None
    peak_memory_bytes: Count | None = None


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A finished trial, `trial_007.json`."""

    kind: ClassVar = "trial"
    places: ClassVar = {"index": "trial_{:03d}.json"}
    result: TrialResult
    provenance: TrialProvenance

    def __post_init__(self) -> None:
        _check_lengths(self.provenance, self.result.folds)


@dataclass(frozen=True, kw_only=True)
class LostResult:
    """The result of a lost trial, as the searcher receives it.

    Attributes:
        index: number of the trial.
        setting: its hyper-parameters.
        status: always `lost`.
        map_at_r: always None.
        standard_error: always None.
        reason: the last failure of the trial's first lost unit.
    """

    index: Count
    setting: Setting
    status: Literal["lost"]
    map_at_r: None
    standard_error: None
    reason: str


@dataclass(frozen=True)
class LostUnit:
    """A unit that exhausted its retries.

    Attributes:
        unit: its name in messages.
        reason: the last failure, in one line.
        log: path of its log.
        tail: the end of that log.
        error: the end of the last traceback.
    """

    unit: Text
    reason: str
    log: Text
    tail: str
    error: str


@dataclass(frozen=True, kw_only=True)
class LostProvenance:
    """The checked fields of a lost trial's provenance.

    Attributes:
        units: the trial's lost units.
    """

    other_keys: ClassVar = dict[str, object]
    units: Annotated[tuple[LostUnit, ...], Meta(min_length=1, description="a list with one or more units")]


@dataclass(frozen=True, kw_only=True)
class Lost:
    """A lost trial, `trial_007/lost.json`."""

    kind: ClassVar = "lost"
    places: ClassVar = {"index": "trial_{:03d}"}
    result: LostResult
    provenance: LostProvenance

    def __post_init__(self) -> None:
        if self.result.reason != self.provenance.units[0].reason:
            raise ValueError("result.reason differs from provenance.units[0].reason")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The outcome of a search, the content of `best.yaml`.

    Attributes:
        trial: index of the chosen trial.
        setting: its hyper-parameters.
        validation_map_at_r: mean of its folds' validation MAP@R, a fraction.
        standard_error: standard error of `validation_map_at_r` between folds.
        num_trials: number of finished trials from which it was chosen.
        num_lost: number of trials that were lost when it was chosen.
        rule: how it was chosen, as in `protocol.select`.
        identity: digest of the study; empty in version 1.
    """

    trial: Count
    setting: Setting
    validation_map_at_r: Fraction
    standard_error: Fraction
    num_trials: AtLeastOne
    num_lost: Count = 0
    rule: Rule
    identity: str = ""


# -- scores on the test classes ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ModeScores:
    """Metrics of one mode on the test classes, as fractions.

    Attributes:
        map_at_r: MAP@R.
        precision_at_1: Precision@1.
        r_precision: R-Precision.
    """

    map_at_r: Fraction
    precision_at_1: Fraction
    r_precision: Fraction


@dataclass(frozen=True, kw_only=True)
class LevelScores:
    """Metrics of one mode on the levels of a hierarchy of test classes, as fractions, see `protocol.levels`.

    Attributes:
        class_map_at_r: MAP@R averaged over classes.
        h_ap: H-AP; absent without a hierarchy, as are the others.
        ndcg: NDCG.
        asi: ASI.
        super_map_at_r: MAP@R on super classes.
    """

    class_map_at_r: Fraction
    h_ap: Fraction | UnsetType = UNSET
    ndcg: Fraction | UnsetType = UNSET
    asi: Fraction | UnsetType = UNSET
    super_map_at_r: Fraction | UnsetType = UNSET

    def __post_init__(self) -> None:
        if len({getattr(self, metric) is UNSET for metric in OF_HIERARCHY}) > 1:
            raise ValueError(f"h_ap, or another of {', '.join(OF_HIERARCHY)}, is missing")


@dataclass(frozen=True, kw_only=True)
class Levels:
    """Metrics of both modes on the levels of a hierarchy.

    Attributes:
        separated: mean of `separated_folds`.
        separated_folds: scores of each fold's model.
        concatenated: scores of the concatenated embeddings.
    """

    separated: LevelScores
    separated_folds: tuple[LevelScores, ...]
    concatenated: LevelScores

    def __post_init__(self) -> None:
        scores = (self.separated, self.concatenated, *self.separated_folds)
        if not self.separated_folds or len({one.h_ap is UNSET for one in scores}) > 1:
            raise ValueError("separated_folds is empty, or only some scores have h_ap")
        for metric in ("class_map_at_r", *(() if self.separated.h_ap is UNSET else OF_HIERARCHY)):
            mean = sum(getattr(model, metric) for model in self.separated_folds) / len(self.separated_folds)
            _agree(f"separated.{metric}", getattr(self.separated, metric), mean, "as the mean of separated_folds")


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """The result of a final run.

    Attributes:
        run: number of the run.
        trial: index of the trial that the setting comes from; None for a preset.
        setting: the hyper-parameters that it was trained with.
        status: `completed` if all folds have a score.
        reason: which folds have no score, and why; None if all have one.
        separated: mean of `separated_folds`; None if the run failed.
        separated_folds: scores of each fold's model on the test classes; absent if the run failed.
        concatenated: scores of the concatenated embeddings; None if the run failed.
        levels: scores on the levels of the hierarchy; absent if the run failed, without `levels`, and in older records.
        folds: results of the folds, in order.
    """

    run: Count
    trial: Count | None
    setting: Setting
    status: Literal["completed", "failed"]
    reason: Text | None
    separated: ModeScores | None
    separated_folds: tuple[ModeScores, ...] | UnsetType = UNSET
    concatenated: ModeScores | None
    levels: Levels | UnsetType = UNSET
    folds: Annotated[tuple[FoldResult, ...], Meta(min_length=1, description="a list with one or more folds")]

    def __post_init__(self) -> None:
        trained = _scores_of(self.folds, self.setting)
        _check_status(self.status, "completed" if trained else "failed", self.reason)
        for name in ("separated", "concatenated"):
            if (getattr(self, name) is None) == (self.status == "completed"):
                raise ValueError(f"{name} does not fit status, which is {self.status}")
        models = () if self.separated_folds is UNSET else self.separated_folds
        if len(models) != (len(self.folds) if trained else 0):
            raise ValueError(f"separated_folds has {len(models)} entries, but the run is {self.status}")
        for metric in METRICS if self.separated else ():
            mean = sum(getattr(model, metric) for model in models) / len(models)
            _agree(f"separated.{metric}", getattr(self.separated, metric), mean, "as the mean of separated_folds")
        if self.levels is not UNSET and len(self.levels.separated_folds) != len(models):
            found = len(self.levels.separated_folds)
            raise ValueError(f"levels.separated_folds has {found} entries, but {len(models)} models were scored")


@dataclass(frozen=True, kw_only=True)
class RunTimes(Times):
    """Wall-clock time by activity, in seconds; training and evaluation are summed over folds."""

    score: Seconds


@dataclass(frozen=True, kw_only=True)
class RunProvenance(Origin):
    """The checked fields of a run's provenance.

    Attributes:
        seconds: wall-clock time by activity.
        test_contents: SHA-256 of the test image files, None if there are no files; written since 21 November 2026.
        warnings: the loss's warnings in each fold; written since 28 November 2026.
        device: the device that scored it; written since 28 November 2026.
        devices: the device of each fold, None if its record names none; written since 28 November 2026.
        seconds_per_iteration: seconds of training per optimiser step, mean over folds; None in older records.
        peak_memory_bytes: highest peak of memory of a fold, see `FoldProvenance`; None in older records.
    """

    seconds: RunTimes
    test_contents: Text | None = None
    warnings: tuple[tuple[str, ...], ...] = ()
    device: DeviceFacts | None = None
    devices: tuple[Device | None, ...] = ()
    seconds_per_iteration: Seconds | None = None
    peak_memory_bytes: Count | None = None


@dataclass(frozen=True, kw_only=True)
class Run:
    """A final run, `trial_007/run_03.json`; with a preset, `published/run_03.json`."""

    kind: ClassVar = "run"
    places: ClassVar = {"trial": "trial_{:03d}", "run": "run_{:02d}.json"}
    result: RunResult
    provenance: RunProvenance

    def __post_init__(self) -> None:
        _check_lengths(self.provenance, self.result.folds)


@dataclass(frozen=True, kw_only=True)
class WatchedRow:
    """An evaluated epoch under the traditional protocol.

    Attributes:
        epoch: 0 for the untrained model.
        loss: mean training loss since the previous evaluation; None for epoch 0.
        watched: scores on the test classes.
        diagnostics: numbers of the loss by name.
        map_at_r: MAP@R on held-out training classes; absent without such classes.
        precision_at_1: Precision@1 on held-out training classes.
        r_precision: R-Precision on held-out training classes.
    """

    epoch: Count
    loss: Finite | None
    watched: Scores
    diagnostics: dict[str, Finite | bool]
    map_at_r: Fraction | UnsetType = UNSET
    precision_at_1: Fraction | UnsetType = UNSET
    r_precision: Fraction | UnsetType = UNSET

    def __post_init__(self) -> None:
        _check_loss(self.epoch, self.loss)
        if len({getattr(self, metric) is UNSET for metric in METRICS}) > 1:
            raise ValueError(f"map_at_r, or another of {', '.join(METRICS)}, is missing")


@dataclass(frozen=True, kw_only=True)
class SelectedEpoch(Scores):
    """A reported epoch and its scores on the test classes."""

    epoch: AtLeastOne


@dataclass(frozen=True, kw_only=True)
class Selected:
    """The reported epochs by selection rule; None where a rule selects none.

    Attributes:
        best_on_test: the trained epoch with the highest Precision@1 on the test classes, the first of equal ones.
        last_epoch: the last epoch, if training reached it.
        held_out: the epoch with the highest MAP@R on held-out classes.
    """

    best_on_test: SelectedEpoch | None
    last_epoch: SelectedEpoch | None
    held_out: SelectedEpoch | None


@dataclass(frozen=True, kw_only=True)
class TraditionalResult:
    """The result of a run under the traditional protocol; further keys are the loss's own, such as `idle_hierarchy`.

    Attributes:
        run: number of the run.
        setting: the hyper-parameters that it was trained with.
        status: `completed` if training reached its last epoch.
        reason: how the training diverged; None if it did not.
        selected: the reported epochs and their scores.
        history: one row per epoch.
    """

    other_keys: ClassVar = dict[str, object]
    run: Count
    setting: Setting
    status: Literal["completed", "diverged"]
    reason: Text | None
    selected: Selected
    history: tuple[WatchedRow, ...]

    def __post_init__(self) -> None:
        _check_status(self.status, self.status, self.reason)
        _check_epochs([row.epoch for row in self.history])
        trained = [row for row in self.history if row.epoch]
        best = max(trained, key=lambda row: row.watched.precision_at_1, default=None)
        scored = [row for row in trained if not isinstance(row.map_at_r, UnsetType)]
        expected = {
            "best_on_test": best,
            "last_epoch": trained[-1] if trained and self.status == "completed" else None,
            "held_out": max(scored, key=lambda row: float(row.map_at_r), default=None),  # type: ignore[arg-type]
        }
        for rule, row in expected.items():
            found: SelectedEpoch | None = getattr(self.selected, rule)
            _agree(f"selected.{rule}.epoch", found and found.epoch, row and row.epoch, "by the history")
            if row is not None:
                for metric in METRICS:
                    _agree(f"selected.{rule}.{metric}", getattr(found, metric), getattr(row.watched, metric), "there")


@dataclass(frozen=True, kw_only=True)
class TraditionalProvenance(Origin):
    """The checked fields of the provenance of a run under the traditional protocol.

    Attributes:
        seconds: wall-clock time by activity.
        fingerprint: identifies the data.
        test_contents: SHA-256 of the test image files; None if there are no files.
        warnings: the loss's warnings; written since 28 November 2026.
        device: the device that trained it; written since 28 November 2026.
        seconds_per_iteration: seconds of training per optimiser step; None without a step, and in older records.
        peak_memory_bytes: peak bytes that PyTorch allocated on a CUDA device, else that the process occupied; None in
            older records.
        embeddings_sha256: SHA-256 of `embeddings.npz`; None if none is kept.
    """

    seconds: Times
    fingerprint: Text
    test_contents: Text | None
    warnings: tuple[str, ...] = ()
    device: DeviceFacts | None = None
    seconds_per_iteration: Seconds | None = None
    peak_memory_bytes: Count | None = None
    embeddings_sha256: Text | None = None


@dataclass(frozen=True, kw_only=True)
class Traditional:
    """A run under the traditional protocol, `run_03.json`."""

    kind: ClassVar = "traditional"
    places: ClassVar = {"run": "run_{:02d}.json"}
    result: TraditionalResult
    provenance: TraditionalProvenance


@dataclass(frozen=True, kw_only=True)
class RobustnessResult:
    """The scores of a run's models on corrupted test images.

    Attributes:
        run: number of the run.
        corruption: a key of `images.corruptions.CORRUPTIONS`, or `none`.
        seed: seed of the corruptions.
        separated: mean of the models' own scores.
        concatenated: scores of the concatenated embeddings; those of the only model under the traditional protocol.
    """

    run: Count
    corruption: Text
    seed: Integer
    separated: ModeScores
    concatenated: ModeScores


@dataclass(frozen=True, kw_only=True)
class ScoringTime:
    """Wall-clock time of an evaluation, in seconds."""

    score: Seconds


@dataclass(frozen=True, kw_only=True)
class RobustnessProvenance(Origin):
    """The checked fields of the provenance of scores on corrupted images.

    Attributes:
        seconds: wall-clock time.
        test_contents: SHA-256 of the test image files; None if there are no files.
        device: the device that scored.
    """

    seconds: ScoringTime
    test_contents: Text | None
    device: DeviceFacts


@dataclass(frozen=True, kw_only=True)
class Robustness:
    """The scores of a run on corrupted test images, `run_03/blur.json`."""

    kind: ClassVar = "robustness"
    places: ClassVar = {"run": "run_{:02d}", "corruption": "{}.json"}
    result: RobustnessResult
    provenance: RobustnessProvenance


# -- reading ----------------------------------------------------------------------------------------------------------


class Content(Protocol):
    """The checked content of a record.

    Attributes:
        kind: kind of the record.
        places: names of the record's file and folders, by the field of its result that stands for `{}`; a name is not
            checked if the field is None.
    """

    kind: ClassVar[str]
    places: ClassVar[dict[str, str]]

    @property
    def result(self) -> object:
        """The outcome."""
        ...


Kind = TypeVar("Kind", bound=Content)


def read(path: Path, kind: type[Kind]) -> records.Record:
    """Read a record and check its content.

    Args:
        path: the record's file.
        kind: the dataclass of its content, such as `Trial`.

    Raises:
        CorruptFileError: the file is damaged, holds another kind of record, or a field is not allowed.
        NewerFileError: a newer version wrote it.
        FileNotFoundError: there is no such file.
    """
    data = records.read_file(path, records.MOST_BYTES)
    checked = kind, path, hashlib.sha256(data).digest()
    record = records.parse_record(data, path, is_verified=checked in _checked)
    if checked not in _checked:
        check(record, kind, path)
        _checked.add(checked)
    return record


_checked = set[tuple[type, Path, bytes]]()  # kind, file and SHA-256 of what passed; checks take ten times as long


def write(path: Path, record: records.Record, kind: type[Kind]) -> None:
    """Check the content of a record, then write it, so that no record is written that cannot be read again.

    Args:
        path: the record's file.
        record: the record.
        kind: the dataclass of its content, such as `Trial`.

    Raises:
        ValueError: a field is not allowed, for example because a loss's diagnostics are not numbers.
        WriteError: the file cannot be written.
    """
    try:
        check(record, kind, path)
    except records.CorruptFileError as error:
        raise ValueError(f"This record is invalid and was not written. {error}") from error
    records.write_record(path, record)


def check(record: records.Record, kind: type[Kind], path: Path) -> Kind:
    """Check a record, and return its content.

    Args:
        record: a record that matches its checksum.
        kind: the dataclass of its content, such as `Trial`.
        path: the record's file.

    Raises:
        CorruptFileError: it is another kind of record, or a field is not allowed. The message names the file, the
            field, its value and what is allowed.
    """
    if record.kind != kind.kind:
        found = visible(record.kind)
        raise records.CorruptFileError(f'{path}: kind is "{found}"; it must be "{kind.kind}".')
    content = convert({"result": record.result, "provenance": record.provenance}, kind, path)
    for field_name, form in kind.places.items():
        value = getattr(content.result, field_name)
        if value is not None and (name := form.format(value)) not in path.parts[-2:]:
            raise records.CorruptFileError(f"{path}: result.{field_name} says that the record belongs to {name}.")
    if isinstance(content, Traditional):
        for fault in _unlike_the_history(record.result):
            raise records.CorruptFileError(f"{path}: {fault}.")
    return content


def _unlike_the_history(result: JsonObject) -> Iterator[str]:
    """Yield a sentence for each reported epoch whose scores, including Recall@K, differ from those in the history."""
    watched = {row["epoch"]: row["watched"] for row in result["history"]}
    for rule, chosen in result["selected"].items():
        if chosen is not None and chosen != {"epoch": chosen["epoch"]} | watched[chosen["epoch"]]:
            yield f"result.selected.{rule} differs from the scores of epoch {chosen['epoch']} in result.history"


def _agree(name: str, found: object, expected: object, where: str) -> None:
    """Raise a `ValueError` if a field differs from the value that follows from others; floats may differ slightly.

    Args:
        name: the field, for the message.
        found: its value.
        expected: the value that follows from other fields.
        where: a clause for the message that says how it follows.
    """
    if isinstance(found, float) and isinstance(expected, float):
        same = math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-12)
    else:
        same = found == expected
    if not same:
        raise ValueError(f"{name} is {found}, but it is {expected} {where}")


def _check_loss(epoch: int, loss: float | None) -> None:
    if (loss is None) != (epoch == 0):
        raise ValueError(f"loss is {loss} in epoch {epoch}; only epoch 0 has none")


def _check_epochs(epochs: Sequence[int], last: int | None = None) -> None:
    """Raise a `ValueError` unless a history begins with epoch 0, is in order, and ends by the last epoch."""
    if epochs and (epochs[0] != 0 or any(a >= b for a, b in itertools.pairwise(epochs))):
        raise ValueError("history must begin with epoch 0, and its epochs must ascend")
    if last is not None and epochs and last < epochs[-1]:
        raise ValueError(f"last_epoch is {last}, but the history has epoch {epochs[-1]}")


def _check_status(status: str, expected: str, reason: str | None) -> None:
    _agree("status", status, expected, "by the scores of its folds")
    if (reason is None) != (status == "completed"):
        raise ValueError(f"reason does not fit status, which is {status}")


def _scores_of(folds: Sequence[FoldResult], setting: dict[str, Value]) -> list[float]:
    """MAP@R of each fold, or nothing if one has no score.

    Raises:
        ValueError: the folds are not numbered in order, or one has another setting.
    """
    for number, fold in enumerate(folds):
        _agree(f"folds[{number}].fold", fold.fold, number, "by its place")
        if fold.setting != setting:
            raise ValueError(f"folds[{number}].setting differs from setting")
    scores = [fold.map_at_r for fold in folds if fold.map_at_r is not None]
    return scores if len(scores) == len(folds) else []


def _check_lengths(provenance: TrialProvenance | RunProvenance, folds: Sequence[object]) -> None:
    for name in ("warnings", "devices"):
        if (length := len(getattr(provenance, name))) not in (0, len(folds)):
            raise ValueError(f"provenance.{name} has {length} entries for {len(folds)} folds")
