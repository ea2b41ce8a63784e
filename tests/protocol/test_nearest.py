"""Selection and order of nearest neighbours, compared with Python's stable sort on score matrices full of ties."""

import numpy as np
import pytest
import torch

from benchmark.protocol import nearest as nearest_module
from benchmark.protocol.nearest import nearest


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
