"""make bo: search the hyper-parameters of a loss by class-disjoint cross-validation.

Ask the searcher for a setting (or for `searcher.round` settings), train it on every fold, score it by the mean of the
folds' best validation MAP@R, record it, and repeat; at the end, choose the best. Nothing here can read a test class. If
the process is killed, the same command resumes from the records, and the final records equal those of an uninterrupted
run; `lost_trials` explains how this extends to trials that cannot be finished. A round is proposed from earlier rounds
only, so the order in which trials finish does not matter. With `searcher.stop_behind`, a trial that is clearly behind
the best trial of earlier rounds on its first folds is not trained on the others, see `protocol.racing`.
"""

if __name__ == "__main__":  # before the slow imports, so that a mistake is reported at once
    from benchmark.__main__ import main

    raise SystemExit(main("bo"))

import functools
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

from benchmark.core import records
from benchmark.core.console import write
from benchmark.core.errors import IncompleteError, UserError
from benchmark.core.provenance import costs_of, devices_of, provenance
from benchmark.core.records import JsonObject
from benchmark.core.wording import counted, human_time
from benchmark.jobs.placement import with_precision
from benchmark.jobs.queue import Jobs
from benchmark.jobs.session import Session, code_of_all, describe_warnings, run_each
from benchmark.jobs.train_unit import remove_leftovers, train_unit
from benchmark.jobs.unit import Answer, FinishedUnit, LostUnit, Unit
from benchmark.protocol.racing import estimate, stops_after
from benchmark.report.effort import AT_BOUND, position
from benchmark.report.forecast import forecast
from benchmark.searchers import Rule, Searcher, Value
from benchmark.study import contents, layout
from benchmark.study.lost_trials import MOST_IN_A_ROW, is_stale, lost_record, read_lost
from benchmark.study.preflight import check_parts, check_space
from benchmark.study.stored import read_study
from benchmark.study.study import Study
from benchmark.study.trial_score import trial_result

Trials = dict[int, records.Record]  # records of trials, or of their proposals, by index


def bo(study: Study, overrides: list[str]) -> None:
    """Search, and with `searches` repeat the search with other seeds, each time as a study of its own.

    Args:
        study: the study to search.
        overrides: unused; the study holds the configuration.

    Raises:
        UserError: the configuration or the data is invalid, or no trial has a score.
        IncompleteError: some trials are lost.
    """
    searches = with_precision(study).repetitions()
    run_each(searches, functools.partial(search_once, suggests=len(searches) == 1))
    if len(searches) > 1 and study.config.display != "quiet":
        best = [layout.choice_on_disk(one.directory, read_study(one.directory).expected) for one in searches]
        listed = ", ".join(f"{100 * one.validation_map_at_r:.2f}" for one in best if one)
        write(f"\n{study.title}: best validation MAP@R of its {len(searches)} searches: {listed}")
        write(f"Next: {study.command('final-eval')}")


def search_once(study: Study, suggests: bool = True) -> None:
    """Search until `trials` settings have been tried, then choose the best.

    Args:
        study: the study to search.
        suggests: whether to print the next command at the end.

    Raises:
        UserError: the configuration or the data is invalid, or no trial has a score.
        IncompleteError: some trials are lost.
    """
    session = Session(study, "bo", halves=("trainval",))
    if study.config.preset:
        raise UserError(
            f"preset={study.config.preset} is a fixed setting and needs no search. Run {study.command('final-eval')}"
        )
    check_space(study)  # needs no data
    # 1. prepare the data and check everything that can be checked before training
    with session:
        check_parts(study)

        # 2. read the finished trials from disk
        total = study.num_trials
        trials = session.open(total, lambda own: layout.read_trials(study.directory, own, total))
        search = Search(session, trials)

        # 3. propose, train, score and record the missing trials
        if search.is_unfinished():
            (study.directory / "bo" / "best.yaml").unlink(missing_ok=True)
            search.run()

        # 4. choose the best trial
        search.choose()
        if suggests:
            session.display.say(f"Next: {study.command('final-eval')}")
        if search.lost:
            raise search.incomplete()


