"""Rows on the cost of images."""

import pytest

from benchmark.images import shards
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
    assert [row.target for row in rows] == [
        (">=", 1.8), (">=", 5), (">=", 4), (">=", 7), (">=", 1.1), (">=", 2), ("<=", 0.1), ("<=", 300)
    ]  # fmt: skip
    assert all(row.values and min(row.values) > 0 for row in rows)
