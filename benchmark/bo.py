"""make bo: search the hyper-parameters of a loss by class-disjoint cross-validation.

Ask for a setting (or `searcher.round` of them), train it on every fold, score it by the mean of the folds' best
validation MAP@R, record it, add it to the searcher's history, and at the end choose. Nothing here can read a test
class. Killed at any moment, the same command resumes from the records and leaves those of an undisturbed run;
`lost_trials` explains how that holds for trials that cannot be finished. A round is proposed from the rounds before it,
so the order in which trials finish changes nothing.
"""

if __name__ == "__main__":  # before the imports, which take seconds: a mistake is answered at once
    from benchmark.__main__ import main

    raise SystemExit(main("bo"))

import functools
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from benchmark.core import records
from benchmark.core.console import human_time
from benchmark.core.errors import IncompleteError, UserError
from benchmark.core.provenance import provenance
from benchmark.core.records import JsonObject
from benchmark.jobs.queue import Jobs
from benchmark.jobs.session import Session, describe_warnings
from benchmark.jobs.train_unit import train_unit
from benchmark.jobs.unit import Answer, FinishedUnit, LostUnit, Unit
from benchmark.searchers import Parameter, Searcher, Value
from benchmark.study import layout
from benchmark.study.lost_trials import MOST_IN_A_ROW, is_stale, lost_record, read_lost
from benchmark.study.preflight import check_before_search
from benchmark.study.study import Study

Trials = dict[int, records.Record]  # records of trials, or of their proposals, by index
AT_BOUND = 0.01  # share of a parameter's range that counts as sitting on its bound


def bo(study: Study, overrides: list[str]) -> None:
    """Search until `trials` settings are tried, then choose the best.

    Args:
        study: the study to search.
        overrides: unused; the configuration is in the study.

    Raises:
        UserError: something cannot work, or no trial has a score.
        IncompleteError: some trials are lost.
    """
    session = Session(study, "bo", halves=("trainval",))
    if study.config.preset:
        raise UserError(f"preset={study.config.preset} is a setting and needs no search: {study.command('final-eval')}")
    # 1. prepare the data and check everything that can be checked before training
    with session:
        check_before_search(study)

        # 2. replay: the finished trials on disk are the truth
        search = Search(session, session.open(study.config.trials, functools.partial(layout.finished_trials, study)))

        # 3. ask, train, score and record until there are enough
        if search.is_unfinished():
            (study.directory / "bo" / "best.yaml").unlink(missing_ok=True)
            search.run()

        # 4. choose
        search.choose()
        if search.lost:
            raise search.incomplete()


