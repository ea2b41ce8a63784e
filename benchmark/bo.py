"""make bo: search the hyper-parameters of a loss by class-disjoint cross-validation.

Ask for a setting, train it on every fold, score it by the mean of the folds' best validation MAP@R, record it, tell
the searcher, choose. Nothing here can read a test class. Killed at any moment, the same command goes on from the
records and leaves the ones an undisturbed run would have left.
"""

import math
import time
from typing import Any

from benchmark import ledger, records
from benchmark.checks import check_before_search, check_values, prepare
from benchmark.dispatch import Jobs
from benchmark.display import Display, human_time
from benchmark.provenance import provenance
from benchmark.searchers import Parameter, Trial
from benchmark.study import Study, main
from benchmark.worker import train_unit

AT_BOUND = 0.01  # share of a parameter's range that counts as sitting on its bound


def bo(study: Study, overrides: list[str]) -> None:
    """Search until `trials` settings are tried, then choose the best.

    Args:
        study: what to search.
        overrides: unused; the configuration is in the study.
    """
    check_values(study)  # before names become folders
    if study.config.preset:
        raise ValueError(
            f"preset={study.config.preset} is a setting and needs no search: {study.command('final-eval')}"
        )
    with records.only_one(study.directory / "lock", f"Study {study.title}"):
        # 1. prepare the data and check everything that can be checked before training
        fingerprint = prepare(study, "trainval")
        check_before_search(study)
        warnings = ledger.open_study(study, fingerprint)

        # 2. replay: the finished trials on disk are the truth
        trials, notes = ledger.finished_trials(study)
        config = study.config
        display = Display(config.display, study.title, "trial", config.trials, len(trials), config.dataset.max_epochs)
        for line in (*warnings, *notes):
            display.say(line)
        searcher = study.make_searcher()

        # 3. ask, train, score and record until there are enough
        if any(index not in trials for index in range(study.config.trials)):
            (study.directory / "bo" / "best.yaml").unlink(missing_ok=True)
            search(study, fingerprint, searcher, trials, display)

        # 4. choose
        choose(study, searcher, [trials[i] for i in sorted(trials)], display)


def search(study: Study, fingerprint: str, searcher: Any, trials: dict[int, records.Record], display: Display) -> None:
    """Add the missing trials to `trials`, one after the other, folds side by side."""
    started, compute = time.perf_counter(), 0.0
    with Jobs(study, train_unit, ["benchmark.worker"], display.report) as jobs, display:
        for index, record in trials.items():
            if record.result["map_at_r"] is not None:
                display.best_so_far(record.result["map_at_r"], index)
        for index in range(study.config.trials):
            if index in trials:
                continue
            history = [ledger.as_told(trials[i]) for i in sorted(trials) if i < index]
            setting, asked = ask(study, fingerprint, searcher, history, index, display)
            folds, seconds = train_folds(study, fingerprint, jobs, index, setting, display)
            result = ledger.trial_result(index, setting, [folds[f] for f in sorted(folds)])
            record = records.Record("trial", result, provenance(seconds=seconds, searcher=asked))
            records.write_record(ledger.trial_path(study, index), record)
            trials[index] = record
            compute += sum(seconds.values())
            if result["map_at_r"] is not None:
                display.best_so_far(result["map_at_r"], index)
            display.finished(index, trial_line(result))
        wall = time.perf_counter() - started
        session = {"wall_seconds": wall, "compute_seconds": compute, "workers": jobs.num_workers}
        records.append_line(study.directory / "bo" / "sessions.jsonl", session)
        share = 1 - compute / (wall * jobs.num_workers)
        display.say(f"{human_time(wall)} on {jobs.num_workers} workers; {100 * share:.1f} % of it was not training")


