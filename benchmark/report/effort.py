"""How the numbers of a row came about, from its study's records: the length of search and training, and warnings.

Older records are read too: what they do not hold is None.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmark.core.conf_files import content
from benchmark.core.errors import UserError
from benchmark.core.pretraining import UNKNOWN, may_have_seen, of_network
from benchmark.core.records import MOST_BYTES, CorruptFileError, JsonObject, Record, read_file
from benchmark.report.comparison import at
from benchmark.report.table import COUNTS, RESOURCES, Block, Effort, Head, Section, resource_text
from benchmark.searchers import Parameter, num_settings
from benchmark.study.stored import StoredStudy, value_at
from benchmark.training.history import convergence_epoch

AT_BOUND = 0.01  # a value this close to a bound, as a fraction of the range, counts as on it
IDLE = "never changed"  # part of the warning of a loss whose groups stay as they were
FEATURES = "benchmark.heads.fixed.Features"  # the head of a row whose embeddings are the trunk's features
OFF = "never came on"  # part of the warning of a loss with a part that starts later than its training ends


def read_effort(stored: StoredStudy, directory: Path, used: Sequence[Record]) -> Effort:
    """Return how a study's numbers came about.

    Args:
        stored: the study.
        directory: its folder.
        used: its trials and the runs of its row.
    """
    trials = [record for record in used if record.kind == "trial"]
    runs = [record for record in used if record.kind != "trial"]
    folds = [fold for record in runs for fold in record.result.get("folds", [])]
    trained = [] if stored.facts.untrained else folds
    searches = not stored.facts.preset and stored.facts.story != "traditional"
    epochs = sum(_epochs(record) for record in used)
    space = at(stored.science, "loss", "space")
    chosen = _chosen(trials, runs) if searches else None
    off = [was for record in runs for was in _in_folds(record, "best_epoch_in_warmup", OFF)]
    idle = [was for record in runs for was in _in_folds(record, "idle_hierarchy", IDLE)]
    scored = [record.result["separated"]["map_at_r"] for record in runs if record.result.get("separated")]
    return Effort(
        trials=len(trials) if searches else None, asked=_asked(stored, space) if searches else None,
        searched=len(space) if searches and isinstance(space, dict) else 0,
        iterations=_iterations(stored, epochs), epochs=epochs,
        hours=sum(sum(record.provenance["seconds"].values()) for record in used) / 3600,
        looks=_num_lines(directory / "test_ledger.jsonl"),
        at_limit=sum(fold["stopped"] == "max_epochs" for fold in trained) / len(trained) if trained else None,
        validation_of_choice=_percent([chosen.result["map_at_r"]] if chosen else []),
        validation=_percent([fold["map_at_r"] for fold in folds]), separated=_percent(scored),
        on_bounds=_on_bounds(space, chosen.result["setting"]) if chosen else (),
        idle=sum(idle), off=sum(off), num_folds=len(off),
        keeps_features=at(stored.science, "loss", "head", "_target_") == FEATURES,
        codes=max(len(stored.code), len(stored.search_code)),
        resources=_resources(runs), seen=pretraining(stored), stopped=_stopped(stored, trials) if searches else None,
        all_trials=len(trials) if searches else None,
        rule=stored.facts.select if searches else "raw",
    )  # fmt: skip


def pretraining(stored: StoredStudy) -> tuple[str, ...]:
    """Return phrases about sets that a study's trunk was pretrained on and that may hold test classes or images.

    Statements that the study was stored without are those of today's `conf/`.
    """
    trunk = content("trunk", stored.facts.trunk) | as_dict(at(stored.config, "trunk"))
    dataset = content("dataset", stored.facts.dataset) | as_dict(at(stored.config, "dataset"))
    module, network, sets = as_dict(trunk.get("module")), trunk.get("network"), trunk.get("pretrained_on", [])
    if "weights" in module and module["weights"] is None:
        return ()
    if sets is None:
        sets = of_network(network) if isinstance(network, str) else [UNKNOWN]
    named = [name for name in sets if isinstance(name, str)] if isinstance(sets, list) else [UNKNOWN]
    overlaps = {str(name): str(text) for name, text in as_dict(dataset.get("overlaps")).items()}
    return tuple(may_have_seen(named, overlaps))


def as_dict(value: object) -> dict[str, Any]:
    """Return a mapping of an untrusted file; an empty one in place of anything else."""
    return value if isinstance(value, dict) else {}


def _resources(runs: Sequence[Record]) -> dict[str, float]:
    """Return the means over runs of proxies, time and memory, without what a run does not hold.

    Convergence is the first epoch whose R@1 on the test classes is within 1 % of the best one; only a run under the
    traditional protocol is scored on them after every epoch. The memory of a run of folds is the highest of theirs.
    """
    each: list[dict[str, Any]] = []
    for record in runs:
        origin, result = record.provenance, record.result
        history, converged = result.get("history"), None
        if history:
            converged = convergence_epoch(history, "precision_at_1", monitored=True)
        memory = origin.get("peak_memory_bytes")
        counts = [trained.get("num_proxies") for trained in result.get("folds", [result])]
        each.append({
            "num_proxies": sum(counts) / len(counts) if counts and all(counts) else None,
            "seconds_per_iteration": origin.get("seconds_per_iteration"),
            "hours_to_convergence": converged and origin["seconds"]["train"] * converged / _epochs(record) / 3600,
            "max_memory_gb": memory and memory / 1e9,
        })  # fmt: skip
    if not all(one["seconds_per_iteration"] for one in each):
        return {}  # older records
    means = {key: [one[key] for one in each if one[key]] for key in COUNTS | RESOURCES}
    return {key: sum(values) / len(values) for key, values in means.items() if len(values) == len(each) > 0}


def _epochs(record: Record) -> int:
    """Return the number of epochs of a record's trainings."""
    if "folds" in record.result:
        return sum(fold["last_epoch"] for fold in record.result["folds"])
    history = record.result["history"]
    return int(history[-1]["epoch"]) if history else 0


