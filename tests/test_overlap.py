"""make overlap, from the command line to its files, on photographs with copies that are known."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmark import overlap as module
from benchmark.core.errors import UserError
from benchmark.overlap import Described, Thumbnail, chosen_threshold, nearest_other_class, overlap, pairs
from benchmark.study.study import Study
from tests.command_line import Ended, assert_refused, run, tiny
from tests.datasets import trees
from tests.images.synthetic_photos import encoded, synthetic_photo

CROPS = ("protocol.images.short_side=40", "protocol.images.crop=32")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCHMARK_CACHE", str(tmp_path / "cache"))


def photo(path: Path, seed: int, make: Callable[[Image.Image], Image.Image] = lambda image: image) -> None:
    """Write one of the photographs, or a copy of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = "PNG" if path.suffix == ".png" else "JPEG"
    path.write_bytes(encoded(make(Image.fromarray(synthetic_photo(60, 80, seed=seed))), kind))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of four photographs in each half; a copy of one of training is among those of the test half."""
    root = tmp_path / "mine"
    for seed in range(16):
        half, name = ("train", "test")[seed // 8], ("cat", "taxi", "Granny Smith", "cup of tea")[seed // 4]
        photo(root / half / name / f"{seed}.png", seed)
    photo(root / "test" / "cup of tea" / "equal.png", 2)
    photo(root / "test" / "Granny Smith" / "small.jpg", 5, lambda image: image.resize((40, 30)))
    return root


def on(root: Path, *more: str, trunk: str = "efficientnet_lite0") -> Ended:
    results = f"results_dir={root.parent / 'results'}"
    words = ("dataset=folder", f"dataset.module.root={root}", f"trunk={trunk}", results, *CROPS, *more)
    return run(overlap, *words)


def rows(root: Path, name: str) -> list[dict[str, str]]:
    path = root.parent / "results" / "overlap" / "folder-efficientnet_lite0" / f"{name}.csv"
    with path.open(newline="") as file:
        return [*csv.DictReader(file)]


def correlation(*paths: Path) -> float:
    """Pearson's correlation of the means of 2 x 2 pixels in the centres of two images of 4:3, by numpy."""
    means = []
    for path in paths:
        pixels = np.asarray(Image.open(path).convert("RGB").resize((53, 40), Image.Resampling.BILINEAR), float)
        centre = pixels[4:36, 10:42]
        means.append((centre[::2, ::2] + centre[1::2, ::2] + centre[::2, 1::2] + centre[1::2, 1::2]).ravel())
    return float(np.corrcoef(*means)[0, 1])


def test_names_and_copies_are_found_and_equal_copies_come_first(photos: Path) -> None:
    done = on(photos)
    assert done.status == 0, done
    assert [(row["image"], row["copy"], row["pixels"]) for row in rows(photos, "halves")] == [
        ("test/cup of tea/equal.png", "train/cat/2.png", "equal pixels"),
        ("test/Granny Smith/small.jpg", "train/taxi/5.png", "near"),
    ]
    assert float(rows(photos, "halves")[1]["cosine"]) == pytest.approx(
        correlation(photos / "test/Granny Smith/small.jpg", photos / "train/taxi/5.png"), abs=2e-3
    )
    assert "Copies in both halves: 2 pairs of 2 images, 1 with equal pixels" in done.out
    assert done.out.count("% of 8 copies of training images reach it (") == 2
    (line,) = (photos.parent / "results" / "overlap").glob("*/test_ledger.jsonl")
    assert json.loads(line.read_text())["story"] == "overlap"
    assert not (photos.parent / "results" / "studies").exists()
    names = {(row["half"], row["class"], row["match"], row["id"]) for row in rows(photos, "classes")}
    assert ("test", "Granny Smith", "equal", "n07742313") in names
    assert ("trainval", "taxi", "equal", "n02930766") in names
    assert ("trainval", "cat", "contained", "n02123159") in names  # tiger cat
    assert ("test", "cup of tea", "contained", "n07930864") in names  # cup, the head noun
    assert "compared with 1,000 of ImageNet-1k" in done.out and "test: 2 names, of which 1 equal," in done.out


