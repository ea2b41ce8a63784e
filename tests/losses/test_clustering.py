"""Grouping of proxies, compared with numpy loops, scikit-learn and cases worked out by hand."""

import math

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture

from benchmark.core.errors import UserError
from benchmark.losses.clustering import (
    METHODS,
    cluster_points,
    first_clusters,
    kmeans,
    kmeans_from,
    lloyd_step,
    nearest,
    update_hierarchy,
)


def points_and_centres(seed, num_points=30, num_centres=6, dim=4):
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(num_points, dim, generator=generator, dtype=torch.float64)
    return points, torch.randn(num_centres, dim, generator=generator, dtype=torch.float64)


def lloyd_by_loops(points, centres):
    owners = []
    for point in points:
        gaps = [sum((a - b) ** 2 for a, b in zip(point, centre, strict=True)) for centre in centres]
        owners.append(gaps.index(min(gaps)))
    moved = [list(centre) for centre in centres]
    for j in range(len(centres)):
        members = [point for point, owner in zip(points, owners, strict=True) if owner == j]
        if members:
            moved[j] = [sum(column) / len(members) for column in zip(*members, strict=True)]
    return moved, owners


@pytest.mark.parametrize("seed", range(5))
def test_a_lloyd_step_agrees_with_loops(seed):
    points, centres = points_and_centres(seed)
    centres[2] = 100.0  # nearest to no point
    moved, owners = lloyd_by_loops(points.tolist(), centres.tolist())
    found = lloyd_step(points, centres)
    assert found.owners.tolist() == owners
    np.testing.assert_allclose(found.centres, moved, rtol=1e-12)
    assert found.centres[2].tolist() == [100.0] * 4


def test_equal_distances_go_to_the_lowest_index():
    # (0, 0) is 1 away from the first three centres; the point (5, 0) is 4 away from centres 1 and 3, which are equal.
    centres = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    assert nearest(torch.tensor([[0.0, 0.0], [5.0, 0.0]], dtype=torch.float64), centres).tolist() == [0, 1]


def test_equal_centres_in_many_dimensions_go_to_the_lowest_index():
    points, centres = points_and_centres(0, num_points=500, num_centres=40, dim=128)
    twice = torch.cat([centres, centres, centres[:7]])
    assert torch.equal(nearest(points, twice), nearest(points, centres))


def test_given_owners_stay_and_only_the_centres_move():
    points = torch.tensor([[0.0, 0.0], [2.0, 0.0], [10.0, 10.0]], dtype=torch.float64)
    owners = torch.tensor([1, 1, 0])
    found = lloyd_step(points, torch.full((3, 2), 7.0), owners)
    assert found.owners.tolist() == [1, 1, 0]
    assert found.centres.tolist() == [[10.0, 10.0], [1.0, 0.0], [7.0, 7.0]]


@pytest.mark.parametrize("seed", range(5))
def test_k_means_from_given_starts_agrees_with_scikit_learn(seed):
    points, _ = points_and_centres(seed, num_points=60)
    start = points[:5]
    library = KMeans(5, init=start.numpy(), n_init=1, algorithm="lloyd", tol=0).fit(points.numpy())
    found = kmeans_from(points, start)
    assert found.owners.tolist() == library.labels_.tolist()
    np.testing.assert_allclose(found.centres, library.cluster_centers_, rtol=1e-10)


def test_k_means_finds_separate_groups_and_uses_no_global_generator():
    points, _ = points_and_centres(1, num_points=40)
    truth = torch.arange(40) % 4
    points = points + 50 * torch.eye(4, dtype=torch.float64)[truth]
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    found = kmeans(points, 4, restarts=10, seed=2**40)
    assert (torch.get_rng_state() == before[0]).all()
    assert np.random.get_state()[1].tolist() == before[1]
    assert [len(set(found.owners[truth == t].tolist())) for t in range(4)] == [1, 1, 1, 1]
    assert len(set(found.owners.tolist())) == 4


def test_k_means_is_repeatable_converged_and_better_with_more_restarts():
    points, _ = points_and_centres(2, num_points=200, dim=8)
    found, again = (kmeans(points, 20, restarts=10, seed=5) for _ in range(2))
    assert torch.equal(found.centres, again.centres)
    assert torch.equal(found.owners, again.owners)
    step = lloyd_step(points, found.centres)
    assert torch.equal(step.owners, found.owners)
    torch.testing.assert_close(step.centres, found.centres, rtol=1e-12, atol=1e-12)

    def inertia(clusters):
        return (points - clusters.centres[clusters.owners]).square().sum().item()

    single, several = (sum(inertia(kmeans(points, 20, restarts=n, seed=s)) for s in range(3)) for n in (1, 10))
    assert several < single


