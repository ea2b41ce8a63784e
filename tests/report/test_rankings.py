"""Kendall's tau between rankings of the losses."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from benchmark.report.rankings import Ranking, kendall_tau, read_rankings
from benchmark.study.study import Study
from tests import fake_results


@pytest.mark.parametrize("levels", [1000, 4], ids=["few ties", "many ties"])
def test_tau_is_that_of_scipy(levels: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(10):
        first, second = (dict(zip("abcdefgh", rng.integers(levels, size=8).tolist(), strict=True)) for _ in range(2))
        expected = stats.kendalltau(list(first.values()), list(second.values())).statistic
        assert kendall_tau(first, second) == pytest.approx(expected)


def test_only_losses_of_both_rankings_count() -> None:
    assert kendall_tau({"a": 1, "x": 9, "b": 2}, {"b": 5, "y": 0, "a": 4}) == 1


@pytest.mark.parametrize("second", [{"a": 1.0}, {"a": 3.0, "b": 3.0}, {}], ids=["one", "tied", "none"])
def test_without_two_losses_that_differ_there_is_no_tau(second: dict[str, float]) -> None:
    assert kendall_tau({"a": 1.0, "b": 2.0}, second) is None


def test_the_tau_between_runs_is_the_mean_over_pairs_of_runs_worked_out_by_hand() -> None:
    # By run: a > b > c; a > b > c; c > b > a. Their taus are 1, -1 and -1.
    runs = {"a": {0: 3.0, 1: 3.0, 2: 1.0}, "b": {0: 2.0, 1: 2.0, 2: 2.0}, "c": {0: 1.0, 1: 1.0, 2: 3.0}}
    assert Ranking(Path("x"), 0, runs).between_runs() == pytest.approx(-1 / 3)
    assert Ranking(Path("x"), 0, {"a": {0: 1.0}, "b": {0: 2.0}}).between_runs() is None
    searched: dict[str, list[float | None]] = {loss: [1.0] for loss in runs}
    assert Ranking(Path("x"), 0, runs | {"none": {0: 9.0}}, searched).between_runs() == pytest.approx(-1 / 3)


def test_the_best_validation_score_after_part_of_the_trials_is_that_of_the_first_ones() -> None:
    searched = {"a": [None, 3.0, 9.0], "b": [4.0, 4.0, 5.0], "c": [1.0]}
    ranking = Ranking(Path("x"), 0, {"a": {0: 1.0}}, searched)
    assert ranking.validation() == {"a": 9.0, "b": 5.0, "c": 1.0}
    assert ranking.validation(2) == {"a": 3.0, "b": 4.0, "c": 1.0}
    assert ranking.validation(1) == {"b": 4.0, "c": 1.0}


def test_rows_are_named_without_the_preset_that_all_of_them_have(
    compose_study: Callable[..., Study], tmp_path: Path
) -> None:
    given = ("dataset=glyphs_small", "protocol.num_runs=2", "preset=default")
    for more in (["loss=contrastive"], ["loss=contrastive", "variant=m2", "loss.sampler.m=2"], ["loss=proxy_anchor"]):
        fake_results.finish_preset(compose_study(*given, *more), [0.4, 0.5])

    def names() -> set[str]:
        (ranking,) = read_rankings(tmp_path / "results", "concatenated.map_at_r")
        return set(ranking.runs)

    assert names() == {"contrastive", "contrastive m2", "proxy_anchor"}
    fake_results.finish(compose_study("dataset=glyphs_small", "protocol.num_runs=2", "loss=ms"), [0.4, 0.5])
    assert names() == {"contrastive default", "contrastive default m2", "proxy_anchor default", "ms"}
