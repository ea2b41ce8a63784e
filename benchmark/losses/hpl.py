"""HPL: a proxy loss applied at every level of a hierarchy of proxies.

Source: Yang, Bastan, Zhu, Gray and Samaras, "Hierarchical Proxy-based Loss for Deep Metric Learning", WACV 2022,
arXiv 2103.13538, Eq. 6 and Algorithm 1. No official code exists. What the paper leaves open, and the choice here:

- coarse proxies are centroids, buffers without gradient ("Update theta and P_0" in Algorithm 1). Two other readings:
  "tied" lets the gradient through the mean; "gradient" has learnable coarse proxies, which start at the centroids and
  are reset to them by every update; this overwrites what they learned but not the optimiser's moments;
- Section 4.2 trains three epochs with the fine level only; k-means runs right before the step that follows, since it
  would otherwise cluster random vectors. Algorithm 1's counter k starts at 1 there;
- an update comes after the optimiser step of every k with k mod T = T-1;
- scale and margin are set per level, weights are 1 and 0.1 (0.1 on any further level);
- given groups ("GT", Section 4.4) stay fixed, and their centres move every T steps;
- a base with K centres per class has them on the fine level only; a group has one centre.
`clustering.py` lists the choices that concern the grouping itself, and the alternatives to k-means.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from benchmark.core.errors import UserError
from benchmark.core.records import JsonObject
from benchmark.losses.checks import check_choice, check_whole
from benchmark.losses.clustering import (
    CLUSTER_SPACES,
    EMPTY,
    METHODS,
    centroids,
    cluster_points,
    first_clusters,
    update_hierarchy,
)
from benchmark.losses.counters import CountingLoss
from benchmark.losses.proxies import INITS, initial_proxies, try_base

Groups = Tensor | np.ndarray | Sequence[int]
COARSE_UPDATES = ("centroid", "tied", "gradient")


class HPL(CountingLoss):
    """sum_l w_l base(embeddings, labels of level l, proxies of level l); level 0 has learnable proxies of each class.

    `counters` holds the number of steps, the number of updates, and 1 once the coarse levels exist.

    Easily got wrong: the labels of level l+1 are the owners of the labels of level l, looked up in every step, so that
    an update affects the very next loss.

    Args:
        num_classes: C.
        embedding_dim: D.
        base: `f(embeddings, labels, proxies, **settings) -> scalar`, the loss of one level.
        levels: the base's settings, one mapping per level, fine to coarse.
        weights: w_l, one per level; at least 0, and above 0 for the fine level.
        warmup_iterations: optimiser steps with the fine level only, at least 0.
        update_every: T, optimiser steps between two updates of the coarse levels, at least 1.
        proxy_init: initialisation of the fine proxies, as in `proxies.py`.
        seed: seeds the initial proxies and the initial grouping; global generators are not used.
        num_coarse: number of proxies of each coarse level, fewer than on the level below; a single number means one
            coarse level.
        class_to_super: (C,) given groups of the classes, any integers; replaces `num_coarse`.
        coarse_update: "centroid" (no gradient), "tied" (the loss reaches the fine proxies through the mean) or
            "gradient" (coarse proxies are parameters, named centres_1, ..., without a gradient until initialised).
        clustering: method of the initial grouping, "kmeans", "agglomerative" or "gmm".
        cluster_space: "normalized" groups unit vectors, "raw" the vectors themselves.
        normalize_centroids: whether centres are scaled to unit norm before any comparison with proxies.
        empty: a group that an update leaves without members may "keep" its centre or "reseed_farthest".
        kmeans_restarts: runs of k-means or of the mixture's fit for the initial grouping, at least 1.
        centres_per_class: K, at least 1; above 1 the fine proxies are (C, K, D), and a class is grouped by their mean.
        true_groups: (C,) ground-truth groups of the classes, any integers; for `diagnostics` only.

    Raises:
        UserError: an argument is out of range, or the base rejects a level's settings or takes other arguments.
    """

    changed_share: Tensor
    ever_changed: Tensor
    true_groups: Tensor | None

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        *,
        base: Callable[..., Tensor],
        levels: Sequence[Mapping[str, float | str]],
        weights: Sequence[float],
        warmup_iterations: int,
        update_every: int,
        proxy_init: Literal["normal", "unit", "kaiming_fan_out", "kaiming_uniform"],
        seed: int,
        num_coarse: int | Sequence[int] | None = None,
        class_to_super: Groups | None = None,
        coarse_update: Literal["centroid", "tied", "gradient"] = "centroid",
        clustering: Literal["kmeans", "agglomerative", "gmm"] = "kmeans",
        cluster_space: Literal["normalized", "raw"] = "normalized",
        normalize_centroids: bool = False,
        empty: Literal["keep", "reseed_farthest"] = "keep",
        kmeans_restarts: int = 10,
        centres_per_class: int = 1,
        true_groups: Groups | None = None,
    ) -> None:
        super().__init__(num_counters=3)
        check_choice("HPL", INITS, proxy_init=proxy_init)
        check_choice("HPL", COARSE_UPDATES, coarse_update=coarse_update)
        check_choice("HPL", METHODS, clustering=clustering)
        check_choice("HPL", CLUSTER_SPACES, cluster_space=cluster_space)
        check_choice("HPL", EMPTY, empty=empty)
        check_whole("HPL", at_least=0, warmup_iterations=warmup_iterations)
        check_whole("HPL", at_least=1, update_every=update_every, kmeans_restarts=kmeans_restarts)
        check_whole("HPL", at_least=1, centres_per_class=centres_per_class)
        self.base, self.levels, self.weights = base, [dict(settings) for settings in levels], list(weights)
        self.warmup_iterations, self.update_every, self.coarse_update = warmup_iterations, update_every, coarse_update
        self.clustering, self.cluster_space, self.kmeans_restarts = clustering, cluster_space, kmeans_restarts
        self.unit, self.empty = normalize_centroids, empty
        groups = _renumbered("class_to_super", class_to_super, num_classes)
        sizes = _level_sizes(num_classes, num_coarse, groups)
        self.seed, self.num_levels, self.has_given_groups = seed, len(sizes), groups is not None
        self.proxies = nn.Parameter(initial_proxies(num_classes, embedding_dim, proxy_init, seed, centres_per_class))
        self._register_coarse(sizes, embedding_dim, groups)
        self.register_buffer("true_groups", _renumbered("true_groups", true_groups, num_classes), persistent=False)
        _check_levels(base, levels, weights, [self.proxies, *map(self.centres, range(1, self.num_levels))])
        self._last_losses: dict[int, Tensor] = {}

    def _register_coarse(self, sizes: list[int], embedding_dim: int, groups: Tensor | None) -> None:
        """Register centres and owners at construction, so that checkpoints and optimisers know them.

        A centroid is a buffer, not a parameter: no optimiser may move it. A learnable centre has no gradient before it
        is initialised, so optimisers skip it, including weight decay and momentum.
        """
        for level, size in enumerate(sizes[1:], start=1):
            centres = torch.zeros(size, embedding_dim)
            if self.coarse_update == "gradient":
                self.register_parameter(f"centres_{level}", nn.Parameter(centres))
            else:
                self.register_buffer(f"centres_{level}", centres)
            self.register_buffer(f"owners_{level - 1}", torch.zeros(sizes[level - 1], dtype=torch.long))
        if groups is not None:
            self.owners(0).copy_(groups)
        self.register_buffer("changed_share", torch.zeros(len(sizes) - 1))
        self.register_buffer("ever_changed", torch.zeros(len(sizes) - 1, dtype=torch.bool))
        self.register_load_state_dict_pre_hook(_accept_older_checkpoint)

    def centres(self, level: int) -> Tensor:
        """Return the stored proxies (n_l, D) of a coarse level, counted from 1."""
        centres: Tensor = getattr(self, f"centres_{level}")
        return centres

    def owners(self, level: int) -> Tensor:
        """Return the index (n_l,) of the parent of each proxy of a level; levels count from 0."""
        return self.get_buffer(f"owners_{level}")

    def level_proxies(self) -> list[Tensor]:
        """Return the proxies of each level as the loss uses them, fine to coarse: (C, D) or (C, K, D), (n_1, D), ..."""
        vectors: list[Tensor] = [self.proxies]
        for level in range(1, self.num_levels):
            centres = self.centres(level)
            if self.coarse_update == "tied":
                points = cluster_points(vectors[-1], self.cluster_space)
                centres = centroids(points, self.owners(level - 1), centres, unit=self.unit).to(centres.dtype)
            vectors.append(centres)
        return vectors

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar loss of embeddings (B, D) with labels (B,); groups the proxies once the warm-up is over."""
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
        """Count an optimiser step; update the coarse levels when due."""
        self.count([1, 0, 0])
        steps, _, started = self._counters
        k = steps - self.warmup_iterations  # at least 1 once started
        if started and k % self.update_every == self.update_every - 1:
            self._update()

    def diagnostics(self) -> dict[str, float]:
        """Return the loss of each level for the last batch and, once coarse levels exist, the state of the grouping.

        The latter comprises, for each coarse level: owner_changes, the fraction of proxies on the level below that
        changed owner at the last update; empty_clusters; cluster_entropy in nats; and, with `true_groups`, purity.
        """
        _, updates, started = self._counters
        report = {f"loss_level_{level}": float(loss) for level, loss in self._last_losses.items()}
        report |= {"kmeans_done": float(started), "coarse_updates": float(updates)}
        if not started:
            return report
        of_class = torch.arange(len(self.proxies), device=self.proxies.device)
        for level in range(1, self.num_levels):
            owners = self.owners(level - 1)
            of_class = owners[of_class]  # (C,)
            share = torch.bincount(owners, minlength=len(self.centres(level))).double() / len(owners)
            report[f"owner_changes_level_{level}"] = float(self.changed_share[level - 1])
            report[f"empty_clusters_level_{level}"] = float((share == 0).sum())
            report[f"cluster_entropy_level_{level}"] = float(torch.special.entr(share).sum())
            if self.true_groups is not None:
                report[f"purity_level_{level}"] = purity(of_class, self.true_groups)
        return report

    def _idle_levels(self) -> list[int]:
        """The coarse levels that are on and whose groups never changed, although they could."""
        return [level for level in self._learned_levels() if not self.ever_changed[level - 1]]

    def _learned_levels(self) -> list[int]:
        """The coarse levels that are on, whose groups the loss depends on, and whose groups can change."""
        if not self._counters[2] or self.has_given_groups:
            return []
        return [n for n in range(1, self.num_levels) if any(self.weights[n:]) and len(self.centres(n)) > 1]

    def record_fields(self, history: Sequence[JsonObject], best_epoch: int | None) -> dict[str, float | bool | None]:
        """Return the number of proxies, and how the hierarchy fared: started before the best epoch, updated, changed.

        `num_proxies` counts those of every level with a weight. `idle_hierarchy` is true if the coarse levels were on
        and the groups of a learned level never changed, false if those of each one did, and None if no level was on
        that could change.

        Args:
            history: one row per evaluation with `epoch` and `diagnostics`.
            best_epoch: the epoch that gives the fold its score; None without a score.
        """
        best = next((row["diagnostics"] for row in history if row["epoch"] == best_epoch), None)
        per_level = [self.proxies.shape[:-1].numel(), *(len(self.centres(n)) for n in range(1, self.num_levels))]
        return {
            "num_proxies": float(sum(n for n, weight in zip(per_level, self.weights, strict=True) if weight)),
            "best_epoch_in_warmup": None if best is None else best.get("kmeans_done") == 0,
            "coarse_updates": history[-1]["diagnostics"].get("coarse_updates") if history else None,
            "idle_hierarchy": bool(self._idle_levels()) if self._learned_levels() else None,
        }

    def warnings(self) -> list[str]:
        """Warn if the hierarchy never came on or was never updated, or of each level whose groups no update changed.

        A hierarchy that no coarse level's weight makes part of the loss is not meant to come on: no warning.
        """
        _, updates, started = self._counters
        if not any(self.weights[1:]):
            return []
        if not started:
            start = f"they start after warmup_iterations={self.warmup_iterations} steps"
            return [f"the coarse levels never came on: {start}"]
        if updates == 0:
            return ["the hierarchy was never updated"]
        return [f"the groups of level {level} never changed" for level in self._idle_levels()]

    @torch.no_grad()
    def _start(self) -> None:
        """Initialise the coarse levels: by `clustering` on each level, or from the given groups."""
        below: Tensor = self.proxies
        if not torch.isfinite(below).all():  # diverged; the fine level's loss is not finite either and reports it
            return
        for level in range(1, self.num_levels):
            points, centres = cluster_points(below, self.cluster_space), self.centres(level)
            if self.has_given_groups:
                centres.copy_(centroids(points, self.owners(0), centres, unit=self.unit))
            else:
                found = first_clusters(
                    points, len(centres), method=self.clustering, restarts=self.kmeans_restarts,
                    seed=self.seed + level - 1, unit=self.unit,
                )  # fmt: skip
                centres.copy_(found.centres)
                self.owners(level - 1).copy_(found.owners)
            below = centres
        self.count([0, 0, 1])

    def _update(self) -> None:
        """Run one Lloyd step on every coarse level.

        Learned centres are compared by direction if the proxies are: their length is an artefact of the optimiser.
        """
        proxies, *centres = self.level_proxies()
        if self.coarse_update == "gradient":
            centres = [cluster_points(vectors, self.cluster_space) for vectors in centres]
        given = [self.owners(0)] if self.has_given_groups else None
        updated = update_hierarchy(
            proxies, centres, space=self.cluster_space, given_owners=given, unit=self.unit, empty=self.empty
        )
        for level, clusters in enumerate(updated, start=1):
            self.changed_share[level - 1] = (clusters.owners != self.owners(level - 1)).float().mean()
            self.centres(level).copy_(clusters.centres)
            self.owners(level - 1).copy_(clusters.owners)
        self.ever_changed |= self.changed_share > 0
        self.count([0, 1, 0])