class Search:
    """A search in progress.

    Args:
        session: with the study open.
        trials: records of the finished trials, by index.

    Attributes:
        trials: records of the finished trials, by index.
        lost: records of the trials that are lost, by index.
        training: proposals of the trials in training, by index.
    """

    def __init__(self, session: Session, trials: Trials) -> None:
        self.session, self.study, self.display = session, session.study, session.display
        self.trials: Trials = trials
        self.lost: Trials = read_lost(self.study.directory / "bo", trials)
        self.training: Trials = {}
        self.searcher: Searcher = self.study.make_searcher()

    def is_unfinished(self) -> bool:
        """Whether a trial is missing, or was proposed while another one was lost that is finished by now."""
        return any(i not in self.trials or self._is_stale(i) for i in range(self.study.config.trials))

    def run(self) -> None:
        """Train the missing trials, round after round, with all folds of a round side by side.

        With `searcher.asynchronous` there are no rounds: the next trial is proposed as soon as one is finished.

        Raises:
            IncompleteError: several trials in a row are lost.
        """
        started, compute, lost_in_a_row = time.perf_counter(), 0.0, 0
        total, config = self.study.config.trials, self.study.config.searcher
        step = 1 if config.asynchronous else config.round
        rounds = deque(range(first, min(first + step, total)) for first in range(0, total, step))
        if config.asynchronous:
            self.display.say(
                "searcher.asynchronous=true: a proposal depends on which trial finishes first, so this search cannot "
                "be repeated. Say so where you report it."
            )
        with self.session.jobs(train_unit, ["benchmark.jobs.train_unit"]) as jobs:
            for index, record in self.trials.items():
                if record.result["map_at_r"] is not None:
                    self.display.best_so_far(record.result["map_at_r"], index)
            trained = self._trained_trials(jobs)
            while rounds or self.training:
                while rounds and len(self.training) + step <= config.round:
                    if lost_in_a_row >= MOST_IN_A_ROW:
                        raise self.incomplete()
                    proposals = self.propose(rounds.popleft())
                    self._train_folds(jobs, proposals)
                    self.training |= proposals
                if self.training:
                    index, answers = next(trained)
                    compute += self.conclude(self.training.pop(index), answers)
                    lost_in_a_row = lost_in_a_row + 1 if index in self.lost else 0
            self._report_time(time.perf_counter() - started, compute, jobs.num_workers)

    def propose(self, indices: range) -> Trials:
        """Propose the missing trials of a round, and return the proposals.

        All proposals of a round see the same history, in which lost trials count as abandoned, and the settings that
        stand before them in the round. A proposal is kept once made, even over a restart, unless it is stale; a trial
        whose proposal changes is missing again. Trials of earlier rounds that are still in training are not history but
        pending, and no proposal is ever stale then: it could not be repeated anyway.
        """
        known = [i for i in range(indices.start) if i not in self.training]
        history = [layout.to_observation((self.lost | self.trials)[i]) for i in known]
        origin: JsonObject = {
            "name": self.study.config.searcher.name, "seed": self.study.config.seed,
            "identity": self.study.identity(self.session.fingerprint), "told": len(history),
        }  # fmt: skip
        if self.study.config.searcher.asynchronous:
            origin |= {"in_training": sorted(self.training)}
        elif lost := sorted({*self.lost} & {*known}):
            origin |= {"lost": lost}
        pending: list[dict[str, Value]] = [self.training[i].result["setting"] for i in sorted(self.training)]
        proposals: Trials = {}
        for index in indices:
            if index in self.trials and not self._is_stale(index):
                pending.append(self.trials[index].result["setting"])
                continue
            ask = functools.partial(self.searcher.ask, history, *([list(pending)] if pending else []))
            proposal = self.ask(index, ask, origin | ({"pending": len(pending)} if pending else {}))
            if index not in self.trials:
                proposals[index] = proposal
            pending.append(proposal.result["setting"])
        return proposals

    def ask(self, index: int, ask: Callable[[], dict[str, Value]], origin: JsonObject) -> records.Record:
        """The proposal of a trial: the one on disk, or a new one where there is none or it is stale.

        Args:
            index: number of the trial.
            ask: asks the searcher for a setting.
            origin: the provenance of a new proposal.
        """
        folder = layout.trial_dir(self.study, index)
        old, note = records.read_or_quarantine(folder / "ask.json")
        if note:
            self.display.say(note)
        if old is not None and not self._is_stale(index):
            return old
        proposal = records.Record("ask", {"index": index, "setting": ask()}, origin)
        if old is not None and old.result != proposal.result:
            if self.trials.pop(index, None) is not None:  # the record first: then the trial is missing in any case
                records.quarantine(layout.trial_path(self.study, index), "superseded")
            kept = records.quarantine(folder, "superseded")
            self.display.say(
                f"trial {index + 1} was proposed while another was lost, and is proposed again; see {kept}"
            )
        records.write_record(folder / "ask.json", proposal)
        return proposal

    def conclude(self, proposal: records.Record, answers: Sequence[Answer]) -> float:
        """Record a trial as finished or as lost, and return the seconds of compute that its folds took.

        Args:
            proposal: the trial's `ask.json`.
            answers: one per fold, in order.
        """
        index, setting = proposal.result["index"], proposal.result["setting"]
        path = layout.trial_dir(self.study, index) / "lost.json"
        if lost := [answer for answer in answers if isinstance(answer, LostUnit)]:
            self.lost[index] = lost_record(index, setting, [unit.to_json() for unit in lost])
            records.write_record(path, self.lost[index])
            self.display.finished(index, f"lost ({lost[0].unit}: {lost[0].reason})")
            return 0.0
        self.lost.pop(index, None)
        path.unlink(missing_ok=True)
        folds = [answer for answer in answers if isinstance(answer, FinishedUnit)]
        seconds = {key: sum(fold.provenance["seconds"][key] for fold in folds) for key in ("train", "evaluate")}
        warnings = [fold.provenance.get("warnings", []) for fold in folds]
        result = layout.trial_result(index, setting, [fold.result for fold in folds])
        origin = provenance(seconds=seconds, searcher=proposal.provenance, warnings=warnings)
        self.trials[index] = records.Record("trial", result, origin)
        records.write_record(layout.trial_path(self.study, index), self.trials[index])
        if result["map_at_r"] is not None:
            self.display.best_so_far(result["map_at_r"], index)
        self.display.finished(index, trial_line(result) + describe_warnings(warnings))
        return float(sum(seconds.values()))

    def choose(self) -> None:
        """Write `best.yaml`, and say what was found, where it lies and what to do next.

        Raises:
            UserError: no trial has a score.
            IncompleteError: no trial has a score, and some are lost.
        """
        trials = [self.trials[i] for i in sorted(self.trials)]
        if all(trial.result["map_at_r"] is None for trial in trials):
            if self.lost:
                raise self.incomplete()
            reasons = sorted({trial.result["reason"] for trial in trials})[:3]
            raise UserError(
                f"None of the {len(trials)} trials of {self.study.title} has a score ({'; '.join(reasons)}).\nThe "
                "training diverges everywhere: lower the learning rates (training.optimizers.trunk.lr=1e-4) or narrow "
                "the search space (loss.space.NAME.bounds=[LOW,HIGH]), and start another study with variant=NAME."
            )
        known = self.lost | self.trials
        best = self.searcher.best([layout.to_observation(known[i]) for i in sorted(known)])
        result, rule = self.trials[best].result, self.study.config.protocol.select
        choice = layout.Choice(best, result["setting"], result["map_at_r"], result["standard_error"], len(trials), rule)
        layout.write_choice(self.study, choice)
        for line in summary(self.study, choice, trials):
            self.display.say(line)

    def incomplete(self) -> IncompleteError:
        """The error that names the lost trials."""
        return self.session.incomplete({
            index: [LostUnit.from_json(unit) for unit in record.provenance["units"]]
            for index, record in self.lost.items()
        })  # fmt: skip

    def _is_stale(self, index: int) -> bool:
        return is_stale(layout.trial_dir(self.study, index) / "ask.json", self.trials)

    def _train_folds(self, jobs: Jobs, proposals: Trials) -> None:
        """Queue all folds of the proposed trials."""
        for index, proposal in proposals.items():
            for fold in range(self.study.config.protocol.num_folds):
                jobs.add(Unit(
                    study=self.study, fingerprint=self.session.fingerprint, kind="trial", index=index, fold=fold,
                    setting=proposal.result["setting"], directory=layout.trial_dir(self.study, index) / f"fold_{fold}",
                ))  # fmt: skip

    def _trained_trials(self, jobs: Jobs) -> Iterator[tuple[int, list[Answer]]]:
        """Yield each queued trial once all its folds are answered, with the answers in order of the folds."""
        trials: dict[int, dict[int | None, Answer]] = {}
        for unit, answer in self.session.answers(jobs):
            folds = trials.setdefault(unit.index, {})
            folds[unit.fold] = answer
            if len(folds) == self.study.config.protocol.num_folds:
                yield unit.index, [folds[fold] for fold in range(len(folds))]

    def _report_time(self, wall: float, compute: float, workers: int) -> None:
        """Append the seconds of this session to `sessions.jsonl`, and say which share of them was not training."""
        session = {"wall_seconds": wall, "compute_seconds": compute, "workers": workers}
        records.append_line(self.study.directory / "bo" / "sessions.jsonl", session)
        share = 1 - compute / (wall * workers)
        self.display.say(f"{human_time(wall)} on {workers} workers; {100 * share:.1f} % of it was not training")


