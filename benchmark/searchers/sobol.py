"""The control: a scrambled Sobol sequence that learns nothing from the history.

Source: Sobol', "On the distribution of points in a cube and the approximate evaluation of integrals", USSR Computational
Mathematics and Mathematical Physics 7(4), 1967; scrambling as in torch.quasirandom.SobolEngine.
"""

import math
from typing import Any

import torch

from benchmark.searchers import Parameter, Trial


class Sobol:
    """Point number `len(history)` of a fixed design.

    Args:
        space: parameters by name.
        seed: of the scrambling.
    """

    def __init__(self, space: dict[str, Parameter], seed: int) -> None:
        self._space, self._seed = space, seed

    def ask(self, history: list[Trial]) -> dict[str, Any]:
        """The next setting."""
        engine = torch.quasirandom.SobolEngine(len(self._space), scramble=True, seed=self._seed)
        point = engine.draw(len(history) + 1, dtype=torch.float64)[-1].tolist()
        return {name: place(p, u) for (name, p), u in zip(self._space.items(), point, strict=True)}

    def best(self, history: list[Trial]) -> int:
        """Index of the highest mean; of equal ones the first."""
        scored = [t for t in history if t.mean is not None]
        return max(scored, key=lambda t: (t.mean, -t.index)).index


def place(parameter: Parameter, u: float) -> float | int:
    """The value at position u in [0, 1) of a parameter's range, on its own scale; each integer gets an equal share."""
    low, high = parameter.bounds
    if parameter.type == "int":
        low, high = low - 0.5, high + 0.5
    if parameter.scale == "log":
        value = math.exp(math.log(low) + u * (math.log(high) - math.log(low)))
    else:
        value = low + u * (high - low)
    low, high = parameter.bounds
    return round(min(max(value, low), high)) if parameter.type == "int" else min(max(value, low), high)
