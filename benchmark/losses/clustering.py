"""How HPL groups proxies: the k-means start and the one Lloyd step of each update. A part of `hpl.py`.

Source: Yang, Bastan, Zhu, Gray and Samaras, "Hierarchical Proxy-based Loss for Deep Metric Learning", WACV 2022,
arXiv 2103.13538, Algorithm 1 and Section 3.4.

What Algorithm 1 leaves open, and the choice here:
- the k-means start: k-means++, several restarts, seeded, run until no proxy changes its owner;
- an empty group (0/0 in Algorithm 1) keeps its centre;
- equal distances go to the lowest index;
- proxies are scaled to unit length first (the loss sees directions only), centres are plain means.
Distances are taken in float64, coordinate by coordinate, so that neither ties nor near ties depend on a matrix product.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

CLUSTER_SPACES = ("normalized", "raw")


class Clusters(NamedTuple):
    """Centres (n, D) and the index (P,) of each point's centre."""

    centres: Tensor
    owners: Tensor


def cluster_points(vectors: Tensor, space: str) -> Tensor:
    """What is clustered, in float64: unit rows of vectors (P, D), or in the space "raw" the rows themselves.

    Raises:
        ValueError: the space is neither.
    """
    if space not in CLUSTER_SPACES:
        raise ValueError(f"cluster_space={space!r} must be one of {', '.join(CLUSTER_SPACES)}.")
    return functional.normalize(vectors.double(), dim=1) if space == "normalized" else vectors.double()


def nearest(points: Tensor, centres: Tensor) -> Tensor:
    """Index (P,) of the centre (n, D) nearest to each point (P, D); equal distances give the lowest index."""
    return torch.cdist(points, centres, compute_mode="donot_use_mm_for_euclid_dist").argmin(dim=1)


def centroids(points: Tensor, owners: Tensor, previous: Tensor) -> Tensor:
    """Mean (n, D) of the points (P, D) of each owner; a row of `previous` (n, D) stays where no point is owned.

    Differentiable in the points. A product with the membership matrix: scattered sums are not repeatable on a GPU.
    """
    index = torch.arange(len(previous), device=points.device)
    members = (index[:, None] == owners).to(points.dtype)  # (n, P)
    count = members.sum(dim=1, keepdim=True)
    return torch.where(count > 0, members @ points / count.clamp(min=1), previous.to(points.dtype))


def lloyd_step(points: Tensor, centres: Tensor, owners: Tensor | None = None) -> Clusters:
    """One Lloyd iteration: points (P, D) go to their nearest centre (n, D), then centres move to their points' mean.

    With `owners` (P,) the points stay where they are and only the centres move.
    """
    owners = nearest(points, centres.to(points.dtype)) if owners is None else owners
    return Clusters(centroids(points, owners, centres), owners)


def kmeans_from(points: Tensor, start: Tensor, max_iterations: int = 300) -> Clusters:
    """Lloyd iterations from the given centres (n, D) until no point (P, D) changes its owner."""
    owners, centres = nearest(points, start), start
    for _ in range(max_iterations):
        centres = centroids(points, owners, centres)
        moved = nearest(points, centres)
        if torch.equal(moved, owners):
            break
        owners = moved
    return Clusters(centres, owners)


def kmeans(points: Tensor, num_clusters: int, *, restarts: int, seed: int) -> Clusters:
    """The best of several k-means++ runs of scikit-learn on points (P, D), finished by the Lloyd iterations above.

    Args:
        points: (P, D) float64.
        num_clusters: n, at most P.
        restarts: runs, of which the one with the least inertia is kept.
        seed: of the starts.
    """
    from sklearn.cluster import KMeans

    estimator = KMeans(num_clusters, n_init=restarts, tol=0.0, algorithm="lloyd", random_state=seed % 2**32)
    estimator.fit(points.detach().cpu().numpy())
    return kmeans_from(points, torch.from_numpy(estimator.cluster_centers_).to(points))


def update_hierarchy(
    proxies: Tensor, levels: list[Tensor], *, space: str, given_owners: list[Tensor] | None = None
) -> list[Clusters]:
    """One Lloyd step per coarse level, from fine to coarse; each level is grouped by the NEW centres below it.

    Args:
        proxies: (C, D), the finest level.
        levels: centres of each coarse level, (n_1, D), (n_2, D), ...
        space: see `cluster_points`.
        given_owners: (C,), (n_1,), ..., where the groups of every level are given, not found.
    """
    updated = []
    below = proxies
    all_owners: Sequence[Tensor | None] = given_owners or [None] * len(levels)
    for centres, owners in zip(levels, all_owners, strict=True):
        updated.append(lloyd_step(cluster_points(below, space), centres, owners))
        below = updated[-1].centres
    return updated
