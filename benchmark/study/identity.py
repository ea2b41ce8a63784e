"""The identity of a study: the part of its configuration that can change a result."""

from pathlib import Path

from benchmark.study.config import PLACES, Config, Node
from benchmark.study.version_1 import as_version_1

NOT_SCIENCE = (
    "trials",
    "results_dir",
    "executor",
    "display",
    "keep",
    "device",
    "variant",
    "preset",
    "decode",
    "image_threads",
    "unit",
)
PROSE = ("label", "description", "source", "presets", "licence", "sources", "by_hand")
# These are hashed where they are used, not where they are defined: the data set takes the protocol's images, and the
# training takes the loss's recipe.
TAKEN = {"dataset": ("trials", "recall_at"), "protocol": ("trials", "images", "story", "sop_cut"), "loss": ("recipe",)}
UNLESS_SET = {
    "dataset": ("images",),
    "trunk": ("crop",),
    "training": ("recipe", "batch_size", "epochs", "warmup_epochs", "clip", "decay"),
    "protocol": ("held_out",),
    "searcher": ("asynchronous",),
}


def science(plain: Node, config: Config, fingerprint: str) -> Node:
    """What identifies a study: its configuration without bookkeeping, prose and unused options, and its data.

    The result has the layout of version 1, so that studies keep the identity with which they started.

    Args:
        plain: the resolved configuration; it is changed.
        config: the typed configuration.
        fingerprint: identifies the data.
    """
    kept = {key: value for key, value in plain.items() if key not in NOT_SCIENCE}
    for group, value in kept.items():
        if isinstance(value, dict):
            absent = [key for key in UNLESS_SET.get(group, ()) if not value[key]]
            kept[group] = {k: v for k, v in value.items() if k not in (*PROSE, *TAKEN.get(group, ()), *absent)}
    if config.searcher.round == 1:
        del kept["searcher"]["round"]
    if config.protocol.story == "traditional":
        kept["dataset"]["recall_at"] = config.dataset.recall_at
    weights = kept["trunk"]["module"].get("weights")
    if isinstance(weights, str) and Path(weights).expanduser().is_file():  # identified by its content
        from benchmark.trunks import weights as files

        kept["trunk"]["module"]["weights"] = files.fingerprint(weights)
    kept["dataset"]["module"] = {k: v for k, v in kept["dataset"]["module"].items() if k not in PLACES}
    if config.protocol.loss_optimizer == "searched":
        del kept["loss"]["authors"]
    for name, parameter in kept["loss"]["space"].items():
        del parameter["datasets"]
        parameter["bounds"] = bounds(config, name)
    as_version_1(kept, config.loss.schedule)
    return kept | {"data": fingerprint}


def bounds(config: Config, name: str) -> list[float]:
    """Bounds of a searched hyper-parameter for the configuration's data set."""
    parameter = config.loss.space[name]
    found: list[float] = parameter.datasets.get(config.dataset.name, parameter.bounds)
    return found
