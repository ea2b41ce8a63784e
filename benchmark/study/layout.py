"""The files in a study's folder: trials, the choice of the search, and runs.

    study.yaml                       configuration, identity, data fingerprint, code, versions at the start
    lock                             held by the study's only driver
    bo/trial_007/ask.json            the setting that the searcher proposed
    bo/trial_007/fold_2/             record, checkpoint while unfinished, training curves
    bo/trial_007.json                the finished trial
    bo/best.yaml                     the chosen trial, written when the search is finished
    bo/sessions.jsonl                wall and compute seconds of each session
    final_eval/trial_007/run_03.json one retraining of the chosen setting, scored on the test classes; with a preset,
                                     which needs no search, final_eval/published/run_03.json
    traditional/setting/run_00.json  one training under the traditional protocol, scored on the test classes at every
                                     epoch; with a preset, traditional/authors/run_00.json
    robustness/setting/run_00/blur.json  the scores of a run on corrupted test images
    test_ledger.jsonl                one line for every access to the test classes

A record is used only if its identity agrees with that of its study, see `identity`. Reading moves no file and caches
nothing; `Found.quarantine` renames files and is for commands that hold the study's lock.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import msgspec

from benchmark.core import plain_yaml, records, typed
from benchmark.core.errors import UserError
from benchmark.core.records import Record
from benchmark.core.wording import missing
from benchmark.searchers import BY_SCORES, Setting, Trial
from benchmark.study import contents
from benchmark.study.contents import Choice
from benchmark.study.identity import StudyIdentity
from benchmark.study.lost_trials import read_lost

RECORDS = (
    "bo/trial_*.json", "bo/trial_*/ask.json", "bo/trial_*/fold_*/record.json", "final_eval/*/run_*.json",
    "final_eval/*/run_*/fold_*/record.json", "traditional/*/run_*.json",
)  # fmt: skip


# -- paths ------------------------------------------------------------------------------------------------------------


def trial_path(directory: Path, index: int) -> Path:
    """The path of a finished trial's record, below the study's folder."""
    return directory / "bo" / f"trial_{index:03d}.json"


def trial_dir(directory: Path, index: int) -> Path:
    """The folder of a trial's units."""
    return trial_path(directory, index).with_suffix("")


def run_path(directory: Path, chosen: str, run: int) -> Path:
    """The path of a scored run's record; `chosen` is the name of the chosen setting, see `Chosen`."""
    return directory / "final_eval" / chosen / f"run_{run:02d}.json"


def run_dir(directory: Path, chosen: str, run: int) -> Path:
    """The folder of a run's units."""
    return run_path(directory, chosen, run).with_suffix("")


def robustness_path(directory: Path, chosen: str, run: int, corruption: str) -> Path:
    """The path of the record of a run's scores on corrupted test images.

    Args:
        directory: folder of the study.
        chosen: name of the folder of the study's runs, such as `trial_007`, `setting` or a preset.
        run: number of the run.
        corruption: name of the corruption, or `none`.
    """
    return directory / "robustness" / chosen / f"run_{run:02d}" / f"{corruption}.json"


def traditional_path(directory: Path, preset: str, run: int) -> Path:
    """The path of the record of a run under the traditional protocol; `preset` is empty for the loss's own setting."""
    return directory / "traditional" / (preset or "setting") / f"run_{run:02d}.json"


# -- records ----------------------------------------------------------------------------------------------------------


class Problem(NamedTuple):
    """A record that cannot be used.

    Attributes:
        path: the file.
        text: a sentence that names the file and the reason.
        why: `damaged`, `other` (the record does not belong to the study) or `newer` (a newer version wrote it).
    """

    path: Path
    text: str
    why: str


@dataclass(frozen=True)
class Found:
    """The trials or runs that were found on disk.

    Attributes:
        records: usable records, by number of the trial or run.
        problems: records that cannot be used.
    """

    records: dict[int, Record]
    problems: list[Problem] = field(default_factory=list)

    def missing(self, total: int) -> str:
        """Say which runs have no usable record; empty if all have one.

        Args:
            total: number of runs that the study needs, perhaps by a foreign `study.yaml`: any number.
        """
        return missing(self.records, total, "run")

    def quarantine(self, say: Callable[[str], None]) -> dict[int, Record]:
        """Quarantine the records that cannot be used, so that their units are repeated, and return the usable ones.

        Args:
            say: called with a note about each quarantined file.

        Raises:
            NewerFileError: a newer version wrote a record; in this case, no file is quarantined.
        """
        for problem in self.problems:
            if problem.why == "newer":
                raise records.NewerFileError(problem.text)
        for problem in self.problems:
            kept = records.quarantine(problem.path, problem.why)
            say(f"{problem.text} It is kept as {kept.name}; only this trial or run is repeated.")
        return self.records


