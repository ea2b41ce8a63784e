"""The files in a study's folder: its identity, trials, choice and runs. They are read from disk each time.

The layout::

    study.yaml                       configuration, identity, data fingerprint, versions at the start
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
    test_ledger.jsonl                one line for every access to the test classes
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import yaml

from benchmark.core import records
from benchmark.core.errors import UserError
from benchmark.core.invocation import command
from benchmark.core.provenance import versions
from benchmark.core.records import JsonObject
from benchmark.protocol.statistics import standard_error
from benchmark.searchers import Trial, Value
from benchmark.study import schedules
from benchmark.study.config import Node
from benchmark.study.study import Study

YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C loader is ten times as fast
BOOKKEEPING = ("executor", "display", "keep", "device", "results_dir", "unit")  # overrides that do not select a study


@dataclass(frozen=True)
class StoredStudy:
    """The content of `study.yaml`.

    Attributes:
        identity: hash of `science`.
        fingerprint: identifies the data.
        versions: package versions with which the study was started.
        science: everything that can change a result.
        config: the configuration, interpolations unresolved.
    """

    identity: str
    fingerprint: str
    versions: dict[str, str]
    science: JsonObject
    config: Node


def open_study(study: Study, fingerprint: str) -> list[str]:
    """Create the study's folder, or check that it belongs to the same study.

    Args:
        study: the study to run.
        fingerprint: identifies the data on this machine.

    Returns:
        Warnings about parts of the loss that the training is too short to reach, package versions that changed since
        the study was started, and a damaged `study.yaml` that was replaced.

    Raises:
        UserError: the folder holds a study with another configuration; the message shows the difference.
    """
    idle = schedules.never_reached(study.config) if study.config.protocol.story == "search" else []
    return idle + _open(study, fingerprint)


def _open(study: Study, fingerprint: str) -> list[str]:
    path = study.directory / "study.yaml"
    if not path.exists():
        write_study(study, fingerprint)
        return []
    try:
        stored = read_study(study.directory)
    except records.CorruptFileError as error:
        check_proposals(study, fingerprint)
        kept = records.quarantine(path)
        write_study(study, fingerprint)
        return [f"{error} It is kept as {kept.name}, and a new one is written; finished trials and runs are kept."]
    if stored.identity != study.identity(fingerprint):
        lines = "\n".join(difference(stored.science, study.science(fingerprint)))
        raise UserError(
            f"{study.directory} holds {study.title} with another configuration:\n{lines}\n"
            "Restore the old values, keep both side by side with variant=NAME, or delete the folder to start over."
        )
    changed = [f"{k} {stored.versions[k]} -> {v}" for k, v in versions().items() if stored.versions.get(k, v) != v]
    since = "Versions changed since this study was started"
    return [f"{since}: {', '.join(changed)}. Each record holds the versions that made it."] if changed else []


def write_study(study: Study, fingerprint: str) -> None:
    """Write `study.yaml`, which describes the study, with a checksum that detects damage."""
    body = {
        "identity": study.identity(fingerprint), "fingerprint": fingerprint, "versions": versions(),
        "science": study.science(fingerprint), "config": study.raw,
    }  # fmt: skip
    text = yaml.safe_dump({"sha256": records.digest(body)} | body, sort_keys=False)
    records.write_whole(study.directory / "study.yaml", text.encode())


def check_proposals(study: Study, fingerprint: str) -> None:
    """Check that the proposals on disk belong to this study, in case `study.yaml` is damaged.

    Raises:
        UserError: a trial was proposed by a study with another identity.
    """
    for path in sorted((study.directory / "bo").glob("trial_*/ask.json")):
        record, _ = records.read_or_quarantine(path)
        if record is not None and record.provenance["identity"] != study.identity(fingerprint):
            raise UserError(
                f"{study.directory / 'study.yaml'} is damaged, and {path} was proposed under another configuration. "
                "Restore the old values, or start another study next to it with variant=NAME."
            )


def read_study(directory: Path) -> StoredStudy:
    """Read and check `study.yaml`.

    Raises:
        UserError: the folder has no `study.yaml`, or it cannot be read.
        records.CorruptFileError: it is damaged.
    """
    path = directory / "study.yaml"
    try:
        body = yaml.load(path.read_text(encoding="utf-8"), YAML_LOADER)
        if isinstance(body, dict) and body.pop("sha256", None) == records.digest(body):
            return StoredStudy(**body)
    except FileNotFoundError:
        raise UserError(f"There is no study in {directory}. Run {command('bo')} to start one.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}. Restore the file, or delete the folder.") from error
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, ValueError):  # TypeError, ValueError: from `digest`
        pass  # reported below
    raise records.CorruptFileError(f"{path} is damaged: it does not match its own checksum.")


def difference(old: object, new: object, prefix: str = "") -> list[str]:
    """One line for each value that differs between two nested mappings.

    >>> difference({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}})
    ['  a.c: 2 there, 3 now']
    """
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(set(old) | set(new))
        return [line for key in keys for line in difference(old.get(key), new.get(key), f"{prefix}{key}.")]
    return [] if old == new else [f"  {prefix[:-1]}: {old} there, {new} now"]


@dataclass(frozen=True)
class Choice:
    """The outcome of a finished search.

    Attributes:
        trial: index of the chosen trial.
        setting: its hyper-parameters.
        map_at_r: its validation MAP@R, a fraction, the mean over folds.
        standard_error: standard error of `map_at_r` between folds.
        num_trials: number of finished trials from which it was chosen.
        rule: how it was chosen.
    """

    trial: int
    setting: dict[str, Value]
    map_at_r: float
    standard_error: float
    num_trials: int
    rule: str


class Chosen(NamedTuple):
    """What `final_eval` retrains: a setting, and the trial that it comes from; None for a preset."""

    trial: int | None
    setting: dict[str, Value]


def label(study: Study) -> str:
    """The name of a study in a table: its loss and, in parentheses, its preset and variant."""
    suffix = ", ".join(filter(None, (study.config.preset, study.config.variant)))
    return study.config.loss.label + f" ({suffix})" * bool(suffix)


def trial_path(study: Study, index: int) -> Path:
    """The record of a finished trial."""
    return study.directory / "bo" / f"trial_{index:03d}.json"


def trial_dir(study: Study, index: int) -> Path:
    """The folder of a trial's units."""
    return study.directory / "bo" / f"trial_{index:03d}"


