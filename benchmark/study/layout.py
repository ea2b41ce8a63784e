"""What a study's folder holds: its identity, trials, choice and runs. The folder is the truth; nothing is cached.

The layout::

    study.yaml                       configuration, identity, data fingerprint, versions it was started with
    lock                             held by the one driver
    bo/trial_007/ask.json            the setting that the searcher proposed
    bo/trial_007/fold_2/             record, checkpoint while unfinished, training curves
    bo/trial_007.json                the finished trial
    bo/best.yaml                     the chosen trial; there once the search is finished
    bo/sessions.jsonl                wall and compute seconds of each sitting
    final_eval/trial_007/run_03.json one retraining of the chosen setting, scored on the unseen classes; with a preset,
                                     which needs no search, final_eval/published/run_03.json
    traditional/setting/run_00.json  one training under the customary protocol, scored on the unseen classes at every
                                     epoch; with a preset traditional/authors/run_00.json
    test_ledger.jsonl                one line for every look at the unseen classes
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from benchmark.core import records
from benchmark.core.errors import UserError
from benchmark.core.provenance import versions
from benchmark.protocol.statistics import standard_error
from benchmark.searchers import Trial
from benchmark.study.study import Study

YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C one is ten times as fast
BOOKKEEPING = ("executor", "display", "keep", "device", "results_dir", "unit")  # overrides that name no study


def open_study(study: Study, fingerprint: str) -> list[str]:
    """Create the study's folder, or check that it holds the same study.

    Returns:
        Warnings: package versions that changed since the study was started; a damaged file that was written anew.

    Raises:
        ValueError: the folder holds a study with another configuration; the difference is shown.
    """
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
        return [f"{error} It is kept as {kept.name} and written anew; finished trials and runs are kept."]
    if stored["identity"] != study.identity(fingerprint):
        lines = "\n".join(difference(stored["science"], study.science(fingerprint)))
        raise ValueError(
            f"{study.directory} holds {study.title} with another configuration:\n{lines}\n"
            f"Take the old values, keep both side by side with variant=NAME, or delete the folder to start again."
        )
    changed = [f"{k} {stored['versions'][k]} -> {v}" for k, v in versions().items()
               if stored["versions"].get(k, v) != v]  # fmt: skip
    since = "Versions changed since this study was started"
    return [f"{since}: {', '.join(changed)}. Records say which made them."] if changed else []


def write_study(study: Study, fingerprint: str) -> None:
    """Write `study.yaml`: what the study is, behind its own checksum, so that a damaged one is told from a good one."""
    body = {
        "identity": study.identity(fingerprint), "fingerprint": fingerprint, "versions": versions(),
        "science": study.science(fingerprint), "config": study.raw,
    }  # fmt: skip
    text = yaml.safe_dump({"sha256": records.digest(body)} | body, sort_keys=False)
    records.write_whole(study.directory / "study.yaml", text.encode())


def check_proposals(study: Study, fingerprint: str) -> None:
    """Without `study.yaml`, the proposals still say whose they are: refuse to go on with another study's.

    Raises:
        ValueError: a trial was proposed by a study with another identity.
    """
    for path in sorted((study.directory / "bo").glob("trial_*/ask.json")):
        record, _ = records.read_or_quarantine(path)
        if record is not None and record.provenance["identity"] != study.identity(fingerprint):
            raise ValueError(
                f"{study.directory / 'study.yaml'} is damaged, and {path} was proposed under another configuration. "
                "Take the old values, or start beside it with variant=NAME."
            )


def read_study(directory: Path) -> dict[str, Any]:
    """The content of `study.yaml`.

    Raises:
        ValueError: there is none.
        records.CorruptFileError: it is damaged.
    """
    path = directory / "study.yaml"
    try:
        body = dict(yaml.load(path.read_text(encoding="utf-8"), YAML_LOADER))
        if body.pop("sha256") == records.digest(body):
            return body
    except FileNotFoundError:
        raise ValueError(f"There is no study in {directory}. Run make bo to start one.") from None
    except (UserError, yaml.YAMLError, KeyError, TypeError, ValueError):
        pass  # said below
    raise records.CorruptFileError(f"{path} is damaged: it does not match its own checksum.")


def difference(old: Any, new: Any, prefix: str = "") -> list[str]:
    """One line for each value that differs."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(set(old) | set(new))
        return [line for key in keys for line in difference(old.get(key), new.get(key), f"{prefix}{key}.")]
    return [] if old == new else [f"  {prefix[:-1]}: {old} there, {new} now"]


@dataclass(frozen=True)
class Choice:
    """The outcome of a finished search."""

    trial: int
    setting: dict[str, Any]
    map_at_r: float
    standard_error: float
    num_trials: int
    rule: str


class Chosen(NamedTuple):
    """What `final_eval` retrains: a setting, and the trial that it comes from unless it is a preset."""

    trial: int | None
    setting: dict[str, Any]


def label(study: Study) -> str:
    """How a table names a study: its loss, then in brackets what tells it from others of that loss."""
    suffix = ", ".join(filter(None, (study.config.preset, study.config.variant)))
    return study.config.loss.label + f" ({suffix})" * bool(suffix)


def trial_path(study: Study, index: int) -> Path:
    """The record of a finished trial."""
    return study.directory / "bo" / f"trial_{index:03d}.json"


