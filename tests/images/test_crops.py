"""Oracle: torchvision's transforms, on PIL images or on the same random choices."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, PILToTensor, RandomResizedCrop, Resize
from torchvision.transforms.functional import resized_crop

from benchmark.core.errors import UserError
from benchmark.images.cropped import CroppedImages
from benchmark.images.crops import NUMBERS, Crops, centre_crop, cut, draw_boxes
from tests.cases import for_each
from tests.images.synthetic_photos import synthetic_photo

MLRC: dict[str, Any] = {
    "short_side": 256, "crop": 227, "scale": (0.16, 1.0), "ratio": (0.75, 1.33), "flip": 0.5, "resize_first": True,
}  # fmt: skip


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def same_size(number: int, height: int, width: int) -> np.ndarray:
    return np.tile([height, width], (number, 1))


@pytest.mark.parametrize(
    "wrong",
    [
        {"crop": 257}, {"crop": 0}, {"scale": (0.0, 1.0)}, {"scale": (0.5, 0.4)}, {"scale": (0.5, 1.1)},
        {"ratio": (0.0, 1.0)}, {"ratio": (2.0, 1.0)}, {"flip": 1.1}, {"flip": -0.1}, {"resampling": "cubic"},
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_named(wrong: dict[str, Any]) -> None:
    (name, value), *_ = wrong.items()
    with pytest.raises(UserError, match=f"^{name}={value!r}.*allowed".replace("(", r"\(").replace(")", r"\)")):
        Crops(**MLRC | wrong)


@for_each("shape", [*itertools.product(range(11, 16), range(11, 16), [10, 11])])
def test_the_central_crop_is_torchvisions(shape: tuple[int, int, int]) -> None:
    height, width, size = shape
    pixels = synthetic_photo(height, width)
    assert np.array_equal(centre_crop(pixels, size), np.asarray(CenterCrop(size)(Image.fromarray(pixels))))


def test_an_image_smaller_than_its_central_crop_is_refused() -> None:
    with pytest.raises(ValueError, match="11 pixels fits into an image of 10 x 12: resize it first"):
        centre_crop(synthetic_photo(10, 12), 11)


BOXES = [
    (0, 0, 256, 341), (0, 0, 227, 227), (29, 114, 227, 227), (10, 20, 102, 102), (3, 5, 240, 130), (50, 60, 60, 200),
    (255, 340, 1, 1), (0, 340, 256, 1), (7, 0, 1, 341), (100, 100, 2, 3),
]  # fmt: skip


@pytest.mark.parametrize("box", BOXES)
def test_a_cut_is_torchvisions_resized_crop_bit_for_bit(box: tuple[int, int, int, int]) -> None:
    pixels = synthetic_photo(256, 341)
    ours = cut(pixels, np.array(box), Crops(**MLRC))
    assert np.array_equal(ours, np.asarray(resized_crop(Image.fromarray(pixels), *box, [227, 227])))


def test_bicubic_crops_are_torchvisions_bit_for_bit() -> None:
    pixels, bicubic = synthetic_photo(256, 341), InterpolationMode.BICUBIC
    for box in BOXES[:6]:
        ours = cut(pixels, np.array(box), Crops(**MLRC, resampling="pil_bicubic"))
        theirs = resized_crop(Image.fromarray(pixels), *box, [227, 227], interpolation=bicubic)
        assert np.array_equal(ours, np.asarray(theirs))


def test_bicubic_evaluation_resizes_the_original_image_as_torchvision() -> None:
    photo = synthetic_photo(300, 410)

    class Originals:
        short_side: int | None = None
        contents = ""

        def __len__(self) -> int:
            return 1

        def pixels(self, index: int) -> np.ndarray:
            return photo

    crops, source = Crops(**MLRC, resampling="pil_bicubic"), Originals()
    images = CroppedImages(source, np.arange(1), crops, torch.device("cpu"))
    steps = Compose([Resize(256, InterpolationMode.BICUBIC), CenterCrop(227), PILToTensor()])
    assert torch.equal(images.plain(np.arange(1))[0], steps(Image.fromarray(photo)))
    source.short_side = 256  # resized before, bilinearly
    with pytest.raises(ValueError, match="pil_bicubic"):
        CroppedImages(source, np.arange(1), crops, torch.device("cpu"))


def test_resampling_by_torch_is_off_by_one_level_in_few_values() -> None:
    sizes = same_size(40, 256, 341)
    boxes, _ = draw_boxes(sizes, Crops(**MLRC), generator())
    pixels = synthetic_photo(256, 341)
    pixels.flags.writeable = False
    one, other = (
        np.stack([cut(pixels, box, Crops(**MLRC, resampling=resampling)) for box in boxes]).astype(int)
        for resampling in ("pil", "torch")
    )
    off = abs(one - other)
    assert off.max() == 1
    assert 0 < (off > 0).mean() < 0.05


@pytest.mark.parametrize("box", BOXES)
def test_resampling_by_torch_is_torch_s_antialiased_resize_whatever_the_layout(box: tuple[int, ...]) -> None:
    pixels = synthetic_photo(256, 341)
    top, left, height, width = box
    planes = torch.from_numpy(pixels[top : top + height, left : left + width].transpose(2, 0, 1).copy())[None]
    expected = functional.interpolate(planes, (227, 227), mode="bilinear", antialias=True)[0]
    assert np.array_equal(cut(pixels, np.array(box), Crops(**MLRC, resampling="torch")), expected.permute(1, 2, 0))


@pytest.mark.parametrize("resampling", ["pil", "torch"])
@pytest.mark.parametrize("box", BOXES)
def test_a_mirrored_cut_is_the_mirror_image_in_the_layout_of_a_batch(box: tuple[int, ...], resampling: str) -> None:
    pixels, crops = synthetic_photo(256, 341), Crops(**MLRC, resampling=resampling)
    plain, mirrored = (cut(pixels, np.array(box), crops, mirrored) for mirrored in (False, True))
    assert np.array_equal(mirrored, plain[:, ::-1])
    assert plain.flags.c_contiguous and mirrored.flags.c_contiguous  # copying any other takes as long as resizing


def test_boxes_lie_inside_and_keep_area_and_ratio() -> None:
    sizes = np.array([[256, 341], [341, 256], [256, 256], [256, 900]] * 500)
    boxes, mirrored = draw_boxes(sizes, Crops(**MLRC), generator())
    top, left, height, width = boxes.T
    assert min(top.min(), left.min(), height.min() - 1, width.min() - 1) >= 0
    assert (top + height <= sizes[:, 0]).all()
    assert (left + width <= sizes[:, 1]).all()
    assert ((width + 0.5) / (height - 0.5) >= 0.75).all()  # sides are rounded
    assert ((width - 0.5) / (height + 0.5) <= 1.33).all()
    wide = sizes[:, 1] > 2 * sizes[:, 0]
    assert ((height + 0.5) * (width + 0.5) >= 0.16 * sizes.prod(axis=1))[~wide].all()
    assert {0, 1} == {*mirrored.tolist()}


@pytest.mark.parametrize("size", [(256, 341), (341, 256), (256, 1000), (40, 30)])
def test_boxes_are_distributed_as_torchvisions(size: tuple[int, int]) -> None:
    number, image = 3_000, torch.empty(3, *size)
    boxes, mirrored = draw_boxes(same_size(number, *size), Crops(**MLRC), generator())
    torch.manual_seed(0)
    theirs = np.array([RandomResizedCrop.get_params(image, [0.16, 1.0], [0.75, 1.33]) for _ in range(number)])
    quantiles = [0.05, 0.25, 0.5, 0.75, 0.95]
    apart = np.quantile(features(boxes, size), quantiles, axis=1) - np.quantile(
        features(theirs, size), quantiles, axis=1
    )
    assert abs(apart).max() < 0.045, apart  # one standard deviation of a difference is at most 0.013
    assert abs(mirrored.mean() - 0.5) < 0.03


def features(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Four numbers of about 0..1 for each box, (4, N)."""
    top, left, height, width = boxes.T
    room_down, room_right = size[0] - height, size[1] - width
    down, right = (top + 0.5) / (room_down + 1), (left + 0.5) / (room_right + 1)
    return np.stack(
        [height * width / size[0] / size[1], np.log(width / height / 0.75) / np.log(1.33 / 0.75), down, right]
    )


