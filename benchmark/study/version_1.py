"""Version 1 of configurations and fold records: how to read them, and how to compute the identity of their studies.

Version 1 kept the numbers that HPL and XBM need for a data set in that data set's section, as `dataset.hpl` and
`dataset.xbm`, and called the traditional protocol's training "customary". Both are part of the identity of every study,
whatever its loss. Committed studies keep their identity, so `as_version_1` restores that layout before an identity is
verified, and `upgrade` turns a stored configuration of version 1 into today's layout. Nothing else may depend on this
module, and nothing in it may change: a new loss or data set needs no entry here.
"""

import copy
import json

from benchmark.core.errors import UserError
from benchmark.study.config import Config, Node

BLOCKS = ("hpl", "xbm")
# The values of version 1 for each data set; a data set that is not listed has the first ones.
HPL: Node = {
    "warmup_iterations": 300,
    "num_coarse": 10,
    "num_coarse_bounds": [2, 20],
    "update_every": 100,
    "update_every_bounds": [10, 200],
}
XBM: Node = {"start_iteration": 1000}
HPL_BY_DATASET: dict[str, Node] = {
    "cub": {"num_coarse": 20, "num_coarse_bounds": [2, 37]},
    "cars196": {"num_coarse": 20, "num_coarse_bounds": [2, 37]},
    "sop": {"num_coarse": 500, "num_coarse_bounds": [10, 1000]},
    "inshop": {"num_coarse": 500, "num_coarse_bounds": [10, 1000]},
    "inaturalist2019": {"num_coarse": 48, "num_coarse_bounds": [10, 246], "customary": {"num_coarse": 500}},
    "glyphs": {
        "warmup_iterations": 100, "num_coarse": 50, "num_coarse_bounds": [5, 200],
        "update_every": 20, "update_every_bounds": [10, 100],
    },
    "glyphs_small": {
        "warmup_iterations": 15, "num_coarse": 10, "num_coarse_bounds": [3, 40],
        "update_every": 5, "update_every_bounds": [2, 15],
    },
}  # fmt: skip
XBM_BY_DATASET = {"glyphs": {"start_iteration": 100}, "glyphs_small": {"start_iteration": 15}}
USER_DATASETS = ("manifest", "folder")  # modules whose data sets may have any name, even `cub`
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


def as_version_1(science: Node, config: Config) -> Node:
    """Convert what identifies a study to the layout of version 1, of which the stored identities are digests.

    Args:
        science: what identifies a study today, see `identity.science`; it is changed.
        config: the typed configuration.
    """
    science.pop("precision")
    science["searcher"]["module"].pop("failed", None)
    for key in ("orient", "background"):  # version 1 read all images as published ones are read
        science["dataset"].get("images", {}).pop(key, None)
    science["loss"] |= {"setting": config.loss.setting, "optimizer": config.loss.optimizer}  # whether read or not
    dataset, schedule = science["dataset"], config.loss.schedule
    blocks = config.dataset.version_1 or _blocks(dataset)
    for key, block in blocks.items():
        dataset[key] = block | {name: value for name, value in schedule.items() if name in block}
    if schedule.get("traditional"):
        dataset["hpl"]["customary"] = schedule["traditional"]
    del science["loss"]["schedule"]
    science["loss"].pop("base", None)
    if science["training"]["name"] == "traditional":
        science["training"]["name"] = "customary"
    science["protocol"]["num_runs"] = config.protocol.num_runs
    return science


def _blocks(dataset: Node) -> dict[str, Node]:
    """The blocks that version 1 had in the YAML of a data set."""
    module = str(dataset["module"].get("_target_")).split(".")[-2:-1]  # `cub` of `benchmark.datasets.cub.listing`
    (name,) = module or [""]
    if name not in USER_DATASETS and dataset["name"] in HPL_BY_DATASET:
        name = dataset["name"]  # glyphs and glyphs_small share a module
    return {"hpl": HPL | HPL_BY_DATASET.get(name, {}), "xbm": XBM | XBM_BY_DATASET.get(name, {})}


def record_defaults(has_best: bool) -> dict[str, bool | None]:
    """Fields that a fold record of schema 1 holds whatever its loss; a loss with `record_fields` replaces them.

    Args:
        has_best: whether the fold has a best epoch.
    """
    return {"best_epoch_in_warmup": False if has_best else None, "coarse_updates": None}
