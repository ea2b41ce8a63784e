"""Oracles: Pillow's resize and torch's interpolation, of one crop at a time."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional
from torchvision.transforms import CenterCrop, Resize

from benchmark.images import resampling
from benchmark.images.resampling import Windows, resized_windows

Boxes = list[tuple[int, int, int, int]]


def noise(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def flat(images: list[np.ndarray]) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """The images' pixels one after another, where each image starts, and the pixels in each one's rows."""
    starts = np.cumsum([0, *(image.shape[0] * image.shape[1] for image in images)])[:-1]
    pixels = torch.from_numpy(np.concatenate([image.reshape(-1, 3) for image in images]))
    return pixels, starts, np.array([image.shape[1] for image in images])


def ours(images: list[np.ndarray], boxes: Boxes, mirrored: list[bool], side: int, how: str) -> np.ndarray:
    pixels, starts, widths = flat(images)
    sizes = np.full((len(boxes), 2), side)
    windows = Windows(np.array(boxes), sizes, np.zeros_like(sizes), np.array(mirrored), side, how)
    found = resized_windows(pixels, starts, widths, windows)
    assert found.dtype == torch.uint8 and found.is_contiguous(memory_format=torch.channels_last)
    return found.permute(0, 2, 3, 1).numpy()


def theirs(image: np.ndarray, box: tuple[int, int, int, int], is_mirrored: bool, side: int, how: str) -> np.ndarray:
    top, left, height, width = box
    part = image[top : top + height, left : left + width].copy()
    if how == "pil":
        found = np.asarray(Image.fromarray(part).resize((side, side), Image.Resampling.BILINEAR))
    else:
        planes = torch.from_numpy(part).permute(2, 0, 1)[None].contiguous()
        planes = functional.interpolate(planes, (side, side), mode="bilinear", antialias=True)
        found = planes[0].permute(1, 2, 0).numpy()
    return found[:, ::-1] if is_mirrored else found


def check(images: list[np.ndarray], boxes: Boxes, mirrored: list[bool], side: int, how: str) -> None:
    crops = ours(images, boxes, mirrored, side, how)
    for crop, image, box, is_mirrored in zip(crops, images, boxes, mirrored, strict=True):
        np.testing.assert_array_equal(crop, theirs(image, box, is_mirrored, side, how), f"{box} to {side}, {how}")


def a_length(rng: np.random.Generator, longest: int, side: int) -> int:
    """Any length up to the longest one, often one of the ends or that of the crop."""
    drawn = int(rng.integers(1, longest + 1))
    return int(rng.choice([drawn, drawn, drawn, 1, longest, min(side, longest)]))


@pytest.mark.parametrize("how", ["pil", "torch"])
@pytest.mark.parametrize("seed", range(8))
def test_crops_of_random_images_are_those_of_one_image_at_a_time(seed: int, how: str) -> None:
    rng = np.random.default_rng(seed)
    side = int(rng.integers(1, 40))
    images = [noise(rng, *rng.integers(1, 90, 2)) for _ in range(10)]
    boxes: Boxes = []
    for height, width, _ in (image.shape for image in images):
        high, wide = a_length(rng, height, side), a_length(rng, width, side)
        boxes.append((int(rng.integers(height - high + 1)), int(rng.integers(width - wide + 1)), high, wide))
    check(images, boxes, (rng.random(10) < 0.5).tolist(), side, how)


@pytest.mark.parametrize("how", ["pil", "torch"])
def test_crops_of_the_usual_size_are_those_of_one_image_at_a_time(how: str) -> None:
    boxes = [(0, 0, 256, 341), (0, 0, 227, 227), (255, 340, 1, 1), (0, 340, 256, 1), (7, 0, 1, 341), (3, 5, 240, 130)]
    image = noise(np.random.default_rng(0), 256, 341)
    check([image] * 6, boxes, [False, True] * 3, 227, how)


@pytest.mark.parametrize("how", ["pil", "torch"])
def test_each_crop_of_a_batch_has_its_own_order_of_axes(how: str) -> None:
    shapes = [(90, 30), (30, 90), (60, 40), (61, 40), (20, 60), (8, 8), (21, 20), (1, 90)]  # Pillow: 1, 4 and 7 upright
    images = [noise(np.random.default_rng(i), *shape) for i, shape in enumerate(shapes)]
    check(images, [(0, 0, *shape) for shape in shapes], [False] * 8, 20, how)


def test_saturated_pixels_do_not_overflow() -> None:
    sizes = (1, 7, 20, 33, 100)
    images = [np.full((size, size, 3), 255, np.uint8) for size in sizes]
    for how in ("pil", "torch"):
        assert (ours(images, [(0, 0, size, size) for size in sizes], [False] * 5, 20, how) == 255).all()


def test_a_large_batch_is_resized_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    images = [noise(rng, 20, 30) for _ in range(5)]
    boxes: Boxes = [(0, i, 20, 18 + i) for i in range(5)]
    calls: list[int] = []

    def resized(pixels: torch.Tensor, plan: resampling._Plan) -> torch.Tensor:
        calls.append(len(plan.corners))
        return whole(pixels, plan)

    whole = resampling._resized
    monkeypatch.setattr(resampling, "_resized", resized)
    monkeypatch.setattr(resampling, "MOST", 2 * 3 * 20 * 22)
    check(images, boxes, [True, False, True, False, True], 16, "pil")
    assert calls == [2, 2, 1]


@pytest.mark.parametrize(("short_side", "side"), [(24, 24), (24, 23), (25, 16), (9, 1)])
def test_the_centre_of_a_resized_image_is_torchvision_s(short_side: int, side: int) -> None:
    shapes = [(37, 50), (50, 33), (24, 18), (24, 24), (25, 40), (10, 30), (1, 9)]
    images = [noise(np.random.default_rng(i), *shape) for i, shape in enumerate(shapes)]
    large = [Resize(short_side)(Image.fromarray(image)) for image in images]
    sizes = np.array([image.size[::-1] for image in large])
    boxes = np.array([(0, 0, *shape) for shape in shapes])
    corners = np.array([[round((length - side) / 2) for length in size] for size in sizes.tolist()])
    windows = Windows(boxes, sizes, corners, np.zeros(7, bool), side, "pil")
    found = resized_windows(*flat(images), windows).permute(0, 2, 3, 1).numpy()
    for crop, image in zip(found, large, strict=True):
        np.testing.assert_array_equal(crop, np.asarray(CenterCrop(side)(image)))


def test_the_centre_of_an_image_of_the_right_size_is_only_read(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [noise(np.random.default_rng(i), *shape) for i, shape in enumerate([(9, 12), (13, 9)])]
    monkeypatch.setattr(resampling, "_resized", lambda *_: pytest.fail("resized"))
    sizes = np.array([[9, 12], [13, 9]])
    windows = Windows(np.hstack([0 * sizes, sizes]), sizes, np.array([[1, 2], [3, 1]]), np.zeros(2, bool), 7, "pil")
    found = resized_windows(*flat(images), windows).permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(found, [images[0][1:8, 2:9], images[1][3:10, 1:8]])


def test_no_images_give_an_empty_batch() -> None:
    none = np.zeros((0, 2), np.int64)
    windows = Windows(np.zeros((0, 4), np.int64), none, none, np.zeros(0, bool), 5, "pil")
    nowhere = np.zeros(0, np.int64)
    assert resized_windows(torch.zeros((9, 3), dtype=torch.uint8), nowhere, nowhere, windows).shape == (0, 3, 5, 5)
