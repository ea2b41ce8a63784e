"""Images in memory: rows, channels and shifts, compared with numpy."""

import numpy as np
import pytest
import torch

from benchmark.core.errors import UserError
from benchmark.images.in_memory import InMemoryImages


def pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(("shape", "channels"), [((6, 4, 5), 1), ((6, 4, 5, 3), 3)], ids=["grey", "colour"])
def test_rows_are_returned_in_the_given_order_with_channels_first(shape: tuple[int, ...], channels: int) -> None:
    images, rows = pixels(*shape), np.array([4, 0, 4])
    found = InMemoryImages(images).plain(rows)
    assert (
        found.shape == (3, channels, 4, 5)
        and found.dtype == torch.uint8
        and InMemoryImages(images).channels == channels
    )
    for place, row in enumerate(rows):
        np.testing.assert_array_equal(found[place].permute(1, 2, 0).squeeze(), images[row])


def test_a_part_holds_these_images_and_shifts_them_as_the_whole_does() -> None:
    whole = InMemoryImages(pixels(6, 4, 4), shift=1)
    part = whole.part(np.array([5, 1]))
    assert len(part) == 2 and len(whole) == 6
    assert torch.equal(part.plain(np.array([0, 1])), whole.plain(np.array([5, 1])))
    shifted = [p.augmented(rows, torch.Generator().manual_seed(0)) for p, rows in
               ((part, np.array([0, 1])), (whole, np.array([5, 1])))]  # fmt: skip
    assert torch.equal(*shifted)


def test_without_a_shift_training_images_equal_evaluation_images() -> None:
    images, rows = InMemoryImages(pixels(3, 4, 4)), np.arange(3)
    assert torch.equal(images.augmented(rows, torch.Generator()), images.plain(rows))


def moved(image: np.ndarray, down: int, right: int) -> np.ndarray:
    """Shift an image (Ch, H, W) by whole pixels, padded with zeros."""
    result = np.zeros_like(image)
    for c, y, x in np.ndindex(image.shape):
        if 0 <= y - down < image.shape[1] and 0 <= x - right < image.shape[2]:
            result[c, y, x] = image[c, y - down, x - right]
    return result


def test_a_shift_moves_each_image_by_its_own_whole_pixels_and_fills_with_zeros() -> None:
    images = InMemoryImages(1 + pixels(400, 5, 6, 3) % 255, shift=1)  # no pixel is 0, so that a filled edge shows
    rows = np.arange(400)
    shifted = images.augmented(rows, torch.Generator().manual_seed(0))
    moves = []
    for image, result in zip(images.plain(rows).numpy(), shifted.numpy(), strict=True):
        fits = [(d, r) for d in (-1, 0, 1) for r in (-1, 0, 1) if np.array_equal(moved(image, d, r), result)]
        assert len(fits) == 1
        moves += fits
    # 9 moves, each near 400 / 9 = 44; five standard deviations are 5 * sqrt(400 * 8 / 81) = 31.
    assert all(abs(moves.count((d, r)) - 44) < 31 for d in (-1, 0, 1) for r in (-1, 0, 1))


def test_an_image_shifted_by_one_pixel_worked_out_by_hand() -> None:
    image = InMemoryImages(np.array([[[10, 20], [30, 40]]], dtype=np.uint8), shift=1)
    allowed = [
        [[10, 20], [30, 40]], [[0, 10], [0, 30]], [[20, 0], [40, 0]],
        [[0, 0], [10, 20]], [[0, 0], [0, 10]], [[0, 0], [20, 0]],
        [[30, 40], [0, 0]], [[0, 30], [0, 0]], [[40, 0], [0, 0]],
    ]  # fmt: skip
    seen = set()
    for seed in range(60):
        result = image.augmented(np.array([0]), torch.Generator().manual_seed(seed))
        seen.add(allowed.index(result[0, 0].tolist()))
    assert seen == set(range(9))


def test_a_shift_is_a_function_of_its_generator() -> None:
    images = InMemoryImages(pixels(8, 9, 9), shift=2)

    def batch(seed: int) -> torch.Tensor:
        return images.augmented(np.arange(8), torch.Generator().manual_seed(seed))

    assert torch.equal(batch(1), batch(1)) and not torch.equal(batch(1), batch(2))


@pytest.mark.parametrize("shift", [-1, 4, 5])
def test_a_shift_as_large_as_the_image_or_negative_is_refused(shift: int) -> None:
    with pytest.raises(UserError, match=f"shift={shift} pixels; allowed are 0 to 3"):
        InMemoryImages(pixels(2, 4, 7), shift=shift)


@pytest.mark.parametrize(
    ("images", "named"),
    [(np.zeros((2, 4, 4)), "float64"), (pixels(4, 4), r"\(4, 4\)"), (pixels(2, 4, 4, 1), r"\(2, 4, 4, 1\)")],
)
def test_images_of_another_type_or_shape_are_named(images: np.ndarray, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        InMemoryImages(images)
