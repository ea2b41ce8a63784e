"""Learning-rate schedules: what the rates of an epoch are multiplied by, a pure function of the epoch.

Source: torch.optim.lr_scheduler's StepLR, MultiStepLR and CosineAnnealingLR (Loshchilov, Hutter, "SGDR", ICLR 2017,
arXiv 1608.03983, Eq. 5 without restarts), advanced once after each epoch, as the papers' scripts do. A function of the
epoch has no state, so that a resumed training needs none.
"""

import math
from typing import Any

KINDS = {"step": {"every", "factor"}, "milestones": {"epochs", "factor"}, "cosine": set[str]()}


def learning_rate_factor(decay: dict[str, Any], epoch: int, num_epochs: int) -> float:
    """The factor of an epoch.

    >>> [learning_rate_factor({"kind": "step", "every": 2, "factor": 0.5}, epoch, 5) for epoch in (1, 2, 3, 4, 5)]
    [1.0, 1.0, 0.5, 0.5, 0.25]

    Args:
        decay: empty for constant rates; else `kind` and its numbers: step (`every` so many epochs, times `factor`),
            milestones (after each of these `epochs`, times `factor`), cosine (down to 0 over all epochs).
        epoch: counts from 1.
        num_epochs: of the whole training.

    Raises:
        ValueError: there is no such kind, or it has other numbers.
    """
    if not decay:
        return 1.0
    kind, numbers = decay.get("kind"), {key: value for key, value in decay.items() if key != "kind"}
    if kind not in KINDS or set(numbers) != KINDS[kind]:
        allowed = "; ".join(f"kind: {name}" + "".join(f", {key}" for key in sorted(KINDS[name])) for name in KINDS)
        raise ValueError(f"training.decay={decay}: allowed are {allowed}.")
    done = epoch - 1
    if kind == "cosine":
        return (1 + math.cos(math.pi * done / num_epochs)) / 2
    drops = done // numbers["every"] if kind == "step" else sum(done >= epoch for epoch in numbers["epochs"])
    return float(numbers["factor"]) ** drops