def _iterations(stored: StoredStudy, epochs: int) -> int | None:
    """Return the iterations of a number of epochs; None under the traditional protocol, whose epochs are passes."""
    each = at(stored.science, "protocol", "iterations_per_epoch")
    return epochs * each if isinstance(each, int) and stored.facts.story != "traditional" else None


def _stopped(stored: StoredStudy, trials: Sequence[Record]) -> int | None:
    """Return how many trials were stopped after their first folds; None if every fold was trained by rule."""
    races = at(stored.science, "searcher", "stop_behind") is not None
    return sum(record.result["status"] == "stopped" for record in trials) if races else None


def _asked(stored: StoredStudy, space: object) -> int | None:
    """Return the number of trials that the protocol asks for; None if its configuration does not say.

    A search of a finite space ends once every setting is tried, so it is asked for no more trials than that.
    """
    try:
        found = value_at(stored.config, "protocol.trials")
    except ValueError:
        return None
    if not isinstance(found, int):
        return None
    return min(found, _num_settings(space) or found)


def _num_settings(space: object) -> int | None:
    """Return the number of settings in a search space from an untrusted file; None if it has no end or is invalid."""
    if not isinstance(space, dict) or not space:
        return None
    try:
        bounds = {name: (float(low), float(high)) for name, node in space.items() for low, high in [node["bounds"]]}
        return num_settings({name: Parameter(bounds[name], type=node["type"]) for name, node in space.items()})
    except (UserError, LookupError, OverflowError, TypeError, ValueError):
        return None


def _chosen(trials: Sequence[Record], runs: Sequence[Record]) -> Record | None:
    """Return the trial whose setting the runs were trained with; None if it is not there."""
    wanted = {record.result["trial"] for record in runs}
    return next((record for record in trials if record.result["index"] in wanted), None)


