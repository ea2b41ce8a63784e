"""What proposes settings. A searcher's `ask(history)` is a pure function of its space, its seed and the history."""

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Parameter:
    """One searched hyper-parameter.

    Attributes:
        bounds: lowest and highest value, both allowed.
        scale: on which the searcher sees it.
        type: of the proposed value.
    """

    bounds: tuple[float, float]
    scale: Literal["linear", "log"]
    type: Literal["float", "int"]


@dataclass(frozen=True)
class Trial:
    """A finished trial as a searcher is told of it.

    Attributes:
        index: from 0, in the order of asking.
        parameters: the setting.
        mean: score to be maximised; None if the trial failed.
        sem: standard error between folds; None if the trial failed.
    """

    index: int
    parameters: dict[str, Any]
    mean: float | None
    sem: float | None
