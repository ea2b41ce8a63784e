"""make bo: search the hyper-parameters of a loss by class-disjoint cross-validation.

Ask for a setting (or `searcher.round` of them), train it on every fold, score it by the mean of the folds' best
validation MAP@R, record it, tell the searcher, choose. Nothing here can read a test class. Killed at any moment, the
same command goes on from the records and leaves the ones an undisturbed run would have left; `lost` says how that holds
for trials that cannot be finished. A round is proposed from the rounds before it, so the order in which trials finish
changes nothing.
"""

import functools
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from benchmark.core import records
from benchmark.core.console import Display, human_time
from benchmark.core.errors import IncompleteError
from benchmark.core.provenance import provenance
from benchmark.jobs.placement import check_executor
from benchmark.jobs.queue import Jobs, incomplete
from benchmark.jobs.train_unit import train_unit
from benchmark.searchers import Parameter
from benchmark.study import layout
from benchmark.study.cli import main
from benchmark.study.lost_trials import IN_A_ROW, is_stale, read, record_of
from benchmark.study.preflight import check_before_search, check_values
from benchmark.study.prepare import prepare
from benchmark.study.study import Study

Found = dict[int, records.Record]  # trials, or their proposals, by index
AT_BOUND = 0.01  # share of a parameter's range that counts as sitting on its bound


def bo(study: Study, overrides: list[str]) -> None:
    """Search until `trials` settings are tried, then choose the best.

    Args:
        study: what to search.
        overrides: unused; the configuration is in the study.
    """
    check_values(study)  # before names become folders
    check_executor(study.config)
    if study.config.preset:
        raise ValueError(
            f"preset={study.config.preset} is a setting and needs no search: {study.command('final-eval')}"
        )
    with records.only_one(study.directory / "lock", f"Study {study.title}"):
        # 1. prepare the data and check everything that can be checked before training
        fingerprint = prepare(study, "trainval")
        check_before_search(study)
        warnings = layout.open_study(study, fingerprint)

        # 2. replay: the finished trials on disk are the truth
        trials, notes = layout.finished_trials(study)
        lost = read(study.directory / "bo", trials)
        config = study.config
        display = Display(config.display, study.title, "trial", config.trials, len(trials), config.dataset.max_epochs)
        for line in (*warnings, *notes):
            display.say(line)
        searcher = study.make_searcher()

        # 3. ask, train, score and record until there are enough
        asks = [layout.trial_dir(study, i) / "ask.json" for i in range(study.config.trials)]
        if any(i not in trials or is_stale(path, trials) for i, path in enumerate(asks)):
            (study.directory / "bo" / "best.yaml").unlink(missing_ok=True)
            search(study, fingerprint, searcher, trials, lost, display)

        # 4. choose
        choose(study, searcher, trials, lost, display)
        if lost:
            raise what_is_missing(study, lost)


def search(study: Study, fingerprint: str, searcher: Any, trials: Found, lost: Found, display: Display) -> None:
    """Add the missing trials to `trials`, or to `lost`: a round after the other, its trials and folds side by side.

    With `searcher.asynchronous` there are no rounds: the next trial is proposed whenever one is done.

    Raises:
        IncompleteError: several trials in a row are lost.
    """
    started, compute, in_a_row = time.perf_counter(), 0.0, 0
    total, size = study.config.trials, study.config.searcher.round
    asynchronous = study.config.searcher.asynchronous
    step = 1 if asynchronous else size
    rounds = deque(range(first, min(first + step, total)) for first in range(0, total, step))
    training: Found = {}  # proposals by index
    if asynchronous:
        display.say(
            "searcher.asynchronous=true: what is proposed depends on which trial ends first, so this search cannot be "
            "repeated. Say so where you report it."
        )
    with Jobs(study, train_unit, ["benchmark.jobs.train_unit"], display.report) as jobs, display:
        for index, record in trials.items():
            if record.result["map_at_r"] is not None:
                display.best_so_far(record.result["map_at_r"], index)
        trained = trained_trials(study, jobs, display)
        while rounds or training:
            while rounds and len(training) + step <= size:
                if in_a_row >= IN_A_ROW:
                    raise what_is_missing(study, lost)
                asked = propose(study, fingerprint, searcher, trials, lost, training, rounds.popleft(), display)
                train_folds(study, fingerprint, jobs, asked)
                training |= asked
            if training:
                index, answers = next(trained)
                compute += conclude(study, training.pop(index), answers, trials, lost, display)
                in_a_row = in_a_row + 1 if index in lost else 0
        wall = time.perf_counter() - started
        session = {"wall_seconds": wall, "compute_seconds": compute, "workers": jobs.num_workers}
        records.append_line(study.directory / "bo" / "sessions.jsonl", session)
        share = 1 - compute / (wall * jobs.num_workers)
        display.say(f"{human_time(wall)} on {jobs.num_workers} workers; {100 * share:.1f} % of it was not training")


