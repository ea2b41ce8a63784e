"""Build every loss of conf/loss as a study does, with the configuration that its file refers to."""

import copy
import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from benchmark.losses import contract
from benchmark.losses.contract import DIM, NUM_IMAGES, SCHEDULE, SUPERS, after_step, toy_batch
from benchmark.losses.contract import NUM_CLASSES as CLASSES
from benchmark.study.instantiate import build as build_node
from tests.cases import slow_except

CONF = Path(__file__).parents[2] / "conf"
FOLDER = CONF / "loss"
UNTRAINED = ("none", "none_pca")
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem not in UNTRAINED)
__all__ = ["CLASSES", "DIM", "after_step", "toy_batch"]  # which other tests take from here
DATASET = {"name": "toys"}
OFFERED = {
    "num_classes": CLASSES,
    "embedding_dim": DIM,
    "seed": 5,
    "class_to_super": np.array(SUPERS),
    "true_groups": np.array(SUPERS),
    "num_images": NUM_IMAGES,
}
TOY_SIZES = {"num_hierarchy_proxies": 32, "triplets_per_anchor": 4}  # smaller values, to save run time
# One loss of each kind: of pairs and ranks, with a memory, with proxies, with a graph or tree of them, and on a base.
FAST = ("contrastive", "ms", "smooth_ap", "xbm", "proxy_anchor", "soft_triple", "hist", "hier", "proxygml", "hpl_nca",
        "hpl_cosface", "anti_collapse_proxy_anchor")  # fmt: skip
every_loss = pytest.mark.parametrize("name", slow_except(FAST, NAMES))


@functools.cache
def load(path):
    return OmegaConf.load(path)


def config(name, folder=FOLDER, **setting):
    """Return the resolved YAML file of a loss as plain containers."""
    return copy.deepcopy(resolved(name, folder, **setting))


@functools.cache
def resolved(name, folder, **setting):
    loss = load(folder / f"{name}.yaml")
    protocol = {"embedding_dim": DIM, "batch_size": 12}
    whole = OmegaConf.create({"dataset": DATASET, "protocol": protocol, "loss": loss})
    if "defaults" in loss:
        whole.loss.schedule = SCHEDULE
        del whole.loss.defaults
    sizes = {key: size for key, size in TOY_SIZES.items() if key in loss.setting}
    for key, value in (sizes | setting).items():
        whole.loss.setting[key] = value
    return OmegaConf.to_container(whole, resolve=True)["loss"]


def build(name, folder=FOLDER, **setting):
    """Build a loss, and return it with its resolved YAML file; torch's global generator is seeded."""
    node = config(name, folder, **setting)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return build_node(node["module"], "loss", **{key: OFFERED[key] for key in node["needs"]}), node


def embedder(node):
    """Return the head that the loss requires for features (B, 6), or the identity."""
    asked = node.get("head", {})
    if not asked:
        return torch.nn.Identity()
    linear = {"_target_": "benchmark.heads.linear.Linear"}
    with torch.random.fork_rng():
        torch.manual_seed(6)
        return build_node(linear | asked, "head", in_features=DIM, embedding_dim=DIM)


def subject(name):
    """The loss as the contract's checks take it."""
    node = build(name)[1]
    return contract.Subject(lambda: build(name)[0], embedder(node), (node["optimizer"] or {}).get("lr"))


def optimizer_of(module, node):
    """Return RMSprop over the loss's parameters, None if there are none."""
    return contract.optimizer_of(module, (node["optimizer"] or {}).get("lr"))


def train(module, node, steps, optimizer=None, first=0):
    """Train the loss's parameters by RMSprop, check that all values are finite, and return the loss of every step.

    `first` is the number of the first step, on which its batch depends.
    """
    return contract.train(module, embedder(node), steps, optimizer or optimizer_of(module, node), first)