def _percent(values: Sequence[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return 100 * sum(found) / len(found) if found else None


def _on_bounds(space: object, setting: JsonObject) -> tuple[str, ...]:
    """Return the hyper-parameters on a bound of their search space, each as `name = value`."""
    return tuple(
        f"{name} = {value:.4g}"
        for name, value in setting.items()
        if isinstance(value, int | float) and _is_on_bound(at(space, name), float(value))
    )


def _is_on_bound(parameter: object, value: float) -> bool:
    """Return whether a value is within `AT_BOUND` of a bound, on its parameter's scale.

    Args:
        parameter: bounds and scale, from an untrusted file.
        value: the value.
    """
    match parameter:
        case {"bounds": [int() | float() as low, int() | float() as high], "scale": scale} if low < high:
            is_log = scale == "log" and min(low, value) > 0
            return not AT_BOUND < position((float(low), float(high)), value, is_log=is_log) < 1 - AT_BOUND
    return False


def position(bounds: tuple[float, float], value: float, *, is_log: bool) -> float:
    """Return the position of a value in its range: 0 at the lower bound, 1 at the upper bound.

    >>> position((0.01, 1.0), 0.1, is_log=True)
    0.5

    Args:
        bounds: the lowest and the highest value, which differ; positive on a log scale.
        value: the value.
        is_log: whether the scale is logarithmic.
    """
    low, high = bounds
    if is_log:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return (value - low) / (high - low)


def _in_folds(record: Record, key: str, warning: str) -> list[bool]:
    """Return whether a key of the result is true, or a warning was given, for each fold of a run.

    Args:
        record: the run.
        key: the key in the result of a fold, or in that of a run without folds.
        warning: a part of the warning that says the same, in records without this key.
    """
    trained: list[Any] = record.result.get("folds", [record.result])
    warnings = record.provenance.get("warnings", [])
    told = warnings if "folds" in record.result else [warnings]
    return [
        result.get(key) is True or warning in str(told[number : number + 1]) for number, result in enumerate(trained)
    ]


def _num_lines(path: Path) -> int | None:
    """Return the number of lines of a file; None if it cannot be read."""
    try:
        return read_file(path, MOST_BYTES).count(b"\n")
    except (OSError, CorruptFileError):
        return None


# -- the block --------------------------------------------------------------------------------------------------------


HEADS = {
    "Loss": "",
    "Trials": "of all searches",
    "Searched": "number of hyper-parameters in the search",
    "Iterations": "of all trials and runs",
    "Epochs": "of all runs",
    "Hours": "compute time of all trials and runs",
    COUNTS["num_proxies"]: "vectors that the loss learns for classes and groups",
    RESOURCES["seconds_per_iteration"]: "time of an optimiser step",
    RESOURCES[
        "hours_to_convergence"
    ]: "training time until the first epoch within 1 % of the best R@1 on the test classes",
    RESOURCES["max_memory_gb"]: "peak of PyTorch's allocations on a GPU, else of the process",
    "Looks": "how often the test classes were read",
    "Chosen trial": "its validation MAP@R, in the first search",
    "Validation": "validation MAP@R of the final runs, by which the epoch of each fold was chosen",
    "Test": "separated MAP@R of the final runs",
    "Gap": "validation minus test, large by itself, since the validation classes are fewer and chose the epoch",
}  # the headings of the table, each with an explanation


def effort_block(section: Section) -> list[Block]:
    """Return the table of how the numbers of a section's rows came about, as a list; empty without such rows."""
    rows = {row.name: row for row in section.rows if row.effort}
    lines = [[row.label, *_texts(row.effort)] for row in rows.values() if row.effort]
    if not lines:
        return []
    heads = [Head(title) for title in HEADS]
    block = Block("effort", "How the numbers came about.", heads, 1, {"": lines}).without_empty_columns()
    explained = [f"{head.title}: {HEADS[head.title]}." for head in block.heads if HEADS[head.title]]
    return [replace(block, notes=[" ".join(explained)])]


def _texts(effort: Effort) -> list[str]:
    validation, separated = effort.validation, effort.separated
    gap = validation - separated if validation is not None and separated is not None else None
    return [
        "" if effort.all_trials is None else str(effort.all_trials),
        "" if effort.trials is None else str(effort.searched),
        "" if effort.iterations is None else f"{effort.iterations:,}",
        f"{effort.epochs:,}" if effort.iterations is None else "", f"{effort.hours:.2f}",
        *(resource_text(key, effort.resources[key]) if key in effort.resources else "" for key in COUNTS | RESOURCES),
        "" if effort.looks is None else str(effort.looks),
        *("" if v is None else f"{v:.2f}" for v in (effort.validation_of_choice, validation, separated, gap)),
    ]  # fmt: skip


def budget(section: Section) -> str:
    """Return a sentence about whether a section compares losses at a fixed budget or trained to their end.

    Empty for a section without complete rows.
    """
    efforts = [row.effort for row in section.rows if row.effort and row.cells]
    if not efforts:
        return ""
    shares = [effort.at_limit for effort in efforts if effort.at_limit is not None]
    if not shares:
        return "Every training has a fixed length."
    counts = sorted({effort.trials for effort in efforts if effort.trials is not None})
    trials = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}" if counts else ""
    search = f"searches of {trials} trials; " if counts else ""
    share = 100 * sum(shares) / len(shares)
    if share > 50:
        return f"Compared at a fixed budget: {search}{share:.0f} % of the folds reached the limit of epochs."
    return f"Compared after convergence: {search}{100 - share:.0f} % of the folds were stopped by patience."