def test_points_are_unit_rows_in_float64_or_the_rows_themselves():
    vectors = torch.tensor([[3.0, 4.0], [0.0, 0.5]])
    unit = cluster_points(vectors, "normalized")
    assert unit.dtype == torch.float64
    np.testing.assert_allclose(unit, [[0.6, 0.8], [0.0, 1.0]], rtol=1e-15)
    assert cluster_points(vectors, "raw").tolist() == vectors.tolist()
    with pytest.raises(UserError, match="cluster_space='unit' of HPL must be one of normalized, raw"):
        cluster_points(vectors, "unit")


def test_each_level_is_grouped_by_the_new_centres_below_it():
    # 0, 1 | 8, 9, 10 on a line. The old level-1 centres 6 and 20 take (0, 1, 8, 9, 10) and nothing, so they become 5.6
    # and 20. Level 2, at 5.9 and 13: the NEW centre 5.6 goes to 5.9 and 20 to 13, which then move to 5.6 and 20.
    proxies = torch.tensor([[0.0], [1.0], [8.0], [9.0], [10.0]])
    levels = [torch.tensor([[6.0], [20.0]]), torch.tensor([[5.9], [13.0]])]
    fine, coarse = update_hierarchy(proxies, levels, space="raw")
    assert fine.owners.tolist() == [0, 0, 0, 0, 0]
    np.testing.assert_allclose(fine.centres, [[5.6], [20.0]])
    assert coarse.owners.tolist() == [0, 1]
    np.testing.assert_allclose(coarse.centres, [[5.6], [20.0]])


def means_by_loops(points, owners, num_clusters):
    members = [[p for p, o in zip(points, owners, strict=True) if o == j] for j in range(num_clusters)]
    return [[sum(column) / len(m) for column in zip(*m, strict=True)] for m in members]


def groups_of(owners):
    """Return the partition, regardless of the numbering of groups."""
    return {frozenset(i for i, o in enumerate(owners) if o == j) for j in set(owners)}


def ward_by_loops(points, num_clusters):
    """Repeatedly merge the two groups whose merger adds least to the within-group sum of squares."""
    groups = [[i] for i in range(len(points))]

    def cost(a, b):
        means = [[sum(points[i][d] for i in g) / len(g) for d in range(len(points[0]))] for g in (a, b)]
        gap = sum((x - y) ** 2 for x, y in zip(*means, strict=True))
        return len(a) * len(b) / (len(a) + len(b)) * gap

    while len(groups) > num_clusters:
        pairs = [(i, j) for i in range(len(groups)) for j in range(i)]
        i, j = min(pairs, key=lambda pair: cost(groups[pair[0]], groups[pair[1]]))
        groups[j] += groups.pop(i)
    return {frozenset(group) for group in groups}


@pytest.mark.parametrize("seed", range(3))
def test_agglomerative_agrees_with_ward_by_loops_and_gives_the_means_of_its_groups(seed):
    points, _ = points_and_centres(seed)
    found = first_clusters(points, 6, method="agglomerative", restarts=1, seed=0)
    assert groups_of(found.owners.tolist()) == ward_by_loops(points.tolist(), 6)
    np.testing.assert_allclose(found.centres, means_by_loops(points.tolist(), found.owners.tolist(), 6), rtol=1e-12)


def test_a_mixture_assigns_a_point_to_a_wide_group_although_a_tight_one_is_nearer():
    # A tight group around 0 and a wide one, 1 to 19 with mean 10. The point 2 is nearer to 0 than to 10, so k-means
    # gives it to the tight group, where its likelihood vanishes: (2 - 0) is hundreds of its standard deviations.
    tight, wide = [0.01 * i for i in range(-5, 6)], [2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0, 16.0, 18.0]
    points = torch.tensor(tight + wide, dtype=torch.float64)[:, None]
    truth = {frozenset(range(11)), frozenset(range(11, 20))}
    mixture, by_distance = (first_clusters(points, 2, method=m, restarts=3, seed=0) for m in ("gmm", "kmeans"))
    assert groups_of(mixture.owners.tolist()) == truth
    assert groups_of(by_distance.owners.tolist()) != truth
    np.testing.assert_allclose(sorted(mixture.centres[:, 0].tolist()), [0.0, 10.0], atol=1e-12)


