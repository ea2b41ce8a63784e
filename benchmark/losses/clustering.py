"""How HPL groups proxies: the initial grouping, and one Lloyd step per update.

Source: Yang, Bastan, Zhu, Gray and Samaras, "Hierarchical Proxy-based Loss for Deep Metric Learning", WACV 2022,
arXiv 2103.13538, Algorithm 1 and Section 3.4.

What Algorithm 1 leaves open, and the choice here:
- the initial k-means: k-means++, several restarts, seeded, run until no proxy changes its owner;
- an empty group (0/0 in Algorithm 1) keeps its centre; `empty="reseed_farthest"` gives it the farthest proxy instead;
- equal distances go to the lowest index;
- proxies are scaled to unit norm first (the loss depends on directions alone), centres are plain means; `unit=True`
  scales the means to unit norm too, which is spherical k-means.
The paper leaves other clustering methods to future work. `first_clusters` offers two, for the initial grouping only: an
update is always a Lloyd step. Distances are computed in float64, coordinate by coordinate, so that no tie or near tie
depends on a matrix product.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from benchmark.losses.checks import check_choice

CLUSTER_SPACES = ("normalized", "raw")
METHODS = ("kmeans", "agglomerative", "gmm")
EMPTY = ("keep", "reseed_farthest")


class Clusters(NamedTuple):
    """Centres (n, D) and the index (P,) of each point's centre."""

    centres: Tensor
    owners: Tensor


def cluster_points(vectors: Tensor, space: str) -> Tensor:
    """Return the points (P, D) to cluster, in float64: unit vectors, or the vectors themselves for the space "raw".

    Several centres of a class are replaced by their mean; in the normalised space, by the mean of their unit vectors. A
    class whose centres are far apart thus becomes a short vector.

    Args:
        vectors: (P, D), or (P, K, D) with K centres per class.
        space: one of `CLUSTER_SPACES`.

    Raises:
        UserError: `space` is unknown.
    """
    check_choice("HPL", CLUSTER_SPACES, cluster_space=space)
    points = functional.normalize(vectors.double(), dim=-1) if space == "normalized" else vectors.double()
    return points if points.dim() == 2 else points.mean(dim=1)


def nearest(points: Tensor, centres: Tensor) -> Tensor:
    """Index (P,) of the centre (n, D) nearest to each point (P, D); equal distances give the lowest index."""
    return torch.cdist(points, centres, compute_mode="donot_use_mm_for_euclid_dist").argmin(dim=1)


def centroids(points: Tensor, owners: Tensor, previous: Tensor, *, unit: bool = False) -> Tensor:
    """Return the mean (n, D) of the points of each owner, differentiable in the points.

    Computed as a product with the membership matrix, because scatter-add is not deterministic on a GPU.

    Args:
        points: (P, D).
        owners: (P,) index of each point's centre.
        previous: (n, D), previous centres; a centre that owns no point keeps its row.
        unit: whether the means are scaled to unit norm.
    """
    index = torch.arange(len(previous), device=points.device)
    members = (index[:, None] == owners).to(points.dtype)  # (n, P)
    count = members.sum(dim=1, keepdim=True)
    means = members @ points / count.clamp(min=1)
    return torch.where(count > 0, functional.normalize(means, dim=1) if unit else means, previous.to(points.dtype))


def lloyd_step(
    points: Tensor, centres: Tensor, owners: Tensor | None = None, *, unit: bool = False, empty: str = "keep"
) -> Clusters:
    """One Lloyd iteration: points go to their nearest centre, then centres move to the mean of their points.

    Args:
        points: (P, D).
        centres: (n, D).
        owners: (P,) fixed owners, so that only the centres move; None assigns points to their nearest centres.
        unit: whether centres are scaled to unit norm.
        empty: how to treat a group without members, one of `EMPTY`; ignored with fixed owners.
    """
    if owners is None:
        owners = nearest(points, centres.to(points.dtype))
        if empty == "reseed_farthest":
            owners = _fill_empty(points, owners, centroids(points, owners, centres, unit=unit))
    return Clusters(centroids(points, owners, centres, unit=unit), owners)


def _fill_empty(points: Tensor, owners: Tensor, centres: Tensor) -> Tensor:
    """Give each empty group one of the points farthest from their own centres; returns the new owners (P,).

    Args:
        points: (P, D).
        owners: (P,) index of each point's centre.
        centres: (n, D).
    """
    empty = (torch.bincount(owners, minlength=len(centres)) == 0).nonzero()[:, 0]
    gaps = (points - centres[owners]).square().sum(dim=1)
    farthest = gaps.argsort(descending=True, stable=True)[: len(empty)]
    return owners.scatter(0, farthest, empty)


