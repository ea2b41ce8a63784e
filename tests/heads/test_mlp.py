"""The head with a hidden layer, compared with numpy."""

import numpy as np
import pytest
import torch

from benchmark.core.errors import UserError
from benchmark.heads.mlp import MLP


def test_an_embedding_passes_a_hidden_layer_whose_negative_values_are_cut() -> None:
    torch.manual_seed(0)
    head, features = MLP(7, 5, hidden=9), torch.randn(4, 7)
    w1, b1, w2, b2 = (value.detach().numpy().astype(np.float64) for value in head.parameters())
    expected = np.maximum(features.numpy() @ w1.T + b1, 0) @ w2.T + b2
    assert (w1.shape, w2.shape, head.out_features) == ((9, 7), (5, 9), 5)
    np.testing.assert_allclose(head(features).detach().numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sizes", [(0, 5, 9), (7, 0, 9), (7, 5, 0)])
def test_sizes_below_one_are_refused(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(UserError, match="allowed >= 1"):
        MLP(*sizes[:2], hidden=sizes[2])
