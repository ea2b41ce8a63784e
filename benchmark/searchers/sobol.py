"""The baseline: a scrambled Sobol design, which ignores the scores of the trials.

Source: Sobol', "On the distribution of points in a cube and the approximate evaluation of integrals", USSR
Computational Mathematics and Mathematical Physics 7(4), 1967. Scrambled as in Owen, "Randomly permuted (t, m, s)-nets
and (t, s)-sequences", 1995, by `torch.quasirandom.SobolEngine`.
"""

import itertools
import math
from collections.abc import Iterator, Sequence

import torch

from benchmark.core.errors import UserError
from benchmark.protocol.seeds import stable_seed
from benchmark.searchers import (
    Parameter,
    Setting,
    Trial,
    Value,
    best_by_mean,
    check_history,
    check_not_exhausted,
    design_spaces,
    num_settings,
)


class Sobol:
    """Proposes the next point of a design determined by the seed: number `len(history) + len(pending)`.

    If all parameters are whole numbers, points of the design can be equal; each is proposed only once.

    Args:
        space: searched parameters by name.
        seed: seed of the scrambling.
        shared: parameters of the space that take the points of another search's design, in the order of its space; see
            `searchers.design_spaces`.

    Raises:
        UserError: the space is empty, or a shared parameter is not in it.
    """

    def __init__(self, space: dict[str, Parameter], seed: int, shared: Sequence[str] = ()) -> None:
        if not space:
            raise UserError("The search space is empty; name at least one parameter in the loss's `space`.")
        self._space, self._seed, self._designs = space, seed, design_spaces(space, shared)

    def ask(self, history: Sequence[Trial], pending: Sequence[Setting] = ()) -> Setting:
        """Propose the next setting; scores in the history are ignored.

        Args:
            history: finished trials in the order of proposal.
            pending: settings that were proposed and have no result yet.

        Raises:
            UserError: the history belongs to another search space, or every setting of it has been tried.
        """
        check_history(history, self._space)
        tried = [*(trial.parameters for trial in history), *pending]
        check_not_exhausted(self._space, tried)
        points = self._points()
        if num_settings(self._space) is None:
            return next(itertools.islice(points, len(tried), None))
        distinct: list[Setting] = []
        while len(distinct) <= len(tried):
            if (setting := next(points)) not in distinct:
                distinct.append(setting)
        return distinct[-1]

    def _points(self) -> Iterator[Setting]:
        """Yield the points of the design."""
        seeds = [stable_seed("own design", self._seed), self._seed][-len(self._designs) :]
        engines = [torch.quasirandom.SobolEngine(len(space), scramble=True, seed=seed)
                   for space, seed in zip(self._designs, seeds, strict=True)]  # fmt: skip
        while True:
            point: Setting = {}
            for space, engine in zip(self._designs, engines, strict=True):
                values = engine.draw(1, dtype=torch.float64)[0].tolist()
                point |= {name: value_at(p, u) for (name, p), u in zip(space.items(), values, strict=True)}
            yield {name: point[name] for name in self._space}

    def best(self, history: Sequence[Trial]) -> int:
        """Return the index of the trial with the highest mean; the first one in case of a tie.

        Raises:
            UserError: no trial has a score.
        """
        return best_by_mean(history)


def value_at(parameter: Parameter, u: float) -> Value:
    """Return the value at the fraction u in [0, 1] of a parameter's range, on its scale.

    An integer n stands for [n - 0.5, n + 0.5], so that the bounds are not sampled less often than the integers between
    them.

    >>> value_at(Parameter((0.0, 8.0)), 0.25), value_at(Parameter((1.0, 100.0), "log"), 0.0)
    (2.0, 1.0)
    >>> [value_at(Parameter((1, 3), type="int"), u) for u in (0.0, 0.32, 0.34, 0.99)]
    [1, 1, 2, 3]
    """
    low, high = parameter.bounds
    if parameter.type == "int":
        low, high = low - 0.5, high + 0.5
    if parameter.scale == "log":
        return parameter.cast(math.exp((1 - u) * math.log(low) + u * math.log(high)))
    return parameter.cast((1 - u) * low + u * high)
