"""The corruptions of HIST's supplement, A.3: each measured on its results, against the ranges that the paper lists."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from benchmark.images import corruptions
from benchmark.images.corruptions import CORRUPTIONS, PAPER, CorruptedImages, corrupted
from benchmark.images.in_memory import InMemoryImages

SIDE, DRAWS = 64, 150


def flat(value: int, channels: int = 3) -> np.ndarray:
    return np.full((SIDE, SIDE, channels), value, np.uint8)


def scene(channels: int = 3) -> np.ndarray:
    """Edges, a gradient and texture, different in each channel."""
    rng = np.random.default_rng(5)
    row, column = np.mgrid[:SIDE, :SIDE]
    planes = [60 + column + 40 * (row > 20 + 9 * c) + rng.integers(0, 30, (SIDE, SIDE)) for c in range(channels)]
    return np.stack(planes, axis=-1).astype(np.uint8)


def draws(name: str, image: np.ndarray, num: int = DRAWS) -> np.ndarray:
    """The image, corrupted as images 0 to `num` - 1 of a data set: (num, H, W, Ch) int64."""
    return np.stack([corrupted(image, name, 0, number) for number in range(num)]).astype(np.int64)


def assert_equal_channels(found: np.ndarray) -> None:
    assert (found == found[..., :1]).all()


def test_gaussian_noise_has_standard_deviations_from_0_to_a_tenth_of_255_for_each_image() -> None:
    noise = draws("gaussian_noise", flat(128)) - 128
    assert_equal_channels(noise)
    deviation = noise[..., 0].std(axis=(1, 2))
    assert deviation.max() < 26.2 and deviation.min() < 0.5  # 25.5, measured on 4,096 pixels
    assert deviation.mean() == pytest.approx(12.75, abs=4 * 7.36 / math.sqrt(DRAWS))  # uniform: 25.5 / sqrt(12) = 7.36
    assert deviation.std() == pytest.approx(7.36, rel=0.15)
    strong = noise[deviation > 10, ..., 0]
    standard = strong / deviation[deviation > 10][:, None, None]
    assert standard.mean() == pytest.approx(0, abs=0.01)
    assert (standard**4).mean() == pytest.approx(3, abs=0.1)  # normal, not uniform


def test_salt_and_pepper_turns_5_percent_of_the_pixels_black_or_white_in_equal_parts() -> None:
    found = draws("salt_and_pepper", flat(128))
    assert_equal_channels(found)
    assert set(np.unique(found)) == {0, 128, 255}
    for value in (0, 255):
        assert (found[..., 0] == value).mean() == pytest.approx(0.025, abs=0.001)  # 614,400 pixels: 5 sigma
    assert (found != 128).mean(axis=(1, 2, 3)).max() < 0.07


def test_uniform_noise_adds_each_whole_number_from_minus_50_to_50_equally_often() -> None:
    noise = draws("uniform_noise", flat(128))[..., 0] - 128
    values, counts = np.unique(noise, return_counts=True)
    assert values.tolist() == list(range(-50, 51))
    assert counts / noise.size == pytest.approx(1 / 101, rel=0.08)
    assert noise.var() == pytest.approx((101**2 - 1) / 12, rel=0.01)
    assert_equal_channels(draws("uniform_noise", flat(128), 3))


@pytest.mark.parametrize("name", ["gaussian_noise", "uniform_noise"])
def test_noise_is_clipped_at_black_and_white(name: str) -> None:
    assert draws(name, flat(0)).max() <= 130 and draws(name, flat(0)).min() == 0
    assert draws(name, flat(255)).min() >= 125 and draws(name, flat(255)).max() == 255


def test_cutout_greys_two_squares_with_a_fifth_of_the_side_which_the_border_may_cut() -> None:
    grey = draws("cutout", flat(0))[..., 0] == 128
    assert set(np.unique(draws("cutout", flat(0)))) == {0, 128}
    side, apart = round(0.2 * SIDE), 0
    for mask in grey:
        parts, count = ndimage.label(mask)
        boxes = [(rows.stop - rows.start, cols.stop - cols.start) for rows, cols in ndimage.find_objects(parts)]
        assert count in (1, 2)
        if count == 2:  # otherwise they overlap, or one lies outside
            apart += 1
            areas = np.bincount(parts.ravel())[1:].tolist()
            assert all(max(box) <= side for box in boxes)
            assert areas == [height * width for height, width in boxes]
    assert apart > 0.75 * DRAWS
    assert max(grey.sum(axis=(1, 2))) == 2 * side**2
    # A centre anywhere: a square loses side / 4 H of its width on average; two of them, rarely overlapping.
    share = (side / SIDE * (1 - side / SIDE / 4)) ** 2
    assert grey.mean() == pytest.approx(1 - (1 - share) ** 2, rel=0.06)
    assert (grey.mean(axis=0)[side:-side, side:-side] > 0).all()


def test_coarse_dropout_blackens_0_to_5_percent_in_rectangles_of_at_least_4_pixels() -> None:
    num = 200
    black = draws("coarse_dropout", flat(200), num)[..., 0] == 0
    assert set(np.unique(draws("coarse_dropout", flat(200), 20))) == {0, 200}
    # 0 to 5 %, 2.5 % on average; a grid has 3 x 3 cells at least, and one of them is a ninth of the image.
    assert black.mean() == pytest.approx(0.025, abs=0.007)
    assert 0.1 < (black.sum(axis=(1, 2)) == 0).mean() < 0.6
    assert black.mean(axis=(1, 2)).max() < 0.35
    for least in ((1, 1, 4), (1, 4, 1)):  # made of runs of 4 pixels or more
        assert (ndimage.binary_opening(black, np.ones(least)) == black).all()


def test_rotation_turns_by_up_to_30_degrees_and_fills_corners_by_the_mirrored_image() -> None:
    row, column = np.mgrid[:SIDE, :SIDE]
    ramp = np.repeat((64 + 2 * column)[..., None], 3, axis=2).astype(np.uint8)
    found = draws("rotation", ramp)[:, SIDE // 2 - 8 : SIDE // 2 + 8, SIDE // 2 - 8 : SIDE // 2 + 8, 0]
    down, right = (np.diff(found, axis=axis).mean(axis=(1, 2)) for axis in (1, 2))  # (2 sin a, 2 cos a)
    angles = np.degrees(np.arctan2(down, right))
    assert np.hypot(down, right) == pytest.approx(2, rel=0.02)
    assert 28 < np.abs(angles).max() < 30.5
    assert angles.mean() == pytest.approx(0, abs=4 * 17.3 / math.sqrt(DRAWS))  # uniform: 60 / sqrt(12) = 17.3
    assert angles.std() == pytest.approx(17.3, rel=0.12)
    assert (draws("rotation", flat(200), 10) == 200).all()  # nothing black comes in
    circle = np.where((row - 31.5) ** 2 + (column - 31.5) ** 2 < 400, 255, 0)[..., None].astype(np.uint8)
    changed = (np.abs(draws("rotation", circle, 10) - circle) > 128).mean()
    assert changed < 0.01  # about the centre


def test_perspective_moves_each_corner_inwards_by_the_fractions_of_the_paper() -> None:
    row, column = np.mgrid[:SIDE, :SIDE]
    places = np.stack([4 * column, 4 * row, 0 * row], axis=-1).astype(np.uint8)  # each pixel holds its place, times 4
    found = draws("perspective", places, 200)
    last = SIDE - 1
    corners = {(0, 0): (0, 0), (0, last): (1, 0), (last, last): (1, 1), (last, 0): (0, 1)}
    moved = np.array([
        np.abs(found[:, y, x, :2] - np.array([4 * last * right, 4 * last * down])) / 256
        for (y, x), (right, down) in corners.items()
    ])  # fmt: skip  # (4 corners, 200, 2)
    assert moved.max() < 0.46
    # E|N(0, s)| = s sqrt(2 / pi), and s is 0.1 on average; its square on average 0.1^2 + 0.1^2 / 12.
    assert moved.mean() == pytest.approx(0.1 * math.sqrt(2 / math.pi), rel=0.08)
    assert (moved**2).mean() == pytest.approx(0.01 + 0.01 / 12, rel=0.15)
    assert moved.mean(axis=(1, 2)) == pytest.approx(0.0798, rel=0.2)  # every corner
    inside = found[:, SIDE // 2, SIDE // 2, :2]
    assert np.abs(inside - 128).max() < 100 and np.ptp(inside) > 20
    assert (draws("perspective", flat(200), 10) == 200).all()


def test_blur_has_standard_deviations_of_1_to_3_pixels() -> None:
    edge = flat(0)
    edge[:, SIDE // 2 :] = 255
    for image in (edge, edge.transpose(1, 0, 2)):
        found = draws("blur", np.ascontiguousarray(image))
        profile = found.mean(axis=(1, 3)) if image is edge else found.mean(axis=(2, 3))
        density = np.diff(profile, axis=1) / 255  # of the kernel, whose variance is sigma^2
        place = np.arange(SIDE - 1)
        centre = (density * place).sum(axis=1)
        sigma = np.sqrt((density * (place - centre[:, None]) ** 2).sum(axis=1))
        assert sigma.min() > 0.97 and sigma.max() < 3.05
        assert sigma.mean() == pytest.approx(2, abs=4 * 0.577 / math.sqrt(DRAWS))  # uniform: 2 / sqrt(12) = 0.577
        assert sigma.std() == pytest.approx(0.577, rel=0.15)
        assert_equal_channels(found)


@pytest.mark.parametrize(("name", "lowest"), [("jpeg", 5), ("jpeg_quality", 80)])
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_has_each_quality_of_its_16(name: str, lowest: int, channels: int) -> None:
    image = scene(channels)
    by_quality = {}
    for quality in range(1, 101):
        buffer = io.BytesIO()
        Image.fromarray(image.squeeze(2) if channels == 1 else image).save(buffer, "JPEG", quality=quality)
        by_quality[np.asarray(Image.open(buffer)).reshape(image.shape).tobytes()] = quality
    found = [by_quality[corrupted(image, name, 0, number).tobytes()] for number in range(DRAWS)]
    assert set(found) == set(range(lowest, lowest + 16))


def test_the_paper_lists_nine_and_every_corruption_changes_an_image() -> None:
    assert len(PAPER) == 9 and {*CORRUPTIONS} - {*PAPER} == {"jpeg_quality"}
    for name in CORRUPTIONS:
        for image in (scene(3), scene(1), scene(1)[:32, :32], np.ascontiguousarray(scene(3)[:48])):
            kept = image.copy()
            results = [corrupted(image, name, 0, number) for number in range(12)]
            assert all(found.dtype == np.uint8 and found.shape == image.shape for found in results)
            assert sum((found != image).any() for found in results) >= 6, name  # coarse dropout may drop nothing
            assert (image == kept).all()


def test_an_image_is_corrupted_alike_in_every_batch_and_otherwise_than_its_neighbours() -> None:
    pixels = np.stack([scene(3)] * 12)
    images = InMemoryImages(pixels)
    for name in CORRUPTIONS:
        whole = CorruptedImages(images, name, seed=3)
        together = whole.plain(np.arange(12))
        assert together.shape == (12, 3, SIDE, SIDE) and together.dtype == torch.uint8
        for batch in ([0, 1, 2, 3, 4], [11], [7, 2]):
            assert torch.equal(whole.plain(np.array(batch)), together[batch])
        some = whole.part(np.array([9, 4, 6]))
        assert torch.equal(some.plain(np.array([2, 0])), together[[6, 9]])
        assert torch.equal(some.part(np.array([1])).plain(np.array([0])), together[[4]])
        assert len({image.numpy().tobytes() for image in together}) > 6  # of equal images
        assert not torch.equal(CorruptedImages(images, name, seed=4).plain(np.arange(12)), together)
        expected = [corrupted(pixels[number], name, 3, number) for number in range(12)]
        assert (together.permute(0, 2, 3, 1).numpy() == np.stack(expected)).all()


def test_threads_change_nothing_and_grey_images_stay_grey(monkeypatch: pytest.MonkeyPatch) -> None:
    images = InMemoryImages(np.stack([scene(1)[..., 0]] * 5))
    alone = CorruptedImages(images, "uniform_noise", 0)
    single = alone.plain(np.arange(5))
    monkeypatch.setattr(alone, "threads", 3)
    assert torch.equal(alone.plain(np.arange(5)), single)
    assert (alone.channels, alone.threads, len(alone), single.shape) == (1, 3, 5, (5, 1, SIDE, SIDE))
    with pytest.raises(TypeError, match="only evaluated"):
        alone.augmented(np.arange(2), torch.Generator())


def test_other_arrays_are_refused() -> None:
    for image in (np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.float32), np.zeros((8, 8, 4), np.uint8)):
        with pytest.raises(ValueError, match="allowed is uint8"):
            corrupted(image, "blur", 0, 0)
    assert corruptions.GREY == 128