def runs_dir(study: Study, trial: int | None) -> Path:
    """The folder of the runs of a trial's setting; trial None stands for the preset's setting."""
    return study.directory / "final_eval" / (study.config.preset if trial is None else f"trial_{trial:03d}")


def run_path(study: Study, trial: int | None, run: int) -> Path:
    """The record of a scored run."""
    return runs_dir(study, trial) / f"run_{run:02d}.json"


def run_dir(study: Study, trial: int | None, run: int) -> Path:
    """The folder of a run's units."""
    return run_path(study, trial, run).with_suffix("")


def to_observation(record: records.Record) -> Trial:
    """Convert a trial's record to what a searcher receives."""
    r = record.result
    return Trial(index=r["index"], parameters=r["setting"], mean=r["map_at_r"], sem=r["standard_error"])


def trial_result(index: int, setting: dict[str, Value], folds: list[JsonObject]) -> JsonObject:
    """Combine the results of a trial's folds: their mean score, or no score and the reason.

    Args:
        index: number of the trial.
        setting: its hyper-parameters.
        folds: the result of each fold, in order.
    """
    scores = [fold["map_at_r"] for fold in folds]
    missing = [f"fold {fold['fold']}: {fold['reason']}" for fold in folds if fold["map_at_r"] is None]
    done = not missing
    return {
        "index": index,
        "setting": setting,
        "status": "completed" if done else "failed",
        "reason": None if done else "; ".join(missing),
        "map_at_r": sum(scores) / len(scores) if done else None,
        "standard_error": standard_error(scores) if done else None,
        "folds": folds,
    }


def finished_trials(study: Study, say: Callable[[str], None] = print) -> dict[int, records.Record]:
    """Finished trials on disk, by index.

    Args:
        study: the study whose trials are read.
        say: called with a note about each damaged record, which is quarantined.
    """
    return _records_in(study.directory / "bo", "trial_*.json", "index", say)


