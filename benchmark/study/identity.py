"""What a study is known by: the part of its configuration that can change a result."""

from pathlib import Path
from typing import Any

from benchmark.study.config import PLACES, Config

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
# Read where it is used: the data set takes the protocol's images, the training the loss's recipe.
TAKEN = {"dataset": ("trials", "recall_at"), "protocol": ("trials", "images", "story", "sop_cut"), "loss": ("recipe",)}
UNLESS_SET = {
    "dataset": ("images",),
    "trunk": ("crop",),
    "training": ("recipe", "batch_size", "epochs", "warmup_epochs", "clip", "decay"),
    "protocol": ("held_out",),
    "searcher": ("asynchronous",),
}


def science(plain: dict[str, Any], config: Config, fingerprint: str) -> dict[str, Any]:
    """The resolved configuration without bookkeeping, prose and what is switched off, and the data.

    Args:
        plain: the resolved configuration; it is changed.
        config: the same, typed.
        fingerprint: of the data.
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
    if isinstance(weights, str) and Path(weights).expanduser().is_file():  # a file is known by what it holds
        from benchmark.trunks import weights as files

        kept["trunk"]["module"]["weights"] = files.fingerprint(weights)
    kept["dataset"]["module"] = {k: v for k, v in kept["dataset"]["module"].items() if k not in PLACES}
    if config.protocol.loss_optimizer == "searched":
        del kept["loss"]["authors"]
    for name, parameter in kept["loss"]["space"].items():
        del parameter["datasets"]
        parameter["bounds"] = bounds(config, name)
    return kept | {"data": fingerprint}


def bounds(config: Config, name: str) -> list[float]:
    """Bounds of a searched hyper-parameter for the configuration's data set."""
    parameter = config.loss.space[name]
    return parameter.datasets.get(config.dataset.name, parameter.bounds)