def trial_line(result: JsonObject) -> str:
    """One line about a finished trial."""
    setting = " ".join(f"{name}={value:.4g}" for name, value in result["setting"].items())
    if result["map_at_r"] is None:
        return f"no score ({result['reason']})   {setting}"
    diverged = [
        f"{f['fold']} (score of epoch {f['best_epoch']}; {f['reason']})" for f in result["folds"] if f["reason"]
    ]
    marks = f"   diverged: fold {', '.join(diverged)}" if diverged else ""
    return f"MAP@R {100 * result['map_at_r']:.2f} +- {100 * result['standard_error']:.2f}   {setting}{marks}"


def summary(study: Study, choice: layout.Choice, trials: Sequence[records.Record]) -> Iterator[str]:
    """Yield the closing lines: the best setting, which parameters sit on a bound of their space, the next command."""
    hours = sum(sum(t.provenance["seconds"].values()) for t in trials) / 3600
    failed = sum(t.result["map_at_r"] is None for t in trials)
    yield f"\n{study.title}: {len(trials)} trials" + (f", {failed} without a score" if failed else "")
    yield (
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
        yield f"  {name} = {value:.6g}   in [{low:g}, {high:g}] {parameter.scale}{advice}"
    yield f"  records: {study.directory}/bo\nNext: {study.command('final-eval')}"


def position(parameter: Parameter, value: float) -> float:
    """Where in its range a value lies, on the parameter's own scale: 0 at the lower bound, 1 at the upper one.

    >>> position(Parameter((0.01, 1.0), scale="log"), 0.1)
    0.5
    """
    low, high = parameter.bounds
    if parameter.scale == "log":
        low, high, value = math.log(low), math.log(high), math.log(value)
    return (value - low) / (high - low)