def trial_dir(study: Study, index: int) -> Path:
    """The folder of a trial's units."""
    return study.directory / "bo" / f"trial_{index:03d}"


def runs_dir(study: Study, trial: int | None) -> Path:
    """The folder of the runs of a trial's setting, or of the preset's."""
    return study.directory / "final_eval" / (study.config.preset if trial is None else f"trial_{trial:03d}")


def run_path(study: Study, trial: int | None, run: int) -> Path:
    """The record of a scored run."""
    return runs_dir(study, trial) / f"run_{run:02d}.json"


def run_dir(study: Study, trial: int | None, run: int) -> Path:
    """The folder of a run's units."""
    return run_path(study, trial, run).with_suffix("")


def to_observation(record: records.Record) -> Trial:
    """A trial's record as the searcher is told of it."""
    r = record.result
    return Trial(index=r["index"], parameters=r["setting"], mean=r["map_at_r"], sem=r["standard_error"])


def trial_result(index: int, setting: dict[str, Any], folds: list[dict[str, Any]]) -> dict[str, Any]:
    """A trial's result from its folds': the mean of all of them, or no score and the reason.

    Args:
        index: of the trial.
        setting: its hyper-parameters.
        folds: results of every fold, in order.
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
    """Trials on disk by index; damaged records are quarantined, and `say` is called with a note about each."""
    found = {}
    for path in sorted((study.directory / "bo").glob("trial_*.json")):
        record, note = records.read_or_quarantine(path)
        if record is not None:
            found[int(record.result["index"])] = record
        if note:
            say(note)
    return found


def write_choice(study: Study, choice: Choice) -> None:
    """Write `best.yaml`, which says that the search is finished."""
    body = {
        "trial": choice.trial, "setting": choice.setting, "validation_map_at_r": choice.map_at_r,
        "standard_error": choice.standard_error, "num_trials": choice.num_trials, "rule": choice.rule,
        "record": trial_path(study, choice.trial).name,
    }  # fmt: skip
    records.write_whole(study.directory / "bo" / "best.yaml", yaml.safe_dump(body, sort_keys=False).encode())


def read_choice(study: Study) -> Choice:
    """The chosen trial.

    Raises:
        ValueError: the search is unfinished, or the choice does not agree with the trial it was made from; the message
            holds the command that puts it right.
    """
    path = study.directory / "bo" / "best.yaml"
    try:
        body = yaml.safe_load(path.read_text(encoding="utf-8"))
        choice = Choice(body["trial"], body["setting"], body["validation_map_at_r"], body["standard_error"],
                        body["num_trials"], body["rule"])  # fmt: skip
        result = records.read_record(path.with_name(body["record"])).result
        if (result["index"], result["setting"], result["map_at_r"]) == (choice.trial, choice.setting, choice.map_at_r):
            return choice
    except (FileNotFoundError, NotADirectoryError) as error:
        if error.filename == str(path):
            num_done = len(list(path.parent.glob("trial_*.json")))
            raise ValueError(
                f"No best trial for dataset={study.config.dataset.name}, loss={study.config.loss.name}: {path.parent} "
                f'has {num_done} of {study.config.trials} trials. Run "{study.command("bo")}" to finish it.'
            ) from None
    except (UserError, yaml.YAMLError, KeyError, TypeError, ValueError):
        pass  # said below
    raise ValueError(
        f'{path} is damaged, or the record it names is. Run "{study.command("bo")}": it chooses again, from the '
        "finished trials."
    )


def read_chosen(study: Study) -> Chosen:
    """The setting to retrain: the study's preset, or the search's choice.

    Raises:
        ValueError: there is no preset, and `read_choice` refuses.
    """
    if study.config.preset:
        return Chosen(None, study.config.loss.setting)
    choice = read_choice(study)
    return Chosen(choice.trial, choice.setting)


def finished_runs(study: Study, trial: int | None, say: Callable[[str], None] = print) -> dict[int, records.Record]:
    """Runs of a trial's (or the preset's) setting that are scored, by number; `say` is told of damaged ones."""
    return _runs_in(runs_dir(study, trial), say)


def traditional_path(study: Study, run: int) -> Path:
    """The record of a run under the customary protocol, of the preset's setting or of the loss's own."""
    return study.directory / "traditional" / (study.config.preset or "setting") / f"run_{run:02d}.json"


def traditional_runs(study: Study, say: Callable[[str], None] = print) -> dict[int, records.Record]:
    """Finished runs under the customary protocol, by number; `say` is told of damaged ones."""
    return _runs_in(traditional_path(study, 0).parent, say)


def _runs_in(folder: Path, say: Callable[[str], None]) -> dict[int, records.Record]:
    found = {}
    for path in sorted(folder.glob("run_*.json")):
        record, note = records.read_or_quarantine(path)
        if record is not None:
            found[int(record.result["run"])] = record
        if note:
            say(note)
    return found


def names_a_study(overrides: list[str]) -> bool:
    """Whether a command line is about one study; else it is about all that there are."""
    return any(re.split(r"[.=]", override.lstrip("+~"))[0] not in BOOKKEEPING for override in overrides)


def all_studies(results_dir: Path) -> list[Path]:
    """Folders of all studies below a results folder."""
    return sorted(path.parent for path in (results_dir / "studies").glob("*/*/study.yaml"))
