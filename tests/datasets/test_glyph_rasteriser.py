import math

import numpy as np
import pytest

from benchmark.datasets.glyph_rasteriser import flatten, rasterise


def edges_of(*polygons):
    """Return the edges of closed polygons, each given as a list of corners."""
    return np.array(
        [[*a, *b] for corners in polygons for a, b in zip(corners, corners[1:] + corners[:1], strict=True)], float
    )


def one_image(edges, size):
    return rasterise(edges, np.zeros(len(edges), int), 1, size)[0]


def winding_number(edges, x, y):
    """Return the signed crossings of the ray from (x, y) to the left."""
    winding = 0
    for x0, y0, x1, y1 in edges.tolist():
        if min(y0, y1) <= y < max(y0, y1) and x0 + (y - y0) / (y1 - y0) * (x1 - x0) < x:
            winding += 1 if y1 > y0 else -1
    return winding


def image_point_by_point(edges, size):
    """Draw an image by testing 8 x 64 sample points per pixel one by one."""
    image = np.zeros((size, size), np.uint8)
    for row in range(size):
        for column in range(size):
            inside = 0
            for line in range(8):
                for unit in range(64):
                    inside += winding_number(edges, column + (unit + 0.5) / 64, row + (line + 0.5) / 8) != 0
            image[row, column] = math.floor(255 * inside / 512 + 0.5)
    return image


def rectangle(left, top, right, bottom):
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def test_a_rectangle_covers_the_exact_share_of_each_pixel():
    left, top, right, bottom = 1.25, 2.375, 4.5, 5.75  # multiples of 1/64 and 1/8
    found = one_image(edges_of(rectangle(left, top, right, bottom)), 8)
    for row in range(8):
        for column in range(8):
            width = max(0.0, min(right, column + 1) - max(left, column))
            height = max(0.0, min(bottom, row + 1) - max(top, row))
            assert found[row, column] == math.floor(255 * width * height + 0.5)


@pytest.mark.parametrize("seed", range(4))
def test_a_random_self_crossing_polygon_equals_a_point_by_point_test(seed):
    # Twice around nine random corners, so that winding numbers beyond 1 and below 0 and partly cancelling ones occur;
    # corners extend two pixels beyond the image.
    corners = np.random.default_rng(seed).uniform(-2, 5, (9, 2)).tolist()
    edges = edges_of(corners)
    assert one_image(edges, 3).tolist() == image_point_by_point(edges, 3).tolist()


def test_the_ink_of_a_triangle_is_its_area():
    # Corners (1, 1), (29, 7), (11, 30): twice the area is 28 * 29 - 10 * 6 = 752.
    found = one_image(edges_of([(1, 1), (29, 7), (11, 30)]), 32)
    assert found.sum() / 255 == pytest.approx(376, rel=2e-3)


def test_an_inner_contour_the_other_way_round_is_a_hole():
    outer, inner = rectangle(1, 1, 7, 7), rectangle(3, 3, 5, 5)
    found = one_image(edges_of(outer, inner[::-1]), 8)
    assert found[4, 4] == 0
    assert found.sum() == 255 * (36 - 4)


def test_an_inner_contour_the_same_way_round_is_ink():
    outer, inner = rectangle(1, 1, 7, 7), rectangle(3, 3, 5, 5)
    assert one_image(edges_of(outer, inner), 8).sum() == 255 * 36


def test_overlapping_contours_are_inked_once():
    found = one_image(edges_of(rectangle(0, 0, 4, 4), rectangle(2, 2, 6, 6)), 8)
    assert found.max() == 255
    assert found.sum() == 255 * (16 + 16 - 4)


def test_parts_outside_the_image_are_cut_off():
    found = one_image(edges_of(rectangle(-5, -5, 2, 20)), 8)
    assert (found[:, :2] == 255).all()
    assert (found[:, 2:] == 0).all()


def test_a_contour_wholly_outside_leaves_the_image_empty():
    for far in (rectangle(-9, 1, -3, 5), rectangle(9, 1, 12, 5), rectangle(1, -9, 5, -3), rectangle(1, 9, 5, 12)):
        assert one_image(edges_of(far), 8).sum() == 0


