"""What scoring a run's models records."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmark.core.pulse import heard_by
from benchmark.datasets import Split
from benchmark.protocol.levels import AVERAGES, score_levels
from benchmark.report.figures import kept
from benchmark.study import scoring
from benchmark.study.study import Study
from benchmark.study.testset import OpenedTestSet, super_labels_of

LABELS = torch.arange(40) // 4
GROUPS = torch.tensor([3, 3, 3, 5, 5, 5, 5, 8, 8, 8])[LABELS]
MODELS = torch.nn.functional.normalize(torch.randn(2, 40, 6, generator=torch.Generator().manual_seed(0)), dim=2)


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, compose_study: Callable[..., Study]) -> Iterator[Any]:
    """Score two models whose embeddings are `MODELS`; returns the scores and the number of beats."""
    models, beats = iter(MODELS), list[int]()
    monkeypatch.setattr(scoring, "embed_test", lambda *_: next(models))
    monkeypatch.setattr(scoring, "read_state", lambda *_: {"loss": {}})

    def score(*overrides: str) -> tuple[dict[str, Any], int]:
        study = compose_study("dataset=glyphs_small", *overrides)
        test = OpenedTestSet(None, None, LABELS, GROUPS, None, None, {})  # type: ignore[arg-type]
        with heard_by(lambda: beats.append(1)):
            found, _ = scoring.score_models(study, tmp_path, test, [lambda _: ""] * 2)
        return found, len(beats)

    yield score


def test_a_run_is_scored_on_the_levels_of_the_hierarchy_and_every_search_beats(scored: Any) -> None:
    found, beats = scored()
    assert found["levels"] == score_levels(MODELS, LABELS, GROUPS, metric="cosine")
    assert found["levels"]["concatenated"].keys() == {*AVERAGES} and beats == 3 + 3 + 1


def test_levels_false_saves_the_time(scored: Any) -> None:
    found, beats = scored("levels=false")
    assert found.keys() == {"separated", "separated_folds", "concatenated"} and beats == 3 + 1


def test_the_names_of_the_classes_are_kept_beside_the_embeddings(tmp_path: Path, compose_study: Any) -> None:
    names = {4: "four", 1: "eins", 9: "neuf"}
    test = OpenedTestSet(None, None, LABELS, GROUPS, None, None, names)  # type: ignore[arg-type]
    path = tmp_path / kept.NAME
    path.write_bytes(scoring.for_figures(compose_study("dataset=glyphs_small"), MODELS, test, [{}, {}]))
    assert kept.read(path).names == names
    path.write_bytes(
        scoring.for_figures(compose_study("dataset=glyphs_small"), MODELS, test._replace(class_names={}), [])
    )
    assert kept.read(path).names == {}


def test_an_image_has_the_super_class_of_its_class() -> None:
    split = Split(
        images=np.zeros((4, 2, 2), np.uint8), labels=np.array([9, 4, 9, 7]), class_ids=np.array([4, 7, 9]),
        class_names=["a", "b", "c"], super_labels=np.array([1, 0, 2]), super_names=["x", "y", "z"],
    )  # fmt: skip
    assert super_labels_of(split).tolist() == [2, 1, 2, 0]
