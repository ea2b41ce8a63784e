"""What proposes settings: `ask(history, pending)` is a pure function of them, space and seed; `best(history)` an index.

A searcher keeps no state. The records of the finished trials are the truth; whatever a searcher knows it derives from
them, so that a search goes on after a restart as if it had never stopped, and anyone can recompute a proposal.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Value = float | int


@dataclass(frozen=True)
class Parameter:
    """One searched hyper-parameter: a range of numbers.

    Attributes:
        bounds: lowest and highest value, both allowed; whole numbers if the type is "int".
        scale: "log" gives every factor an equal share (both bounds positive), "linear" every step.
        type: of the proposed values.

    Raises:
        ValueError: for bounds that are no such range, or an unknown scale or type.
    """

    bounds: tuple[float, float]
    scale: Literal["linear", "log"] = "linear"
    type: Literal["float", "int"] = "float"

    def __post_init__(self) -> None:
        low, high = self.bounds
        if self.scale not in ("linear", "log") or self.type not in ("float", "int"):
            raise ValueError(f'scale={self.scale!r} ("linear", "log") or type={self.type!r} ("float", "int"): unknown.')
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"bounds are {self.bounds}; allowed are two finite numbers, the lower one first.")
        if self.scale == "log" and low <= 0:
            raise ValueError(f"bounds are {self.bounds}; on a log scale both must be positive.")
        if self.type == "int" and (low != int(low) or high != int(high)):
            raise ValueError(f"bounds are {self.bounds}; those of an int must be whole numbers.")

    def cast(self, value: float) -> Value:
        """The value as a plain number of the parameter's type, moved onto a bound if rounding left it outside."""
        low, high = self.bounds
        clipped = min(max(float(value), float(low)), float(high))
        return round(clipped) if self.type == "int" else clipped

    def contains(self, value: float) -> bool:
        """Whether a value may stand in a trial's record."""
        low, high = self.bounds
        return low <= value <= high and (self.type == "float" or value == int(value))


@dataclass(frozen=True)
class Trial:
    """A finished trial, as a searcher is told of it.

    Attributes:
        index: from 0, in the order of asking.
        parameters: the setting.
        mean: the score, to be maximised; None if the trial failed. A failure is never a number.
        sem: standard error of the mean between folds; None if unknown.

    Raises:
        ValueError: for a mean or sem that is not finite.
    """

    index: int
    parameters: dict[str, Value]
    mean: float | None
    sem: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("mean", self.mean), ("sem", self.sem)):
            if value is not None and not math.isfinite(value):
                raise ValueError(f"Trial {self.index} has {name}={value}; without a finite score its mean is None.")


class Searcher(Protocol):
    """Proposes settings; stateless, so a search goes on after a restart as if it had never stopped."""

    def ask(self, history: Sequence[Trial], pending: Sequence[dict[str, Value]] = ()) -> dict[str, Value]:
        """The next setting, a pure function of the arguments, the search space and the seed.

        Args:
            history: finished trials in the order of asking.
            pending: settings that are still in training.
        """
        ...

    def best(self, history: Sequence[Trial]) -> int:
        """Index of the trial to choose."""
        ...


def best_by_mean(history: Sequence[Trial]) -> int:
    """Index of the trial with the highest mean; of equal ones the first.

    Raises:
        ValueError: no trial has a score.
    """
    scored = [trial for trial in history if trial.mean is not None]
    if not scored:
        raise ValueError(f"None of the {len(history)} trials has a score, so none can be chosen; see their reasons.")
    return max(scored, key=lambda trial: (trial.mean, -trial.index)).index


def check_history(history: Sequence[Trial], space: dict[str, Parameter]) -> None:
    """Refuse a history that is not trials of this space in the order of asking; some may be missing.

    Raises:
        ValueError: naming the trial, and the value that does not belong.
    """
    last = -1
    for trial in history:
        if trial.index <= last:
            raise ValueError(f"Trial {trial.index} stands after trial {last}; a history is in the order of asking.")
        last = trial.index
        if set(trial.parameters) != set(space):
            names, expected = sorted(trial.parameters), sorted(space)
            raise ValueError(f"Trial {trial.index} set {names}, the search space is {expected}; start another study.")
        for name, value in trial.parameters.items():
            if not space[name].contains(value):
                raise ValueError(
                    f"Trial {trial.index} set {name}={value}, which {space[name]} does not allow; the search space was "
                    "changed after the trial. Restore the old bounds, or start another study."
                )