class Search:
    """A search in progress.

    Args:
        session: the session that holds the study's lock.
        trials: records of the finished trials, by index.

    Attributes:
        trials: records of the finished trials, by index.
        lost: records of the lost trials, by index.
        training: proposals of the trials in training, by index.
        found: folders of folds of this session's trials that were trained before it.
        races: whether trials that are clearly behind are stopped.
    """

    def __init__(self, session: Session, trials: Trials) -> None:
        self.session, self.study, self.display = session, session.study, session.display
        self.directory = self.study.directory
        self.trials: Trials = trials
        opened = session.opened
        lost = read_lost(self.directory / "bo", opened.identity, trials)
        self.lost: Trials = {index: record for index, record in lost.items() if index < self.study.num_trials}
        self.training: Trials = {}
        self.found: set[Path] = set()
        self.searcher: Searcher = self.study.make_searcher()
        self.races = self.study.config.searcher.stop_behind is not None

    def is_unfinished(self) -> bool:
        """Whether a trial is missing, or was proposed while a trial was lost that has finished since."""
        return any(i not in self.trials or self._is_stale(i) for i in range(self.study.num_trials))

    def run(self) -> None:
        """Train the missing trials, round by round, with all folds of a round in parallel.

        With `searcher.asynchronous` there are no rounds: the next trial is proposed as soon as one finishes.

        Raises:
            IncompleteError: several trials in a row are lost.
        """
        started, compute, lost_in_a_row = time.perf_counter(), 0.0, 0
        total, config = self.study.num_trials, self.study.config.searcher
        step = 1 if config.asynchronous else config.round
        rounds = deque(range(first, min(first + step, total)) for first in range(0, total, step))
        if config.asynchronous:
            self.display.say(
                "searcher.asynchronous=true: a proposal depends on which trial finishes first, so this search cannot "
                "be reproduced. State this where you report it."
            )
        with self.session.jobs(train_unit, ["benchmark.jobs.train_unit"], self._most_units()) as jobs:
            left = sum(i not in self.trials for i in range(total)) * self.study.config.protocol.num_folds
            kind = self.session.device_kind
            self.display.say(
                forecast(self.study, self.session.fingerprint, left, jobs.num_workers, kind, at_most=self.races)
            )
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
        for index, trial in self.trials.items():  # a fold may have been in training when its trial was stopped
            for fold in range(len(trial.result["folds"]), self.study.config.protocol.num_folds):
                remove_leftovers(layout.trial_dir(self.directory, index) / f"fold_{fold}")

    def propose(self, indices: range) -> Trials:
        """Propose the missing trials of a round, and return the proposals.

        All proposals of a round use the same history, in which lost trials count as abandoned, and treat the earlier
        settings of the round as pending. A proposal is kept, even across restarts, unless it is stale; a trial whose
        proposal changes becomes missing again. In an asynchronous search, earlier trials that are still in training are
        pending too, and no proposal is ever stale, since such a search cannot be reproduced anyway.
        """
        known = [i for i in range(indices.start) if i not in self.training]
        history = [layout.to_observation((self.lost | self.trials)[i]) for i in known]
        origin: JsonObject = {
            "name": self.study.config.searcher.name, "seed": self.study.seed,
            "identity": self.session.opened.identity.study, "told": len(history),
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
        """Return a trial's proposal: the one on disk, or a new one if that is missing or stale.

        Args:
            index: number of the trial.
            ask: asks the searcher for a setting.
            origin: the provenance of a new proposal.
        """
        folder = layout.trial_dir(self.directory, index)
        old = self._old_proposal(index, folder / "ask.json")
        if old is not None and not self._is_stale(index):
            return old
        setting = ask()
        opened = self.session.opened
        identity = opened.identity.of("ask", index, setting, code=[opened.search_code]).to_json()
        proposal = records.Record("ask", {"index": index, "setting": setting}, origin, identity)
        changed = old is not None and old.result != proposal.result
        raced = old is not None and self.races  # perhaps with another leader
        if (changed or raced) and self.trials.pop(index, None) is not None:
            # The record first: after a kill, the trial is then missing.
            records.quarantine(layout.trial_path(self.directory, index), "superseded")
        if changed:
            kept = records.quarantine(folder, "superseded")
            self.display.say(
                f"trial {index + 1} was proposed while another trial was lost. Its folder is kept as {kept}; it is "
                "proposed again."
            )
        contents.write(folder / "ask.json", proposal, contents.Ask)
        return proposal

    def _old_proposal(self, index: int, path: Path) -> records.Record | None:
        """The proposal on disk, or None; one that is damaged or does not belong to this search is quarantined."""
        try:
            old = contents.read(path, contents.Ask)
            opened = self.session.opened
            expected = opened.identity.of("ask", index, old.result["setting"], code=opened.accepted_search_code)
            if difference := expected.mismatch(old.identity):
                raise records.ForeignFileError(f"{path} does not belong to this search: {difference}.")
        except FileNotFoundError:
            return None
        except records.CorruptFileError as error:
            kept = records.quarantine(path, error.why)
            self.display.say(f"{error} It is kept as {kept.name}; the trial is proposed again.")
            return None
        return old

    def conclude(self, proposal: records.Record, answers: Sequence[Answer]) -> float:
        """Record a trial as finished or lost, and return the compute time of the folds trained in this session.

        Args:
            proposal: the trial's `ask.json`.
            answers: one per fold, in order; of a trial that is stopped, those of the folds that it needed.
        """
        index, setting = proposal.result["index"], proposal.result["setting"]
        path = layout.trial_dir(self.directory, index) / "lost.json"
        if lost := [answer for answer in answers if isinstance(answer, LostUnit)]:
            opened = self.session.opened
            identity = opened.identity.of("lost", index, setting, code=[opened.code])
            self.lost[index] = lost_record(index, setting, [unit.to_json() for unit in lost], identity)
            contents.write(path, self.lost[index], contents.Lost)
            self.display.finished(index, f"lost ({lost[0].unit}: {lost[0].reason})")
            return 0.0
        self.lost.pop(index, None)
        path.unlink(missing_ok=True)
        folds = [answer for answer in answers if isinstance(answer, FinishedUnit)]
        seconds = {key: sum(fold.provenance["seconds"][key] for fold in folds) for key in ("train", "evaluate")}
        warnings = [fold.provenance.get("warnings", []) for fold in folds]
        result = trial_result(index, setting, [fold.result for fold in folds])
        if len(folds) < self.study.config.protocol.num_folds:
            result = stopped_result(result, cast(records.Record, self._leader(index)).result)
        devices = devices_of(fold.provenance for fold in folds)
        costs = costs_of(fold.provenance for fold in folds)
        origin = provenance(
            seconds=seconds, searcher=proposal.provenance, warnings=warnings, devices=devices, **costs
        )  # fmt: skip
        identity = self.session.opened.identity.of("trial", index, setting, code=code_of_all(folds))
        self.trials[index] = records.Record("trial", result, origin, identity.to_json())
        contents.write(layout.trial_path(self.directory, index), self.trials[index], contents.Trial)
        if result["map_at_r"] is not None:
            self.display.best_so_far(result["map_at_r"], index)
        self.session.concluded(index, result)
        self.display.finished(index, trial_line(result) + describe_warnings(warnings))
        folder = layout.trial_dir(self.directory, index)
        new = [fold for number, fold in enumerate(folds) if folder / f"fold_{number}" not in self.found]
        return float(sum(fold.provenance["seconds"][key] for fold in new for key in ("train", "evaluate")))

    def choose(self) -> None:
        """Write `best.yaml`, and print the result and where it is.

        Raises:
            UserError: no trial has a score, or records were deleted meanwhile.
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
        self.session.check_records(layout.trial_path(self.directory, i) for i in sorted(self.trials))
        known = [r for _, r in sorted((self.lost | self.trials).items()) if r.result["status"] != "stopped"]
        best = self.searcher.best([layout.to_observation(record) for record in known])
        result = self.trials[best].result
        choice = contents.Choice(
            trial=best, setting=result["setting"], validation_map_at_r=result["map_at_r"],
            standard_error=result["standard_error"], num_trials=len(trials), num_lost=len(self.lost),
            rule=cast(Rule, self.study.config.protocol.select), identity=self.session.opened.identity.study,
        )  # fmt: skip
        layout.write_choice(self.directory, choice)
        for line in summary(self.study, choice, trials):
            self.display.say(line)

    def incomplete(self) -> IncompleteError:
        """The error that names the lost trials."""
        return self.session.incomplete({
            index: [LostUnit.from_json(unit) for unit in record.provenance["units"]]
            for index, record in self.lost.items()
        })  # fmt: skip

    def _most_units(self) -> int:
        """How many folds can be trained at the same time: those of a round, as far as they are not trained yet.

        Trials that were proposed after a lost one may be proposed anew once it has finished, and then train all folds.
        """
        config, num_folds = self.study.config, self.study.config.protocol.num_folds
        after_lost = self.lost and max(self.trials, default=0) > min(self.lost)
        if after_lost or any(self._is_stale(i) for i in self.trials):
            return config.searcher.round * num_folds
        missing = [i for i in range(self.study.num_trials) if i not in self.trials]
        folders = [layout.trial_dir(self.directory, i) / f"fold_{fold}" for i in missing for fold in range(num_folds)]
        untrained = sum(not (folder / "record.json").exists() for folder in folders)
        return min(config.searcher.round * num_folds, untrained)

    def _is_stale(self, index: int) -> bool:
        return is_stale(layout.trial_dir(self.directory, index) / "ask.json", self.trials)

    def _train_folds(self, jobs: Jobs, proposals: Trials) -> None:
        """Queue all folds of the proposed trials."""
        for index, proposal in proposals.items():
            for fold in range(self.study.config.protocol.num_folds):
                unit = Unit(
                    **self.session.unit_fields(), kind="trial", index=index, fold=fold,
                    setting=proposal.result["setting"],
                    directory=layout.trial_dir(self.directory, index) / f"fold_{fold}",
                )  # fmt: skip
                if unit.has_record():
                    self.found.add(unit.directory)
                jobs.add(unit)

    def _trained_trials(self, jobs: Jobs) -> Iterator[tuple[int, list[Answer]]]:
        """Yield each queued trial with its answers in fold order, once all folds have one or it is stopped."""
        trials: dict[int, dict[int | None, Answer]] = {}
        for unit, answer in self.session.answers(jobs):
            folds = trials.setdefault(unit.index, {})
            folds[unit.fold] = answer
            if needed := self._stops_after(unit.index, folds):
                jobs.withdraw(unit.index)
            if needed or len(folds) == self.study.config.protocol.num_folds:
                yield unit.index, [folds[fold] for fold in range(needed or len(folds))]

    def _stops_after(self, index: int, folds: Mapping[int | None, Answer]) -> int | None:
        """After how many of its first folds a trial is clearly behind; None if it is not, as far as is known.

        Args:
            index: number of the trial.
            folds: the answers so far, by fold. Those behind a fold without an answer do not count yet, so that the
                order in which folds finish changes nothing.
        """
        points = self.study.config.searcher.stop_behind
        if points is None or (leader := self._leader(index)) is None:
            return None
        scores: list[float | None] = []
        while isinstance(answer := folds.get(len(scores)), FinishedUnit):
            scores.append(answer.result["map_at_r"])
        return stops_after(scores, [fold["map_at_r"] for fold in leader.result["folds"]], points / 100)

    def _leader(self, index: int) -> records.Record | None:
        """The best completed trial of the rounds before that of a trial; None if there is none."""
        config = self.study.config.searcher
        first = index if config.asynchronous else index - index % config.round
        earlier = [t for i, t in sorted(self.trials.items()) if i < first and t.result["status"] == "completed"]
        return max(earlier, key=lambda t: t.result["map_at_r"], default=None)

    def _report_time(self, wall: float, compute: float, workers: int) -> None:
        """Append this session's times to `sessions.jsonl`, and print the share that was not training."""
        session = {"wall_seconds": wall, "compute_seconds": compute, "workers": workers}
        records.append_line(self.directory / "bo" / "sessions.jsonl", session)
        # A fold that resumed from a checkpoint counts with its seconds before this session, which can exceed it.
        share = max(0.0, 1 - compute / (wall * workers))
        on = counted(workers, "worker")
        ahead = ", or training of folds that were not needed" * (self.races and workers > 1)
        self.display.say(f"{human_time(wall)} on {on}; {100 * share:.1f} % of the time was not training{ahead}")


def stopped_result(result: JsonObject, leader: JsonObject) -> JsonObject:
    """The result of a trial that was stopped: it has no score, and in its place an estimate for the searcher.

    Args:
        result: the result of its first folds, as if there were no others.
        leader: the result of the trial that it is behind.
    """
    scores, best = ([fold["map_at_r"] for fold in each["folds"]] for each in (result, leader))
    behind = statistics.fmean(best[: len(scores)]) - statistics.fmean(scores)
    mean, error = estimate(scores, best)
    return result | {
        "status": "stopped",
        "reason": f"behind trial {leader['index'] + 1} by {100 * behind:.1f} points of MAP@R after {len(scores)} of "
                  f"{counted(len(best), 'fold')}",
        "map_at_r": None,
        "standard_error": error,
        "estimate": mean,
    }  # fmt: skip


def trial_line(result: JsonObject) -> str:
    """Describe a finished trial in one line."""
    setting = " ".join(f"{name}={value:.4g}" for name, value in result["setting"].items())
    if result["status"] == "stopped":
        return f"stopped, {result['reason']}   {setting}"
    if result["map_at_r"] is None:
        return f"no score ({result['reason']})   {setting}"
    diverged = [
        f"{f['fold']} (score of epoch {f['best_epoch']}; {f['reason']})" for f in result["folds"] if f["reason"]
    ]
    marks = f"   diverged: fold {', '.join(diverged)}" if diverged else ""
    return f"MAP@R {100 * result['map_at_r']:.2f} +- {100 * result['standard_error']:.2f}   {setting}{marks}"


def summary(study: Study, choice: contents.Choice, trials: Sequence[records.Record]) -> Iterator[str]:
    """Yield the final lines: the best setting, the parameters on a bound of their space, and the folder of records."""
    hours = sum(sum(t.provenance["seconds"].values()) for t in trials) / 3600
    failed, stopped = (sum(t.result["status"] == status for t in trials) for status in ("failed", "stopped"))
    less = f", {failed} without a score" * (failed > 0) + f", {stopped} stopped after their first folds" * (stopped > 0)
    yield f"\n{study.title}: {counted(len(trials), 'trial')}{less}"
    yield (
        f"  best: trial {choice.trial + 1}, validation MAP@R {100 * choice.validation_map_at_r:.2f} +- "
        f"{100 * choice.standard_error:.2f} (standard error between folds), {hours:.2f} compute hours"
    )
    if choice.rule == "tested":
        highest = max(trials, key=lambda trial: trial.result["map_at_r"] or 0.0).result
        if highest["map_at_r"] > choice.validation_map_at_r:
            yield (
                f"  the default is kept: trial {highest['index'] + 1} has {100 * highest['map_at_r']:.2f}, which a "
                "paired t-test over the folds does not call better (protocol.select=tested)"
            )
    space = study.make_space()
    for name, value in choice.setting.items():
        parameter = space[name]
        low, high = parameter.bounds
        place = position((low, high), float(value), is_log=parameter.scale == "log")
        end = "lower" if place <= AT_BOUND else "upper" if place >= 1 - AT_BOUND else ""
        advice = f"   on its {end} bound: widen it (loss.space.{name}.bounds) and search again" if end else ""
        yield f"  {name} = {value:.6g}   in [{low:g}, {high:g}] {parameter.scale}{advice}"
    yield f"  records: {study.directory}/bo"
