"""What HPL's constructor refuses, and how it reads the groups that it is given. A part of `hpl.py`, which cites."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmark.losses.clustering import CLUSTER_SPACES, EMPTY, METHODS
from benchmark.losses.proxies import INITS

Groups = Tensor | np.ndarray | Sequence[int]

CHOICES = {
    "proxy_init": INITS,
    "coarse_update": ("centroid", "tied", "gradient"),
    "clustering": METHODS,
    "cluster_space": CLUSTER_SPACES,
    "empty": EMPTY,
}
LEAST = {"warmup_iterations": 0, "update_every": 1, "kmeans_restarts": 1, "centres_per_class": 1}


def check_choices(**given: str) -> None:
    """Raise a ValueError unless every option is one of its `CHOICES`."""
    for name, value in given.items():
        if value not in CHOICES[name]:
            raise ValueError(f"{name}={value!r} of HPL must be one of {', '.join(CHOICES[name])}.")


def check_whole(**given: int) -> None:
    """Raise a ValueError unless every number is whole and not below its `LEAST`."""
    for name, value in given.items():
        if value < LEAST[name] or value != int(value):
            raise ValueError(f"{name}={value} of HPL must be a whole number of at least {LEAST[name]}.")


def renumbered(name: str, groups: Groups | None, num_classes: int) -> Tensor | None:
    """Groups (C,) of the classes as 0..n-1: a fold need not have a class of every group. None stays None.

    Raises:
        ValueError: there is not one integer per class.
    """
    if groups is None:
        return None
    found = torch.as_tensor(np.asarray(groups))
    if found.shape != (num_classes,) or found.is_floating_point():
        raise ValueError(
            f"{name} of HPL has shape {tuple(found.shape)} and type {found.dtype}; it must hold one integer"
            f" for each of the {num_classes} classes."
        )
    return found.unique(return_inverse=True)[1]


def level_sizes(num_classes: int, num_coarse: int | Sequence[int] | None, groups: Tensor | None) -> list[int]:
    """Number of proxies of every level, fine to coarse.

    Raises:
        ValueError: a level is not smaller than the one under it, or groups are both given and asked for.
    """
    if groups is not None and num_coarse is not None:
        raise ValueError(f"num_coarse={num_coarse} of HPL must be left out where class_to_super gives the groups.")
    if groups is not None:
        return [num_classes, int(groups.max()) + 1]
    sizes = [num_classes]
    for size in [] if num_coarse is None else num_coarse if isinstance(num_coarse, Sequence) else [num_coarse]:
        if not 1 <= size < sizes[-1] or size != int(size):
            raise ValueError(
                f"num_coarse={size} on level {len(sizes)} of HPL must be a whole number of at least 1 and below"
                f" {sizes[-1]}, the proxies of the level under it; set loss.setting.num_coarse accordingly."
            )
        sizes.append(int(size))
    return sizes


@torch.no_grad()
def check_levels(
    base: Callable[..., Tensor],
    levels: Sequence[Mapping[str, Any]],
    weights: Sequence[float],
    proxies: Sequence[Tensor],
) -> None:
    """Try the base once on the proxies of every level: it refuses here what it would refuse in the midst of a training.

    Raises:
        ValueError: it does, the weights are out of range, or there is not one of each per level.
    """
    sizes = [len(vectors) for vectors in proxies]
    if not len(levels) == len(weights) == len(sizes):
        raise ValueError(
            f"HPL has {len(sizes)} levels with {', '.join(map(str, sizes))} proxies, but settings for {len(levels)} and"
            f" {len(weights)} weights; give one of each per level."
        )
    if not (all(w >= 0 and math.isfinite(w) for w in weights) and weights[0] > 0):
        raise ValueError(f"weights={list(weights)} of HPL must be finite and at least 0, the first one above 0.")
    one, label = torch.ones(1, proxies[0].shape[-1]), torch.zeros(1, dtype=torch.long)
    for level, (settings, vectors) in enumerate(zip(levels, proxies, strict=True)):
        try:
            base(one, label, vectors, **settings)
        except (TypeError, ValueError, RuntimeError) as error:  # torch's own complaint about a shape is the last one
            what = f"{len(vectors)} proxies in {tuple(vectors.shape)}, settings {dict(settings)}"
            raise ValueError(f"Level {level} of HPL, {what}: {error}") from error
