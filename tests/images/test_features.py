"""Features of a frozen trunk: computed once per view, read from disk afterwards, and drawn at random for training."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmark.core import records
from benchmark.core.errors import UserError
from benchmark.images import features
from benchmark.images.batches import to_batch
from benchmark.images.features import FeatureImages, Views
from benchmark.images.in_memory import InMemoryImages
from benchmark.protocol.seeds import stable_seed

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 6, 6), dtype=np.uint8)
ROWS = np.arange(20)


class Trunk(nn.Module):
    """Flattens an image, times a factor; counts the images that it saw."""

    mean, std = (0.5,), (0.25,)
    seen = 0

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, images: Tensor) -> Tensor:
        Trunk.seen += len(images)
        return self.factor * images.flatten(1)


@pytest.fixture(autouse=True)
def _nothing_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trunk, "seen", 0)


def views(folder: Path, number: int = 3, seed: int = 0, factor: float = 1.0) -> Views:
    return Views(InMemoryImages(PIXELS, shift=1), lambda: Trunk(factor), folder, number=number, seed=seed)


def expected(pixels: Tensor) -> Tensor:
    return to_batch(pixels, Trunk.mean, Trunk.std).flatten(1).half()


def test_view_0_shows_images_as_they_are_evaluated_and_others_are_augmented_from_the_seed(tmp_path: Path) -> None:
    found, images = views(tmp_path, seed=5), InMemoryImages(PIXELS, shift=1)
    assert torch.equal(found.view(0), expected(images.plain(ROWS)))
    for number in (1, 2):
        generator = torch.Generator().manual_seed(stable_seed(5, "view", number, 0))
        assert torch.equal(found.view(number), expected(images.augmented(ROWS, generator)))
    assert not torch.equal(found.view(1), found.view(2))


def test_a_view_is_computed_once_and_then_read_from_disk(tmp_path: Path) -> None:
    first = views(tmp_path)
    assert first.missing() == [0, 1, 2]
    done: list[tuple[int, int]] = []
    computed = first.view(1, lambda *counts: done.append(counts))
    assert done == [(20, 20)] and Trunk.seen == 20
    again = views(tmp_path)
    assert again.missing() == [0, 2] and torch.equal(again.view(1), computed) and Trunk.seen == 20


def test_a_damaged_view_is_kept_aside_and_computed_again(tmp_path: Path) -> None:
    computed = views(tmp_path).view(0)
    (path,) = tmp_path.glob("*.bin")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert torch.equal(views(tmp_path).view(0), computed)
    assert len(list(tmp_path.glob("*.bin.damaged-*"))) == 1


def test_a_complete_view_is_read_without_its_lock_from_a_folder_that_need_not_be_writable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = views(tmp_path).view(0)
    monkeypatch.setattr(features, "WAIT_SECONDS", 0.1)
    lock = tmp_path / "view_000.lock"
    with records.only_one(lock, "The view"):
        assert torch.equal(views(tmp_path).view(0), whole)
    lock.unlink()
    assert torch.equal(views(tmp_path).view(0), whole) and not lock.exists()


def test_features_beyond_float16_are_refused_before_anything_is_kept(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Trunk has features that float16 cannot hold"):
        views(tmp_path, factor=1e6).view(0)
    assert list(tmp_path.glob("*.bin")) == []


def test_evaluation_reads_view_0_and_training_draws_a_view_for_each_image(tmp_path: Path) -> None:
    whole = FeatureImages(views(tmp_path), ROWS)
    part, rows = whole.part(np.array([7, 3, 11])), np.array([2, 0])
    assert len(part) == 3 and part.channels == 36
    assert torch.equal(part.plain(rows), whole.views.view(0)[[11, 7]])
    all_rows = np.tile(ROWS, 20)
    drawn = whole.augmented(all_rows, torch.Generator().manual_seed(1))
    stacked = torch.stack([whole.views.view(number) for number in range(3)])[:, all_rows]
    which = (stacked == drawn).all(dim=2)
    assert bool(which.any(dim=0).all())
    assert all(80 < int(which[number].sum()) < 190 for number in range(3))  # of 400, a third each
    assert torch.equal(drawn, whole.augmented(all_rows, torch.Generator().manual_seed(1)))
    assert not torch.equal(drawn, whole.augmented(all_rows, torch.Generator().manual_seed(2)))


def test_features_pass_to_batch_as_float32() -> None:
    features = torch.randn(4, 9).half()
    assert torch.equal(to_batch(features, (0.0,), (1.0,)), features.float())
