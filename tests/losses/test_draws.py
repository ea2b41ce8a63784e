"""The order in which a batch is taken before a loss draws by position."""

import torch

from benchmark.losses.draws import in_own_order


def test_sorting_keeps_points_with_their_labels():
    points = torch.tensor([[0.5, 1.0], [-1.0, 2.0], [0.5, 1.0], [0.5, 1.0], [0.0, 0.3]], requires_grad=True)
    sorted_points, labels = in_own_order(points, torch.tensor([2, 0, 1, 2, 3]))
    assert labels.tolist() == [0, 3, 1, 2, 2]
    assert torch.equal(sorted_points, points[[1, 4, 2, 0, 3]])
    sorted_points[3, 0].backward()
    assert points.grad[:, 0].tolist() == [0.5, 0.0, 0.0, 0.5, 0.0]