def propose(
    study: Study, fingerprint: str, searcher: Any, trials: Found, lost: Found, training: Found, indices: range,
    display: Display,
) -> Found:  # fmt: skip
    """The proposals of a round's missing trials.

    All of a round are told the same history, lost trials as abandoned, and which settings stand before them in it. A
    proposal once made is kept, also over a restart, unless it is `is_stale`; a trial whose proposal changes so is
    missing again. Where trials of earlier rounds are still in training, they are no history but pending as well, and
    no proposal is ever is_stale: it could not be repeated anyway.
    """
    known = [i for i in range(indices.start) if i not in training]
    history = [layout.to_observation((lost | trials)[i]) for i in known]
    source = {"name": study.config.searcher.name, "seed": study.config.seed, "identity": study.identity(fingerprint)}
    told: dict[str, Any] = {"told": len(history)}
    if study.config.searcher.asynchronous:
        told |= {"in_training": sorted(training)}
    elif found := sorted({*lost} & {*known}):
        told |= {"lost": found}
    pending: list[dict[str, Any]] = [training[i].result["setting"] for i in sorted(training)]
    asked: Found = {}
    for index in indices:
        setting = trials[index].result["setting"] if index in trials else None
        if setting is None or is_stale(layout.trial_dir(study, index) / "ask.json", trials):
            make = functools.partial(searcher.ask, history, *([pending] if pending else []))
            how = source | told | ({"pending": len(pending)} if pending else {})
            proposal = ask(study, index, make, how, trials, display)
            if index not in trials:
                asked[index] = proposal
            setting = proposal.result["setting"]
        pending.append(setting)
    return asked


def ask(
    study: Study, index: int, make: Callable[[], dict[str, Any]], how: dict[str, Any], trials: Found, display: Display
) -> records.Record:
    """The proposal of a trial: the one on disk, or a new one where there is none or it is is_stale."""
    folder = layout.trial_dir(study, index)
    asked, note = records.read_or_set_aside(folder / "ask.json")
    if note:
        display.say(note)
    if asked is not None and not is_stale(folder / "ask.json", trials):
        return asked
    proposal = records.Record("ask", {"index": index, "setting": make()}, how)
    if asked is not None and asked.result != proposal.result:  # first the record: then it is missing, whatever happens
        if trials.pop(index, None) is not None:
            records.set_aside(layout.trial_path(study, index), "superseded")
        kept = records.set_aside(folder, "superseded")
        display.say(f"trial {index + 1} was proposed while another was lost, and is proposed anew; see {kept}")
    records.write_record(folder / "ask.json", proposal)
    return proposal


def train_folds(study: Study, fingerprint: str, jobs: Jobs, asked: Found) -> None:
    """Queue the folds of proposed trials."""
    for index, proposal in asked.items():
        for fold in range(study.config.protocol.num_folds):
            jobs.add({
                "study": study.raw, "fingerprint": fingerprint, "kind": "trial", "index": index, "fold": fold,
                "setting": proposal.result["setting"], "keep_weights": False,
                "directory": str(layout.trial_dir(study, index) / f"fold_{fold}"),
            })  # fmt: skip


def trained_trials(study: Study, jobs: Jobs, display: Display) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Yield each queued trial once its folds are there, with their answers in order; more may be queued meanwhile."""
    trials: dict[int, dict[int, dict[str, Any]]] = {}
    for spec, answer in jobs.finished():
        for line in answer.get("notes", []):
            display.say(line)
        folds = trials.setdefault(spec["index"], {})
        folds[spec["fold"]] = answer
        if len(folds) == study.config.protocol.num_folds:
            yield spec["index"], [folds[f] for f in sorted(folds)]


def conclude(
    study: Study, asked: records.Record, answers: list[dict[str, Any]], trials: Found, lost: Found, display: Display
) -> float:
    """Record a trial, as finished or as lost, and return the seconds that its folds took."""
    index, setting = asked.result["index"], asked.result["setting"]
    path = layout.trial_dir(study, index) / "lost.json"
    if gone := [answer["lost"] for answer in answers if "lost" in answer]:
        lost[index] = record_of(index, setting, gone)
        records.write_record(path, lost[index])
        display.finished(index, f"lost ({gone[0]['unit']}: {gone[0]['reason']})")
        return 0.0
    lost.pop(index, None)
    path.unlink(missing_ok=True)
    seconds = {key: sum(a["provenance"]["seconds"][key] for a in answers) for key in ("train", "evaluate")}
    result = layout.trial_result(index, setting, [answer["result"] for answer in answers])
    trials[index] = records.Record("trial", result, provenance(seconds=seconds, searcher=asked.provenance))
    records.write_record(layout.trial_path(study, index), trials[index])
    if result["map_at_r"] is not None:
        display.best_so_far(result["map_at_r"], index)
    display.finished(index, trial_line(result))
    return float(sum(seconds.values()))


def what_is_missing(study: Study, lost: Found) -> IncompleteError:
    """The closing words of a search that has lost trials."""
    return incomplete(study, "bo", {f"trial {i + 1}": lost[i].provenance["units"] for i in sorted(lost)})


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


def choose(study: Study, searcher: Any, found: Found, lost: Found, display: Display) -> None:
    """Write `best.yaml` and say what was found, where it stands and what to do next.

    Raises:
        ValueError: no trial has a score.
        IncompleteError: none has, and some were lost.
    """
    trials = [found[i] for i in sorted(found)]
    scored = [t for t in trials if t.result["map_at_r"] is not None]
    if not scored and lost:
        raise what_is_missing(study, lost)
    if not scored:
        reasons = sorted({t.result["reason"] for t in trials})[:3]
        raise ValueError(
            f"None of the {len(trials)} trials of {study.title} has a score ({'; '.join(reasons)}).\nThe training "
            "diverges everywhere: lower the learning rates (training.optimizers.trunk.lr=1e-4) or narrow the search "
            "space (loss.space.NAME.bounds=[LOW,HIGH]), and start again beside it with variant=NAME."
        )
    known = lost | found
    best = searcher.best([layout.to_observation(known[i]) for i in sorted(known)])
    result = next(t.result for t in trials if t.result["index"] == best)
    rule = study.config.protocol.select
    choice = layout.Choice(best, result["setting"], result["map_at_r"], result["standard_error"], len(trials), rule)
    layout.write_choice(study, choice)
    summary(study, choice, trials, display)


def summary(study: Study, choice: layout.Choice, trials: list[records.Record], display: Display) -> None:
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