@pytest.mark.parametrize("size", [(15, 1000), (1000, 11), (1, 1), (1, 40), (40, 1), (300, 300)])
def test_if_no_attempt_fits_the_crop_is_torchvisions_central_one(size: tuple[int, int]) -> None:
    ratio = (1.2, 1.3) if size == (300, 300) else (0.75, 1.33)
    crops = Crops(**MLRC | {"scale": (1.0, 1.0), "ratio": ratio})
    boxes, _ = draw_boxes(same_size(3, *size), crops, generator())
    expected = RandomResizedCrop.get_params(torch.empty(3, *size), [1.0, 1.0], list(ratio))
    assert boxes.tolist() == [list(expected)] * 3


def test_a_box_depends_only_on_its_position_in_the_stream() -> None:
    sizes = np.array([[256, 341], [10, 1000], [500, 256], [256, 256]])  # the second needs all attempts
    whole, mirrored = draw_boxes(sizes, Crops(**MLRC), generator(5))
    one_by_one = generator(5)
    parts = [draw_boxes(sizes[i : i + 1], Crops(**MLRC), one_by_one) for i in range(4)]
    assert np.array_equal(whole, np.concatenate([boxes for boxes, _ in parts]))
    assert np.array_equal(mirrored, np.concatenate([turned for _, turned in parts]))
    after = generator(5)
    torch.rand(4 * NUMBERS, generator=after, dtype=torch.float64)
    assert torch.equal(after.get_state(), one_by_one.get_state())


@pytest.mark.parametrize(("flip", "expected"), [(0.0, {False}), (1.0, {True})])
def test_certain_flips_are_certain(flip: float, expected: set[bool]) -> None:
    _, mirrored = draw_boxes(same_size(200, 256, 256), Crops(**MLRC | {"flip": flip}), generator())
    assert {*mirrored.tolist()} == expected
