"""Image files through the commands: a small search and its final evaluation, in every published layout."""

from pathlib import Path

import numpy as np
import pytest

from benchmark.bo import bo
from benchmark.core import records
from benchmark.data import data
from benchmark.final_eval import final_eval
from tests.command_line import assert_refused, run
from tests.datasets import published_layouts
from tests.datasets.synthetic_images import write_small_images

SMALL = (
    "loss=proxy_nca", "trunk=small_conv", "trunk.width=8", "protocol.images.short_side=36", "protocol.images.crop=32",
    "training.shift=0", "protocol.batch_size=8", "protocol.num_folds=2", "protocol.num_runs=1", "searcher=sobol",
    "trials=1", "dataset.iterations_per_epoch=2", "dataset.max_epochs=1", "dataset.evaluate_every=1",
    "executor=inline", "display=plain",
)  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCHMARK_CACHE", str(tmp_path / "cache"))


def run_record(folder: Path) -> records.Record:
    (path,) = folder.rglob("run_00.json")
    return records.read_record(path)


def through(*dataset: str, results: Path) -> records.Record:
    """The record of a run after a search and its final evaluation."""
    for story in (bo, final_eval):
        ended = run(story, *dataset, *SMALL, f"results_dir={results}")
        assert ended.status == 0, ended.err
    return run_record(results)


@pytest.mark.usefixtures("no_fsync")
@pytest.mark.slow
def test_own_images_go_through_search_and_final_evaluation(tmp_path: Path) -> None:
    own = ["dataset=csv", f"dataset.module.path={write_small_images(tmp_path / 'a')}", "dataset.name=mine"]
    ended = run(data, *own, *SMALL)
    assert ended.status == 0 and "trainval: 24 images, 4 classes, 4 super classes" in ended.out, ended.err
    record = through(*own, results=tmp_path / "results")
    assert 0 < record.result["concatenated"]["map_at_r"] <= 1
    directory = tmp_path / "results" / "studies" / "mine-small_conv-hpl" / "proxy_nca"
    assert len((directory / "test_ledger.jsonl").read_text().splitlines()) == 1
    assert len(record.provenance["test_contents"]) == 64
    ended = run(bo, *own, *SMALL, f"results_dir={tmp_path / 'results'}")
    assert f"make final-eval STUDY={directory} EXECUTOR=inline" in ended.out


@pytest.mark.slow
@pytest.mark.usefixtures("no_fsync")
@pytest.mark.parametrize("name", ["cub", "cars196", "sop", "inshop", "inaturalist2019"])
def test_every_published_layout_goes_through_search_and_final_evaluation(name: str, tmp_path: Path) -> None:
    record = through(*published_layouts.write_small(name, tmp_path / "a"), results=tmp_path / "results")
    assert 0 < record.result["concatenated"]["map_at_r"] <= 1
    if name == "inshop":
        with np.load(next((tmp_path / "results").rglob("embeddings.npz"))) as kept:
            gallery = np.flatnonzero(~kept["is_query"])
            assert len(kept["neighbours"]) == kept["is_query"].sum() and np.isin(kept["neighbours"], gallery).all()


@pytest.mark.slow
@pytest.mark.usefixtures("no_fsync")
def test_images_that_changed_since_the_study_was_started_are_refused(tmp_path: Path) -> None:
    own = ["dataset=csv", f"dataset.module.path={write_small_images(tmp_path / 'a')}", "dataset.name=mine"]
    through(*own, results=tmp_path / "results")
    image = next((tmp_path / "a").rglob("*.jpg"))
    other = next(path for path in (tmp_path / "a").rglob("*.jpg") if path.parent != image.parent)
    image.write_bytes(other.read_bytes())
    assert_refused(run(bo, *own, *SMALL, f"results_dir={tmp_path / 'results'}"), "data:", "variant=NAME")


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ("protocol.images.crop=40", ["crop=40", "short_side=36"]),
        ("protocol.images.flip=2", ["flip=2", "0 to 1"]),
        ("+protocol.images.zoom=2", ["zoom", "images: ${protocol.images}"]),
        ("~dataset.images.flip", ["missing: flip", "images: ${protocol.images}"]),
    ],
)
def test_crops_that_cannot_be_cut_are_refused(wrong: str, named: list[str], tmp_path: Path) -> None:
    own = ["dataset=csv", f"dataset.module.path={write_small_images(tmp_path / 'a', 4, 2)}", "dataset.name=mine"]
    others = [override for override in SMALL if override.partition("=")[0] != wrong.partition("=")[0]]
    assert_refused(run(bo, *own, *others, wrong, f"results_dir={tmp_path / 'results'}"), *named)
