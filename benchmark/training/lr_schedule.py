"""Learning-rate schedules: the factor on all learning rates in an epoch, a pure function of the epoch.

Source: torch.optim.lr_scheduler's StepLR, MultiStepLR and CosineAnnealingLR (Loshchilov, Hutter, "SGDR", ICLR 2017,
arXiv 1608.03983, Eq. 5 without restarts), advanced once after each epoch, as the papers' scripts do. A function of the
epoch has no state, so resuming needs none.
"""

import math

from benchmark.core.errors import UserError
from benchmark.core.records import JsonObject

KINDS = {"step": {"every", "factor"}, "milestones": {"epochs", "factor"}, "cosine": set[str]()}
SKIP = "skip"  # optional with every kind


def learning_rate_factor(decay: JsonObject, epoch: int, num_epochs: int) -> float:
    """The factor on all learning rates in an epoch.

    >>> [learning_rate_factor({"kind": "step", "every": 2, "factor": 0.5}, epoch, 5) for epoch in (1, 2, 3, 4, 5)]
    [1.0, 1.0, 0.5, 0.5, 0.25]

    Args:
        decay: empty for constant rates; else `kind` with its settings: step (multiply by `factor` every `every`
            epochs), milestones (multiply by `factor` after each of `epochs`), cosine (down to 0 over all epochs).
            `skip` epochs at the start, such as a warm-up, come before the schedule, whose epochs they do not count as.
        epoch: counts from 1.
        num_epochs: epochs in the whole training.

    Raises:
        UserError: the kind is unknown or has other settings.
    """
    if not decay:
        return 1.0
    kind, settings = decay.get("kind"), {key: value for key, value in decay.items() if key not in ("kind", SKIP)}
    if kind not in KINDS or set(settings) != KINDS[kind]:
        allowed = "; ".join(f"kind: {name}" + "".join(f", {key}" for key in sorted(KINDS[name])) for name in KINDS)
        raise UserError(f"training.decay={decay}: allowed are {allowed}; and with each, {SKIP}.")
    skipped = decay.get(SKIP, 0)
    num_finished, num_epochs = max(0, epoch - 1 - skipped), max(1, num_epochs - skipped)
    if kind == "cosine":
        return (1 + math.cos(math.pi * num_finished / num_epochs)) / 2
    if kind == "step":
        num_drops: int = num_finished // settings["every"]
    else:
        num_drops = sum(num_finished >= milestone for milestone in settings["epochs"])
    factor: float = float(settings["factor"]) ** num_drops
    return factor
