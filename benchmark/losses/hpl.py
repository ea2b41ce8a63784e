"""HPL: a proxy loss applied at every level of a hierarchy of proxies.

Source: Yang, Bastan, Zhu, Gray and Samaras, "Hierarchical Proxy-based Loss for Deep Metric Learning", WACV 2022,
arXiv 2103.13538, Eq. 6 and Algorithm 1. No official code exists. How this file reads what the paper leaves open:

- coarse proxies are centroids, buffers without gradient ("Update theta and P_0" in Algorithm 1);
  `coarse_update="tied"` lets the gradient through the mean instead;
- Section 4.2 trains three epochs with the fine level only; k-means comes right before the step after them, since it
  would otherwise cluster random vectors. Algorithm 1's counter k starts at 1 there;
- an update comes after the optimiser step of every k with k mod T = T-1;
- scale and margin belong to the level, weights are 1 and 0.1 (0.1 on any further level);
- given groups ("GT", Section 4.4) stay as they are, their centres move every T steps.
`clustering.py` lists what concerns the grouping itself.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from benchmark.losses.clustering import centroids, cluster_points, kmeans, update_hierarchy

CHOICES = {
    "proxy_init": ("normal", "kaiming_fan_out"),
    "coarse_update": ("centroid", "tied"),
    "cluster_space": ("normalized", "raw"),
}
LEAST = {"warmup_iterations": 0, "update_every": 1, "kmeans_restarts": 1}


class HPL(nn.Module):
    """sum_l w_l base(embeddings, labels of level l, proxies of level l); level 0 has one learnable proxy per class.

    Easily got wrong: the labels of level l+1 are the owners of the labels of level l, looked up anew in every step, so
    that an update shows in the very next loss.

    Args:
        num_classes: C.
        embedding_dim: D.
        base: `f(embeddings, labels, proxies, **settings) -> scalar` of one level.
        levels: the base's settings, one mapping per level, fine to coarse.
        weights: w_l, one per level; at least 0, and above 0 for the fine level.
        warmup_iterations: optimiser steps with the fine level only, at least 0.
        update_every: T, optimiser steps between two updates of the coarse levels, at least 1.
        proxy_init: "normal" is N(0, 1); "kaiming_fan_out" has variance 2/C, as Proxy-Anchor.
        seed: of the proxies' start and of k-means; global generators are not used.
        num_coarse: proxies of each coarse level, below the number of the level under it; a number means one level.
        class_to_super: (C,) given groups of the classes, any integers; replaces `num_coarse`.
        coarse_update: "centroid" (no gradient) or "tied" (the loss reaches the fine proxies through the mean).
        cluster_space: "normalized" groups unit vectors, "raw" the vectors as they are.
        kmeans_restarts: runs of k-means at the start, at least 1.

    Raises:
        ValueError: an argument is out of its range, or the base refuses a level's settings.
    """

    counters: Tensor
    changed_share: Tensor

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        *,
        base: Callable[..., Tensor],
        levels: Sequence[Mapping[str, Any]],
        weights: Sequence[float],
        warmup_iterations: int,
        update_every: int,
        proxy_init: Literal["normal", "kaiming_fan_out"],
        seed: int,
        num_coarse: int | Sequence[int] | None = None,
        class_to_super: Tensor | np.ndarray | Sequence[int] | None = None,
        coarse_update: Literal["centroid", "tied"] = "centroid",
        cluster_space: Literal["normalized", "raw"] = "normalized",
        kmeans_restarts: int = 10,
    ) -> None:
        super().__init__()
        _check_choices(proxy_init=proxy_init, coarse_update=coarse_update, cluster_space=cluster_space)
        _check_whole(warmup_iterations=warmup_iterations, update_every=update_every, kmeans_restarts=kmeans_restarts)
        groups = _present_groups(class_to_super, num_classes, num_coarse)
        sizes = [num_classes, *(_coarse_sizes(num_classes, num_coarse) if groups is None else [int(groups.max()) + 1])]
        _check_levels(base, levels, weights, sizes, embedding_dim)
        self.base, self.levels, self.weights = base, [dict(settings) for settings in levels], list(weights)
        self.warmup_iterations, self.update_every = warmup_iterations, update_every
        self.coarse_update, self.cluster_space, self.kmeans_restarts = coarse_update, cluster_space, kmeans_restarts
        self.seed, self.num_levels, self.has_given_groups = seed, len(sizes), groups is not None
        self.proxies = nn.Parameter(_initial_proxies(num_classes, embedding_dim, proxy_init, seed))
        self._register_buffers(sizes, embedding_dim, groups)
        self._last_losses: dict[int, Tensor] = {}

    def _register_buffers(self, sizes: list[int], embedding_dim: int, groups: Tensor | None) -> None:
        """Buffers, not parameters: no optimiser may move a centroid. All exist from the start, for checkpoints.

        `counters` holds [steps taken, updates done, 1 once the coarse levels exist] for checkpoints. Each step needs
        the numbers, and reading a tensor would wait for the device, so the code reads `_counters`.
        """
        for level, size in enumerate(sizes[1:], start=1):
            self.register_buffer(f"centres_{level}", torch.zeros(size, embedding_dim))
            self.register_buffer(f"owners_{level - 1}", torch.zeros(sizes[level - 1], dtype=torch.long))
        if groups is not None:
            self.owners(0).copy_(groups)
        self.register_buffer("changed_share", torch.zeros(len(sizes) - 1))
        self.register_buffer("counters", torch.zeros(3, dtype=torch.long))
        self._counters = [0, 0, 0]
        self.register_load_state_dict_post_hook(_read_counters)

    def centres(self, level: int) -> Tensor:
        """Stored proxies (n_l, D) of a coarse level, counted from 1."""
        return self.get_buffer(f"centres_{level}")

    def owners(self, level: int) -> Tensor:
        """For each proxy of a level (n_l,), the proxy above it."""
        return self.get_buffer(f"owners_{level}")

    def level_proxies(self) -> list[Tensor]:
        """The proxies of every level as the loss sees them, fine to coarse."""
        vectors: list[Tensor] = [self.proxies]
        for level in range(1, self.num_levels):
            centres = self.centres(level)
            if self.coarse_update == "tied":
                points = cluster_points(vectors[-1], self.cluster_space)
                centres = centroids(points, self.owners(level - 1), centres).to(centres.dtype)
            vectors.append(centres)
        return vectors

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The loss of embeddings (B, D) with labels (B,), a scalar; the first call after the warm-up runs k-means."""
        steps, _, started = self._counters
        if not started and steps >= self.warmup_iterations:
            self._start()
        vectors = self.level_proxies() if self._counters[2] else [self.proxies]
        total = embeddings.new_zeros(())
        for level, proxies in enumerate(vectors):
            if level > 0:
                labels = self.owners(level - 1)[labels]
            if self.weights[level] == 0:  # skipped, not multiplied: 0 times an overflow is not 0
                continue
            loss = self.base(embeddings, labels, proxies, **self.levels[level])
            self._last_losses[level] = loss.detach()
            total = total + self.weights[level] * loss
        return total

    @torch.no_grad()
    def after_step(self) -> None:
        """Count an optimiser step; regroup the proxies when it is due."""
        self._count(0)
        steps, _, started = self._counters
        k = steps - self.warmup_iterations  # at least 1 once started
        if started and k % self.update_every == self.update_every - 1:
            self._update()

    def diagnostics(self) -> dict[str, float]:
        """Per-level losses of the last batch and, once there are coarse levels, what became of the grouping."""
        _, updates, started = self._counters
        report = {f"loss_level_{level}": float(loss) for level, loss in self._last_losses.items()}
        report |= {"kmeans_done": float(started), "coarse_updates": float(updates)}
        for level in range(1, self.num_levels if started else 1):
            share = torch.bincount(self.owners(level - 1), minlength=len(self.centres(level))).double()
            share = share / share.sum()
            report[f"owner_changes_level_{level}"] = float(self.changed_share[level - 1])
            report[f"empty_clusters_level_{level}"] = float((share == 0).sum())
            report[f"cluster_entropy_level_{level}"] = float(torch.special.entr(share).sum())  # nats
        return report

    @torch.no_grad()
    def _start(self) -> None:
        """Group the proxies for the first time: k-means per level, or the means of given groups."""
        below: Tensor = self.proxies
        if not torch.isfinite(below).all():  # diverged: the fine level's loss says so by not being finite either
            return
        for level in range(1, self.num_levels):
            points, centres = cluster_points(below, self.cluster_space), self.centres(level)
            if self.has_given_groups:
                centres.copy_(centroids(points, self.owners(0), centres))
            else:
                found = kmeans(points, len(centres), restarts=self.kmeans_restarts, seed=self.seed + level - 1)
                centres.copy_(found.centres)
                self.owners(level - 1).copy_(found.owners)
            below = centres
        self._count(2)

    def _update(self) -> None:
        """One Lloyd step on every coarse level."""
        proxies, *centres = self.level_proxies()
        given = [self.owners(0)] if self.has_given_groups else None
        updated = update_hierarchy(proxies, centres, space=self.cluster_space, given_owners=given)
        for level, clusters in enumerate(updated, start=1):
            self.changed_share[level - 1] = (clusters.owners != self.owners(level - 1)).float().mean()
            self.centres(level).copy_(clusters.centres)
            self.owners(level - 1).copy_(clusters.owners)
        self._count(1)

    def _count(self, which: int) -> None:
        self.counters[which].add_(1)
        self._counters[which] += 1