def read_trials(directory: Path, study: StudyIdentity, num_trials: int) -> Found:
    """The finished trials on disk.

    Args:
        directory: folder of the study.
        study: what the records must agree with.
        num_trials: trials from this index on are left out.
    """

    def setting(record: Record, index: int) -> Setting:
        ask = trial_dir(directory, index) / "ask.json"
        # The user may delete a finished trial's folder; the trial's record holds the setting too.
        with contextlib.suppress(FileNotFoundError, records.CorruptFileError, records.NewerFileError):
            record = contents.read(ask, contents.Ask)
        found: Setting = record.result["setting"]
        return found

    return _read(directory / "bo", "trial_*.json", contents.Trial, study, num_trials, setting)


def read_runs(directory: Path, study: StudyIdentity, chosen: "Chosen", num_runs: int) -> Found:
    """The scored runs of a chosen setting on disk.

    Args:
        directory: folder of the study.
        study: what the records must agree with.
        chosen: the setting that the runs must have been trained with.
        num_runs: runs from this number on are left out.
    """
    folder = run_path(directory, chosen.name, 0).parent
    return _read(folder, "run_*.json", contents.Run, study, num_runs, lambda *_: chosen.setting)


def read_traditional(directory: Path, study: StudyIdentity, preset: str, setting: Setting, num_runs: int) -> Found:
    """The finished runs under the traditional protocol on disk.

    Args:
        directory: folder of the study.
        study: what the records must agree with.
        preset: the study's preset; empty for the loss's own setting.
        setting: the study's own setting. A run's record holds it with the loss's schedule in passes over the images.
        num_runs: runs from this number on are left out.
    """
    folder = traditional_path(directory, preset, 0).parent
    return _read(folder, "run_*.json", contents.Traditional, study, num_runs, lambda *_: setting)


def _read(
    folder: Path,
    pattern: str,
    kind: type[contents.Content],
    study: StudyIdentity,
    total: int,
    setting: Callable[[Record, int], Setting],
) -> Found:
    """Read the records of a folder whose number is below `total`, and compare them with the study.

    Args:
        folder: folder of the records.
        pattern: glob pattern of their names.
        kind: what they hold.
        study: what they must agree with.
        total: the first number that is left out.
        setting: for a record and its number, the setting that it must have been trained with.
    """
    found = Found({})
    for path in sorted(folder.glob(pattern)):
        number = path.stem.rpartition("_")[2]
        if not number.isdecimal() or int(number) >= total:
            continue
        try:
            record = contents.read(path, kind)
        except records.CorruptFileError as error:
            found.problems.append(Problem(path, str(error), "damaged"))
            continue
        except records.NewerFileError as error:
            found.problems.append(Problem(path, str(error), "newer"))
            continue
        if difference := study.mismatch(record, int(number), setting(record, int(number))):
            found.problems.append(Problem(path, f"{path} does not belong to this study: {difference}.", "other"))
        else:
            found.records[int(number)] = record
    return found


def all_records(directory: Path) -> Iterator[Path]:
    """Yield the paths of all records of units below a study's folder."""
    return itertools.chain.from_iterable(sorted(directory.glob(pattern)) for pattern in RECORDS)


def to_observation(record: Record) -> Trial:
    """Convert a trial's record to the observation that a searcher receives; of a stopped trial, its estimate."""
    r = record.result
    folds = [] if r["map_at_r"] is None else r["folds"]
    return Trial(
        index=r["index"], parameters=r["setting"], mean=r.get("estimate", r["map_at_r"]), sem=r["standard_error"],
        is_lost=record.kind == "lost", folds=tuple(fold["map_at_r"] for fold in folds),
    )  # fmt: skip


# -- the choice -------------------------------------------------------------------------------------------------------


class Chosen(NamedTuple):
    """The setting that final runs are trained with.

    Attributes:
        name: name of the runs' folder: the trial's, such as `trial_007`, or the preset.
        trial: index of the trial that the setting comes from; None for a preset.
        setting: the hyper-parameters.
    """

    name: str
    trial: int | None
    setting: Setting

    @classmethod
    def of(cls, choice: Choice) -> "Chosen":
        """The setting that a search chose."""
        return cls(f"trial_{choice.trial:03d}", choice.trial, choice.setting)


