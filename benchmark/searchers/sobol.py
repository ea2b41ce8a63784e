"""The control: a scrambled Sobol design that learns nothing from the trials.

Source: Sobol', "On the distribution of points in a cube and the approximate evaluation of integrals", USSR
Computational Mathematics and Mathematical Physics 7(4), 1967. Scrambled as in Owen, "Randomly permuted (t, m, s)-nets
and (t, s)-sequences", 1995, by `torch.quasirandom.SobolEngine`.
"""

import math
from collections.abc import Sequence

import torch

from benchmark.searchers import Parameter, Trial, Value, best_by_mean, check_history


class Sobol:
    """Proposes point number `len(history) + len(pending)` of a design that the seed fixes.

    Args:
        space: searched parameters by name.
        seed: of the scrambling.

    Raises:
        ValueError: for an empty space.
    """

    def __init__(self, space: dict[str, Parameter], seed: int) -> None:
        if not space:
            raise ValueError("The search space is empty; name at least one parameter in the loss's `space`.")
        self._space, self._seed = space, seed

    def ask(self, history: Sequence[Trial], pending: Sequence[dict[str, Value]] = ()) -> dict[str, Value]:
        """The next setting; scores in the history change nothing.

        Args:
            history: finished trials, in the order of their index.
            pending: settings that were proposed and have no score yet.

        Raises:
            ValueError: for a history of another space.
        """
        check_history(history, self._space)
        engine = torch.quasirandom.SobolEngine(len(self._space), scramble=True, seed=self._seed)
        point = engine.draw(len(history) + len(pending) + 1, dtype=torch.float64)[-1].tolist()
        return {name: place(p, u) for (name, p), u in zip(self._space.items(), point, strict=True)}

    def best(self, history: Sequence[Trial]) -> int:
        """Index of the trial with the highest mean; of equal ones the first.

        Raises:
            ValueError: no trial has a score.
        """
        return best_by_mean(history)


def place(parameter: Parameter, u: float) -> Value:
    """The value at u in [0, 1] of a parameter's range, on its scale.

    Each integer owns the range half a step around it, so that the outer ones get a share like the others.

    >>> place(Parameter((0.0, 8.0)), 0.25), place(Parameter((1.0, 100.0), "log"), 0.0)
    (2.0, 1.0)
    >>> [place(Parameter((1, 3), type="int"), u) for u in (0.0, 0.32, 0.34, 0.99)]
    [1, 1, 2, 3]
    """
    low, high = parameter.bounds
    if parameter.type == "int":
        low, high = low - 0.5, high + 0.5
    if parameter.scale == "log":
        return parameter.cast(math.exp((1 - u) * math.log(low) + u * math.log(high)))
    return parameter.cast((1 - u) * low + u * high)
