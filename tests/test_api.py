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


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"labels": ["a", "a", None, "b"]}, "labels: 1 of 4 are missing"),
        ({"labels": ["a", float("nan"), "b", float("nan")]}, "labels: 2 of 4 are missing"),
        ({"super_labels": [1, 1, None, 2]}, "super_labels: 1 of 4 are missing"),
        ({"is_query": [True, False, None, False]}, "it has 'None'"),
        ({"is_query": ["yes", "no", "yes", "no"]}, "it has 'yes'"),
        ({"is_query": [True] * 4}, "Leave it out"),
    ],
)
def test_what_is_missing_is_refused_with_its_number(given: dict[str, list[object]], said: str) -> None:
    usual: dict[str, list[object]] = {"labels": ["a", "a", "b", "b"]}
    with pytest.raises(UserError, match=said):
        api.evaluate(np.eye(4), **usual | given)  # type: ignore[arg-type]


def test_numbers_and_texts_are_classes_and_any_floating_type_is_an_embedding() -> None:
    vectors, queries = np.array([[1, 0], [0, 1], [1, 0.1], [0.1, 1]]), [1, 1, 0, 0]
    expected = api.evaluate(vectors, [1, "b", 1, "b"], is_query=queries)
    assert expected.overall["map_at_r"] == 1 and [*expected.classes.index] == ["1", "b"]
    for kind in (">f4", np.longdouble, np.float16):
        found = api.evaluate(vectors.astype(kind), np.array(["x", "b", "x", "b"]), is_query=np.array(queries, bool))
        assert found.overall == expected.overall
