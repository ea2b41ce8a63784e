"""The study that a command line selects, by its configuration or by `study=FOLDER`."""

import copy
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from benchmark.core.errors import UserError
from benchmark.core.invocation import command, escaped, key_of
from benchmark.study.config import PLACES
from benchmark.study.plugins import plugins_option
from benchmark.study.stored import NAME, StoredStudy, check_version, read_study, value_at
from benchmark.study.study import Study

# Keys that do not select a study. Their values come from the command line, never from a stored configuration.
BOOKKEEPING = (
    "executor", "display", "tracker", "keep", "keep_epochs", "device", "results_dir", "unit", "corruptions", "figure",
    "run", "projection", "model", "images", "query", "embeddings", "format", "output", "folds", "nearest",
    "embed_batch", "descriptor", "threshold", "plugins", "accept_code",
)  # fmt: skip
BUDGET = ("trials", "searches", "protocol.num_runs")
OF_FINAL_RUNS = ("protocol.num_runs",)  # for `final-eval` without another option, the number for every finished search
PLACE_KEYS = tuple(f"dataset.module.{place}" for place in PLACES)
OF_MACHINE = ("decode", "image_threads", "image_memory", "checkpoint_seconds", "levels")  # how this machine works
FREE = (*BOOKKEEPING, *BUDGET, *PLACE_KEYS, *OF_MACHINE, "study")  # allowed together with `study`


def names_a_study(overrides: Sequence[str], besides: Sequence[str] = ()) -> bool:
    """Whether the overrides of a command select one study; otherwise the command applies to all studies.

    Args:
        overrides: the overrides on the command line.
        besides: further keys that do not select one for this command.
    """
    keys = [key for key in map(key_of, overrides) if key not in besides]
    return any(key.partition(".")[0] not in BOOKKEEPING for key in keys)


def check_read(name: str, overrides: Sequence[str], reads: Sequence[str], unread: Sequence[str] = BOOKKEEPING) -> None:
    """Refuse options of a command that does what it does whatever they are.

    Args:
        name: name of the command.
        overrides: the overrides on the command line.
        reads: keys that the command reads; a part of the configuration stands for every key in it.
        unread: keys that are allowed although the command may not read them, by default those that select no study.

    Raises:
        UserError: an override has none of these keys.
    """
    allowed = {*reads, *unread}
    if refused := [entry for entry in overrides if allowed.isdisjoint({key := key_of(entry), key.partition(".")[0]})]:
        rest = f"; {name} reads {', '.join(reads)}" if reads else ""
        raise UserError(
            f"{', '.join(refused)}: {name} does not read this and would do the same without it. Leave it out{rest}."
        )


def select(config: DictConfig, overrides: Sequence[str], places: dict[str, object]) -> Study:
    """The study to run; its stored numbers of trials and runs apply unless the command line gives others.

    Args:
        config: the configuration that Hydra composed from the command line.
        overrides: the overrides on the command line.
        places: values of `PLACE_KEYS` that were given together with `study`, by key; Hydra's configuration lacks them.

    Raises:
        UserError: the configuration is invalid, or the stored study cannot be continued.
    """
    composed = Study.of(config)
    if composed.config.study:
        return from_folder(Path(composed.config.study), composed, overrides, places)
    try:
        stored = read_study(composed.directory)
    except UserError:  # there is none, or the command reports why it cannot be read
        return composed
    return _with_budget(composed, stored, composed, overrides)


def from_folder(
    folder: Path, composed: Study, overrides: Sequence[str], places: dict[str, object] | None = None
) -> Study:
    """The study stored in a folder, whatever the folder's name.

    Args:
        folder: folder with a `study.yaml`.
        composed: the study of the command line, which supplies the values that a stored file must not determine.
        overrides: the overrides on the command line.
        places: values of `PLACE_KEYS`, which say where the data are on this machine, by key.

    Raises:
        UserError: an override would change the study's identity, or the stored study cannot be read or continued.
    """
    if refused := [
        entry for entry in overrides if key_of(entry) not in FREE and key_of(entry).split(".")[0] != "executor"
    ]:
        raise UserError(
            f"{', '.join(refused)} cannot be changed for the study in {folder}: it would be another study. Leave it "
            f"out, or name a new study by its options, as in {command('bo', {'dataset': 'cub', 'loss': 'hpl_pa'})}."
        )
    stored = read_study(folder)
    check_version(folder, stored, "Start a new study by naming its options in place of study=FOLDER.")
    if missing := sorted({*stored.plugins} - {*composed.config.plugins}):
        raise UserError(
            f"{folder} was made with the plug-ins {', '.join(missing)}, and no stored file may import code. If you "
            f"trust them, name them on the command line: {plugins_option(*stored.plugins)}"
        )
    raw = (
        copy.deepcopy(stored.config) | {key: composed.raw[key] for key in BOOKKEEPING} | {"study": escaped(str(folder))}
    )
    raw |= {key: composed.raw[key] for key in OF_MACHINE if key in map(key_of, overrides)}
    raw["dataset"] |= {"sources": [], "by_hand": ""}  # nothing is downloaded from an address in a stored file
    for key, value in (places or {}).items():
        raw["dataset"]["module"][key.rpartition(".")[2]] = value
    study = Study.of(raw)
    if (found := study.identity(stored.fingerprint)) != stored.identity:
        raise UserError(
            f"The configuration in {folder / NAME} gives the identity {found}, not {stored.identity}: it was altered, "
            "or a file that it names (trunk.module.weights) is missing here. It can be read, but not continued."
        )
    return _with_budget(study, stored, composed, overrides)


def _with_budget(study: Study, stored: StoredStudy, composed: Study, overrides: Sequence[str]) -> Study:
    """A study with the stored number of trials, searches and runs, or with those on the command line."""
    given = {key_of(entry) for entry in overrides}
    trials = composed.config.trials if "trials" in given else stored.trials
    num_runs = composed.config.protocol.num_runs if "protocol.num_runs" in given else stored.num_runs
    searches = composed.config.searches if "searches" in given else value_at(stored.config, "searches", 1)
    raw = study.raw | {
        "trials": trials,
        "searches": searches,
        "protocol": study.raw["protocol"] | {"num_runs": num_runs},
    }
    return Study.of(raw)