def kmeans_from(points: Tensor, start: Tensor, max_iterations: int = 300, *, unit: bool = False) -> Clusters:
    """Run Lloyd iterations from given centres until no point changes its owner.

    Args:
        points: (P, D).
        start: (n, D), initial centres.
        max_iterations: largest number of iterations.
        unit: whether centres are scaled to unit norm.
    """
    owners, centres = nearest(points, start), start
    for _ in range(max_iterations):
        centres = centroids(points, owners, centres, unit=unit)
        moved = nearest(points, centres)
        if torch.equal(moved, owners):
            break
        owners = moved
    return Clusters(centres, owners)


def kmeans(points: Tensor, num_clusters: int, *, restarts: int, seed: int, unit: bool = False) -> Clusters:
    """Return the best of several k-means++ runs of scikit-learn, refined by the Lloyd iterations of `kmeans_from`.

    Args:
        points: (P, D) float64.
        num_clusters: n, at most P.
        restarts: number of runs; the one with the lowest inertia is kept.
        seed: seeds the runs.
        unit: whether centres are scaled to unit norm.
    """
    from sklearn.cluster import KMeans

    estimator = KMeans(num_clusters, n_init=restarts, tol=0.0, algorithm="lloyd", random_state=seed % 2**32)
    estimator.fit(points.detach().cpu().numpy())
    return kmeans_from(points, torch.from_numpy(estimator.cluster_centers_).to(points), unit=unit)


def first_clusters(
    points: Tensor, num_clusters: int, *, method: str, restarts: int, seed: int, unit: bool = False
) -> Clusters:
    """Return the initial grouping; for every method, a centre is the mean of its members.

    "agglomerative" is Ward's method; it needs P^2 / 2 distances, 0.5 GB for 11,318 classes. "gmm" is a mixture of
    spherical Gaussians that assigns each point to its most likely component; a component without points keeps its
    fitted mean.

    Args:
        points: (P, D) float64.
        num_clusters: n, at most P.
        method: one of `METHODS`.
        restarts: runs of k-means or of the mixture's fit; the best is kept; ignored by "agglomerative".
        seed: seeds the runs.
        unit: whether centres are scaled to unit norm.
    """
    if method == "kmeans":
        return kmeans(points, num_clusters, restarts=restarts, seed=seed, unit=unit)
    rows = points.detach().cpu().numpy()
    if method == "agglomerative":
        from sklearn.cluster import AgglomerativeClustering

        index, previous = AgglomerativeClustering(num_clusters, linkage="ward").fit_predict(rows), points[:num_clusters]
    else:
        from sklearn.mixture import GaussianMixture

        mixture = GaussianMixture(
            num_clusters, covariance_type="spherical", n_init=restarts, max_iter=300, random_state=seed % 2**32
        )
        index, previous = mixture.fit_predict(rows), torch.from_numpy(mixture.means_).to(points)
    owners = torch.from_numpy(index).to(points.device, torch.long)
    return Clusters(centroids(points, owners, previous, unit=unit), owners)


def update_hierarchy(
    proxies: Tensor,
    levels: list[Tensor],
    *,
    space: str,
    given_owners: list[Tensor] | None = None,
    unit: bool = False,
    empty: str = "keep",
) -> list[Clusters]:
    """Run one Lloyd step per coarse level, from fine to coarse; each level groups the NEW centres of the level below.

    Args:
        proxies: (C, D), or (C, K, D), the finest level.
        levels: centres of each coarse level, (n_1, D), (n_2, D), ...
        space: one of `CLUSTER_SPACES`, see `cluster_points`.
        given_owners: (C,), (n_1,), ..., fixed owners for every level; None assigns each proxy to its nearest centre.
        unit: whether centres are scaled to unit norm.
        empty: how to treat a group without members, one of `EMPTY`.

    Returns:
        New centres and owners of each coarse level.
    """
    updated = []
    below = proxies
    all_owners: Sequence[Tensor | None] = given_owners or [None] * len(levels)
    for centres, owners in zip(levels, all_owners, strict=True):
        updated.append(lloyd_step(cluster_points(below, space), centres, owners, unit=unit, empty=empty))
        below = updated[-1].centres
    return updated