@pytest.mark.parametrize("seed", range(2))
def test_centres_of_a_mixture_are_the_means_of_their_members(seed):
    points, _ = points_and_centres(seed, num_points=60)
    library = GaussianMixture(4, covariance_type="spherical", n_init=2, max_iter=300, random_state=5)
    index = library.fit(points.numpy()).predict(points.numpy())
    found = first_clusters(points, 4, method="gmm", restarts=2, seed=5)
    assert found.owners.tolist() == index.tolist()
    np.testing.assert_allclose(found.centres, means_by_loops(points.tolist(), index.tolist(), 4), rtol=1e-12)


def test_a_gaussian_without_members_gives_its_own_mean(monkeypatch):
    class Fitted:
        means_ = np.array([[0.0, 1.0], [5.0, 6.0]])

        def __init__(self, *_, **__): ...

        def fit_predict(self, rows):
            return np.zeros(len(rows), dtype=np.int64)

    monkeypatch.setattr("sklearn.mixture.GaussianMixture", Fitted)
    points = torch.tensor([[1.0, 3.0], [3.0, 3.0]], dtype=torch.float64)
    found = first_clusters(points, 2, method="gmm", restarts=1, seed=0)
    assert found.centres.tolist() == [[2.0, 3.0], [5.0, 6.0]]
    assert found.owners.tolist() == [0, 0]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_repeatable_takes_one_group_and_uses_no_global_generator(method):
    points, _ = points_and_centres(3)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    found, again = (first_clusters(points, 5, method=method, restarts=2, seed=2**40) for _ in range(2))
    assert torch.equal(found.centres, again.centres)
    assert torch.equal(found.owners, again.owners)
    one = first_clusters(points, 1, method=method, restarts=2, seed=0)
    assert one.owners.tolist() == [0] * 30
    np.testing.assert_allclose(one.centres[0], [sum(column) / 30 for column in zip(*points.tolist(), strict=True)])
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.random.get_state()[1].tolist() == before[1]


@pytest.mark.parametrize("method", METHODS)
def test_unit_centres_are_the_means_of_their_members_scaled_to_unit_norm(method):
    points, _ = points_and_centres(4, num_points=40)
    points = cluster_points(points, "normalized")
    found = first_clusters(points, 5, method=method, restarts=2, seed=0, unit=True)
    means = np.array(means_by_loops(points.tolist(), found.owners.tolist(), 5))
    np.testing.assert_allclose(found.centres, [m / math.sqrt(sum(x * x for x in m)) for m in means], rtol=1e-12)
    if method == "kmeans":  # spherical k-means has converged: no point has a larger cosine with another centre
        cosines = [[sum(x * y for x, y in zip(p, c, strict=True)) for c in found.centres.tolist()] for p in points]
        assert [row.index(max(row)) for row in cosines] == found.owners.tolist()


def test_an_empty_group_gets_the_point_farthest_from_its_centre():
    # 0, 1, 2 | 10, 14 with centres at 0, 12, 50, 60: the last two are nearest to no point. The means are 1 and 12, the
    # gaps 1, 0, 1, 2, 2: centre 2 takes the point 10 (the first of the two largest), centre 3 takes 14, and centre 1
    # loses its members and does not move.
    points = torch.tensor([[0.0], [1.0], [2.0], [10.0], [14.0]], dtype=torch.float64)
    centres = torch.tensor([[0.0], [12.0], [50.0], [60.0]], dtype=torch.float64)
    found = lloyd_step(points, centres, empty="reseed_farthest")
    assert found.owners.tolist() == [0, 0, 0, 2, 3]
    assert found.centres.tolist() == [[1.0], [12.0], [10.0], [14.0]]
    # With one empty group the pair keeps a member: 14.
    found = lloyd_step(points, centres[:3], empty="reseed_farthest")
    assert found.owners.tolist() == [0, 0, 0, 2, 1]
    assert found.centres.tolist() == [[1.0], [14.0], [10.0]]
    assert lloyd_step(points, centres).centres.tolist() == [[1.0], [12.0], [50.0], [60.0]]
    given = torch.tensor([0, 0, 0, 1, 1])
    assert lloyd_step(points, centres, given, empty="reseed_farthest").owners.tolist() == given.tolist()


def test_a_class_of_several_centres_is_the_mean_of_its_unit_centres():
    # (3, 4) and (0, 2) are (0.6, 0.8) and (0, 1) after normalisation, with mean (0.3, 0.9).
    vectors = torch.tensor([[[3.0, 4.0], [0.0, 2.0]], [[1.0, 0.0], [-4.0, 0.0]]])
    np.testing.assert_allclose(cluster_points(vectors, "normalized"), [[0.3, 0.9], [0.0, 0.0]], atol=1e-15)
    np.testing.assert_allclose(cluster_points(vectors, "raw"), [[1.5, 3.0], [-1.5, 0.0]], atol=1e-15)
