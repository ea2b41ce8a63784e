"""Retrieval by hyperbolic distance, compared with the arcosh form in plain loops and values worked out by hand."""

import math

import numpy as np
import pytest
import torch

from benchmark.protocol.retrieval import retrieval_metrics
from tests.protocol.test_retrieval import RECALL_AT, clusters, loop_metrics


def arcosh_scores(queries, references, curvature, parts=1):
    """Compute minus the summed hyperbolic distances in the arcosh form, in float64."""
    q, r = (np.stack(np.split(np.asarray(x, dtype=np.float64), parts, axis=1)) for x in (queries, references))
    scores = []
    for row in range(q.shape[1]):
        apart = ((q[:, row, None] - r) ** 2).sum(axis=2)  # (parts, G)
        gaps = (1 - curvature * (q[:, row, None] ** 2).sum(axis=2)) * (1 - curvature * (r**2).sum(axis=2))
        scores.append((-np.arccosh(1 + 2 * curvature * apart / gaps) / math.sqrt(curvature)).sum(axis=0).tolist())
    return scores


def ball_clusters(num_classes, low, high, dimensions, seed, curvature):
    """Return clusters of points between the centre and the rim of the ball."""
    x, y = clusters(num_classes, low, high, dimensions, seed, spread=0.7)
    return 0.99 / math.sqrt(curvature) * x / x.norm(dim=1).max(), y


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("block", [7, 256])
@pytest.mark.parametrize("curvature", [0.1, 1.0])
def test_hyperbolic_metrics_are_those_of_the_loop(parts, block, curvature):
    x, y = ball_clusters(20, 1, 9, 6, 4, curvature)
    expected = loop_metrics(arcosh_scores(x, x, curvature, parts), y.tolist(), y.tolist(), itself=True)
    options = {"metric": "hyperbolic", "curvature": curvature, "parts": parts, "recall_at": RECALL_AT, "block": block}
    assert retrieval_metrics(x, y, **options) == pytest.approx(expected, abs=1e-12)
    g, yg = ball_clusters(18, 2, 9, 6, 5, curvature)
    expected = loop_metrics(arcosh_scores(x, g, curvature, parts), y.tolist(), yg.tolist(), itself=False)
    assert retrieval_metrics(x, y, g, yg, **options) == pytest.approx(expected, abs=1e-12)


def test_the_hyperbolic_order_is_not_the_euclidean_one():
    # c = 1 on a line: from 0.5 to 0 it is 2 artanh(.5) = 1.099, from 0.5 to 0.9 2 (artanh(.9) - artanh(.5)) = 1.846.
    x, y = torch.tensor([[0.5], [0.9], [0.0]]), torch.tensor([0, 1, 0])
    assert retrieval_metrics(x[:1], y[:1], x[1:], y[1:], metric="hyperbolic", curvature=1.0)["map_at_r"] == 1.0
    assert retrieval_metrics(x[:1], y[:1], x[1:], y[1:], metric="l2")["map_at_r"] == 0.0


def test_parts_are_separate_points_whose_distances_are_summed():
    # c = 1, parts of one dimension. From (0, 0): (.5, .5) is at 2 * 1.099, (.8, 0) at 2.197: a tie except for the 1e-5;
    # (.79, 0) is nearer at 2.143 than (.5, .5), though joined to one point of length .79 > .707 it would be farther.
    x, y = torch.tensor([[0.0, 0.0], [0.5, 0.5], [0.79, 0.0]]), torch.tensor([0, 1, 0])
    options = {"metric": "hyperbolic", "curvature": 1.0}
    assert retrieval_metrics(x[:1], y[:1], x[1:], y[1:], parts=2, **options)["map_at_r"] == 1.0
    assert retrieval_metrics(x[:1], y[:1], x[1:], y[1:], parts=1, **options)["map_at_r"] == 0.0


@pytest.mark.parametrize("parts", [1, 3])
def test_copies_of_a_point_have_equal_hyperbolic_distances(parts):
    rng = np.random.default_rng(0)
    points = torch.from_numpy(rng.standard_normal((2, 33)) / 8).float()
    points[:, 5] = 0.0
    kind, labels = rng.integers(0, 2, 333), torch.from_numpy(rng.integers(0, 50, 333))
    x = points[torch.from_numpy(kind)]
    x[200:, 5] = -0.0
    scores = [[float(a == b) for b in kind] for a in kind]
    expected = loop_metrics(scores, labels.tolist(), labels.tolist(), itself=True)
    options = {"metric": "hyperbolic", "curvature": 0.1, "parts": parts, "recall_at": RECALL_AT}
    assert retrieval_metrics(x, labels, **options) == pytest.approx(expected, abs=1e-12)


def test_float64_products_distinguish_near_points():
    # Steps of 2e-5 at length 2: squared distances of 4e-10 are far below the float32 rounding of products near 4.
    x = torch.zeros(12, 2)
    x[:, 0], x[:, 1] = 2.0, torch.tensor([0, 1, 10, 11, 20, 21, 30, 31, 40, 41, 50, 51]) * 2e-5
    found = retrieval_metrics(x, torch.arange(12) // 2, metric="hyperbolic", curvature=0.1)
    assert found["map_at_r"] == 1.0


@pytest.mark.parametrize("bad", [1.0, 1.2])
def test_points_outside_the_ball_are_refused(bad):
    x, y = torch.full((4, 6), 0.1), torch.tensor([0, 0, 1, 1])
    x[2, 3:] = torch.tensor([0.0, bad * 2.0, 0.0])
    inside = torch.full((4, 6), 0.1)
    message = "1 of 4 vectors in queries lie outside the ball of curvature 0.25, the first at index 2"
    with pytest.raises(ValueError, match=message):
        retrieval_metrics(x, y, metric="hyperbolic", curvature=0.25, parts=2)
    with pytest.raises(ValueError, match="1 of 4 vectors in gallery lie outside"):
        retrieval_metrics(inside, y, x, y, metric="hyperbolic", curvature=0.25, parts=2)
