"""Build every loss of conf/loss as a study does, with the configuration that its file refers to."""

import copy
import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from benchmark.losses import HasAfterStep
from benchmark.study.instantiate import build as build_node

CONF = Path(__file__).parents[2] / "conf"
FOLDER = CONF / "loss"
UNTRAINED = ("none", "none_pca")
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem not in UNTRAINED)
CLASSES, DIM = 8, 6
DATASET = {"name": "toys"}
SCHEDULE = {"start_iteration": 2, "warmup_iterations": 2, "num_coarse": 3, "num_coarse_bounds": [2, 4],
            "update_every": 2, "update_every_bounds": [1, 4]}  # fmt: skip
OFFERED = {
    "num_classes": CLASSES,
    "embedding_dim": DIM,
    "seed": 5,
    "class_to_super": np.array([4, 4, 2, 2, 9, 9, 9, 4]),
    "true_groups": np.array([4, 4, 2, 2, 9, 9, 9, 4]),
    "num_images": 40,
}
TOY_SIZES = {"num_hierarchy_proxies": 32, "triplets_per_anchor": 4}  # smaller values, to save run time
every_loss = pytest.mark.parametrize("name", NAMES)


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


def toy_batch(seed=0):
    """Return features (12, 6) with norms from 1e-3 to 1e3, two of them equal, and labels (12,) of 4 classes."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(12, DIM, generator=generator) * torch.logspace(-3, 3, 12)[:, None]
    features[4] = features[0]
    return features, torch.tensor([0, 1, 2, 3] * 3)


def after_step(module):
    if isinstance(module, HasAfterStep):
        module.after_step()


def optimizer_of(module, node):
    """Return RMSprop over the loss's parameters, None if there are none."""
    parameters = list(module.parameters())
    return torch.optim.RMSprop(parameters, lr=node["optimizer"]["lr"]) if parameters else None


def train(module, node, steps, optimizer=None, first=0):
    """Train the loss's parameters by RMSprop, check that all values are finite, and return the loss of every step.

    `first` is the number of the first step, on which its batch depends.
    """
    parameters, head = list(module.parameters()), embedder(node)
    optimizer = optimizer or optimizer_of(module, node)
    losses = []
    for step in range(first, first + steps):
        features, labels = toy_batch(step)
        loss = module(head(features.requires_grad_()), labels)
        for parameter in parameters:
            parameter.grad = None
        if loss.requires_grad:
            loss.backward()
        if optimizer:
            optimizer.step()
        after_step(module)
        assert loss.isfinite(), f"step {step}"
        assert features.grad is None or features.grad.isfinite().all(), f"step {step}"
        assert all(p.isfinite().all() for p in parameters), f"step {step}"
        losses.append(loss.item())
    return losses