def purity(clusters: Tensor, true_groups: Tensor) -> float:
    """Return the fraction of classes in the most frequent true group of their cluster; ties count once.

    >>> purity(torch.tensor([0, 0, 0, 1, 1]), torch.tensor([2, 2, 1, 0, 1]))
    0.6

    Args:
        clusters: (C,) cluster of each class, from 0.
        true_groups: (C,) true group of each class, from 0.
    """
    num_clusters, num_groups = int(clusters.max()) + 1, int(true_groups.max()) + 1
    table = torch.bincount(clusters * num_groups + true_groups, minlength=num_clusters * num_groups)
    return float(table.view(num_clusters, num_groups).amax(dim=1).sum()) / len(clusters)


def _accept_older_checkpoint(module: HPL, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Complete a checkpoint without `ever_changed`: assume that groups changed, to avoid a false warning."""
    state.setdefault(f"{prefix}ever_changed", torch.ones_like(module.ever_changed))


def _renumbered(name: str, groups: Groups | None, num_classes: int) -> Tensor | None:
    """Renumber groups (C,) as 0..n-1, since a fold may lack the classes of some groups; None stays None."""
    if groups is None:
        return None
    found = torch.as_tensor(np.asarray(groups))
    if found.shape != (num_classes,) or found.is_floating_point():
        raise UserError(
            f"{name} of HPL has shape {tuple(found.shape)} and type {found.dtype}; it must hold one integer"
            f" for each of the {num_classes} classes."
        )
    inverse: Tensor = found.unique(return_inverse=True)[1]
    return inverse


def _level_sizes(num_classes: int, num_coarse: int | Sequence[int] | None, groups: Tensor | None) -> list[int]:
    """Number of proxies of every level, fine to coarse; a coarse level must be smaller than the one below it."""
    if groups is not None and num_coarse is not None:
        raise UserError(f"num_coarse={num_coarse} of HPL must be omitted, since class_to_super gives the groups.")
    if groups is not None:
        if not groups.any():
            raise UserError(
                "class_to_super of HPL puts all classes into one group: these data have no hierarchy. Use a loss that "
                "learns one, such as loss=hpl_nca, or data with super classes."
            )
        return [num_classes, int(groups.max()) + 1]
    sizes = [num_classes]
    for size in [] if num_coarse is None else num_coarse if isinstance(num_coarse, Sequence) else [num_coarse]:
        if not 1 <= size < sizes[-1] or size != int(size):
            raise UserError(
                f"num_coarse={size} on level {len(sizes)} of HPL must be a whole number of at least 1 and below"
                f" {sizes[-1]}, the proxies of the level below it; set loss.setting.num_coarse accordingly."
            )
        sizes.append(int(size))
    return sizes


def _check_levels(
    base: Callable[..., Tensor],
    levels: Sequence[Mapping[str, float | str]],
    weights: Sequence[float],
    proxies: Sequence[Tensor],
) -> None:
    """Check that each level has settings and a valid weight, and try the base on the proxies of every level."""
    sizes = [len(vectors) for vectors in proxies]
    if not len(levels) == len(weights) == len(sizes):
        raise UserError(
            f"HPL has {len(sizes)} levels with {', '.join(map(str, sizes))} proxies, but settings for {len(levels)} and"
            f" {len(weights)} weights; give one of each per level."
        )
    if not (all(w >= 0 and math.isfinite(w) for w in weights) and weights[0] > 0):
        raise UserError(f"weights={list(weights)} of HPL must be finite and at least 0, the first one above 0.")
    for level, (settings, vectors) in enumerate(zip(levels, proxies, strict=True)):
        owner = f"Level {level} of HPL, {len(vectors)} proxies in {tuple(vectors.shape)}, settings {dict(settings)}"
        try_base(base, vectors, settings, owner)
