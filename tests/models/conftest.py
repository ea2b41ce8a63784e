"""A model with random weights, as a final evaluation keeps it, and a folder of images."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmark.study import model_files
from benchmark.study.model_files import WEIGHTS, WeightsFile
from benchmark.study.study import Study

OPTIONS = ("dataset=glyphs_small", "loss=proxy_nca", "trunk.width=8", "protocol.embedding_dim=16")


def write_model(folder: Path, study: Study, folds: int = 2, channels: int = 1, run: int = 0) -> Path:
    """Write networks with random weights, and their description."""
    written = []
    for fold in range(folds):
        trunk = study.make_trunk(channels, seed=fold)
        head = study.make_head(trunk.out_features, seed=fold)
        state = {"trunk": trunk.state_dict(), "head": head.state_dict(), "loss": {}}
        name = f"fold_{fold}/{WEIGHTS}"
        sha256 = model_files.write_weights(folder / name, state, {"fold": fold})
        written.append(WeightsFile(file=name, sha256=sha256, not_trained_on=[fold]))
    described = model_files.describe(study, run=run, identity="0" * 16, fingerprint="f", code=["c"], weights=written)
    model_files.write_description(folder, described)
    return folder


@pytest.fixture
def model_folder(tmp_path: Path, compose_study: Callable[..., Study]) -> Path:
    return write_model(tmp_path / "model", compose_study(*OPTIONS))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Nine images in three folders, a file that is no image, and one that only pretends to be."""
    random = np.random.default_rng(0)
    for label in "abc":
        (tmp_path / "pictures" / label).mkdir(parents=True)
        for number in range(3):
            pixels = random.integers(0, 256, (40 + 7 * number, 60, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / label / f"{number}.png")
    (tmp_path / "pictures" / "notes.txt").write_text("no image")
    (tmp_path / "pictures" / "a" / "broken.jpg").write_bytes(b"no image either")
    return tmp_path / "pictures"
