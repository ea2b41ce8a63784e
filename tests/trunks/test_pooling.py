"""Global pooling, compared with values worked out by hand."""

import pytest
import torch

from benchmark.core.errors import UserError
from benchmark.trunks.pooling import check_pool, global_pool

# Two images, two channels, one row of three positions.
MAPS = torch.tensor([[[[1.0, 2.0, 6.0]], [[-1.0, -2.0, -3.0]]], [[[0.0, 0.0, 0.0]], [[9.0, 0.0, 0.0]]]])


@pytest.mark.parametrize(
    ("pool", "features"),
    [
        ("avg", [[3.0, -2.0], [0.0, 3.0]]),  # (1 + 2 + 6) / 3, (-1 - 2 - 3) / 3, 0, 9 / 3
        ("max", [[6.0, -1.0], [0.0, 9.0]]),
        ("avg+max", [[9.0, -3.0], [0.0, 12.0]]),
    ],
)
def test_maps_are_pooled_over_all_positions(pool: str, features: list[list[float]]) -> None:
    check_pool("a trunk", pool)
    assert global_pool(MAPS, pool).tolist() == features


def test_an_unknown_pooling_is_named_with_the_trunk() -> None:
    with pytest.raises(UserError, match=r"resnet50 has pool='gem'; choose avg\+max, avg or max"):
        check_pool("resnet50", "gem")
