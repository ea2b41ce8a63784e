"""Shared arithmetic of the losses, where the tests of the losses do not cover it."""

import math

import pytest
import torch

from benchmark.losses.numerics import at_least_float32, cosine_similarity, euclidean, log_one_plus_sum_exp
from tests.losses.conftest import cosine


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_becomes_float32_and_nothing_else_changes(dtype):
    assert at_least_float32(torch.ones(2, dtype=dtype)).dtype == torch.float32
    for wide in (torch.float32, torch.float64):
        vectors = torch.ones(2, dtype=wide)
        assert at_least_float32(vectors) is vectors


def test_cosines_agree_with_python(batch):
    expected = [[cosine(e, p) for p in batch[2].tolist()] for e in batch[0].tolist()]
    torch.testing.assert_close(cosine_similarity(batch[0], batch[2]), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("shapes", [((1, 5), (7, 3, 5)), ((5,), (7, 5))])
def test_cosines_need_matrices(shapes):
    with pytest.raises(ValueError, match=r"need matrices \(B, D\) and \(P, D\), not"):
        cosine_similarity(*map(torch.ones, shapes))


def test_euclidean_distances_by_hand():
    found = euclidean(torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 4.0], [3.0, 1e-4]]))
    assert found.tolist() == [pytest.approx([5.0, 1e-4])]


def test_log_one_plus_sum_exp_by_hand_along_both_dimensions():
    values, keep = torch.tensor([[1.0, 2.0], [1e4, 3.0]]), torch.tensor([[True, True], [False, True]])
    rows = [math.log(1 + math.e + math.e**2), math.log(1 + math.e**3)]
    columns = [math.log(1 + math.e), math.log(1 + math.e**2 + math.e**3)]
    assert log_one_plus_sum_exp(values, keep, dim=1).tolist() == pytest.approx(rows)
    assert log_one_plus_sum_exp(values, keep, dim=0).tolist() == pytest.approx(columns)
    assert log_one_plus_sum_exp(values, ~keep & keep, dim=0).tolist() == [0, 0]
