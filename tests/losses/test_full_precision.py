"""The wrapper of library losses, tested with a loss and a miner that record their arguments."""

import pytest
import torch

from benchmark.losses.full_precision import FullPrecision

LABELS = torch.tensor([0, 0, 1])


class NotingLoss(torch.nn.Module):
    def __init__(self, **arguments):
        super().__init__()
        self.arguments = arguments
        self.weight = torch.nn.Parameter(torch.ones(3, 3))

    def forward(self, embeddings, labels, chosen):
        self.given = embeddings.dtype, labels, chosen
        return (embeddings @ self.weight).sum()  # autocast would make this product bfloat16


class NotingMiner(torch.nn.Module):
    def forward(self, embeddings, labels):
        self.given = embeddings.dtype, labels
        return "chosen"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_loss_and_miner_see_float32_outside_autocast(dtype):
    module = FullPrecision(NotingLoss, NotingMiner())
    embeddings = torch.full((3, 3), 1.5, dtype=dtype, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        loss = module(embeddings, LABELS)
    loss.backward()
    assert loss.dtype == torch.float32
    assert module.loss.given == (torch.float32, LABELS, "chosen")
    assert module.miner.given == (torch.float32, LABELS)
    assert embeddings.grad.dtype == dtype


def test_float64_stays_and_without_a_miner_the_loss_gets_no_indices():
    module = FullPrecision(NotingLoss).double()
    assert module(torch.ones(3, 3, dtype=torch.float64), LABELS).dtype == torch.float64
    assert module.loss.given == (torch.float64, LABELS, None)


def test_further_arguments_reach_the_loss():
    assert FullPrecision(NotingLoss, num_classes=7).loss.arguments == {"num_classes": 7}
    wide = FullPrecision(NotingLoss, num_classes=7, embedding_dim=5)
    assert wide.loss.arguments == {"num_classes": 7, "embedding_size": 5}
