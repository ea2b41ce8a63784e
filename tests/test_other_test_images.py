"""A run is scored only on the test images of its study, whatever machine scores it and whenever."""

import json
from collections.abc import Callable
from pathlib import Path
from shutil import rmtree

import pytest
from PIL import Image

from benchmark import final_eval, traditional
from benchmark.core import records
from benchmark.figures import figures
from benchmark.robustness import robustness
from benchmark.score import score
from benchmark.study import testset
from tests.command_line import Ended, assert_refused, run
from tests.test_overlap import photo

pytestmark = pytest.mark.slow
OPTIONS = {
    "final_eval": ("preset=default", "protocol.num_folds=2", "dataset.iterations_per_epoch=2", "dataset.max_epochs=1",
                   "protocol.batch_size=8"),
    "traditional": ("+training.epochs=1", "+training.batch_size=8"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_fsync: None) -> None:
    monkeypatch.setenv("BENCHMARK_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for seed in range(36):
        half, name = ("train", "test")[seed % 2], "abcdef"[seed // 6]
        photo(tmp_path / "photos" / half / f"{half}_{name}" / f"{seed}.png", seed)
    return tmp_path / "photos"


def start(story: str, root: Path) -> Ended:
    command, protocol = (final_eval.final_eval, "") if story == "final_eval" else (traditional.traditional, story)
    return run(command, "dataset=folder", f"dataset.module.root={root}", "dataset.name=mine", "loss=proxy_nca",
               "trunk=small_conv", "trunk.width=8", "training=from_scratch", "protocol.images.short_side=40",
               "protocol.images.crop=32", "protocol.num_runs=2", "executor=inline", "display=plain",
               f"results_dir={root.parent / 'results'}", *OPTIONS[story], protocol=protocol)  # fmt: skip


def lose_an_image(root: Path) -> None:
    next((root / "test").rglob("*.png")).unlink()


def replace_an_image(root: Path) -> None:
    path = next((root / "test").rglob("*.png"))
    with Image.open(path) as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path)


def scores(root: Path) -> list[Path]:
    return sorted((root.parent / "results").rglob("run_0?.json"))


@pytest.mark.parametrize("change", [lose_an_image, replace_an_image])
@pytest.mark.parametrize("story", OPTIONS)
def test_a_machine_with_other_test_images_does_not_score(
    story: str, change: Callable[[Path], None], root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = {"final_eval": final_eval, "traditional": traditional}[story]
    unit, do = ("score_unit", final_eval.score_unit) if story == "final_eval" else ("run_unit", traditional.run_unit)
    done: list[int] = []

    def on_another_machine(body: dict[str, int], *rest: object) -> object:
        if done:
            monkeypatch.setenv("BENCHMARK_CACHE", str(tmp_path / "its_cache"))
            change(root)
            testset._test_set.cache_clear()
        done.append(body["index"])
        return do(body, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(module, unit, on_another_machine)
    assert_refused(start(story, root), "mine", "on both machines")
    assert len(done) == 2 and len(scores(root)) == 1


@pytest.mark.parametrize("story", OPTIONS)
def test_runs_are_not_added_to_those_that_were_scored_on_other_test_images(story: str, root: Path) -> None:
    assert start(story, root).status == 0
    first, second = scores(root)
    second.unlink()
    replace_an_image(root)
    assert_refused(start(story, root), "The test images of ", "run 0 was scored on", "variant=NAME")
    body = json.loads(first.read_text())
    del body["provenance"]["test_contents"]  # as written before it was recorded
    first.write_text(json.dumps(body))
    if story == "final_eval":
        assert start(story, root).status == 0
        found = records.read_record(scores(root)[1])
        assert found.provenance["test_contents"]


def test_models_are_not_scored_on_corruptions_of_other_test_images(root: Path) -> None:
    assert start("final_eval", root).status == 0
    (study,) = (root.parent / "results" / "studies").glob("*/*")
    corrupted = (f"study={study}", "corruptions=[gaussian_noise]", "executor=inline", "display=quiet")
    assert run(robustness, *corrupted).status == 0
    rmtree(study / "robustness")
    replace_an_image(root)
    testset._test_set.cache_clear()
    assert_refused(run(robustness, *corrupted), "The test images of mine", "on both machines")


def test_pictures_are_not_shown_beside_the_neighbours_of_other_images(root: Path) -> None:
    assert start("final_eval", root).status == 0
    (study,) = (root.parent / "results" / "studies").glob("*/*")
    assert run(figures, f"study={study}").status == 0
    lose_an_image(root)
    testset._test_set.cache_clear()
    assert_refused(run(figures, f"study={study}"), "The test images of mine", "17 here, 18 there")


def test_a_model_is_scored_on_its_own_data_set_wherever_that_is_and_on_no_other_for_a_value_of_one(root: Path) -> None:
    assert start("final_eval", root).status == 0
    (study,) = (root.parent / "results" / "studies").glob("*/*")
    options = (f"model={study}", f"results_dir={root.parent / 'results'}", "display=quiet")
    here = run(score, *options)
    assert here.status == 0 and "test classes of mine" in here.out
    root.rename(elsewhere := root.with_name("moved photos"))
    testset._test_set.cache_clear()
    assert_refused(run(score, *options), str(root))
    there = run(score, *options, f"dataset.module.root='{elsewhere}'")
    assert there.status == 0 and there.out == here.out
    for wrong in ("dataset.module.size=16", "dataset.name=glyphs"):
        assert_refused(run(score, *options, wrong), wrong, "no data set is named", "DATASET=mine")
