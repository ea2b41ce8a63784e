"""How far two rankings of the losses agree: between budgets, repeated searches, seeds or runs.

Source: Kendall, "A New Measure of Rank Correlation", Biometrika 30, 1938; tau-b, which allows for ties, is Kendall,
"The Treatment of Ties in Ranking Problems", Biometrika 33, 1945. Of two losses drawn at random, both rankings have the
same one ahead with probability (1 + tau) / 2.
"""

import itertools
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmark.core.errors import UserError
from benchmark.protocol.best_so_far import best_in_order
from benchmark.report.runs import read_runs
from benchmark.report.search_curves import read_search
from benchmark.study.stored import all_studies, is_study, read_study


@dataclass(frozen=True)
class Ranking:
    """The scores of several losses from one search of each.

    Attributes:
        folder: folder of the studies.
        search: number of the search, 0 unless searches were repeated.
        runs: score of each run in percent by its number, for each loss.
        searched: best validation MAP@R so far in percent after each trial, for each loss that was searched.
        remarks: sentences about studies without scores, or with those of an unfinished search or of too few runs.
    """

    folder: Path
    search: int
    runs: dict[str, dict[int, float]] = field(default_factory=dict)
    searched: dict[str, list[float | None]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The folder, and the number of a repeated search."""
        return f"{self.folder}" + (f", search {self.search}" if self.search else "")

    def means(self) -> dict[str, float]:
        """The mean score of each loss over its runs."""
        return {loss: statistics.fmean(runs.values()) for loss, runs in self.runs.items()}

    def between_runs(self) -> float | None:
        """Mean tau between rankings by single runs of equal number; None with fewer than two runs or two losses.

        Ranked are the losses that were searched, as by `validation`, or all if none was.
        """
        compared = {loss: runs for loss, runs in self.runs.items() if loss in self.searched} or self.runs
        numbers = sorted({number for runs in compared.values() for number in runs})
        single = [{loss: runs[n] for loss, runs in compared.items() if n in runs} for n in numbers]
        found = [kendall_tau(one, two) for one, two in itertools.combinations(single, 2)]
        known = [tau for tau in found if tau is not None]
        return statistics.fmean(known) if known else None

    def validation(self, num_trials: int | None = None) -> dict[str, float]:
        """The best validation score of each searched loss.

        Args:
            num_trials: how many of its trials, from the first on, are considered; None for all.
        """
        best = {loss: scores[:num_trials][-1] for loss, scores in self.searched.items()}
        return {loss: score for loss, score in best.items() if score is not None}


def kendall_tau(first: Mapping[str, float], second: Mapping[str, float]) -> float | None:
    """Kendall's tau-b over the losses that both rankings have; None for fewer than two, or where all of one are tied.

    Args:
        first: score by loss.
        second: score by loss.

    >>> kendall_tau({"a": 3.0, "b": 2.0, "c": 1.0}, {"a": 9.0, "b": 7.0, "c": 8.0})
    0.3333333333333333
    """
    shared = [loss for loss in first if loss in second]
    signs = [
        (_sign(first[one] - first[two]), _sign(second[one] - second[two]))
        for one, two in itertools.combinations(shared, 2)
    ]
    untied = sum(a != 0 for a, _ in signs) * sum(b != 0 for _, b in signs)
    return sum(a * b for a, b in signs) / float(untied) ** 0.5 if untied else None


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def studies_in(folder: Path) -> list[Path]:
    """The studies directly in a folder, or those of a results folder below `studies`; none if it is itself a study."""
    if is_study(folder):
        return []
    return [path for path in sorted(folder.glob("*")) if is_study(path)] or all_studies(folder)


def read_rankings(folder: Path, column: str) -> list[Ranking]:
    """The rankings in a folder of studies, one for each number of a search.

    Args:
        folder: holds the studies of the losses, see `studies_in`.
        column: the score, such as `concatenated.map_at_r`.

    Raises:
        UserError: no study in it has such a score, or two studies are of the same loss and search.
    """
    found: dict[int, Ranking] = {}
    places: dict[tuple[str, int], Path] = {}
    for path in studies_in(folder):
        stored = read_study(path)
        ranking = found.setdefault(stored.facts.search, Ranking(folder, stored.facts.search))
        try:
            runs = read_runs(path)
        except UserError as error:
            ranking.remarks.append(f"{path.name} is left out: {error}")
            continue
        if not (values := runs.values(column)):
            ranking.remarks.append(f"{path.name} is left out: none of its runs has {column}.")
            continue
        loss = " ".join(filter(None, (stored.facts.loss, stored.facts.preset, stored.facts.variant)))
        if (other := places.setdefault((loss, stored.facts.search), path)) != path:
            raise UserError(
                f"{other} and {path} are both of {loss}: give folders with one study of each loss, such as "
                f"{other.parent}."
            )
        few = f"it has {len(values)} of {stored.num_runs} runs" * (len(values) < stored.num_runs)
        if why := "; ".join(filter(None, (few, runs.not_shown))):
            ranking.remarks.append(f"{path.name} is ranked, but tables do not show it: {why}")
        ranking.runs[loss] = values
        if search := read_search(path):
            ranking.searched[loss] = best_in_order(search.scores[stored.facts.search])
    known = [ranking for _, ranking in sorted(found.items()) if ranking.runs]
    if not known:
        reasons = "".join(f" {reason}" for ranking in found.values() for reason in ranking.remarks)
        raise UserError(f"{folder} holds no study with scores in {column}.{reasons}")
    return _without_common_words(known)


def _without_common_words(rankings: list[Ranking]) -> list[Ranking]:
    """Rankings without the preset and variant that all their rows have, so that other folders share the names."""
    words = [name.split(" ")[1:] for ranking in rankings for name in ranking.runs]
    common = sum(1 for _ in itertools.takewhile(lambda each: len(set(each)) == 1, zip(*words, strict=False)))

    def short(found: dict[str, Any]) -> dict[str, Any]:
        split = {name: name.split(" ") for name in found}
        return {" ".join([loss, *more[common:]]): found[name] for name, (loss, *more) in split.items()}

    return [replace(ranking, runs=short(ranking.runs), searched=short(ranking.searched)) for ranking in rankings]
