"""Batches against numpy loops, and embeddings against one image at a time."""

import numpy as np
import pytest
import torch
from torch import nn

from benchmark.images.batches import embed, to_batch


def pixels(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def loop_batch(images: torch.Tensor, mean: list[float], std: list[float]) -> np.ndarray:
    images = images.numpy()[:, None] if images.ndim == 3 else images.numpy()
    result = np.zeros(images.shape)
    for b, c, y, x in np.ndindex(images.shape):
        result[b, c, y, x] = (images[b, c, y, x] / 255 - mean[c % len(mean)]) / std[c % len(std)]
    return result


@pytest.mark.parametrize(
    ("shape", "mean", "std"),
    [
        ((3, 4, 5), [0.1], [0.27]),
        ((3, 1, 4, 5), [0.1], [0.27]),
        ((2, 3, 4, 5), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ((2, 3, 4, 5), [0.5], [0.1, 0.2, 0.3]),
    ],
    ids=["grey", "one channel", "RGB", "one mean, three deviations"],
)
def test_a_pixel_is_scaled_shifted_and_divided_by_its_channels_constants(
    shape: tuple[int, ...], mean: list[float], std: list[float]
) -> None:
    images = pixels(*shape)
    batch = to_batch(images, mean, std)
    assert batch.dtype == torch.float32 and batch.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(batch.numpy(), loop_batch(images, mean, std), rtol=1e-5, atol=1e-6)


def test_the_images_themselves_are_left_alone() -> None:
    images = pixels(3, 6, 6)
    before = images.clone()
    to_batch(images, [0.1], [0.3], shift=2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(images, before)


def moved(image: np.ndarray, down: int, right: int) -> np.ndarray:
    """An image (Ch, H, W) moved by whole pixels, zeros where nothing comes from."""
    result = np.zeros_like(image)
    for c, y, x in np.ndindex(image.shape):
        if 0 <= y - down < image.shape[1] and 0 <= x - right < image.shape[2]:
            result[c, y, x] = image[c, y - down, x - right]
    return result


def test_a_shift_moves_each_image_by_its_own_whole_pixels_and_fills_with_zeros() -> None:
    images = 1 + pixels(400, 2, 5, 6) % 255  # no pixel is 0, so that a filled edge shows
    shifted = to_batch(images, [0.0], [1 / 255], shift=1, generator=torch.Generator().manual_seed(0))
    moves = []
    for image, result in zip(images.numpy(), shifted.round().numpy(), strict=True):
        fits = [(d, r) for d in (-1, 0, 1) for r in (-1, 0, 1) if np.array_equal(moved(image, d, r), result)]
        assert len(fits) == 1
        moves += fits
    # 9 moves, each near 400 / 9 = 44; five standard deviations are 5 * sqrt(400 * 8 / 81) = 31.
    assert all(abs(moves.count((d, r)) - 44) < 31 for d in (-1, 0, 1) for r in (-1, 0, 1))


def test_an_image_shifted_by_one_pixel_worked_out_by_hand() -> None:
    image = torch.tensor([[[10, 20], [30, 40]]], dtype=torch.uint8)
    allowed = [
        [[10, 20], [30, 40]], [[0, 10], [0, 30]], [[20, 0], [40, 0]],
        [[0, 0], [10, 20]], [[0, 0], [0, 10]], [[0, 0], [20, 0]],
        [[30, 40], [0, 0]], [[0, 30], [0, 0]], [[40, 0], [0, 0]],
    ]  # fmt: skip
    seen = set()
    for seed in range(60):
        result = to_batch(image, [0.0], [1 / 255], shift=1, generator=torch.Generator().manual_seed(seed))
        seen.add(allowed.index(result[0, 0].round().int().tolist()))
    assert seen == set(range(9))


def test_a_shift_is_a_function_of_its_generator() -> None:
    images = pixels(8, 9, 9)

    def batch(seed: int) -> torch.Tensor:
        return to_batch(images, [0.1], [0.3], shift=2, generator=torch.Generator().manual_seed(seed))

    assert torch.equal(batch(1), batch(1)) and not torch.equal(batch(1), batch(2))


@pytest.mark.parametrize(
    ("images", "named"),
    [(torch.zeros(2, 4, 4), "float32"), (pixels(4, 4), r"\(4, 4\)"), (pixels(1, 1, 1, 4, 4), r"\(1, 1, 1, 4, 4\)")],
)
def test_images_of_another_type_or_shape_are_named(images: torch.Tensor, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        to_batch(images, [0.1], [0.3])


@pytest.mark.parametrize(("mean", "std"), [([0.1, 0.2], [0.3]), ([0.1], [0.3, 0.3]), ([], [0.3])])
def test_constants_that_do_not_fit_the_channels_are_named(mean: list[float], std: list[float]) -> None:
    with pytest.raises(ValueError, match="do not fit images of 3 channels: give 1 or 3"):
        to_batch(pixels(2, 3, 4, 4), mean, std)


@pytest.mark.parametrize("shift", [-1, 4, 5])
def test_a_shift_as_large_as_the_image_or_negative_is_refused(shift: int) -> None:
    with pytest.raises(ValueError, match=f"shift={shift} pixels; allowed are 0 to 3"):
        to_batch(pixels(2, 4, 7), [0.1], [0.3], shift=shift)


class Trunk(nn.Module):
    """Batch normalisation and a sum of squares: it shows the mode it runs in."""

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
def test_embeddings_are_those_of_one_image_after_the_other_whatever_the_batch(batch_size: int) -> None:
    trunk, head = a_model()
    images = pixels(7, 4, 4)
    found = embed(lambda batch: head(trunk(batch)), images, trunk, head, batch_size=batch_size)
    assert found.shape == (7, 3) and found.dtype == torch.float32 and not found.requires_grad
    weight, bias = head[0].weight.detach().numpy(), head[0].bias.detach().numpy()
    for image, row in zip(images.numpy(), found.numpy(), strict=True):
        maps = ((image / 255 - 0.2) / 0.5 - 0.3) / np.sqrt(2.0 + 1e-5)  # stored statistics, no dropout
        expected = weight @ np.array([maps.mean(), (maps**2).mean()]) + bias
        np.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-5)


def test_every_module_gets_back_the_mode_it_had_and_no_statistic_moves() -> None:
    trunk, head = a_model()
    before = {name: value.clone() for name, value in trunk.state_dict().items()}
    assert modes(trunk, head) == [True, False, True, True, False, True]
    embed(lambda batch: head(trunk(batch)), pixels(7, 4, 4), trunk, head)
    assert modes(trunk, head) == [True, False, True, True, False, True]
    assert all(torch.equal(value, before[name]) for name, value in trunk.state_dict().items())


def test_modes_come_back_after_an_error_too() -> None:
    trunk, head = a_model()
    with pytest.raises(ZeroDivisionError):
        embed(lambda batch: batch * (1 // 0), pixels(7, 4, 4), trunk, head)
    assert modes(trunk, head) == [True, False, True, True, False, True]


def test_embeddings_can_enter_a_loss_later() -> None:
    trunk, head = a_model()
    embeddings = embed(lambda batch: head(trunk(batch)), pixels(2, 4, 4), trunk, head)
    scale = torch.ones(3, requires_grad=True)
    (embeddings * scale).sum().backward()
    assert torch.allclose(scale.grad, embeddings.sum(0))


@pytest.mark.parametrize(("num_images", "batch_size", "named"), [(0, 5, "got 0 images"), (2, 0, "batch_size=0")])
def test_nothing_to_embed_is_refused(num_images: int, batch_size: int, named: str) -> None:
    trunk, head = a_model()
    with pytest.raises(ValueError, match=named):
        embed(lambda batch: head(trunk(batch)), pixels(num_images, 4, 4), trunk, head, batch_size=batch_size)