def ask(
    study: Study, fingerprint: str, searcher: Any, history: list[Trial], index: int, display: Display
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The setting of a trial and how it was proposed; a proposal once made is kept, also over a restart."""
    path = ledger.trial_dir(study, index) / "ask.json"
    asked, note = records.read_or_set_aside(path)
    if note:
        display.say(note)
    if asked is None:
        setting = searcher.ask(history)
        how = {"name": study.config.searcher.name, "seed": study.config.seed, "told": len(history),
               "identity": study.identity(fingerprint)}  # fmt: skip
        asked = records.Record("ask", {"index": index, "setting": setting}, how)
        records.write_record(path, asked)
    return asked.result["setting"], asked.provenance


def train_folds(
    study: Study, fingerprint: str, jobs: Jobs, index: int, setting: dict[str, Any], display: Display
) -> tuple[dict[int, dict[str, Any]], dict[str, float]]:
    """Results by fold, and the seconds spent on training and evaluating them."""
    for fold in range(study.config.protocol.num_folds):
        jobs.add({
            "study": study.raw, "fingerprint": fingerprint, "kind": "trial", "index": index, "fold": fold,
            "setting": setting, "directory": str(ledger.trial_dir(study, index) / f"fold_{fold}"),
            "keep_weights": False,
        })  # fmt: skip
    folds: dict[int, dict[str, Any]] = {}
    seconds = {"train": 0.0, "evaluate": 0.0}
    for spec, answer in jobs.finished():
        folds[spec["fold"]] = answer["result"]
        for line in answer["notes"]:
            display.say(line)
        for key in seconds:
            seconds[key] += answer["provenance"]["seconds"][key]
    return folds, seconds


def trial_line(result: dict[str, Any]) -> str:
    """One line about a finished trial."""
    setting = " ".join(f"{name}={value:.4g}" for name, value in result["setting"].items())
    if result["map_at_r"] is None:
        return f"no score ({result['reason']})   {setting}"
    idle = [f["fold"] for f in result["folds"] if f["coarse_updates"] == 0]
    warning = f"   WARNING: the hierarchy was never updated in folds {idle}" if idle else ""
    diverged = [
        f"{f['fold']} (score of epoch {f['best_epoch']}; {f['reason']})" for f in result["folds"] if f["reason"]
    ]
    warning += f"   diverged: fold {', '.join(diverged)}" if diverged else ""
    return f"MAP@R {100 * result['map_at_r']:.2f} +- {100 * result['standard_error']:.2f}   {setting}{warning}"


def choose(study: Study, searcher: Any, trials: list[records.Record], display: Display) -> None:
    """Write `best.yaml` and say what was found, where it stands and what to do next.

    Raises:
        ValueError: no trial has a score.
    """
    scored = [t for t in trials if t.result["map_at_r"] is not None]
    if not scored:
        reasons = sorted({t.result["reason"] for t in trials})[:3]
        raise ValueError(
            f"None of the {len(trials)} trials of {study.title} has a score ({'; '.join(reasons)}).\nThe training "
            "diverges everywhere: lower the learning rates (training.optimizers.trunk.lr=1e-4) or narrow the search "
            "space (loss.space.NAME.bounds=[LOW,HIGH]), and start again beside it with variant=NAME."
        )
    best = searcher.best([ledger.as_told(t) for t in trials])
    result = next(t.result for t in trials if t.result["index"] == best)
    rule = study.config.protocol.select
    choice = ledger.Choice(best, result["setting"], result["map_at_r"], result["standard_error"], len(trials), rule)
    ledger.write_choice(study, choice)
    summary(study, choice, trials, display)


def summary(study: Study, choice: ledger.Choice, trials: list[records.Record], display: Display) -> None:
    """The closing lines."""
    hours = sum(sum(t.provenance["seconds"].values()) for t in trials) / 3600
    failed = sum(t.result["map_at_r"] is None for t in trials)
    display.say(f"\n{study.title}: {len(trials)} trials" + (f", {failed} without a score" if failed else ""))
    display.say(
        f"  best: trial {choice.trial + 1}, validation MAP@R {100 * choice.map_at_r:.2f} +- "
        f"{100 * choice.standard_error:.2f} (standard error between folds), {hours:.2f} compute hours"
    )
    space = study.make_space()
    for name, value in choice.setting.items():
        parameter = space[name]
        low, high = parameter.bounds
        place = position(parameter, float(value))
        end = "lower" if place <= AT_BOUND else "upper" if place >= 1 - AT_BOUND else ""
        advice = f"   on its {end} bound: widen it (loss.space.{name}.bounds) and search again" if end else ""
        display.say(f"  {name} = {value:.6g}   in [{low:g}, {high:g}] {parameter.scale}{advice}")
    display.say(f"  records: {study.directory}/bo\nNext: {study.command('final-eval')}")


def position(parameter: Parameter, value: float) -> float:
    """Where in its range a value lies, 0 at the lower bound and 1 at the upper, on the parameter's own scale."""
    low, high = parameter.bounds
    if parameter.scale == "log":
        low, high, value = math.log(low), math.log(high), math.log(value)
    return (value - low) / (high - low)


if __name__ == "__main__":
    main(bo)
