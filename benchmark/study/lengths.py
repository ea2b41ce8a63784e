"""Lengths of the trainings on a frozen trunk, where they differ from those of fine-tuning.

The lengths in the file of a data set, and the schedules of losses, are for a trunk that is trained, for thousands of
iterations. A head on the features of a frozen trunk over-fits a hundred classes within a few hundred. So the file of a
data set with few classes, or of unknown size, may say what replaces its own lengths:

    frozen: {evaluate_every: 1, patience: 6, max_epochs: 200, iterations_per_epoch: 20}

A loss's schedule has under `frozen` what replaces its values on such data sets, so that each part of the loss starts
before the epoch that is scored. What the command line gives wins. The traditional protocol, which counts passes, keeps
the lengths of fine-tuning. All is applied once, when the command line is composed: a stored configuration has the
lengths that were used.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from benchmark.core.errors import UserError
from benchmark.core.invocation import key_of

KEY = "frozen"
HOLDERS = ("dataset", "loss.schedule")


def adapt(config: DictConfig, overrides: Sequence[str]) -> None:
    """Replace lengths of a data set and a loss by those for a frozen trunk, if it is, and remove what was not used.

    Args:
        config: what Hydra composed; it is changed.
        overrides: the overrides on the command line, whose values are kept.

    Raises:
        UserError: one of them is a value under `frozen`, which only files have.
    """
    given = {key_of(override) for override in overrides}
    for key in sorted(given):
        if key.startswith(tuple(f"{holder}.{KEY}." for holder in HOLDERS)):
            own = key.replace(f".{KEY}.", ".")
            raise UserError(f"{key} is read from files only. Give the value that it would replace: {own}=VALUE.")
    short = bool(OmegaConf.select(config, f"dataset.{KEY}"))
    frozen = bool(OmegaConf.select(config, "training.views"))
    applies = short and frozen and OmegaConf.select(config, "protocol.story") != "traditional"
    for holder in HOLDERS:
        node = OmegaConf.select(config, holder)
        if not isinstance(node, DictConfig):
            continue
        with open_dict(node):
            values = node.pop(KEY, {})
        if applies:
            for key, value in _leaves(values, f"{holder}."):
                if key not in given:
                    OmegaConf.update(config, key, value)


def _leaves(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, object]]:
    """The values of nested mappings, each with its dotted key."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
