"""Batches compared with numpy loops, and embeddings with those of one image at a time."""

import threading

import numpy as np
import pytest
import torch
from torch import nn

from benchmark.core.errors import UserError
from benchmark.images.batches import embed, read_ahead, to_batch
from benchmark.images.in_memory import InMemoryImages


def pixels(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def loop_batch(images: torch.Tensor, mean: list[float], std: list[float]) -> np.ndarray:
    images = images.numpy()
    result = np.zeros(images.shape)
    for b, c, y, x in np.ndindex(images.shape):
        result[b, c, y, x] = (images[b, c, y, x] / 255 - mean[c % len(mean)]) / std[c % len(std)]
    return result


@pytest.mark.parametrize(
    ("shape", "mean", "std"),
    [
        ((3, 1, 4, 5), [0.1], [0.27]),
        ((2, 3, 4, 5), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ((2, 3, 4, 5), [0.5], [0.1, 0.2, 0.3]),
    ],
    ids=["grey", "RGB", "one mean, three deviations"],
)
def test_a_pixel_is_scaled_shifted_and_divided_by_its_channels_constants(
    shape: tuple[int, ...], mean: list[float], std: list[float]
) -> None:
    images = pixels(*shape)
    batch = to_batch(images, mean, std)
    assert batch.dtype == torch.float32 and batch.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(batch.numpy(), loop_batch(images, mean, std), rtol=1e-5, atol=1e-6)


def test_the_images_are_not_modified() -> None:
    images = pixels(3, 1, 6, 6)
    before = images.clone()
    to_batch(images, [0.1], [0.3])
    assert torch.equal(images, before)


@pytest.mark.parametrize(
    ("images", "named"),
    [
        (torch.zeros(2, 1, 4, 4), "float32"),
        (pixels(2, 4, 4), r"\(2, 4, 4\)"),
        (pixels(1, 1, 1, 4, 4), r"\(1, 1, 1, 4, 4\)"),
    ],
)
def test_images_of_another_type_or_shape_are_named(images: torch.Tensor, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        to_batch(images, [0.1], [0.3])


@pytest.mark.parametrize(("mean", "std"), [([0.1, 0.2], [0.3]), ([0.1], [0.3, 0.3]), ([], [0.3])])
def test_constants_that_do_not_fit_the_channels_are_named(mean: list[float], std: list[float]) -> None:
    with pytest.raises(UserError, match="do not fit images of 3 channels: give 1 or 3"):
        to_batch(pixels(2, 3, 4, 4), mean, std)


def in_memory(num_images: int) -> InMemoryImages:
    return InMemoryImages(pixels(num_images, 4, 4).numpy())


class Trunk(nn.Module):
    """Batch normalisation and a sum of squares, whose output reveals the mode."""

    mean, std = (0.2,), (0.5,)

    def __init__(self) -> None:
        super().__init__()
        self.frozen, self.dropout = nn.BatchNorm2d(1), nn.Dropout(0.5)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        maps = self.dropout(self.frozen(batch))
        return torch.stack([maps.mean((1, 2, 3)), maps.square().mean((1, 2, 3))], dim=1)


def a_model() -> tuple[Trunk, nn.Module]:
    torch.manual_seed(0)
    trunk, head = Trunk(), nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.5))
    trunk.frozen.running_mean.fill_(0.3)
    trunk.frozen.running_var.fill_(2.0)
    trunk.train()
    head.train()
    trunk.frozen.eval()
    head[0].eval()
    return trunk, head


def modes(*parts: nn.Module) -> list[bool]:
    return [module.training for part in parts for module in part.modules()]


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_embeddings_equal_those_of_single_images_for_any_batch_size(batch_size: int) -> None:
    trunk, head = a_model()
    images = pixels(7, 4, 4)
    found = embed(lambda batch: head(trunk(batch)), InMemoryImages(images.numpy()), trunk, head, batch_size=batch_size)
    assert found.shape == (7, 3) and found.dtype == torch.float32 and not found.requires_grad
    weight, bias = head[0].weight.detach().numpy(), head[0].bias.detach().numpy()
    for image, row in zip(images.numpy(), found.numpy(), strict=True):
        maps = ((image / 255 - 0.2) / 0.5 - 0.3) / np.sqrt(2.0 + 1e-5)  # stored statistics, no dropout
        expected = weight @ np.array([maps.mean(), (maps**2).mean()]) + bias
        np.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-5)


def test_restores_the_mode_of_every_module_and_changes_no_statistics() -> None:
    trunk, head = a_model()
    before = {name: value.clone() for name, value in trunk.state_dict().items()}
    assert modes(trunk, head) == [True, False, True, True, False, True]
    embed(lambda batch: head(trunk(batch)), in_memory(7), trunk, head)
    assert modes(trunk, head) == [True, False, True, True, False, True]
    assert all(torch.equal(value, before[name]) for name, value in trunk.state_dict().items())


def test_restores_modes_after_an_error() -> None:
    trunk, head = a_model()
    with pytest.raises(ZeroDivisionError):
        embed(lambda batch: batch * (1 // 0), in_memory(7), trunk, head)
    assert modes(trunk, head) == [True, False, True, True, False, True]


def test_embeddings_can_be_used_in_a_loss() -> None:
    trunk, head = a_model()
    embeddings = embed(lambda batch: head(trunk(batch)), in_memory(2), trunk, head)
    scale = torch.ones(3, requires_grad=True)
    (embeddings * scale).sum().backward()
    assert torch.allclose(scale.grad, embeddings.sum(0))


@pytest.mark.parametrize(("num_images", "batch_size", "named"), [(0, 5, "got 0 images"), (2, 0, "batch_size=0")])
def test_embedding_no_images_is_refused(num_images: int, batch_size: int, named: str) -> None:
    trunk, head = a_model()
    with pytest.raises(ValueError, match=named):
        embed(lambda batch: head(trunk(batch)), in_memory(num_images), trunk, head, batch_size=batch_size)


@pytest.mark.parametrize("threads", [0, 3])
def test_reading_ahead_changes_neither_order_nor_values(threads: int) -> None:
    assert list(read_ahead(lambda n: n * n, range(5), threads)) == [0, 1, 4, 9, 16]
    assert list(read_ahead(lambda n: n, [], threads)) == []


def test_with_threads_the_next_item_is_read_while_the_caller_works_on_one() -> None:
    second_is_read = threading.Event()

    def read(number: int) -> int:
        if number == 1:
            second_is_read.set()
        return number

    for number in read_ahead(read, range(2), threads=1):
        assert number != 0 or second_is_read.wait(timeout=10)


@pytest.mark.parametrize("threads", [0, 2])
def test_an_error_while_reading_reaches_the_caller(threads: int) -> None:
    with pytest.raises(ZeroDivisionError):
        list(read_ahead(lambda n: 1 // n, [1, 0, 1], threads))
