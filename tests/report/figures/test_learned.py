"""What losses learned, against formulas written out in loops."""

import math

import numpy as np
import pytest

from benchmark.report.figures import learned

BALL = {"curvature": 0.1, "clip_radius": 2.3}


def in_ball(vector: list[float]) -> list[float]:
    """Clipped to the radius, and mapped from the tangent space at 0: tanh(sqrt(c) |u|) u / (sqrt(c) |u|)."""
    length = math.hypot(*vector)
    clipped = min(length, 2.3)
    return [math.tanh(math.sqrt(0.1) * clipped) / math.sqrt(0.1) * x / length for x in vector]


def distance(x: list[float], y: list[float]) -> float:
    """The textbook's arcosh form, where the project computes artanh of a Moebius difference."""
    apart, gaps = math.dist(x, y) ** 2, [1 - 0.1 * sum(a * a for a in z) for z in (x, y)]
    return math.acosh(1 + 2 * 0.1 * apart / gaps[0] / gaps[1]) / math.sqrt(0.1)


def test_hier_s_ancestors_are_points_of_its_ball() -> None:
    nodes = [[0.3, -0.4], [6.0, 8.0]]  # norms 0.5 and 10, which is clipped
    kind, found = learned.above({"lcas": np.array(nodes)}, BALL)
    assert kind == "ancestor"
    np.testing.assert_allclose(found, [in_ball(node) for node in nodes], rtol=1e-4)


def test_distances_in_the_ball_and_by_angle_agree_with_their_textbook_forms() -> None:
    points, nodes = [[0.5, 1.0], [-1.2, 0.3]], [[0.1, -0.9], [2.0, 0.2], [1.0, 2.0]]
    found = learned.distances(np.array(points), np.array(nodes), {"curvature": 0.1})
    np.testing.assert_allclose(found, [[distance(x, y) for y in nodes] for x in points], rtol=1e-3)
    found = learned.distances(np.array(points), np.array(nodes), {})
    cosines = [[(x[0] * y[0] + x[1] * y[1]) / math.hypot(*x) / math.hypot(*y) for y in nodes] for x in points]
    np.testing.assert_allclose(found, 1 - np.array(cosines), atol=1e-6)


def test_coarse_proxies_are_unit_vectors_and_none_before_the_first_grouping() -> None:
    kind, found = learned.above({"centres_1": np.array([[3.0, 4.0]], np.float16)}, {})
    assert kind == "coarse proxy" and found.dtype == np.float32
    np.testing.assert_allclose(found, [[0.6, 0.8]], rtol=1e-6)
    for state in ({"centres_1": np.zeros((2, 2))}, {}):
        kind, found = learned.above(state, {})
        assert kind == "" and len(found) == 0


@pytest.mark.parametrize("name", ["proxies", "base.proxies", "means"])
def test_proxies_are_unit_vectors_one_or_several_for_each_class(name: str) -> None:
    several = np.arange(1.0, 13).reshape(2, 3, 2)
    found = learned.proxies({"counters": np.ones(3), name: several}, "cosine")
    assert found.shape == (6, 2)
    np.testing.assert_allclose(found, [np.array(v) / math.hypot(*v) for row in several for v in row], rtol=1e-6)
    assert len(learned.proxies({name: several}, "hyperbolic")) == len(learned.proxies({}, "cosine")) == 0


def test_the_common_ancestor_of_a_class_is_the_node_whose_farthest_member_is_nearest() -> None:
    to_nodes = np.array([[1.0, 2, 9], [5, 2, 1], [4, 9, 3], [1, 9, 0.5]])
    # class 7 has rows 0 and 1: largest distances 5, 2, 9; by the nearest node of each it would be 0 or 2.
    # class 3 has rows 2 and 3: largest distances 4, 9, 3.
    found = learned.common_ancestors(to_nodes, np.array([7, 7, 3, 3]), np.array([3, 7]))
    assert found.tolist() == [2, 1]
