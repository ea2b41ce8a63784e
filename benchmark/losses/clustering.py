"""How HPL groups proxies: the first grouping and the one Lloyd step of each update. A part of `hpl.py`.

Source: Yang, Bastan, Zhu, Gray and Samaras, "Hierarchical Proxy-based Loss for Deep Metric Learning", WACV 2022,
arXiv 2103.13538, Algorithm 1 and Section 3.4.

What Algorithm 1 leaves open, and the choice here:
- the k-means start: k-means++, several restarts, seeded, run until no proxy changes its owner;
- an empty group (0/0 in Algorithm 1) keeps its centre; `empty="reseed_farthest"` gives it the farthest proxy instead;
- equal distances go to the lowest index;
- proxies are scaled to unit length first (the loss sees directions only), centres are plain means; `unit=True` scales
  the means to unit length as well, which is spherical k-means.
The paper leaves other ways to group to future work. `first_clusters` has two, for the start alone: an update is a Lloyd
step whatever came first.
Distances are taken in float64, coordinate by coordinate, so that neither ties nor near ties depend on a matrix product.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

CLUSTER_SPACES = ("normalized", "raw")
METHODS = ("kmeans", "agglomerative", "gmm")
EMPTY = ("keep", "reseed_farthest")


class Clusters(NamedTuple):
    """Centres (n, D) and the index (P,) of each point's centre."""

    centres: Tensor
    owners: Tensor


def cluster_points(vectors: Tensor, space: str) -> Tensor:
    """What is clustered, in float64: unit rows of vectors (P, D), or in the space "raw" the rows themselves.

    Several centres per class, (P, K, D), count as their mean, in the normalised space as the mean of the unit ones. A
    class whose centres lie apart is thus a short vector.

    Raises:
        ValueError: the space is neither.
    """
    if space not in CLUSTER_SPACES:
        raise ValueError(f"cluster_space={space!r} must be one of {', '.join(CLUSTER_SPACES)}.")
    points = functional.normalize(vectors.double(), dim=-1) if space == "normalized" else vectors.double()
    return points if points.dim() == 2 else points.mean(dim=1)


def nearest(points: Tensor, centres: Tensor) -> Tensor:
    """Index (P,) of the centre (n, D) nearest to each point (P, D); equal distances give the lowest index."""
    return torch.cdist(points, centres, compute_mode="donot_use_mm_for_euclid_dist").argmin(dim=1)


def centroids(points: Tensor, owners: Tensor, previous: Tensor, *, unit: bool = False) -> Tensor:
    """Mean (n, D) of the points (P, D) of each owner; a row of `previous` (n, D) stays where no point is owned.

    Differentiable in the points. A product with the membership matrix: scattered sums are not repeatable on a GPU.
    With `unit` the means have length 1.
    """
    index = torch.arange(len(previous), device=points.device)
    members = (index[:, None] == owners).to(points.dtype)  # (n, P)
    count = members.sum(dim=1, keepdim=True)
    means = members @ points / count.clamp(min=1)
    return torch.where(count > 0, functional.normalize(means, dim=1) if unit else means, previous.to(points.dtype))


def lloyd_step(
    points: Tensor, centres: Tensor, owners: Tensor | None = None, *, unit: bool = False, empty: str = "keep"
) -> Clusters:
    """One Lloyd iteration: points (P, D) go to their nearest centre (n, D), then centres move to their points' mean.

    With `owners` (P,) the points stay where they are and only the centres move. `unit` is for `centroids`, `empty` one
    of `EMPTY`.
    """
    if owners is None:
        owners = nearest(points, centres.to(points.dtype))
        if empty == "reseed_farthest":
            owners = _fill_empty(points, owners, centroids(points, owners, centres, unit=unit))
    return Clusters(centroids(points, owners, centres, unit=unit), owners)


def _fill_empty(points: Tensor, owners: Tensor, centres: Tensor) -> Tensor:
    """Owners (P,) with the points farthest from their own centres given to the empty groups, one to each."""
    empty = (torch.bincount(owners, minlength=len(centres)) == 0).nonzero()[:, 0]
    gaps = (points - centres[owners]).square().sum(dim=1)
    farthest = gaps.argsort(descending=True, stable=True)[: len(empty)]
    return owners.scatter(0, farthest, empty)


def kmeans_from(points: Tensor, start: Tensor, max_iterations: int = 300, *, unit: bool = False) -> Clusters:
    """Lloyd iterations from the given centres (n, D) until no point (P, D) changes its owner."""
    owners, centres = nearest(points, start), start
    for _ in range(max_iterations):
        centres = centroids(points, owners, centres, unit=unit)
        moved = nearest(points, centres)
        if torch.equal(moved, owners):
            break
        owners = moved
    return Clusters(centres, owners)


def kmeans(points: Tensor, num_clusters: int, *, restarts: int, seed: int, unit: bool = False) -> Clusters:
    """The best of several k-means++ runs of scikit-learn on points (P, D), finished by the Lloyd iterations above.

    Args:
        points: (P, D) float64.
        num_clusters: n, at most P.
        restarts: runs, of which the one with the least inertia is kept.
        seed: of the starts.
        unit: whether centres have length 1.
    """
    from sklearn.cluster import KMeans

    estimator = KMeans(num_clusters, n_init=restarts, tol=0.0, algorithm="lloyd", random_state=seed % 2**32)
    estimator.fit(points.detach().cpu().numpy())
    return kmeans_from(points, torch.from_numpy(estimator.cluster_centers_).to(points), unit=unit)


def first_clusters(
    points: Tensor, num_clusters: int, *, method: str, restarts: int, seed: int, unit: bool = False
) -> Clusters:
    """The grouping before any update; in all methods a centre is the mean of its members, whatever the method fitted.

    "agglomerative" is Ward's; it takes P^2 / 2 distances, 0.5 GB for 11,318 classes. "gmm" is a mixture of spherical
    Gaussians, each point going to its likeliest one; a Gaussian that gets none gives its own mean.

    Args:
        points: (P, D) float64.
        num_clusters: n, at most P.
        method: one of `METHODS`.
        restarts: runs of k-means or of the mixture's fit, of which the best is kept; "agglomerative" has one.
        seed: of the runs.
        unit: whether centres have length 1.
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
    """One Lloyd step per coarse level, from fine to coarse; each level is grouped by the NEW centres below it.

    Args:
        proxies: (C, D), or (C, K, D), the finest level.
        levels: centres of each coarse level, (n_1, D), (n_2, D), ...
        space: see `cluster_points`.
        given_owners: (C,), (n_1,), ..., where the groups of every level are given, not found.
        unit: whether centres are scaled to length 1.
        empty: what becomes of a group without members, one of `EMPTY`.
    """
    updated = []
    below = proxies
    all_owners: Sequence[Tensor | None] = given_owners or [None] * len(levels)
    for centres, owners in zip(levels, all_owners, strict=True):
        updated.append(lloyd_step(cluster_points(below, space), centres, owners, unit=unit, empty=empty))
        below = updated[-1].centres
    return updated
