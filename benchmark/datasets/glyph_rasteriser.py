"""Rasterise quadratic outlines to grey images with numpy alone, bit-identically on every machine (used by `glyphs`).

Source: scan conversion by the non-zero winding rule, as prescribed by the TrueType specification ("Scan converter").
Departures, all for reproducible bits: no hinting and no drop-out control; 8 scan lines per pixel row; crossings of
outlines and scan lines are rounded to 1/64 pixel, after which all arithmetic is on integers. Before, only + - * / and
floor on float64 are used, which IEEE 754 defines to the last bit, and no matrix product, whose order of summation a
library may choose.
"""

import numpy as np

SCAN_LINES = 8  # per pixel row
UNITS = 64  # horizontal steps per pixel
CURVE_STEPS = 6  # line segments per quadratic curve


def flatten(points: np.ndarray, on_curve: np.ndarray, contour: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flatten a batch of closed quadratic contours to directed straight edges.

    The midpoint of two neighbouring control points is an implied point of the curve. A curve from a to c with control
    point b is cut at t = 0, 1/6, ..., 1 of (1-t)^2 a + 2t(1-t) b + t^2 c. A contour of one point has no edge.

    Args:
        points: float64 (M, 2), one contour after another.
        on_curve: bool (M,), False for control points.
        contour: int (M,), id of the contour of each point, ascending.

    Returns:
        Edges, float64 (E, 4) as x0, y0, x1, y1, and the contour id of each, int (E,), ascending.
    """
    alone = np.bincount(contour)[contour] < 2
    points, on_curve, contour = points[~alone], on_curve[~alone], contour[~alone]
    points, on_curve, contour = _with_implied_points(points, on_curve, contour)
    following = _following(contour)
    preceding = np.empty_like(following)
    preceding[following] = np.arange(len(following))
    line = np.flatnonzero(on_curve & on_curve[following])
    control = np.flatnonzero(~on_curve)
    t = np.arange(CURVE_STEPS + 1, dtype=np.float64)[:, None] / CURVE_STEPS
    a, b, c = (points[i][:, None] for i in (preceding[control], control, following[control]))
    curve = (1 - t) * (1 - t) * a + 2 * t * (1 - t) * b + t * t * c  # (curves, steps + 1, 2)
    segments = np.concatenate([curve[:, :-1], curve[:, 1:]], axis=2).reshape(-1, 4)
    edges = np.concatenate([np.concatenate([points[line], points[following[line]]], axis=1), segments])
    owner = np.concatenate([contour[line], np.repeat(contour[control], CURVE_STEPS)])
    order = np.argsort(owner, kind="stable")
    return edges[order], owner[order]


def _following(contour: np.ndarray) -> np.ndarray:
    """Return, for each point, the index of the next point on its contour."""
    starts = np.flatnonzero(np.diff(contour, prepend=-1))
    following = np.arange(1, len(contour) + 1)
    following[np.append(starts[1:], len(contour)) - 1] = starts
    return following


def _with_implied_points(
    points: np.ndarray, on_curve: np.ndarray, contour: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Add a point on the curve between every two neighbouring control points."""
    following = _following(contour)
    implied = np.flatnonzero(~on_curve & ~on_curve[following])
    middles = (points[implied] + points[following[implied]]) / 2
    return (
        np.insert(points, implied + 1, middles, axis=0),
        np.insert(on_curve, implied + 1, True),
        np.insert(contour, implied + 1, contour[implied]),
    )


def rasterise(edges: np.ndarray, image: np.ndarray, num_images: int, size: int) -> np.ndarray:
    """Draw images: the fraction of each pixel that is inside by the non-zero winding rule, scaled to 0 .. 255.

    Args:
        edges: float64 (E, 4), x0, y0, x1, y1 in pixels, y down; the edges of each image form closed contours, which may
            extend beyond the image.
        image: int (E,), index of the image of each edge.
        num_images: number of images.
        size: width and height in pixels.

    Returns:
        uint8 (num_images, size, size).
    """
    row, x, winding = _crossings(edges, image, size)
    order = np.argsort(row * (size * UNITS + 1) + x, kind="stable")
    row, x = row[order], x[order]
    # A contour crosses a scan line equally often upward and downward, so the sum returns to 0 at the end of every row.
    inside = np.cumsum(winding[order])[:-1] != 0
    left, right, pixel_row = x[:-1][inside], x[1:][inside], row[:-1][inside] // SCAN_LINES
    # Ink from x to the right edge is UNITS in every later pixel and a part of the pixel of x: store only the increase.
    place, weight = [], []
    for position, sign in ((left, 1), (right, -1)):
        pixel, part = position // UNITS, position % UNITS
        first = pixel_row * (size + 2) + pixel
        place += [first, first + 1]
        weight += [sign * (UNITS - part), sign * part]
    increase = np.bincount(np.concatenate(place), np.concatenate(weight), num_images * size * (size + 2))
    covered = np.cumsum(increase.astype(np.int64).reshape(num_images, size, size + 2), axis=2)[:, :, :size]
    full = SCAN_LINES * UNITS
    return ((covered * 255 + full // 2) // full).astype(np.uint8)


def _crossings(edges: np.ndarray, image: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the crossings of edges and scan lines: scan line numbered over all images, x in 1/64 pixel, direction."""
    y0, y1 = edges[:, 1] * SCAN_LINES, edges[:, 3] * SCAN_LINES
    num_lines = size * SCAN_LINES
    # Line k has its middle at k + 0.5; an edge owns lines with low <= k + 0.5 < high, so a shared end counts once.
    first = np.clip(np.ceil(np.minimum(y0, y1) - 0.5), 0, num_lines).astype(np.int64)
    last = np.clip(np.ceil(np.maximum(y0, y1) - 0.5), 0, num_lines).astype(np.int64)
    count = last - first
    edge = np.repeat(np.arange(len(edges)), count)
    line = first[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count)
    along = (line + 0.5 - y0[edge]) / (y1[edge] - y0[edge])
    x = edges[edge, 0] + along * (edges[edge, 2] - edges[edge, 0])
    x = np.clip(np.floor(x * UNITS + 0.5), 0, size * UNITS).astype(np.int64)
    return image[edge].astype(np.int64) * num_lines + line, x, np.where(y1 > y0, 1, -1)[edge]
