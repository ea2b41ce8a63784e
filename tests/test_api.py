"""The Python interface does what the command line does."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmark import api
from benchmark.core.errors import UserError
from benchmark.study.cli import study_of
from tests.command_line import OF_SEARCHES, on_tiny


def options(results: Path, *more: str) -> dict[str, str]:
    """The overrides of a tiny study as options."""
    return dict(override.split("=", 1) for override in [*on_tiny(*more), f"results_dir={results}"])


@pytest.mark.slow
def test_a_study_keeps_its_stored_budget_and_is_found_by_its_folder(tmp_path: Path) -> None:
    small = options(tmp_path, "display=quiet", "executor=inline")
    small.pop("trials", None)
    assert len(list(api.run_study("bo", **small, trials=1).directory.glob("bo/trial_*.json"))) == 1
    found = api.run_study("bo", **small)
    assert len(list(found.directory.glob("bo/trial_*.json"))) == 1, "as on the command line"
    runs = api.run_study("final-eval", study=found.directory, display="quiet", executor="inline")
    assert runs.directory == found.directory and runs.stored.facts.loss == "proxy_nca" and runs.records
    with pytest.raises(UserError, match="There is no study"):
        api.run_study("final-eval", study=tmp_path / "nowhere")


@pytest.mark.slow
def test_a_model_of_a_frozen_trunk_under_the_traditional_protocol_can_be_loaded(tmp_path: Path) -> None:
    frozen = options(tmp_path, "training=frozen", "training.views=1", "display=quiet", "executor=inline")
    frozen = {key: value for key, value in frozen.items() if key not in OF_SEARCHES}
    found = api.run_study("traditional", **frozen | {"protocol.num_runs": "1", "dataset.max_epochs": "1"})
    (folder,) = (path.parent for path in found.directory.rglob("weights.safetensors"))
    model = api.load_model(folder)
    pixels, paths = study_of(["dataset=glyphs_small"]).make_dataset().test().images, []
    for number in range(4):
        Image.fromarray(pixels[number]).save(path := tmp_path / f"{number}.png")
        paths.append(path)
    stored = np.load(folder / "embeddings.npz")["embeddings"][:, :4]
    np.testing.assert_allclose(api.embed(model, paths).embeddings, stored, atol=1e-3)
    assert api.embed(model, []).embeddings.shape[1] == 0