def test_images_drawn_together_equal_images_drawn_alone():
    shapes = [edges_of(rectangle(1, 1, 3.3, 4.7)), edges_of([(0, 8), (8, 8), (4, 0)]), edges_of(rectangle(5, 0, 20, 9))]
    owner = np.repeat(range(4), [len(shapes[0]), 0, len(shapes[1]), len(shapes[2])])  # image 1 has no edge
    together = rasterise(np.concatenate(shapes), owner, 4, 8)
    for place, shape in zip((0, 2, 3), shapes, strict=True):
        assert (together[place] == one_image(shape, 8)).all()
    assert together[1].sum() == 0


def test_the_order_of_the_edges_does_not_matter():
    edges = edges_of(np.random.default_rng(0).uniform(0, 16, (12, 2)).tolist())
    assert (one_image(edges, 16) == one_image(edges[::-1], 16)).all()


def twice_area(edges):
    return sum(x0 * y1 - x1 * y0 for x0, y0, x1, y1 in edges.tolist())


def test_straight_contours_are_unchanged():
    corners = np.array([[0, 0], [2, 0], [2, 1], [5, 5], [6, 5], [6, 6]], float)
    edges, owner = flatten(corners, np.ones(6, bool), np.array([0, 0, 0, 1, 1, 1]))
    assert edges.tolist() == [
        [0, 0, 2, 0],
        [2, 0, 2, 1],
        [2, 1, 0, 0],
        [5, 5, 6, 5],
        [6, 5, 6, 6],
        [6, 6, 5, 5],
    ]
    assert owner.tolist() == [0, 0, 0, 1, 1, 1]


def test_a_curve_is_cut_at_equal_steps_of_its_parameter():
    # a = (0, 0), b = (1, 2), c = (2, 0) gives x = 2t and y = 4t(1 - t).
    edges, _ = flatten(np.array([[0, 0], [1, 2], [2, 0]], float), np.array([True, False, True]), np.zeros(3, int))
    starts = sorted(edges[:, :2].tolist())
    expected = [[2 * i / 6, 4 * i / 6 * (1 - i / 6)] for i in range(7)]
    assert np.allclose(starts, expected, rtol=0, atol=1e-15)


def test_midpoints_of_control_points_are_on_the_curve():
    # Four control points at (+-1, +-1): the curve passes the middles of the sides, a square of area 2, and bulges out
    # by four parabola segments. Each is 2/3 of a triangle of area 1/2; six chords miss 1/36 of it.
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], float)
    edges, _ = flatten(corners, np.zeros(4, bool), np.zeros(4, int))
    assert twice_area(edges) / 2 == pytest.approx(2 + 4 * (1 / 3) * (1 - 1 / 36), abs=1e-12)


@pytest.mark.parametrize("turn", range(5))
def test_where_a_contour_starts_does_not_matter(turn):
    points = np.array([[0, 0], [4, 0], [5, 3], [2, 5], [-1, 3]], float)
    on_curve = np.array([True, False, False, True, False])
    zero = np.zeros(5, int)
    reference, _ = flatten(points, on_curve, zero)
    turned, _ = flatten(np.roll(points, turn, axis=0), np.roll(on_curve, turn), zero)
    assert sorted(turned.tolist()) == sorted(reference.tolist())


def test_edges_form_closed_contours():
    points = np.array([[0, 0], [4, 0], [5, 3], [2, 5], [-1, 3]], float)
    edges, _ = flatten(points, np.array([True, False, False, True, False]), np.zeros(5, int))
    assert sorted(edges[:, :2].tolist()) == sorted(edges[:, 2:].tolist())


def test_a_contour_of_one_point_has_no_edge():
    points = np.array([[9, 9], [0, 0], [2, 0], [2, 1]], float)
    edges, owner = flatten(points, np.ones(4, bool), np.array([0, 1, 1, 1]))
    assert owner.tolist() == [1, 1, 1]
    assert edges.max() == 2
