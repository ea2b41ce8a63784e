"""Score against cost of variants: which are on the front, and what is trained."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from benchmark.core.errors import UserError
from benchmark.core.provenance import hardware
from benchmark.perf import front
from benchmark.perf.front import Line, Point
from benchmark.study import cli
from benchmark.study.preflight import check_values
from benchmark.study.study import Study


def line(name: str, seconds: float, *scores: float) -> Line:
    return Line(name, 4, dict(zip("ab", scores, strict=False)), 9.0, seconds)


def test_the_front_has_what_nothing_beats_in_cost_and_mean_score() -> None:
    cheap, good, worse, dear = line("1", 1, 10, 20), line("2", 2, 30, 30), line("3", 2, 60, -1), line("4", 3, 30, 30)
    assert front.front([cheap, good, worse, dear]) == [cheap, good]
    assert front.front([cheap, line("5", 1, 20, 10)]) == [cheap, line("5", 1, 20, 10)]  # equal in both


def test_points_of_two_losses_are_joined_in_order_of_cost(tmp_path: Path) -> None:
    points = [Point("x", "wide", "a", 4, 40.0, 30.0, 2.0, "c", "m"),
              Point("x", "wide", "b", 4, 50.0, 10.0, 3.0, "c", "m"),
              Point("x", "base", "a", 4, 35.0, 8.0, 1.0, "c", "m"),
              Point("x", "base", "a", 8, 38.0, 16.0, 1.0, "c", "an older one")]  # fmt: skip
    found = front.lines(points)
    assert [(one.variant, one.epochs, one.cost, one.core_seconds) for one in found] == [
        ("base", 4, 4, 8), ("base", 8, 8, 16), ("wide", 4, 10, 20)
    ]  # fmt: skip
    assert found[2].mean == 45
    front.write_points(points, tmp_path / "points.csv")
    assert front.read_points(tmp_path / "points.csv") == points
    (tmp_path / "points.csv").write_text("stage,variant\n")
    with pytest.raises(UserError, match="Move it away"):
        front.read_points(tmp_path / "points.csv")


@pytest.mark.slow
def test_every_variant_is_a_valid_study_of_trainval_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = yaml.safe_load(front.VARIANTS.read_text())
    made: list[Study] = []

    def stop(study: Study, *halves: str) -> str:
        assert halves == ("trainval",)
        check_values(study)
        made.append(study)
        raise InterruptedError

    monkeypatch.setattr(front, "prepare", stop)
    for stage, of in plan["stages"].items():
        made.clear()
        for variant in of["variants"]:
            with pytest.raises(InterruptedError):
                front.curve(front.values_of(plan, stage, variant, of["losses"][0]), 0, 7)
        assert {(study.config.dataset.max_epochs, study.config.dataset.patience) for study in made} == {(7, 7)}
        assert len({study.key for study in made}) == len(of["variants"])  # no two variants are alike


def test_only_what_has_no_rows_is_trained_and_both_files_are_written(
    compose_study: Callable[..., Study], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    variants = {"v": {"epochs": [1, 2]}, "w": {"epochs": [2], "change": {"x": 3}}}
    plan = {"base": {"dataset": "glyphs_small"}, "losses": {"a": {"x": 1}, "b": {"x": 2}},
            "stages": {"s": {"folds": [0, 2], "losses": ["a", "b"], "variants": variants}}}  # fmt: skip
    (tmp_path / "front.yaml").write_text(yaml.safe_dump(plan))
    trained: list[tuple[int, int]] = []

    def curve(values: front.Values, fold: int, epochs: int) -> list[tuple[float, float]]:
        trained.append((values["x"], fold))
        return [(10.0 * epoch + fold, 2.0 * epoch + fold) for epoch in range(1, epochs + 1)]

    monkeypatch.setattr(front, "VARIANTS", tmp_path / "front.yaml")
    monkeypatch.setattr(front, "curve", curve)
    monkeypatch.setattr(front, "step_ratio", lambda values, base: values["x"] / base["x"])
    study = compose_study()
    for _ in range(2):
        front.bench_front(study, [])
        assert trained == [(1, 0), (1, 2), (2, 0), (2, 2), (3, 0), (3, 2), (3, 0), (3, 2)]
        monkeypatch.setattr(front, "hardware", lambda: {"cpu": "another machine, on which nothing is trained"})
    text = (tmp_path / "results" / "bench" / "glyphs_front.md").read_text()
    assert "| v | 1 | 1.0 | 3.0 | 11.0 | 11.0 | * |" in text and "| w | 2 | 4.5 | 5.0 | 21.0 | 21.0 |  |" in text
    assert "- w: `x=3`" in text and "another machine" not in text and f"{hardware()['cpu']}, torch " in text


@pytest.mark.slow
def test_a_fold_of_a_variant_is_trained_and_scored_after_each_epoch() -> None:
    values = {"dataset": "glyphs_small", "loss": "ms", "trunk.width": 8, "dataset.iterations_per_epoch": 2,
              "protocol.batch_size": 16}  # fmt: skip
    found = front.curve(values, 1, 2)
    assert 0.3 < front.step_ratio(values, values) < 3
    assert len(found) == 2 and 0 < found[0][0] <= found[1][0] < 100 and 0 < found[0][1] < found[1][1]


def test_the_configuration_of_a_variant_reaches_the_study() -> None:
    study = cli.study_of(["dataset=glyphs", "++trunk.module.channels=[16,8]", "++trunk.module.strides=[2,2]"])
    assert study.make_trunk(1, 0).out_features == 8
