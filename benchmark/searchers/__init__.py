"""Searchers: they propose the next setting, and choose a trial at the end.

A searcher keeps no state: a proposal is a pure function of the search space, the seed and the history, which is read
from the records of the finished trials. A restarted search therefore resumes as if it had never stopped, and anyone can
recompute a proposal.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal, Protocol

from benchmark.core.errors import UserError

Value = float | int
Scale = Literal["linear", "log"]
Kind = Literal["float", "int"]
Rule = Literal["raw", "model", "tested"]  # how a trial is chosen, see `Ax`
Setting = dict[str, Value]  # values of the searched hyper-parameters by name


@dataclass(frozen=True)
class Parameter:
    """One searched hyper-parameter: a range of numbers.

    Attributes:
        bounds: lowest and highest value, both inclusive; whole numbers if the type is "int".
        scale: "linear", or "log", which searches logarithms and needs positive bounds.
        type: whether proposed values are "float" or "int".

    Raises:
        UserError: the bounds are invalid, or scale or type is unknown.
    """

    bounds: tuple[float, float]
    scale: Scale = "linear"
    type: Kind = "float"

    def __post_init__(self) -> None:
        low, high = self.bounds
        if self.scale not in ("linear", "log") or self.type not in ("float", "int"):
            raise UserError(
                f'scale={self.scale!r} (allowed: "linear", "log") or type={self.type!r} (allowed: "float", "int") is '
                "unknown."
            )
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise UserError(f"bounds are {self.bounds}; allowed are two finite numbers, the lower one first.")
        if self.scale == "log" and low <= 0:
            raise UserError(f"bounds are {self.bounds}; on a log scale both must be positive.")
        if self.type == "int" and (low != int(low) or high != int(high)):
            raise UserError(f"bounds are {self.bounds}; those of an int must be whole numbers.")

    def cast(self, value: float) -> Value:
        """Convert a value to a plain number of the parameter's type, clipped to the bounds."""
        low, high = self.bounds
        clipped = min(max(float(value), float(low)), float(high))
        return round(clipped) if self.type == "int" else clipped

    def contains(self, value: float) -> bool:
        """Return whether a value is within the bounds and, for an int, a whole number."""
        low, high = self.bounds
        return low <= value <= high and (self.type == "float" or value == int(value))


@dataclass(frozen=True)
class Trial:
    """A finished trial in a searcher's history.

    Attributes:
        index: number of the trial in the order of proposal, from 0.
        parameters: the setting that was tried.
        mean: the score, to be maximised; an estimate if the trial was stopped after its first folds; None if it failed
            or is lost. A failure is never a number.
        sem: standard error of the mean over folds; None if unknown.
        folds: the scores of the folds; empty if one has none, or the trial was stopped.
        is_lost: whether it has no score because its worker or machine failed, which says nothing about its setting.

    Raises:
        ValueError: mean or sem is not finite.
    """

    index: int
    parameters: Setting
    mean: float | None
    sem: float | None = None
    is_lost: bool = False
    folds: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name, value in (("mean", self.mean), ("sem", self.sem)):
            if value is not None and not math.isfinite(value):
                raise ValueError(f"Trial {self.index} has {name}={value}; without a finite score its mean is None.")


class Searcher(Protocol):
    """Proposes settings and chooses a trial; it keeps no state, so a search resumes as if it had never stopped.

    It proposes no setting twice, so a search of a space with N settings ends after N trials (`num_settings`).

    The constructor takes `space`, the searched parameters by name, and `seed`, and raises `UserError` if it cannot use
    the space or an option. With `searcher.share_design`, it also takes `shared`, see `design_spaces`.
    """

    def ask(self, history: Sequence[Trial], pending: Sequence[Setting] = ()) -> Setting:
        """Propose the next setting, as a pure function of the arguments, the search space and the seed.

        Args:
            history: finished trials in the order of proposal.
            pending: settings that were proposed and have no result yet.

        Raises:
            UserError: the history belongs to another search space, or no setting is left to propose.
        """
        ...

    def best(self, history: Sequence[Trial]) -> int:
        """Choose a trial and return its index.

        Args:
            history: finished trials in the order of proposal.

        Raises:
            UserError: no trial has a score.
        """
        ...


def num_settings(space: dict[str, Parameter]) -> int | None:
    """Return the number of settings in a search space; None if it has a float and so has no end.

    >>> num_settings({"num_bins": Parameter((2, 32), type="int")})
    31
    """
    if any(parameter.type == "float" for parameter in space.values()):
        return None
    return math.prod(int(high) - int(low) + 1 for low, high in (parameter.bounds for parameter in space.values()))


