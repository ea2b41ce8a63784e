"""Which of a query's R nearest references are relevant, by counting the irrelevant ones ahead of each relevant one.

R-Precision, MAP@R and Precision@1 depend on the ranks of the R relevant references, as far as rank R. Which irrelevant
reference holds which rank does not matter, so no reference is selected, and only scores are sorted:

1. Sort the scores of the relevant references, p_1 >= p_2 >= ... >= p_R.
2. Divide the irrelevant references into chunks, and sort the maxima of the chunks, m_1 >= m_2 >= ... At least j
   irrelevant references score m_j or more. So if p_i < m_(R - i + 1), then R - i + 1 irrelevant references and i - 1
   relevant ones rank ahead of the i-th relevant one: it ranks below R. This leaves p_1 .. p_n as candidates.
3. The irrelevant references ahead of a candidate are in the chunks whose maximum is p_n or more; unless there are ties,
   these are fewer than R. Only they are searched, and a binary search finds the place of each score among the p_i.

Ties are not broken here: a row in which an irrelevant reference ties with a candidate is undecided.
"""

import numpy as np
import torch

_LARGEST_CHUNK = 64
_TORCH_IS_FASTER = 16  # columns in a chunk up to which torch finds the maxima in less time than numpy


def count_hits(
    scores: np.ndarray, first: np.ndarray, depth: np.ndarray, *, with_itself: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return whether each of the nearest references is relevant, in order, and which rows are undecided.

    Args:
        scores: (B, G) float32, larger is nearer; contiguous, changed during the call and restored at its end.
        first: (B,), column of the first relevant reference; the others follow it.
        depth: (B,), R of each row, 1 or more, in ascending order.
        with_itself: whether each query is one of the references, among the relevant ones; its score must be -inf.

    Returns:
        Hits (B, K) for K = min(max(R) + 1, G), of which the first R of a row count, and the indices (U,) of undecided
        rows, whose hits are wrong.
    """
    num_columns = scores.shape[1]
    counts = depth + with_itself
    width = int(counts[-1])
    windows = np.ndarray((scores.size - width + 1, width), np.float32, scores, strides=(scores.itemsize,) * 2)
    start = np.minimum(first, num_columns - width)
    windows_of_rows = start + np.arange(0, scores.size, num_columns)
    own = windows[windows_of_rows]  # (B, width)
    if counts[0] == width:
        windows[windows_of_rows] = -np.inf
        hits, undecided = _hits(scores, _distances(own), depth)
    else:
        begin, place = (first - start)[:, None], np.arange(width)
        outside = (place < begin) | (place >= begin + counts[:, None])
        windows[windows_of_rows] = np.where(outside, own, -np.inf)
        hits, undecided = _hits(scores, _distances(np.where(outside, -np.inf, own)), depth)
    windows[windows_of_rows] = own
    return hits, undecided.nonzero()[0]


def _distances(scores: np.ndarray) -> np.ndarray:
    """Return minus the scores of each row in ascending order, then inf up to a power of two of columns.

    At least the last column is inf.
    """
    num_rows, width = scores.shape
    padded = np.full((num_rows, 1 << width.bit_length()), np.inf, dtype=np.float32)
    distances = padded[:, :width]
    np.negative(scores, out=distances)
    distances.sort(axis=1)
    return padded


def _hits(scores: np.ndarray, distances: np.ndarray, depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return `count_hits`' hits, and whether each row (B,) is undecided.

    Args:
        scores: (B, G), -inf for relevant references.
        distances: (B, 2^b), minus the scores of the relevant references.
        depth: (B,), as in `count_hits`.
    """
    num_columns, deepest = scores.shape[1], int(depth[-1])
    maxima, steps = _maxima(scores, deepest)
    num_candidates, reach, undecided = _candidates(distances, maxima, depth)

    near = maxima >= -reach[:, None]
    near[undecided] = False
    row, chunk = np.divmod(near.ravel().nonzero()[0], maxima.shape[1])
    columns = chunk + steps[:, None]  # (steps, chunks)
    found = -scores.reshape(-1).take(columns + row * num_columns, mode="clip")
    ahead = found <= reach[row]
    ahead[-1] &= columns[-1] < num_columns
    ahead = ahead.ravel().nonzero()[0]
    row, found = row.take(ahead % max(len(row), 1)), found.ravel().take(ahead)

    place = _places(distances, row, found)
    undecided[row[distances.ravel().take(place) == found]] = True
    return _without_misses(place, num_candidates, distances.shape[1], min(deepest + 1, num_columns)), undecided


def _maxima(scores: np.ndarray, deepest: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the maxima (B, C) of chunks of each row; chunk c has the columns c + `steps` (S,) that exist.

    The time is least with about sqrt(2 G / R) columns in a chunk: fewer leave more maxima to sort, more are fetched.
    """
    num_rows, num_columns = scores.shape
    size = min(max(int((2 * num_columns / deepest) ** 0.5), 2), _LARGEST_CHUNK, int(num_columns**0.5))
    num_chunks = num_columns // size
    full = size * num_chunks
    strides = (scores.strides[0], num_chunks * scores.itemsize, scores.itemsize)
    chunks = np.ndarray((num_rows, size, num_chunks), np.float32, scores, strides=strides)
    maxima = torch.from_numpy(chunks).amax(dim=1).numpy() if size <= _TORCH_IS_FASTER else chunks.max(axis=1)
    rest = maxima[:, : num_columns - full]
    np.maximum(rest, scores[:, full:], out=rest)
    return maxima, np.arange(0, full + 1, num_chunks)


def _candidates(
    distances: np.ndarray, maxima: np.ndarray, depth: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the number (B,) of candidates, the distance (B,) of the farthest or -inf, and undecided rows (B,).

    All rows are treated as if they had the largest R, which may leave more candidates than necessary. A row is
    undecided if more than R chunks reach the candidates, or a score is NaN.
    """
    deepest, num_chunks = int(depth[-1]), maxima.shape[1]
    ordered = np.sort(maxima, axis=1)
    compared = min(deepest, num_chunks)
    first = deepest - compared  # nearer ones are always candidates, since there are too few chunks to rule them out
    possible = distances[:, first:deepest] <= -ordered[:, num_chunks - compared :]
    num_candidates = np.minimum(first + np.count_nonzero(possible, axis=1), depth)
    reach = distances[np.arange(len(depth)), num_candidates - 1]
    reach[num_candidates == 0] = -np.inf
    undecided = np.isnan(ordered[:, -1]) | np.isnan(distances[:, deepest - 1 : deepest + 1]).any(axis=1)  # sorted last
    if num_chunks > deepest:
        undecided |= ordered[:, num_chunks - deepest - 1] >= -reach
    return num_candidates, reach, undecided


def _places(distances: np.ndarray, row: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Return the flat index (F,) in `distances` (B, 2^b) of the first one in the row that is not below `found` (F,)."""
    width = distances.shape[1]
    flat, place, step = distances.reshape(-1), np.asarray(row * width), width >> 1
    while step:
        place += (flat.take(place + (step - 1)) < found) * step
        step >>= 1
    return place


def _without_misses(place: np.ndarray, num_candidates: np.ndarray, width: int, num_ranks: int) -> np.ndarray:
    """Return hits (B, K): candidates fill the ranks that the irrelevant references ahead of them leave free.

    Args:
        place: (F,), flat index (b, number of candidates ahead) in (B, width) of each irrelevant reference.
        num_candidates: (B,).
        width: a power of two.
        num_ranks: K.
    """
    row, candidates_ahead = np.divmod(np.sort(place), width)
    counts = np.bincount(row, minlength=len(num_candidates))
    misses_ahead = np.arange(len(row)) - np.repeat(counts.cumsum() - counts, counts)
    hits = np.arange(num_ranks + 1) < (num_candidates + counts)[:, None]
    hits[row, np.minimum(candidates_ahead + misses_ahead, num_ranks)] = False
    return hits[:, :num_ranks]
