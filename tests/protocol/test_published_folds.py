"""The published splits, compared class by class and image by image with the papers and their data."""

from collections.abc import Callable

import numpy as np
import pytest

from benchmark.protocol.folds import make_folds
from benchmark.study.study import Study

TRAINVAL = {"cub": (100, 200), "cars196": (98, 196), "sop": (11_317, 22_634), "inshop": (3_997, 7_982),
            "inaturalist2019": (656, 1_010)}  # fmt: skip
VALIDATED = {  # inclusive ranges of class ids that folds 0 to 3 validate on
    "cub": [(75, 99), (0, 24), (25, 49), (50, 74)],
    "cars196": [(74, 97), (0, 23), (25, 48), (49, 72)],
    "sop": [(8_488, 11_316), (0, 2_828), (2_829, 5_657), (5_658, 8_486)],
    "inshop": [(0, 999), (1_000, 1_998), (1_999, 2_997), (2_998, 3_996)],  # k-fold: 3,997 = 1,000 + 3 * 999
    "inaturalist2019": [(0, 163), (164, 327), (328, 491), (492, 655)],
}
TRAINED_IMAGES = {"cub": [4_373, 4_462, 4_377, 4_380], "cars196": [6_015, 6_079, 6_145, 6_089]}
BLOCKS = {  # number of images from each of these classes up to the next
    "cub": {0: 1_402, 25: 1_487, 50: 1_484, 75: 1_491},
    # Classes 24 and 73 of Cars are in every training part: 8,054 - 1,975 - 1,909 - 1,965 - 2,039 = 166 images of both.
    "cars196": {0: 1_975, 24: 166, 25: 1_909, 49: 1_965, 73: 0, 74: 2_039},
}


@pytest.mark.parametrize("name", TRAINVAL)
def test_the_folds_of_a_published_data_set_are_the_published_ones(name: str) -> None:
    trainval, total = TRAINVAL[name]
    folds = make_folds(np.arange(trainval), rule="auto", num_folds=4, total_classes=total)
    assert [(f.validation_classes[0], f.validation_classes[-1]) for f in folds] == VALIDATED[name]
    for fold, (first, last) in zip(folds, VALIDATED[name], strict=True):
        assert fold.validation_classes.tolist() == list(range(first, last + 1))
        unused = {24, 73} if name == "cars196" else {8_487} if name == "sop" else set()
        assert unused <= set(fold.train_classes.tolist())
        assert len(fold.train_classes) + len(fold.validation_classes) == trainval


@pytest.mark.parametrize("name", BLOCKS)
def test_the_expected_images_of_classes_make_up_the_blocks(name: str, compose_study: Callable[..., Study]) -> None:
    expected = compose_study(f"dataset={name}").config.dataset.module["expected"]
    spans = {tuple(map(int, span.split("-"))): n for span, n in expected["images_of_classes"].items()}
    assert [i for first, last in spans for i in range(first, last + 1)] == list(range(TRAINVAL[name][0]))
    assert sum(spans.values()) == expected["trainval"]["images"]
    folds = make_folds(np.arange(TRAINVAL[name][0]), rule="auto", num_folds=4, total_classes=TRAINVAL[name][1])
    for fold, images in zip(folds, TRAINED_IMAGES[name], strict=True):
        assert sum(n for (first, _), n in spans.items() if first in fold.train_classes) == images


def test_the_expected_images_of_cars_make_up_another_count_of_the_genuine_list(
    compose_study: Callable[..., Study],
) -> None:
    # 25, 25, 24 and 24 classes, as scikit-learn's KFold would have them.
    spans = compose_study("dataset=cars196").config.dataset.module["expected"]["images_of_classes"]
    parts = [(0, 25), (25, 50), (50, 74), (74, 98)]
    found = [sum(n for span, n in spans.items() if low <= int(span.split("-")[0]) < high) for low, high in parts]
    assert found == [2_054, 1_993, 1_968, 2_039]


@pytest.mark.parametrize("name", BLOCKS)
def test_the_images_of_the_folds_are_the_published_numbers(name: str) -> None:
    trainval, total = TRAINVAL[name]
    images = np.zeros(trainval, dtype=int)
    images[list(BLOCKS[name])] = list(BLOCKS[name].values())  # any distribution within a block has these sums
    folds = make_folds(np.arange(trainval), rule="auto", num_folds=4, total_classes=total)
    assert [images[f.train_classes].sum() for f in folds] == TRAINED_IMAGES[name]
    assert images.sum() == {"cub": 5_864, "cars196": 8_054}[name]