class NoChoiceError(UserError):
    """A search has no usable choice: it is unfinished, or its records contradict `best.yaml`."""


def chosen_record(directory: Path, chosen: Chosen) -> list[Record]:
    """The record of the trial that a setting comes from, as a list; empty for a preset.

    Raises:
        CorruptFileError: the record is damaged.
        NewerFileError: a newer version wrote it.
        FileNotFoundError: there is no such record.
    """
    return [] if chosen.trial is None else [contents.read(trial_path(directory, chosen.trial), contents.Trial)]


def write_choice(directory: Path, choice: Choice) -> None:
    """Write `best.yaml`, which marks the search as finished.

    Raises:
        WriteError: the file cannot be written.
    """
    body = msgspec.to_builtins(choice) | {"record": trial_path(directory, choice.trial).name}
    records.write_whole(directory / "bo" / "best.yaml", plain_yaml.with_checksum(body))


def read_choice(directory: Path, study: StudyIdentity, rule: str, num_trials: int, advice: str) -> Choice:
    """The choice of a finished search, after comparing it with the records of the trials.

    Args:
        directory: folder of the study.
        study: what the records must agree with.
        rule: how the study chooses, as in `protocol.select`.
        num_trials: number of trials that the search must have finished or lost.
        advice: the command that finishes the search and chooses again, for messages.

    Raises:
        NoChoiceError: the search is unfinished, or `best.yaml` is damaged or contradicts the records.
    """
    path = directory / "bo" / "best.yaml"
    trials = read_trials(directory, study, num_trials)
    if newer := [problem.text for problem in trials.problems if problem.why == "newer"]:
        raise NoChoiceError(" ".join(newer))
    num_lost = sum(index < num_trials for index in read_lost(directory / "bo", study, trials.records))
    done = len(trials.records) + num_lost
    if done < num_trials or not path.is_file():
        found = f"Its search has {done} of {num_trials} trials" + f", {num_lost} of them lost" * (num_lost > 0)
        found += ", and no best.yaml" * (done >= num_trials)
        problems = "".join(f" {problem.text}" for problem in trials.problems)
        raise NoChoiceError(f"{found}.{problems} Run {advice} to finish it.")
    choice = choice_on_disk(directory, study)
    if choice is None or (fault := _contradiction(choice, rule, trials.records, num_lost)):
        what = "is damaged" if choice is None else fault
        raise NoChoiceError(f"{path} {what}. Run {advice}: it chooses again from the finished trials.")
    return choice


def choice_on_disk(directory: Path, study: StudyIdentity) -> Choice | None:
    """The content of `best.yaml`; None if there is none, or it is damaged or belongs to another study.

    Args:
        directory: folder of the study.
        study: what it must agree with.
    """
    path = directory / "bo" / "best.yaml"
    try:
        body = plain_yaml.load(records.read_file(path, plain_yaml.MOST_BYTES))
        checksum = body.pop("sha256", None)
        if study.version > 1 and checksum != records.digest(body):
            return None
        del body["record"]
        choice = typed.convert(body, Choice, path)
    except (OSError, ValueError, TypeError, AttributeError, LookupError, records.CorruptFileError):
        return None
    return choice if study.version == 1 or choice.identity == study.study else None


def _contradiction(choice: Choice, rule: str, trials: Mapping[int, Record], num_lost: int) -> str:
    """Describe how a choice contradicts its study or the finished trials; an empty string if it does not.

    Args:
        choice: the content of `best.yaml`.
        rule: how the study chooses, as in `protocol.select`.
        trials: records of the finished trials, by index.
        num_lost: number of lost trials.
    """
    if choice.rule != rule:
        return f"was chosen by the rule {choice.rule}, but the study's rule is {rule}"
    if choice.num_trials != len(trials):
        return f"was chosen from {choice.num_trials} trials, and there are {len(trials)}"
    if choice.num_lost != num_lost:
        return f"was chosen when {choice.num_lost} trials were lost, but now {num_lost} are"
    result = trials[choice.trial].result if choice.trial in trials else {}
    found = (choice.setting, choice.validation_map_at_r, choice.standard_error)
    if tuple(map(result.get, ("setting", "map_at_r", "standard_error"))) != found:
        return f"contradicts the record of trial_{choice.trial:03d}"
    choose = BY_SCORES.get(choice.rule)
    if choose and choice.trial != choose([to_observation(trials[i]) for i in sorted(trials)]):
        return f"names trial_{choice.trial:03d}, which is not the one that the rule {choice.rule} chooses"
    return ""