def _read_counters(module: HPL, _: Any) -> None:
    """After a checkpoint was loaded, take the counters from it."""
    module._counters = module.counters.tolist()


def _initial_proxies(num_classes: int, embedding_dim: int, init: str, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    if init == "normal":
        return torch.randn(num_classes, embedding_dim, generator=generator)
    return nn.init.kaiming_normal_(torch.empty(num_classes, embedding_dim), mode="fan_out", generator=generator)


def _present_groups(
    class_to_super: Tensor | np.ndarray | Sequence[int] | None, num_classes: int, num_coarse: Any
) -> Tensor | None:
    """Given groups (C,) renumbered 0..n-1: a fold need not have a class of every super class."""
    if class_to_super is None:
        return None
    groups = torch.as_tensor(np.asarray(class_to_super))
    if groups.shape != (num_classes,) or groups.is_floating_point():
        raise ValueError(
            f"class_to_super of HPL has shape {tuple(groups.shape)} and type {groups.dtype}; it must hold one integer"
            f" for each of the {num_classes} classes."
        )
    if num_coarse is not None:
        raise ValueError(f"num_coarse={num_coarse} of HPL must be left out where class_to_super gives the groups.")
    return groups.unique(return_inverse=True)[1]


def _coarse_sizes(num_classes: int, num_coarse: int | Sequence[int] | None) -> list[int]:
    sizes = list(num_coarse) if isinstance(num_coarse, Sequence) else [num_coarse] if num_coarse is not None else []
    below = num_classes
    for level, size in enumerate(sizes, start=1):
        if not 1 <= size < below or size != int(size):
            raise ValueError(
                f"num_coarse={size} on level {level} of HPL must be a whole number of at least 1 and below {below}, the"
                f" proxies of the level under it; set loss.setting.num_coarse accordingly."
            )
        below = size
    return [int(size) for size in sizes]


def _check_levels(
    base: Callable[..., Tensor],
    levels: Sequence[Mapping[str, Any]],
    weights: Sequence[float],
    sizes: list[int],
    embedding_dim: int,
) -> None:
    """Try the base once on every level, so that it refuses here what it would refuse in the middle of a training."""
    if not len(levels) == len(weights) == len(sizes):
        raise ValueError(
            f"HPL has {len(sizes)} levels with {', '.join(map(str, sizes))} proxies, but settings for {len(levels)} and"
            f" {len(weights)} weights; give one of each per level."
        )
    if not (all(w >= 0 and math.isfinite(w) for w in weights) and weights[0] > 0):
        raise ValueError(f"weights={list(weights)} of HPL must be finite and at least 0, the first one above 0.")
    for level, (settings, size) in enumerate(zip(levels, sizes, strict=True)):
        one = torch.ones(1, embedding_dim), torch.zeros(1, dtype=torch.long), torch.ones(size, embedding_dim)
        try:
            base(*one, **settings)
        except (TypeError, ValueError) as error:
            raise ValueError(f"Level {level} of HPL, {size} proxies, settings {dict(settings)}: {error}") from error


def _check_choices(**given: str) -> None:
    for name, value in given.items():
        if value not in CHOICES[name]:
            raise ValueError(f"{name}={value!r} of HPL must be one of {', '.join(CHOICES[name])}.")


def _check_whole(**given: int) -> None:
    for name, value in given.items():
        if value < LEAST[name] or value != int(value):
            raise ValueError(f"{name}={value} of HPL must be a whole number of at least {LEAST[name]}.")
