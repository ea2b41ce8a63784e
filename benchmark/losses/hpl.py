"""HPL: a proxy loss applied at every level of a hierarchy of proxies.

Source: Yang, Bastan, Zhu, Gray and Samaras, "Hierarchical Proxy-based Loss for Deep Metric Learning", WACV 2022,
arXiv 2103.13538, Eq. 6 and Algorithm 1. No official code exists. How this file reads what the paper leaves open:

- coarse proxies are centroids, buffers without gradient ("Update theta and P_0" in Algorithm 1). Two other readings:
  "tied" lets the gradient through the mean; "gradient" has learnable coarse proxies, set where centroids would be and
  set there again by every update, which overwrites what they learned but not the optimiser's moments;
- Section 4.2 trains three epochs with the fine level only; k-means comes right before the step after them, since it
  would otherwise cluster random vectors. Algorithm 1's counter k starts at 1 there;
- an update comes after the optimiser step of every k with k mod T = T-1;
- scale and margin belong to the level, weights are 1 and 0.1 (0.1 on any further level);
- given groups ("GT", Section 4.4) stay as they are, their centres move every T steps;
- a base with K centres per class has them on the fine level only; a group has one centre.
`clustering.py` lists what concerns the grouping itself, and its other methods. `hpl_arguments.py` and
`hpl_diagnostics.py` are parts of this file.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from benchmark.losses.clustering import centroids, cluster_points, first_clusters, update_hierarchy
from benchmark.losses.hpl_arguments import Groups, check_choices, check_levels, check_whole, level_sizes, renumbered
from benchmark.losses.hpl_diagnostics import describe_groups
from benchmark.losses.proxies import initial_proxies


class HPL(nn.Module):
    """sum_l w_l base(embeddings, labels of level l, proxies of level l); level 0 has learnable proxies of each class.

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
        proxy_init: start of the fine proxies, as in `proxies.py`.
        seed: of the proxies' start and of the first grouping; global generators are not used.
        num_coarse: proxies of each coarse level, below the number of the level under it; a number means one level.
        class_to_super: (C,) given groups of the classes, any integers; replaces `num_coarse`.
        coarse_update: "centroid" (no gradient), "tied" (the loss reaches the fine proxies through the mean) or
            "gradient" (coarse proxies are parameters, named centres_1, ..., which get no gradient before the start).
        clustering: the first grouping, "kmeans", "agglomerative" or "gmm".
        cluster_space: "normalized" groups unit vectors, "raw" the vectors as they are.
        normalize_centroids: whether centres have unit length wherever they are compared with proxies.
        empty: a group that an update leaves without members may "keep" its centre or "reseed_farthest".
        kmeans_restarts: runs of k-means or the mixture at the start, at least 1.
        centres_per_class: K, at least 1; above 1 the fine proxies are (C, K, D), and a class is grouped by their mean.
        true_groups: (C,) groups of the classes made by people, any integers; for `diagnostics` only.

    Raises:
        ValueError: an argument is out of its range, or the base refuses a level's settings.
    """

    counters: Tensor
    changed_share: Tensor
    true_groups: Tensor | None

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
        proxy_init: Literal["normal", "kaiming_fan_out", "kaiming_uniform"],
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
        super().__init__()
        check_choices(proxy_init=proxy_init, coarse_update=coarse_update, clustering=clustering)
        check_choices(cluster_space=cluster_space, empty=empty)
        check_whole(warmup_iterations=warmup_iterations, update_every=update_every)
        check_whole(kmeans_restarts=kmeans_restarts, centres_per_class=centres_per_class)
        self.base, self.levels, self.weights = base, [dict(settings) for settings in levels], list(weights)
        self.warmup_iterations, self.update_every, self.coarse_update = warmup_iterations, update_every, coarse_update
        self.clustering, self.cluster_space, self.kmeans_restarts = clustering, cluster_space, kmeans_restarts
        self.unit, self.empty = normalize_centroids, empty
        groups = renumbered("class_to_super", class_to_super, num_classes)
        sizes = level_sizes(num_classes, num_coarse, groups)
        self.seed, self.num_levels, self.has_given_groups = seed, len(sizes), groups is not None
        self.proxies = nn.Parameter(initial_proxies(num_classes, embedding_dim, proxy_init, seed, centres_per_class))
        self._register_coarse(sizes, embedding_dim, groups)
        self.register_buffer("true_groups", renumbered("true_groups", true_groups, num_classes), persistent=False)
        check_levels(base, levels, weights, [self.proxies, *map(self.centres, range(1, self.num_levels))])
        self._last_losses: dict[int, Tensor] = {}

    def _register_coarse(self, sizes: list[int], embedding_dim: int, groups: Tensor | None) -> None:
        """Centres and owners exist from the start, for checkpoints and optimisers.

        A centroid is a buffer, not a parameter: no optimiser may move it. One that learns has no gradient before the
        start, so that optimisers pass over it, weight decay and momentum included.

        `counters` holds [steps taken, updates done, 1 once the coarse levels exist] for checkpoints. Each step needs
        the numbers, and reading a tensor would wait for the device, so the code reads `_counters`.
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
        self.register_buffer("counters", torch.zeros(3, dtype=torch.long))
        self._counters = [0, 0, 0]
        self.register_load_state_dict_post_hook(_read_counters)

    def centres(self, level: int) -> Tensor:
        """Stored proxies (n_l, D) of a coarse level, counted from 1."""
        centres: Tensor = getattr(self, f"centres_{level}")
        return centres

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
                centres = centroids(points, self.owners(level - 1), centres, unit=self.unit).to(centres.dtype)
            vectors.append(centres)
        return vectors

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The loss of embeddings (B, D) with labels (B,), a scalar; the first after the warm-up makes the groups."""
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
        if started:
            coarse = range(1, self.num_levels)
            owners, sizes = [self.owners(level - 1) for level in coarse], [len(self.centres(level)) for level in coarse]
            report |= describe_groups(owners, sizes, self.changed_share, self.true_groups)
        return report

    @torch.no_grad()
    def _start(self) -> None:
        """Group the proxies for the first time: `clustering` per level, or the means of given groups."""
        below: Tensor = self.proxies
        if not torch.isfinite(below).all():  # diverged: the fine level's loss says so by not being finite either
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
        self._count(2)

    def _update(self) -> None:
        """One Lloyd step on every coarse level.

        Learned centres are compared by direction where the proxies are: their length is an accident of the optimiser.
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
        self._count(1)

    def _count(self, which: int) -> None:
        self.counters[which].add_(1)
        self._counters[which] += 1


def _read_counters(module: HPL, _: Any) -> None:
    """After a checkpoint was loaded, take the counters from it."""
    module._counters = module.counters.tolist()
