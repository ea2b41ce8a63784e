"""Grouping of proxies against loops in numpy, scikit-learn, and cases worked out by hand."""

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from benchmark.losses.clustering import cluster_points, kmeans, kmeans_from, lloyd_step, nearest, update_hierarchy


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
    centres[2] = 100.0  # nobody's nearest
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
    with pytest.raises(ValueError, match="cluster_space='unit' must be one of normalized, raw"):
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
