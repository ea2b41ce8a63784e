"""Selection and order of nearest neighbours, compared with Python's stable sort on score matrices full of ties."""

import numpy as np
import pytest
import torch

from benchmark.protocol import nearest as nearest_module
from benchmark.protocol.nearest import nearest, nearest_others


def sorted_columns(row, depth):
    return sorted(range(len(row)), key=lambda column: (-row[column], column))[:depth]


@pytest.mark.parametrize("on_cpu", [True, False])
@pytest.mark.parametrize(("num_columns", "deepest"), [(1, 1), (5, 5), (40, 3), (101, 7), (1000, 4), (1000, 100)])
@pytest.mark.parametrize("num_levels", [1, 3, 50, 10**6])
def test_the_first_of_each_row_are_those_of_a_stable_sort(monkeypatch, on_cpu, num_columns, deepest, num_levels):
    monkeypatch.setattr(nearest_module, "_numpy_is_faster", lambda tensor: on_cpu)
    rng = np.random.default_rng(num_columns + num_levels)
    scores = torch.from_numpy(rng.integers(-num_levels, num_levels, (50, num_columns)) / 7).float()
    scores[:, ::9] = -torch.inf
    depth = torch.from_numpy(rng.integers(1, deepest + 1, 50))
    found = nearest(scores, depth)
    for row, columns, k in zip(scores.tolist(), found.tolist(), depth.tolist(), strict=True):
        assert columns[:k] == sorted_columns(row, k)


def test_minus_zero_ties_with_zero_and_small_numbers_do_not():
    scores = torch.tensor([[-1e-45, -0.0, 0.0, -0.0, 1e-45]])
    assert nearest(scores, torch.tensor([4])).tolist()[0][:4] == [4, 1, 2, 3]


@pytest.mark.parametrize("metric", ["cosine", "l2", "hyperbolic"])
@pytest.mark.parametrize("count", [1, 4, 29])
def test_the_nearest_others_are_in_order_and_without_the_row_itself(metric, count):
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((30, 4))) / 3
    x[7] = x[2]
    lengths = x.norm(dim=1)
    apart = (x[:, None] - x).square().sum(dim=2)
    scores = {
        "cosine": (x @ x.T) / lengths / lengths[:, None],
        "l2": -apart,
        "hyperbolic": -apart / (1 - 0.1 * lengths**2) / (1 - 0.1 * lengths[:, None] ** 2),  # in the arcosh, so in order
    }[metric]
    options = {"curvature": 0.1} if metric == "hyperbolic" else {}
    found = nearest_others(x, count, metric=metric, block=7, **options)
    assert found.shape == (30, count)
    for row, columns in enumerate(found.tolist()):
        others = [c if c != row else -1 for c in sorted_columns(scores[row].round(decimals=9).tolist(), 30)]
        assert columns == [c for c in others if c >= 0][:count]


@pytest.mark.parametrize("count", [0, 3])
def test_a_count_above_the_number_of_other_rows_is_refused(count):
    with pytest.raises(ValueError, match=f"count is {count}; each of 3 rows has between 1 and 2 others"):
        nearest_others(torch.eye(3), count, metric="cosine")
