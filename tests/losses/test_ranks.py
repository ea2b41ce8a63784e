"""What the ranking losses share: how many differences of similarities a batch costs, and where the host waits."""

import pytest
import torch
from torch import Tensor

from benchmark.losses.pretended_device import PretendedDevice
from benchmark.losses.ranks import READ_ABOVE, mean_over_queries


def batch(num_classes: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Similarities, positives, others and ranked queries of a batch with 4 images of each class."""
    labels = torch.arange(4 * num_classes) // 4
    scores = torch.randn(len(labels), len(labels), generator=torch.Generator().manual_seed(0))
    same = labels[:, None] == labels
    return scores, same, ~same, torch.ones(len(labels), dtype=torch.bool)


@pytest.mark.parametrize(("num_classes", "reads"), [(64, False), (65, True)])
def test_a_gpu_computes_the_positives_of_a_large_batch_only_and_is_not_waited_for_in_a_small_one(
    num_classes: int, reads: bool
) -> None:
    shapes = set()

    def loss(lead: Tensor, exists: Tensor, own: Tensor, others: Tensor) -> Tensor:
        shapes.add(lead.shape[1:])
        return (lead.sigmoid() * exists[:, :, None] * others[:, None, :]).sum(dim=(1, 2))

    on_cpu = mean_over_queries(*batch(num_classes), loss)
    assert shapes == {(4, 4 * num_classes)}
    shapes.clear()
    with PretendedDevice() as device:
        parts = [part.to("cuda") for part in batch(num_classes)]
        device.clear()
        found = mean_over_queries(*parts, loss)
        waits = device.events["wait"].total()
        assert float(found) == pytest.approx(float(on_cpu))
    size = 4 * num_classes
    assert shapes == {(4 if reads else size, size)}
    assert waits == reads == (size**3 > READ_ABOVE)
