import numpy as np
import pytest

from benchmark.datasets import glyph_rendering
from benchmark.datasets.glyph_outlines import Outline
from benchmark.datasets.glyph_rendering import draw, warp_numbers

UPRIGHT = np.zeros((1, 6))


def box(left, bottom, right, top):
    """Return the outline of a rectangle, in thousandths of an em."""
    points = np.array([[left, bottom], [right, bottom], [right, top], [left, top]], np.int32)
    return Outline(points, np.array([3], np.int32), np.ones(4, bool), 1000)


def drawn(outline, numbers=UPRIGHT, warp=0.0, size=32):
    return draw([outline], np.asarray(numbers, float), size=size, warp=warp)[0]


def extent(image):
    """Return the first and last column and row with ink, and where the ink begins and ends within them."""
    columns, rows = image.max(axis=0) / 255, image.max(axis=1) / 255
    x, y = np.flatnonzero(columns), np.flatnonzero(rows)
    return (
        x[0] + 1 - columns[x[0]],
        x[-1] + columns[x[-1]],
        y[0] + 1 - rows[y[0]],
        y[-1] + rows[y[-1]],
    )


def test_a_box_stands_on_the_base_line_in_the_middle():
    # One em is 24 pixels. 0.5 em wide: columns 10 to 22. The base line is 0.36 * 24 = 8.64 below the middle, at 24.64,
    # the top 0.25 * 24 = 6 above it, at 18.64. Middles of scan lines are at 1/16, 3/16, ...: three of row 18 are below
    # .64, five of row 24 above. 3/8 of 255 is 95.6, 5/8 is 159.4.
    expected = np.zeros((32, 32), int)
    expected[18, 10:22] = 96
    expected[19:24, 10:22] = 255
    expected[24, 10:22] = 159
    assert drawn(box(100, 0, 600, 250)).tolist() == expected.tolist()


def test_the_horizontal_position_does_not_matter_but_the_height_does():
    assert (drawn(box(100, 0, 600, 250)) == drawn(box(-300, 0, 200, 250))).all()
    assert (drawn(box(100, 0, 600, 250)) != drawn(box(100, 125, 600, 375))).any()


def test_an_outline_that_is_too_wide_is_shrunk_to_one_pixel_from_the_border():
    # 4 em are 96 pixels: shrunk by 96 / 30 about the middle, so the height of 1 em becomes 24 * 30 / 96 = 7.5.
    left, right, top, bottom = extent(drawn(box(0, 0, 4000, 1000)))
    assert (left, right) == (1, 31)
    assert bottom - top == pytest.approx(7.5, abs=1 / 8)


def test_an_outline_that_is_too_high_is_pushed_down_and_not_shrunk():
    # Height 1 em = 24 pixels fits, but 0.5 to 1.5 em over the base line would end at 24.64 - 36 < 1.
    _, _, top, bottom = extent(drawn(box(0, 500, 500, 1500)))
    assert (top, bottom) == (1, 25)


def test_an_outline_that_is_too_tall_is_shrunk_and_moved_to_fill_the_height():
    # 2 em are 48 pixels: shrunk to the 30 between the borders, and 0.5 em wide to 12 * 30 / 48 = 7.5.
    left, right, top, bottom = extent(drawn(box(0, 0, 500, 2000)))
    assert (top, bottom) == (1, 31)
    assert right - left == pytest.approx(7.5, abs=0.01)
    assert extent(drawn(box(0, -2000, 500, 0)))[2:] == (1, 31)


def test_an_outline_that_is_too_low_is_pushed_up():
    _, _, top, bottom = extent(drawn(box(0, -1000, 500, 0)))
    assert (top, bottom) == (7, 31)


def test_the_shift_is_warp_times_half_a_side():
    # 0.125 * 16 = 2 pixels to the right, and 2 down.
    shifted = drawn(box(100, 0, 600, 250), [[0, 0, 0, 0, 1, 1]], warp=0.125)
    assert (shifted == np.roll(drawn(box(100, 0, 600, 250)), (2, 2), axis=(0, 1))).all()


def test_the_first_number_stretches_sideways_about_the_middle():
    # 12 pixels wide become 12 * 1.25 = 15: columns 8.5 to 23.5.
    left, right, _, _ = extent(drawn(box(100, 0, 600, 250), [[1, 0, 0, 0, 0, 0]], warp=0.25))
    assert (left, right) == pytest.approx((8.5, 23.5), abs=0.01)


def test_the_fourth_number_stretches_upward_and_downward_about_the_middle():
    # Rows 2.64 to 8.64 below the middle become 3.3 to 10.8.
    _, _, top, bottom = extent(drawn(box(100, 0, 600, 250), [[0, 0, 0, 1, 0, 0]], warp=0.25))
    assert (top, bottom) == pytest.approx((19.3, 26.8), abs=1 / 8)


def test_the_second_number_moves_low_rows_to_the_right():
    # A row y below the middle moves by 0.25 y: row 22.5 by 1.625.
    upright, sheared = drawn(box(100, 0, 600, 250)), drawn(box(100, 0, 600, 250), [[0, 1, 0, 0, 0, 0]], warp=0.25)
    middle = [np.average(np.arange(32), weights=image[22].astype(float)) for image in (upright, sheared)]
    assert middle[1] - middle[0] == pytest.approx(0.25 * 6.5, abs=0.02)


def test_the_third_number_moves_right_columns_down():
    # A column x right of the middle moves by 0.25 x: column 20.5 by 1.125.
    upright, sheared = drawn(box(100, 0, 600, 250)), drawn(box(100, 0, 600, 250), [[0, 0, 1, 0, 0, 0]], warp=0.25)
    middle = [np.average(np.arange(32), weights=image[:, 20].astype(float)) for image in (upright, sheared)]
    assert middle[1] - middle[0] == pytest.approx(0.25 * 4.5, abs=0.05)


@pytest.mark.slow
def test_images_do_not_depend_on_how_many_are_drawn_at_once(monkeypatch, outlines):
    some = [outlines[ord(letter), "DejaVuSerif-Italic"] for letter in "Ag&é"]
    numbers = warp_numbers(4, seed=3)
    together = draw(some, numbers, size=24, warp=0.15)
    monkeypatch.setattr(glyph_rendering, "BATCH", 3)
    assert (draw(some, numbers, size=24, warp=0.15) == together).all()


def test_reports_progress_after_each_batch(monkeypatch):
    monkeypatch.setattr(glyph_rendering, "BATCH", 2)
    seen = []
    draw(
        [box(0, 0, 500, 500)] * 5,
        np.zeros((5, 6)),
        size=8,
        warp=0.0,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_warp_numbers_are_those_of_numpy_s_generator():
    uniform = np.random.Generator(np.random.PCG64(7)).random(30)
    assert warp_numbers(5, seed=7).ravel() == pytest.approx(2 * uniform - 1, abs=1e-15)
