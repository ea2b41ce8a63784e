"""Rows on the cost of images."""

from pathlib import Path

import pytest
import torch

from benchmark.images import shards
from benchmark.images.cache import Cache, build
from benchmark.perf import images


@pytest.fixture
def few_images(monkeypatch: pytest.MonkeyPatch, no_fsync: None) -> None:
    for name, value in {"HEIGHT": 40, "WIDTH": 60, "NUM_FILES": 6, "NUM_READ": 10, "BATCH": 4, "REPEATS": 1}.items():
        monkeypatch.setattr(images, name, value)
    monkeypatch.setattr(shards, "SHARD", 3)


@pytest.mark.usefixtures("few_images")
def test_every_row_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "reading", lambda _: images.Row("memory", ("<=", 300), [1.0], "a fake"))
    rows = list(images.image_inputs())
    assert [row.target for row in rows] == [(">=", 1.8), (">=", 5), (">=", 3), (">=", 3), ("<=", 300)]
    assert all(len(row.values) == 1 and row.values[0] > 0 for row in rows)


def test_pixels_that_differ_are_an_error_and_not_a_ratio() -> None:
    with pytest.raises(ValueError, match="2 values differ from torchvision's"):
        images.check_equal(torch.tensor([1, 2, 3]), torch.tensor([1, 0, 0]))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="only Linux counts private memory")
def test_reading_a_gigabyte_of_images_takes_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "NUM_FILES", 128)
    monkeypatch.setattr(images, "NUM_READ", 4_000)
    paths = images.photographs(tmp_path / "images")
    build(tmp_path / "cache", tmp_path / "images", paths, short_side=256, workers=2)
    row = images.reading(tmp_path / "cache")
    assert row.verdict() == "reached"
    assert row.values[0] > 30  # a shard, or nothing was measured
    assert len(Cache(tmp_path / "cache")) >= 4_000
