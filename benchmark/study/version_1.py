"""Version 1 of configurations and fold records, and how to read them.

Version 1 kept the numbers that HPL and XBM need for a data set in that data set's section, as `dataset.hpl` and
`dataset.xbm`, and called the traditional protocol's training "customary". `upgrade` turns a stored configuration of
version 1 into today's layout. Nothing in this module may change: a new loss or data set needs no entry here.
"""

import copy
import json

from benchmark.core.errors import UserError
from benchmark.study.config import Node

BLOCKS = ("hpl", "xbm")  # keys of `dataset` in version 1
# Keys of `conf/loss/schedule` about the values, which version 1 did not write down.
ABOUT: dict[str, Node] = {
    "hpl": {"starts": ["warmup_iterations"], "counts": ["warmup_iterations", "update_every"]},
    "xbm": {"starts": ["start_iteration"]},
}


def upgrade(raw: Node) -> Node:
    """Convert a configuration of version 1 to today's layout; any other configuration is returned unchanged.

    The blocks of version 1 move to `loss.schedule` where the loss refers to them. They also stay in
    `dataset.version_1`, because the identity of a study contains both, whether its loss reads them or not.

    Args:
        raw: a composed or stored configuration; it is not changed.

    Raises:
        UserError: a data set has such a block, but the loss has a schedule of its own.
    """
    config = copy.deepcopy(raw)
    if config.get("training", {}).get("name") == "customary":
        config["training"]["name"] = "traditional"
    dataset, loss = config.get("dataset", {}), config.get("loss", {})
    old = {key: dataset.pop(key) for key in BLOCKS if key in dataset}
    if not old:
        return config
    if loss.get("schedule"):
        name = next(iter(old))
        raise UserError(
            f"dataset.{name}: a data set no longer holds the schedule of a loss. Move these values to "
            f"conf/loss/schedule/{name}/{dataset.get('name')}.yaml."
        )
    dataset["version_1"] = {"xbm": {}} | old  # the oldest configurations have no such block, and its default was empty
    text = json.dumps(loss)
    for key in (key for key in old if f"${{dataset.{key}." in text):
        text = text.replace(f"${{dataset.{key}.", "${loss.schedule.")
        values = {"traditional" if name == "customary" else name: value for name, value in old[key].items()}
        config["loss"] = json.loads(text) | {"schedule": values | ABOUT[key]}
    return config


def record_defaults(has_best: bool) -> dict[str, bool | None]:
    """Fields that a fold record of schema 1 holds whatever its loss; a loss with `record_fields` replaces them.

    Args:
        has_best: whether the fold has a best epoch.
    """
    return {"best_epoch_in_warmup": False if has_best else None, "coarse_updates": None}