def test_copies_in_another_folder_are_found_in_parts(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 3)
    other = photos.parent / "pretraining"
    for seed in range(30, 35):
        photo(other / f"{seed}.png", seed)
    photo(other / "z" / "copy.png", 9)
    photo(other / "z" / "cut.jpg", 3, lambda image: image.crop((2, 2, 79, 59)))
    done = on(photos, f"images={other}")
    assert done.status == 0, done
    found = {(row["half"], row["image"], row["copy"], row["pixels"]) for row in rows(photos, "images")}
    assert found == {
        ("test", "test/Granny Smith/9.png", "z/copy.png", "equal pixels"),
        ("trainval", "train/cat/3.png", "z/cut.jpg", "near"),
    }


@pytest.mark.slow
def test_features_of_the_trunk_find_equal_images_too(photos: Path) -> None:
    done = on(photos, "descriptor=features", "threshold=0.999", f"output={photos.parent / 'out'}", trunk="small_conv")
    assert done.status == 0, done
    assert "small_conv was not pretrained" in done.out and "descriptor=features" in done.out
    with (photos.parent / "out" / "halves.csv").open(newline="") as file:
        found = [row["copy"] for row in csv.DictReader(file) if row["pixels"] == "equal pixels"]
    assert found == ["train/cat/2.png"]


def test_products_of_grocery_share_names_with_five_vegetables_of_imagenet() -> None:
    others = module.class_list("imagenet-1k")
    products = ["Cabbage", "Zucchini", "Cucumber", "Green-Bell-Pepper", "Brown-Cap-Mushroom", "Asparagus", "Garlic"]
    found = {one.name: others[one.other] for one in module.matches(products, others)}
    vegetables = {"head cabbage", "zucchini, courgette", "cucumber, cuke", "bell pepper", "mushroom"}
    assert vegetables <= {others[one.other] for one in module.matches(products, others)}
    assert not {"Asparagus", "Garlic"} & {*found}


@pytest.mark.parametrize("threshold", ["0", "1.5", "-0.2"])
def test_a_threshold_that_no_cosine_or_every_cosine_reaches_is_refused(threshold: str, photos: Path) -> None:
    assert_refused(on(photos, f"threshold={threshold}"), "threshold=", "at most 0.999")


def test_mistakes_are_refused(photos: Path, tmp_path: Path) -> None:
    assert_refused(on(photos, f"images={tmp_path / 'nowhere'}"), "There is no folder or image")
    assert_refused(on(photos, "descriptor=hash"), "descriptor='hash'", "thumbnail, features")
    assert_refused(tiny(overlap, tmp_path / "results"), "has no image files")


def test_without_training_images_the_threshold_has_to_be_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for seed in range(2):
            photo(tmp_path / "mine" / "test" / name / f"{seed}.png", seed)
    assert_refused(on(tmp_path / "mine"), "Without training images", "threshold=0.95")
    assert not (tmp_path / "results").exists()
    done = on(tmp_path / "mine", "threshold=0.95", f"images={tmp_path / 'mine' / 'test' / 'a'}")
    assert done.status == 0, done
    assert len(rows(tmp_path / "mine", "images")) == 4


# -- numbers ----------------------------------------------------------------------------------------------------------


def vectors(seed: int, number: int) -> torch.Tensor:
    drawn = torch.randn(number, 3, generator=torch.Generator().manual_seed(seed))
    return drawn / drawn.norm(dim=1, keepdim=True)


class NoImages:
    def plain(self, numbers: np.ndarray) -> torch.Tensor:
        return torch.zeros(1)


def test_pairs_are_those_of_plain_loops() -> None:
    ones, others = vectors(0, 1100), vectors(1, 7)  # more than one block
    found = pairs(
        Described(NoImages(), ones, [f"a{i}" for i in range(1100)], "test"),  # type: ignore[arg-type]
        Described(NoImages(), others, [f"b{j}" for j in range(7)], "trainval"),  # type: ignore[arg-type]
        0.9,
    )  # fmt: skip
    expected = set()
    for i, one in enumerate(ones.double().tolist()):
        for j, other in enumerate(others.double().tolist()):
            if sum(x * y for x, y in zip(one, other, strict=True)) >= 0.9:
                expected.add((f"a{i}", f"b{j}"))
    assert {(row[4], row[5]) for row in found} == expected and len(found) == len(expected) > 100


