"""The images that other tests learn from are readable, distinct and separable by class."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmark.datasets import manifest
from tests.cases import slow_except
from tests.datasets import published_layouts
from tests.datasets.synthetic_images import families, look, synthetic_image, write_small_images, write_synthetic_images
from tests.datasets.trees import find_problems

LAYOUTS = ("cub", "cars196", "sop", "inshop", "inaturalist2019", "grocery")


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def colours_of(path: Path) -> np.ndarray:
    """Count each of 4 x 4 x 4 colours in the middle of an image."""
    image = pixels(path)
    height, width, _ = image.shape
    inner = image[height // 6 : -(height // 6), width // 6 : -(width // 6)].reshape(-1, 3) // 64
    return np.bincount(inner @ [16, 4, 1], minlength=64) / len(inner)


def hits(paths: list[Path], labels: np.ndarray) -> float:
    """Return how often the nearest other image, by colour, is of the same class."""
    features = np.sqrt([colours_of(path) for path in paths])
    similar = features @ features.T
    np.fill_diagonal(similar, -1)
    return float((labels[similar.argmax(1)] == labels).mean())


def test_the_manifest_is_a_data_set_with_a_hierarchy(tmp_path: Path) -> None:
    found = manifest.listing(str(write_small_images(tmp_path)), check="images")
    assert found.counts().images == 48 and found.total_classes == 8
    assert [found.counts_by_role()[role].super_classes for role in ("trainval", "test")] == [4, 4]
    assert pixels(tmp_path / found.paths[0]).shape == (40, 48, 3)


def test_classes_can_be_recognised_by_their_colours_but_not_perfectly(tmp_path: Path) -> None:
    with open(write_small_images(tmp_path, num_classes=16), encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    labels = np.array([row["label"] for row in rows])
    assert 0.3 < hits([tmp_path / row["path"] for row in rows], labels) < 0.95  # chance level is 1 in 16


def test_an_image_depends_on_its_seed_class_and_number_only(tmp_path: Path) -> None:
    few, many = (
        write_synthetic_images(tmp_path / "a", 8, 1, (32, 24)),
        write_synthetic_images(tmp_path / "b", 8, 2, (32, 24)),
    )
    first = "bar/class_0000/000.jpg"
    assert (few.parent / first).read_bytes() == (many.parent / first).read_bytes()
    one = np.asarray(synthetic_image(0, 0, 0, (32, 24)))
    others = [
        synthetic_image(1, 0, 0, (32, 24)),
        synthetic_image(0, 0, 1, (32, 24)),
        synthetic_image(0, 0, 0, (32, 24), seed=1),
    ]
    assert all((np.asarray(other) != one).mean() > 0.5 for other in others)


def test_outlines_reach_the_full_size_in_some_direction() -> None:
    for label, family in enumerate(families(64)):
        outline = look(label, family).outline
        assert 0.99 < outline.max() <= 1 and outline.min() >= 0


@pytest.mark.parametrize("name", slow_except(["cub", "inshop"], LAYOUTS))
def test_a_published_layout_in_small_is_read_as_the_data_set(name: str, tmp_path: Path, compose_study) -> None:
    found = compose_study(*published_layouts.write_small(name, tmp_path)).make_dataset().listing
    tested = ("query", "gallery") if name == "inshop" else ("test",)
    assert len(found.paths) == 96 and len(found.classes("trainval")) == len(found.classes(*tested)) == 8
    assert not any(find_problems(found.root, found.paths, "images"))
    for role in ("trainval", *tested):
        counts = np.bincount(found.labels[found.roles == role])
        assert set(counts[counts > 0]) == {3 if role in ("query", "gallery") else 6}
    assert hits([found.root / path for path in found.paths], found.labels) > 0.3
    seen, groups = (set(found.super_labels[found.classes(*roles)]) for roles in (("trainval",), tested))
    if name == "inaturalist2019":
        assert len(seen) == len(groups) == 4 and not seen & groups
    else:
        assert len(seen) >= 4 and len(groups) >= 4 and (name != "sop" or seen == groups)
