"""Hits found by counting, compared with Python's stable sort; and that only ties need an order."""

import numpy as np
import pytest
import torch

from benchmark.protocol import counting as counting_module
from benchmark.protocol import nearest as nearest_module
from benchmark.protocol import retrieval as retrieval_module
from benchmark.protocol.counting import count_hits
from benchmark.protocol.retrieval import query_scores


def ranked_hits(row, first, num, itself):
    """Return whether each reference is relevant, by falling score and then by column, without the query itself."""
    order = sorted((g for g in range(len(row)) if g != itself), key=lambda g: (-row[g], g))
    return [first <= g < first + num for g in order]


def tied(row, first, num, itself):
    """Return whether a relevant and an irrelevant reference have the same score at one of the first R ranks."""
    relevant = [g for g in range(first, first + num) if g != itself]
    levels = {row[g] for g in relevant} & {row[g] for g in range(len(row)) if not first <= g < first + num}
    return any(sum(score > level for score in row) < len(relevant) for level in levels)


def questions(rng, num_rows, num_columns, low, high, levels, with_itself):
    """Return scores (B, G), the first column and R of each row in the order of R, and each query's own column or -1."""
    scores = rng.integers(-levels, levels, (num_rows, num_columns)).astype(np.float32) / 7
    depth = np.sort(rng.integers(low, high + 1, num_rows))
    first = rng.integers(0, num_columns - depth - with_itself + 1)
    scores += rng.choice([0, levels / 7], (num_rows, 1)) * (np.arange(num_columns) >= first[:, None])
    itself = np.where(with_itself, first + rng.integers(0, depth + 1), -1)
    if with_itself:
        scores[np.arange(num_rows), itself] = -np.inf
    return scores, first, depth, itself


SIZES = [
    (1, 1, 1),
    (2, 1, 1),
    (11, 1, 1),
    (9, 1, 5),
    (40, 40, 40),
    (101, 7, 7),
    (300, 1, 60),
    (1000, 4, 4),
    (3000, 1, 2),
]


@pytest.mark.parametrize("with_itself", [False, True])
@pytest.mark.parametrize("levels", [2, 30, 10**7])
@pytest.mark.parametrize(("num_columns", "low", "high"), SIZES)
def test_hits_are_those_of_a_stable_sort_and_only_rows_with_ties_are_undecided(
    num_columns, low, high, levels, with_itself
):
    rng = np.random.default_rng(num_columns + levels)
    scores, first, depth, itself = questions(rng, 20, num_columns + with_itself, low, high, levels, with_itself)
    before = scores.copy()
    hits, undecided = count_hits(scores, first, depth, with_itself=with_itself)
    np.testing.assert_array_equal(scores, before)
    assert hits.shape == (20, min(depth[-1] + 1, num_columns + with_itself))
    for b, row in enumerate(before.tolist()):
        num = int(depth[b]) + with_itself
        if b in undecided:
            assert len(set(row)) < len(row)
        else:
            assert not tied(row, first[b], num, itself[b])
            assert hits[b, : depth[b]].tolist() == ranked_hits(row, first[b], num, itself[b])[: depth[b]]
    if levels == 10**7:
        assert len(undecided) <= 1


def test_rows_with_nan_are_undecided():
    scores = np.random.default_rng(0).standard_normal((4, 50)).astype(np.float32)
    scores[1, 3], scores[2, 40] = np.nan, np.nan  # of a relevant and of an irrelevant reference
    _, undecided = count_hits(scores, np.zeros(4, np.int64), np.full(4, 5), with_itself=False)
    assert undecided.tolist() == [1, 2]


def test_a_collapsed_row_is_given_up_before_its_scores_are_fetched(monkeypatch):
    scores, fetched, places = np.zeros((3, 4000), np.float32), [], counting_module._places
    scores[0, :5] = [4, 3, 2, 1, 3.5]

    def watched(distances, row, found):
        fetched.extend(row.tolist())
        return places(distances, row, found)

    monkeypatch.setattr(counting_module, "_places", watched)
    hits, undecided = count_hits(scores, np.zeros(3, np.int64), np.full(3, 4), with_itself=False)
    assert undecided.tolist() == [1, 2] and fetched == [0]
    assert hits[0, :4].tolist() == [True, False, True, True]


def vectors_of(kind, num=200):
    """Return vectors of a kind, and class ids in no order."""
    rng = np.random.default_rng(len(kind))
    labels = rng.integers(0, 12, num)
    x = rng.standard_normal((num, 16))
    if kind in ("clustered", "float16"):
        x += 0.7 * rng.standard_normal((12, 16))[labels]
    elif kind == "tied":
        x = rng.choice([-1.0, 1.0], (num, 16))
    elif kind == "copies":
        x = x[rng.integers(0, num // 3, num)]
    elif kind == "zeros":
        x[rng.random(num) < 0.3] = 0
    dtype = torch.float16 if kind == "float16" else torch.float32
    return torch.from_numpy(x).to(dtype), torch.from_numpy(labels)


@pytest.mark.parametrize("kind", ["random", "clustered", "float16", "tied", "copies", "zeros"])
def test_counting_gives_every_query_the_scores_that_a_search_in_order_gives(monkeypatch, kind):
    x, y = vectors_of(kind)
    options = {"recall_at": (1, 2, 8), "block": 50}
    for args in ((x, y), (x[:100], y[:100], x[100:], y[100:])):
        counted = query_scores(*args, **options)
        with monkeypatch.context() as patch:
            patch.setattr(nearest_module, "_numpy_is_faster", lambda tensor: False)
            in_order = query_scores(*args, **options)
        for name, scores in in_order.items():
            torch.testing.assert_close(counted[name], scores, rtol=0, atol=1e-12, equal_nan=True)


def test_without_ties_no_query_is_searched_in_order(monkeypatch):
    monkeypatch.setattr(retrieval_module, "nearest", None)
    query_scores(*vectors_of("clustered"), block=64)
    with pytest.raises(TypeError):
        query_scores(*vectors_of("tied"), block=64)