def test_too_many_pairs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_PAIRS", 5)
    many = Described(NoImages(), vectors(0, 3), ["a", "b", "c"], "test")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="More than 5 pairs"):
        pairs(many, many, -1.0)


def test_the_nearest_of_another_class_is_that_of_plain_loops() -> None:
    some, labels = vectors(2, 1030), torch.arange(1030) % 5
    found = nearest_other_class(some, labels)
    for i in (0, 5, 1023, 1024, 1029):
        own = [float(some[i] @ some[j]) for j in range(1030) if labels[j] != labels[i]]
        assert float(found[i]) == pytest.approx(max(own), abs=1e-6)


def test_the_threshold_is_what_most_copies_reach_unless_too_many_others_do() -> None:
    copies, few = torch.linspace(0.8, 1, 201), torch.linspace(0.0, 0.5, 201)
    assert chosen_threshold([copies, torch.ones(201)], few) == pytest.approx(0.81)  # 5 % of the way from 0.8 to 1
    others = torch.linspace(0.0, 0.9, 201)
    assert chosen_threshold([copies], others) == pytest.approx(0.891)  # 99 % of the way from 0 to 0.9
    assert chosen_threshold([torch.ones(201)], few) == pytest.approx(0.999)


def test_a_thumbnail_has_the_mean_of_each_cell() -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, 48, 48))
    found = Thumbnail()(torch.from_numpy(image)[None].float() / 255)[0].reshape(3, 16, 16)
    for channel, row, column in ((0, 0, 0), (1, 7, 15), (2, 15, 3)):
        cell = [image[channel, 3 * row + i, 3 * column + j] / 255 for i in range(3) for j in range(3)]
        assert float(found[channel, row, column]) == pytest.approx(sum(cell) / 9, abs=1e-6)


def compared(study: Study, path: Path) -> set[tuple[str, ...]]:
    """The matches of names that are written for a study."""
    listing = study.make_dataset().listing
    assert listing is not None
    module.compare_names(study.config, listing, path)
    with path.open(newline="") as file:
        return {(row["half"], row["class"], row["match"], row["id"]) for row in csv.DictReader(file)}


def published(name: str, root: Path, trunk: str) -> list[str]:
    tree = {"cub": trees.cub, "cars196": trees.cars_folders}[name](root)
    return [f"dataset={name}", f"dataset.module.root={tree}", "dataset.module.expected=null", f"trunk={trunk}"]


@pytest.mark.parametrize(
    ("name", "trunk", "match"),
    [
        ("cub", "resnet50", ("trainval", "Black_footed_Albatross", "contained", "n02058221")),  # albatross
        ("cars196", "resnet50", ("test", "Ram C/V Cargo Van Minivan 2012", "contained", "n03770679")),  # minivan
        pytest.param(
            "cub", "vit_small", ("trainval", "Black_footed_Albatross", "equal", "n02058747"), marks=pytest.mark.slow
        ),  # ImageNet-21k has it, in a list of 21,841 classes
    ],
)
def test_names_of_published_data_sets_are_compared(
    name: str, trunk: str, match: tuple[str, ...], tmp_path: Path, compose_study: Callable[..., Study]
) -> None:
    assert match in compared(compose_study(*published(name, tmp_path, trunk)), tmp_path / "classes.csv")


def test_a_set_of_the_web_has_no_list_and_is_assumed_to_hold_everything(
    tmp_path: Path, compose_study: Callable[..., Study], capsys: pytest.CaptureFixture[str]
) -> None:
    listing = (study := compose_study(*published("cub", tmp_path, "clip_base"))).make_dataset().listing
    assert listing is not None
    module.compare_names(study.config, listing, tmp_path / "classes.csv")
    shown = capsys.readouterr().out
    assert shown == (
        "OpenAI's 400 M pairs: images of the web, without a list of classes. Assume that it holds every class and "
        "image.\n"
    )
    assert not (tmp_path / "classes.csv").exists()