def write_choice(study: Study, choice: Choice) -> None:
    """Write `best.yaml`, which marks the search as finished."""
    body = {
        "trial": choice.trial, "setting": choice.setting, "validation_map_at_r": choice.map_at_r,
        "standard_error": choice.standard_error, "num_trials": choice.num_trials, "rule": choice.rule,
        "record": trial_path(study, choice.trial).name,
    }  # fmt: skip
    records.write_whole(study.directory / "bo" / "best.yaml", yaml.safe_dump(body, sort_keys=False).encode())


def read_choice(study: Study) -> Choice:
    """Read the chosen trial, and check it against the trial's record.

    Raises:
        UserError: the search is unfinished, or `best.yaml` or the trial's record is damaged; the message has the
            command that fixes it.
    """
    path = study.directory / "bo" / "best.yaml"
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        num_done = len(list(path.parent.glob("trial_*.json")))
        raise UserError(
            f"No best trial for dataset={study.config.dataset.name}, loss={study.config.loss.name}: {path.parent} "
            f'has {num_done} of {study.config.trials} trials. Run "{study.command("bo")}" to finish it.'
        ) from None
    except UnicodeDecodeError:
        text = ""
    choice = _checked_choice(text, path.parent)
    if choice is None:
        raise UserError(
            f'{path} is damaged, or the record it names is. Run "{study.command("bo")}": it chooses again, from the '
            "finished trials."
        )
    return choice


def _checked_choice(text: str, folder: Path) -> Choice | None:
    """The choice in the text of a `best.yaml`; None if it, or the record that it names, is damaged or missing."""
    try:
        body = yaml.safe_load(text)
        choice = Choice(body["trial"], body["setting"], body["validation_map_at_r"], body["standard_error"],
                        body["num_trials"], body["rule"])  # fmt: skip
        result = records.read_record(folder / body["record"]).result
    except (yaml.YAMLError, records.CorruptFileError, FileNotFoundError, KeyError, TypeError):
        return None
    found = (result.get("index"), result.get("setting"), result.get("map_at_r"))
    return choice if found == (choice.trial, choice.setting, choice.map_at_r) else None


def read_chosen(study: Study) -> Chosen:
    """The setting to retrain: the study's preset, or the search's choice.

    Raises:
        UserError: the study has no preset, and its search is unfinished or its choice is damaged.
    """
    if study.config.preset:
        return Chosen(None, study.config.loss.setting)
    choice = read_choice(study)
    return Chosen(choice.trial, choice.setting)


def finished_runs(study: Study, trial: int | None, say: Callable[[str], None] = print) -> dict[int, records.Record]:
    """Scored runs of a trial's setting (or of the preset's, if `trial` is None), by number.

    Args:
        study: the study whose runs are read.
        trial: index of the trial; None for the preset.
        say: called with a note about each damaged record, which is quarantined.
    """
    return _records_in(runs_dir(study, trial), "run_*.json", "run", say)


def traditional_path(study: Study, run: int) -> Path:
    """The record of a run under the traditional protocol, with the preset's setting or the loss's own."""
    return study.directory / "traditional" / (study.config.preset or "setting") / f"run_{run:02d}.json"


def traditional_runs(study: Study, say: Callable[[str], None] = print) -> dict[int, records.Record]:
    """Finished runs under the traditional protocol, by number.

    Args:
        study: the study whose runs are read.
        say: called with a note about each damaged record, which is quarantined.
    """
    return _records_in(traditional_path(study, 0).parent, "run_*.json", "run", say)


def _records_in(folder: Path, pattern: str, key: str, say: Callable[[str], None]) -> dict[int, records.Record]:
    """The undamaged records of a folder, by the number that stands under `key` in each."""
    found = {}
    for path in sorted(folder.glob(pattern)):
        record, note = records.read_or_quarantine(path)
        if record is not None:
            found[int(record.result[key])] = record
        if note:
            say(note)
    return found


def names_a_study(overrides: list[str]) -> bool:
    """Whether the overrides of a command select one study; otherwise the command applies to all studies."""
    return any(re.split(r"[.=]", override.lstrip("+~"))[0] not in BOOKKEEPING for override in overrides)


def all_studies(results_dir: Path) -> list[Path]:
    """Folders of all studies below a results folder."""
    return sorted(path.parent for path in (results_dir / "studies").glob("*/*/study.yaml"))
