"""Oracle: torchvision's transforms on the files, composed as in the Reality Check's code."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, PILToTensor, Resize
from torchvision.transforms.functional import hflip, pil_to_tensor, resized_crop

from benchmark.images.cache import Cache, build
from benchmark.images.cropped import CroppedImages, Source
from benchmark.images.crops import Crops, draw_boxes
from benchmark.images.decoded_on_read import DecodedOnRead
from tests.images.synthetic_photos import write_photos

CPU = torch.device("cpu")
SIZES = [(375, 500), (500, 333), (64, 48), (256, 256), (256, 400), (30, 90)]
ROWS = np.arange(len(SIZES))
MLRC = Crops(256, 227, (0.16, 1.0), (0.75, 1.33), 0.5, resize_first=True)
TRADITIONAL = Crops(256, 224, (0.08, 1.0), (3 / 4, 4 / 3), 0.5, resize_first=False)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    write_photos(folder, SIZES)
    return folder


@pytest.fixture(scope="module")
def paths(root: Path) -> list[str]:
    return sorted((str(path.relative_to(root)) for path in root.rglob("*.jpg")), key=lambda name: name[-5])


@pytest.fixture(scope="module")
def sources(root: Path, paths: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Source]:
    found: dict[str, Source] = {}
    for short_side in (256, None):
        folder = tmp_path_factory.mktemp("cache")
        build(folder, root, paths, short_side=short_side, workers=2)
        found |= {f"cache {short_side}": Cache(folder), f"files {short_side}": DecodedOnRead(root, paths, short_side)}
    return found


@pytest.fixture(scope="module")
def opened(root: Path, paths: list[str]) -> list[Image.Image]:
    return [Image.open(root / path).convert("RGB") for path in paths]


@pytest.fixture(params=["cache 256", "files 256", "cache None", "files None"])
def source(request: pytest.FixtureRequest, sources: dict[str, Source]) -> Iterator[Source]:
    yield sources[request.param]


@pytest.mark.parametrize("threads", [0, 3])
def test_evaluation_crops_are_torchvisions_from_any_source(
    source: Source, threads: int, opened: list[Image.Image]
) -> None:
    ours = CroppedImages(source, ROWS, MLRC, CPU, threads).plain(ROWS)
    theirs = Compose([Resize(256), CenterCrop(227), PILToTensor()])
    assert torch.equal(ours, torch.stack([theirs(image) for image in opened]))
    assert ours.dtype == torch.uint8


@pytest.mark.parametrize("threads", [0, 3])
def test_training_crops_are_torchvisions_for_the_boxes_drawn(
    source: Source, threads: int, opened: list[Image.Image]
) -> None:
    ours = CroppedImages(source, ROWS, MLRC, CPU, threads).augmented(ROWS, torch.Generator().manual_seed(3))
    check(ours, [Resize(256)(image) for image in opened], MLRC)


def test_all_images_of_a_process_share_one_pool_of_threads(sources: dict[str, Source]) -> None:
    images, before = CroppedImages(sources["cache 256"], ROWS, MLRC, CPU, 4), threading.active_count()
    for part in (images, images.part(ROWS[:3]), CroppedImages(sources["files 256"], ROWS, MLRC, CPU, 4).part(ROWS[2:])):
        for _ in range(3):
            part.plain(np.arange(len(part)))
    assert threading.active_count() <= before + 4


def test_training_crops_come_from_the_original_image_without_resize_first(
    sources: dict[str, Source], opened: list[Image.Image]
) -> None:
    cropped = CroppedImages(sources["cache None"], ROWS, TRADITIONAL, CPU)
    check(cropped.augmented(ROWS, torch.Generator().manual_seed(3)), opened, TRADITIONAL)
    theirs = Compose([Resize(256), CenterCrop(224), PILToTensor()])
    assert torch.equal(cropped.plain(ROWS), torch.stack([theirs(image) for image in opened]))


def check(ours: torch.Tensor, images: list[Image.Image], crops: Crops) -> None:
    sizes = np.array([image.size[::-1] for image in images])
    boxes, mirrored = draw_boxes(sizes, crops, torch.Generator().manual_seed(3))
    assert {*mirrored.tolist()} == {True, False}
    for crop, image, box, turned in zip(ours, images, boxes.tolist(), mirrored, strict=True):
        expected = resized_crop(image, *box, [crops.crop, crops.crop])
        assert torch.equal(crop, pil_to_tensor(hflip(expected) if turned else expected))


def test_rows_refer_to_the_part(sources: dict[str, Source]) -> None:
    whole = CroppedImages(sources["cache 256"], ROWS, MLRC, CPU)
    part = whole.part(np.array([4, 1, 2])).part(np.array([2, 0]))
    assert len(part) == 2
    assert torch.equal(part.plain(np.array([0, 1, 0])), whole.plain(np.array([2, 4, 2])))


def test_equal_generators_give_equal_batches_and_others_do_not(sources: dict[str, Source]) -> None:
    cropped = CroppedImages(sources["cache 256"], ROWS, MLRC, CPU)
    one, same, other = (cropped.augmented(ROWS, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_no_rows_give_an_empty_batch(sources: dict[str, Source]) -> None:
    cropped = CroppedImages(sources["cache 256"], ROWS, MLRC, CPU)
    none = np.array([], dtype=np.int64)
    assert cropped.plain(none).shape == cropped.augmented(none, torch.Generator()).shape == (0, 3, 227, 227)


@pytest.mark.parametrize(
    ("kept", "crops", "wanted"),
    [
        ("cache 256", TRADITIONAL, r"need None \(resize_first=False\)"),
        (
            "files 256",
            Crops(320, 227, (0.16, 1.0), (0.75, 1.33), 0.5, resize_first=True),
            "need short_side=320 or None",
        ),
    ],
)
def test_images_of_another_size_than_the_crops_are_cut_from_are_refused(
    sources: dict[str, Source], kept: str, crops: Crops, wanted: str
) -> None:
    with pytest.raises(ValueError, match=f"resized to short_side=256; the crops {wanted}"):
        CroppedImages(sources[kept], ROWS, crops, CPU)