def design_spaces(space: dict[str, Parameter], shared: Sequence[str]) -> list[dict[str, Parameter]]:
    """Return the spaces whose Sobol designs make up an initial design; a later one replaces values of the first.

    Without shared parameters, it is the space alone. Shared ones take the points of another search's design, that of a
    method's base, so that both try the same values of what they have in common: the last space consists of them in the
    other search's order, and has the other design if the seeds are equal. The first space begins with them too, so that
    the remaining parameters take the dimensions after those of the other design. Dimensions of a scrambled design are
    scrambled independently, so the joined points are one scrambled design. The first has a seed of its own.

    Args:
        space: searched parameters by name.
        shared: names of the shared parameters, in the order of the other search's space.

    Raises:
        UserError: a shared parameter is not in the space.
    """
    if not shared:
        return [space]
    if absent := [name for name in shared if name not in space]:
        raise UserError(
            f"{absent[0]} is not searched, so it cannot take the points of another design; the search space is "
            f"{', '.join(space)}. Give searcher.share_design=false."
        )
    other = {name: space[name] for name in shared}
    return [other | space, other] if len(other) < len(space) else [other]


def check_not_exhausted(space: dict[str, Parameter], settings: Sequence[Setting]) -> None:
    """Check that some setting of a search space has not been proposed.

    Args:
        space: searched parameters by name.
        settings: all proposed settings.

    Raises:
        UserError: all settings have been proposed.
    """
    tried = {tuple(parameter.cast(setting[name]) for name, parameter in space.items()) for setting in settings}
    if (all_of_them := num_settings(space)) is not None and len(tried) >= all_of_them:
        raise UserError(f"All {all_of_them} settings of the search space have been tried; request fewer trials.")


def best_by_mean(history: Sequence[Trial]) -> int:
    """Return the index of the trial with the highest mean; the first one in case of a tie.

    Args:
        history: finished trials in the order of proposal.

    Raises:
        UserError: no trial has a score.
    """
    scored = [trial for trial in history if trial.mean is not None]
    if not scored:
        raise UserError(f"None of the {len(history)} trials has a score, so none can be chosen; see their reasons.")
    return max(scored, key=lambda trial: (trial.mean, -trial.index)).index


LEVEL = 0.05  # of the test in `best_or_default`


def best_or_default(history: Sequence[Trial]) -> int:
    """Return the index of the trial with the highest mean, or 0, the default setting, unless that trial is better.

    It is better if a one-sided paired t-test over the folds says so at the level of 5 %. The best of many trials is
    partly so by luck; the default is not chosen for its score. After the one-standard-error rule of Breiman, Friedman,
    Olshen and Stone, "Classification and Regression Trees", 1984, section 3.4.3, which keeps the simplest model.
    Departures: the default in its place, a test, and differences on the same folds.

    Args:
        history: finished trials in the order of proposal; the first trial of the search is the default setting.

    Raises:
        UserError: no trial has a score.
    """
    best = best_by_mean(history)
    by_index = {trial.index: trial for trial in history}
    default = by_index.get(0)
    if default is None or not default.folds or best == 0:
        return best
    from scipy.stats import t

    gains = [one - other for one, other in zip(by_index[best].folds, default.folds, strict=True)]
    error = stdev(gains) / math.sqrt(len(gains))
    return best if fmean(gains) > t.ppf(1 - LEVEL, len(gains) - 1) * error else 0


BY_SCORES = {"raw": best_by_mean, "tested": best_or_default}  # the rules that need nothing but the scores


def check_history(history: Sequence[Trial], space: dict[str, Parameter]) -> None:
    """Check that a history holds trials of this search space in the order of proposal; some may be missing.

    Args:
        history: finished trials.
        space: searched parameters by name.

    Raises:
        UserError: a trial belongs to another search space; the message names it and its value.
        ValueError: the trials are out of order.
    """
    last = -1
    for trial in history:
        if trial.index <= last:
            raise ValueError(f"Trial {trial.index} comes after trial {last}; a history is in the order of proposal.")
        last = trial.index
        if set(trial.parameters) != set(space):
            names, expected = sorted(trial.parameters), sorted(space)
            raise UserError(
                f"Trial {trial.index} set {names}, but the search space is {expected}. Restore that search space, or "
                "start another study."
            )
        for name, value in trial.parameters.items():
            if not space[name].contains(value):
                raise UserError(
                    f"Trial {trial.index} set {name}={value}, which {space[name]} does not allow; the search space was "
                    "changed after the trial. Restore the old bounds, or start another study."
                )
